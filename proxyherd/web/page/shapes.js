// The shapes that a fence can have: a circle, or what was drawn by hand. Lengths are in metres.

import { metres, moved, plane } from "./earth.js";

const LEAST_M = 100;
const MOST_M = 25_000;
const CORNERS = 48; // of a circle as it is drawn
const OFF_PX = 2.5; // by which a simplified line may be off

export class Circle {
  constructor(middle, radius) {
    this.middle = middle;
    this.radius = Math.max(LEAST_M, Math.min(MOST_M, radius));
  }

  moved(by) { return new Circle(moved(this.middle, by), this.radius); }

  scaled(factor) { return new Circle(this.middle, this.radius * factor); }

  through(place) { return new Circle(this.middle, metres(this.middle, place)); }

  get handle() { return moved(this.middle, { east: this.radius, north: 0 }); }

  get outline() {
    const turns = Array.from({ length: CORNERS }, (_, at) => (2 * Math.PI * at) / CORNERS);
    return turns.map((turn) => moved(this.middle, { east: this.radius * Math.cos(turn), north: this.radius * Math.sin(turn) }));
  }

  // As the server wants it.
  get area() {
    const { lat, lon } = this.middle;
    return { near: { lat: lat.toFixed(6), lon: lon.toFixed(6), radius_km: Number((this.radius / 1000).toFixed(3)) } };
  }
}

export class Polygon {
  constructor(outline) {
    this.outline = outline;
    const sum = outline.reduce((all, one) => ({ lat: all.lat + one.lat, lon: all.lon + one.lon }), { lat: 0, lon: 0 });
    this.middle = { lat: sum.lat / outline.length, lon: sum.lon / outline.length };
    this.handle = null;
  }

  moved(by) { return new Polygon(this.outline.map((one) => moved(one, by))); }

  scaled(factor) {
    const scaled = ({ east, north }) => ({ east: east * factor, north: north * factor });
    return new Polygon(this.outline.map((one) => moved(this.middle, scaled(plane(this.middle, one)))));
  }

  // A GeoJSON polygon goes around an area against the clock, and ends where it began.
  get area() {
    const ring = this.outline.map(({ lat, lon }) => [Number(lon.toFixed(6)), Number(lat.toFixed(6))]);
    if (turned(ring) < 0) ring.reverse();
    return { within: { type: "Polygon", coordinates: [[...ring, ring[0]]] } };
  }
}

// Twice the area inside, negative if the ring goes with the clock.
function turned(ring) {
  return ring.reduce((sum, [x, y], at) => {
    const [nextX, nextY] = ring[(at + 1) % ring.length];
    return sum + (x - ring[0][0]) * (nextY - ring[0][1]) - (nextX - ring[0][0]) * (y - ring[0][1]);
  }, 0);
}

// The points without which a drawn line would be further off (Douglas and Peucker).
export function simplified(points) {
  const [first, last] = [points[0], points.at(-1)];
  let [at, most] = [0, OFF_PX];
  points.forEach((point, number) => {
    const off = offLine(point, first, last);
    if (off > most) [at, most] = [number, off];
  });
  if (!at) return [first, last];
  return [...simplified(points.slice(0, at + 1)).slice(0, -1), ...simplified(points.slice(at))];
}

// Pixels from a point to the line between two others.
function offLine([x, y], [ax, ay], [bx, by]) {
  const [width, height] = [bx - ax, by - ay];
  const along = ((x - ax) * width + (y - ay) * height) / (width ** 2 + height ** 2 || 1);
  const at = Math.max(0, Math.min(1, along));
  return Math.hypot(x - ax - at * width, y - ay - at * height);
}

// A stroke that goes on beyond its beginning crosses itself there: what stands out is cut off.
export function closed(corners) {
  const most = Math.ceil(corners.length / 3);
  for (let from = 0; from < most; from += 1) {
    for (let to = corners.length - 2; to > corners.length - 2 - most && to > from + 1; to -= 1) {
      const point = crossing(corners[from], corners[from + 1], corners[to], corners[to + 1]);
      if (point) return [point, ...corners.slice(from + 1, to + 1)];
    }
  }
  return corners;
}

function crossing([ax, ay], [bx, by], [cx, cy], [dx, dy]) {
  const across = (bx - ax) * (dy - cy) - (by - ay) * (dx - cx);
  if (!across) return null;
  const one = ((cx - ax) * (dy - cy) - (cy - ay) * (dx - cx)) / across;
  const other = ((cx - ax) * (by - ay) - (cy - ay) * (bx - ax)) / across;
  return Math.min(one, other) >= 0 && Math.max(one, other) <= 1 ? [ax + one * (bx - ax), ay + one * (by - ay)] : null;
}
