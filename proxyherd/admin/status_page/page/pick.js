// What a hand does on the map. A click is a place. A drag moves the map, or draws a circle: with the shift key, or after the
// button for it. Two fingers zoom, and so does the wheel with the control key, or once the map has the focus. Everything has a
// button or a text field as well, and the arrow keys move the map.

const LEAST_PIXELS = 6; // a shorter drag is a click
const KILOMETRES_A_DEGREE = 111.195;
const STEP = 1.5; // of a zoom
const KEYS = { ArrowLeft: [0.2, 0], ArrowRight: [-0.2, 0], ArrowUp: [0, 0.2], ArrowDown: [0, -0.2] };
export const MOST_KILOMETRES = 2000;

export const kilometres = (a, b) => {
  const radians = Math.PI / 180;
  const [north, east] = [(b.latitude - a.latitude) * radians / 2, (b.longitude - a.longitude) * radians / 2];
  const haversine = Math.sin(north) ** 2 + Math.cos(a.latitude * radians) * Math.cos(b.latitude * radians) * Math.sin(east) ** 2;
  return 2 * Math.asin(Math.min(1, Math.sqrt(haversine))) * KILOMETRES_A_DEGREE / radians;
};

// `on.moved` is called when the view has changed; `on.place` gets a place and how far away a client may be that is meant;
// `on.circle` a circle; `on.draft` one that is drawn, or null; `on.draws` says whether the next drag draws.
export class Hand {
  constructor(canvas, view, on) {
    Object.assign(this, { canvas, view, on });
    this.fingers = new Map(); // by pointer: where it is
    this.start = null; // of a click or a drag with one finger
    const listen = (name, act, options) => canvas.addEventListener(name, act, options);
    listen("pointerdown", (event) => this.down(event));
    listen("pointermove", (event) => this.move(event));
    listen("pointerup", (event) => this.up(event));
    listen("pointercancel", (event) => this.cancel(event));
    listen("wheel", (event) => this.wheel(event), { passive: false });
    listen("keydown", (event) => this.press(event));
  }

  zoom(factor, x, y) {
    this.view.zoomBy(factor, x, y);
    this.on.moved();
  }

  closer() { this.zoom(STEP); }

  wider() { this.zoom(1 / STEP); }

  down(event) {
    if (event.button !== 0) return;
    this.fingers.set(event.pointerId, this.at(event));
    this.canvas.setPointerCapture(event.pointerId);
    if (this.fingers.size > 1) this.forget();
    else this.start = { ...this.at(event), place: this.placeOf(this.at(event)), draws: this.on.draws() || event.shiftKey };
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = this.at(event);
    if (this.fingers.size === 2) {
      const [other] = [...this.fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      this.view.moveBy((now.x - before.x) / 2 / this.width, (now.y - before.y) / 2 / this.height);
      this.zoom(apart(now, other) / Math.max(1, apart(before, other)), (now.x + other.x) / 2 / this.width, (now.y + other.y) / 2 / this.height);
    } else if (this.start?.draws) this.on.draft(this.drawn(now));
    else if (this.start) {
      if (!this.start.moved && apart(now, this.start) < LEAST_PIXELS) return;
      this.start.moved = true;
      this.view.moveBy((now.x - before.x) / this.width, (now.y - before.y) / this.height);
      this.on.moved();
    }
    this.fingers.set(event.pointerId, now);
  }

  up(event) {
    const { start } = this;
    this.fingers.delete(event.pointerId);
    this.start = null;
    if (!start) return;
    const circle = start.draws && this.drawn(this.at(event), start);
    if (circle) this.on.circle(circle);
    else if (!start.moved) this.on.place({ ...start.place, km: Math.min(MOST_KILOMETRES, LEAST_PIXELS * 360 / this.view.zoom / this.width * KILOMETRES_A_DEGREE) });
  }

  cancel(event) {
    this.fingers.delete(event.pointerId);
    this.forget();
  }

  forget() {
    if (this.start?.draws) this.on.draft(null);
    this.start = null;
  }

  wheel(event) {
    if (!event.ctrlKey && document.activeElement !== this.canvas) return; // else the page scrolls
    event.preventDefault();
    const { x, y } = this.at(event);
    this.zoom(2 ** (-event.deltaY / (event.deltaMode ? 10 : 300)), x / this.width, y / this.height);
  }

  press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in KEYS) this.view.moveBy(...KEYS[event.key]);
    else if (event.key === "+" || event.key === "=") this.view.zoomBy(STEP);
    else if (event.key === "-") this.view.zoomBy(1 / STEP);
    else if (event.key === "0") this.view.all();
    else return;
    event.preventDefault();
    this.on.moved();
  }

  at(event) { return { x: event.offsetX, y: event.offsetY }; }

  get width() { return this.canvas.clientWidth; }

  get height() { return this.canvas.clientHeight; }

  placeOf({ x, y }) { return this.view.placeAt(x / this.width, y / this.height); }

  drawn(now, start = this.start) {
    if (apart(now, start) < LEAST_PIXELS) return null;
    return { ...start.place, km: Math.min(MOST_KILOMETRES, kilometres(start.place, this.placeOf(now))) };
  }
}

const apart = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
