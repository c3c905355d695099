// The last locations of one phone, oldest first, and the name: kept in this browser. Where a browser keeps nothing, they
// last as long as the page.

const KEY = "proxyherd";
const MOST_POINTS = 300;

export class Trail {
  constructor() {
    this.name = "";
    this.points = [];
    try {
      Object.assign(this, read(localStorage.getItem(KEY)));
    } catch {
      // Nothing is kept, or something else was.
    }
  }

  get last() {
    return this.points.at(-1) ?? null;
  }

  rename(name) {
    if (name === this.name) return;
    this.name = name;
    this.points = [];
    this.keep();
  }

  // Returns whether it is news.
  add(point) {
    if (this.last && point.time <= this.last.time) return false;
    this.points.push(point);
    this.points.splice(0, this.points.length - MOST_POINTS);
    this.keep();
    return true;
  }

  keep() {
    try {
      if (this.name) localStorage.setItem(KEY, JSON.stringify({ name: this.name, points: this.points }));
      else localStorage.removeItem(KEY);
    } catch {
      // As above.
    }
  }
}

function read(text) {
  const { name, points } = JSON.parse(text);
  const isPoint = (one) => [one.lat, one.lon, one.time].every(Number.isFinite);
  return typeof name === "string" && points.every(isPoint) ? { name, points } : {};
}
