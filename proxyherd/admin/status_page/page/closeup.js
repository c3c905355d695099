// A close-up of the map: a circle or the way of a client, who is there, and the coast. Equirectangular around its middle.

import { coastline } from "/coast.js";
import { kilometres } from "/pick.js";
import { number, setAttribute } from "/words.js";

const LEAST_DEGREES = 0.01; // about a kilometre

export class CloseUp {
  constructor(canvas) {
    this.canvas = canvas;
    this.land = null;
    this.shown = null;
    coastline().then((path) => { this.land = new Path2D(path); this.draw(); }).catch(() => {});
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  // `clients`: by name, the places where they were, the last one last.
  show(circle, clients) {
    this.shown = { circle, clients };
    this.draw();
  }

  draw() {
    const width = Math.round(this.canvas.clientWidth * (devicePixelRatio || 1));
    if (!width || !this.shown) return;
    const { circle, clients } = this.shown;
    if (!circle && !clients.size) return;
    this.canvas.width = width;
    this.canvas.height = width / 2;
    const { middle, degrees } = circle ? around(circle) : surrounding([...clients.values()].flat());
    const high = this.canvas.height / degrees; // pixels of a degree of latitude
    const wide = high * Math.max(0.01, Math.cos(middle.latitude * Math.PI / 180));
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const context = this.canvas.getContext("2d");
    const x = (one) => width / 2 + ((one.longitude - middle.longitude + 540) % 360 - 180) * wide;
    const y = (one) => this.canvas.height / 2 - (one.latitude - middle.latitude) * high;
    if (this.land) {
      context.save();
      context.setTransform(wide, 0, 0, high, width / 2 - (middle.longitude + 180) * wide, this.canvas.height / 2 - (90 - middle.latitude) * high);
      context.fillStyle = colour("--land");
      context.fill(this.land);
      context.restore();
    }
    context.lineWidth = 2 * (devicePixelRatio || 1);
    context.strokeStyle = context.fillStyle = colour("--ping");
    if (circle) {
      const up = circle.km / 111.195 * high;
      context.beginPath();
      context.ellipse(x(circle), y(circle), up, up, 0, 0, 2 * Math.PI);
      context.stroke();
    }
    for (const way of clients.values()) {
      context.beginPath();
      for (const one of way) context.lineTo(x(one), y(one));
      context.stroke();
      context.beginPath();
      context.arc(x(way.at(-1)), y(way.at(-1)), 2.5 * context.lineWidth, 0, 2 * Math.PI);
      context.fill();
    }
    const half = { ...middle, longitude: middle.longitude + Math.min(180, width / 2 / wide) };
    setAttribute(this.canvas, "aria-label", `Close-up, ${number(2 * kilometres(middle, half))} km wide`);
    this.canvas.dataset.clients = String(clients.size);
  }
}

const around = (circle) => ({ middle: circle, degrees: 2.3 * circle.km / 111.195 });

function surrounding(places) {
  const span = (values) => [Math.min(...values), Math.max(...values)];
  const [south, north] = span(places.map((one) => one.latitude));
  const [west, east] = span(places.map((one) => one.longitude));
  const middle = { latitude: (south + north) / 2, longitude: (west + east) / 2 };
  return { middle, degrees: 1.3 * Math.max(LEAST_DEGREES, north - south, (east - west) / 2) };
}
