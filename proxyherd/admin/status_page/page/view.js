// Which part of the world the map shows. Places on the map are parts of its width and height, from 0 to 1.

const MOST_ZOOM = 32;

const within = (least, value, most) => Math.min(most, Math.max(least, value));

export class View {
  constructor() {
    this.all();
  }

  // Show the whole world.
  all() {
    this.zoom = 1;
    this.left = this.top = 0; // degrees from 180 west and 90 north
  }

  get isAll() {
    return this.zoom === 1;
  }

  get isClosest() {
    return this.zoom === MOST_ZOOM;
  }

  // Zoom in or out; the place at x, y stays where it is.
  zoomBy(factor, x = 0.5, y = 0.5) {
    const zoom = within(1, this.zoom * factor, MOST_ZOOM);
    this.left += x * (360 / this.zoom - 360 / zoom);
    this.top += y * (180 / this.zoom - 180 / zoom);
    this.zoom = zoom;
    this.keepWithin();
  }

  // Move the world by a part of the map's width and height.
  moveBy(x, y) {
    this.left -= (x * 360) / this.zoom;
    this.top -= (y * 180) / this.zoom;
    this.keepWithin();
  }

  // Move so that a place can be seen, if it cannot.
  reveal({ latitude, longitude }) {
    const [x, y] = [(longitude + 180 - this.left) / 360 * this.zoom, (90 - latitude - this.top) / 180 * this.zoom];
    if (x >= 0 && x <= 1 && y >= 0 && y <= 1) return false;
    this.moveBy(0.5 - x, 0.5 - y);
    return true;
  }

  placeAt(x, y) {
    return {
      latitude: 90 - this.top - (within(0, y, 1) * 180) / this.zoom,
      longitude: this.left - 180 + (within(0, x, 1) * 360) / this.zoom,
    };
  }

  keepWithin() {
    this.left = within(0, this.left, 360 - 360 / this.zoom);
    this.top = within(0, this.top, 180 - 180 / this.zoom);
  }
}
