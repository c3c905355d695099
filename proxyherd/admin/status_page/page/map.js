// The map: a coastline, the numbers of clients by cell, and new reports. Equirectangular.

import { coastline } from "/coast.js";
import { number, setText } from "/words.js";

const PING_MS = 3000;
const MOST_PINGS = 500;

export class WorldMap {
  constructor(canvas, note) {
    this.canvas = canvas;
    this.note = note;
    this.cells = null;
    this.pings = [];
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.land = null;
    this.base = null;
    this.withheld = "";
    this.animating = false;
    this.marked = null;
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.resize());
    coastline().then((path) => {
      this.land = new Path2D(path);
      this.resize();
    }).catch(() => {});
  }

  withhold(why) {
    this.withheld = why;
    if (!why) return;
    this.cells = null;
    this.pings = [];
    setText(this.note, `Not shown: ${why}`);
    this.resize();
  }

  show(cells) {
    this.cells = cells;
    const filled = cells.cells.length / 3;
    const counted = cells.whole ? "" : " counted so far";
    setText(this.note, `${number(cells.clients)} clients${counted}, in ${number(filled)} cells of ${cells.degrees}°; ${densest(cells)}`);
    this.resize();
  }

  ping(places) {
    const until = performance.now() + PING_MS;
    this.pings.push(...places.map(([latitude, longitude]) => ({ latitude, longitude, until })));
    this.pings.splice(0, this.pings.length - MOST_PINGS);
    this.canvas.dataset.pings = String(Number(this.canvas.dataset.pings || 0) + places.length);
    if (this.animating) return;
    this.animating = true;
    if (this.still.matches) {
      this.paint();
      setTimeout(() => { this.animating = false; this.paint(); }, PING_MS + 50);
    } else requestAnimationFrame(() => this.animate());
  }

  // Mark a circle, or a place if it has no radius; null: nothing.
  mark(circle) {
    this.marked = circle;
    this.canvas.dataset.marked = circle ? `${circle.latitude.toFixed(2)} ${circle.longitude.toFixed(2)}` : "";
    this.paint();
  }

  animate() {
    this.paint();
    this.animating = this.pings.length > 0;
    if (this.animating) requestAnimationFrame(() => this.animate());
  }

  // Land and cells are drawn once, pings over a copy of them.
  resize() {
    const scale = devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * scale);
    if (!width) return;
    const base = this.base = document.createElement("canvas");
    base.width = width;
    base.height = width / 2;
    if (this.canvas.width !== width || this.canvas.height !== base.height) {
      this.canvas.width = width;
      this.canvas.height = base.height;
    }
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.pingColour = colour("--ping");
    const context = base.getContext("2d");
    context.scale(width / 360, width / 360);
    if (this.land) {
      context.fillStyle = colour("--land");
      context.strokeStyle = colour("--shore");
      context.lineWidth = 0.3;
      context.fill(this.land);
      context.stroke(this.land);
    }
    if (this.cells) paintCells(context, this.cells, colour("--cell"));
    this.paint();
  }

  paint() {
    if (!this.base) return;
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.base, 0, 0);
    const unit = this.canvas.width / 360;
    const now = performance.now();
    this.pings = this.pings.filter((one) => one.until > now);
    context.strokeStyle = this.pingColour;
    context.lineWidth = Math.max(1, unit / 2);
    for (const one of this.pings) {
      const age = this.still.matches ? 0.2 : 1 - (one.until - now) / PING_MS;
      context.globalAlpha = 0.8 * (1 - age);
      context.beginPath();
      context.arc((one.longitude + 180) * unit, (90 - one.latitude) * unit, (1 + 5 * age) * Math.max(unit, 1.5), 0, 2 * Math.PI);
      context.stroke();
    }
    context.globalAlpha = 1;
    if (this.marked) paintMark(context, this.marked, unit);
  }
}

function paintMark(context, { latitude, longitude, km }, unit) {
  const up = Math.max(km / 111.195, 2) * unit;
  const wide = km ? Math.min(180 * unit, up / Math.max(0.01, Math.cos(latitude * Math.PI / 180))) : up;
  context.lineWidth = Math.max(2, unit / 2);
  context.beginPath();
  context.ellipse((longitude + 180) * unit, (90 - latitude) * unit, wide, up, 0, 0, 2 * Math.PI);
  context.stroke();
}

function paintCells(context, { degrees, cells }, colour) {
  let most = 1;
  for (let at = 2; at < cells.length; at += 3) most = Math.max(most, cells[at]);
  const side = Math.max(degrees, 1.8); // one cell is to be seen
  for (let at = 0; at < cells.length; at += 3) {
    const strength = 0.5 + (0.5 * Math.log1p(cells[at + 2])) / Math.log1p(most);
    context.fillStyle = `rgba(${colour}, ${strength.toFixed(2)})`;
    context.fillRect(cells[at] * degrees - (side - degrees) / 2, 180 - (cells[at + 1] + 1) * degrees - (side - degrees) / 2, side, side);
  }
}

function densest({ degrees, cells }) {
  let best = -1;
  for (let at = 0; at < cells.length; at += 3) if (best < 0 || cells[at + 2] > cells[best + 2]) best = at;
  if (best < 0) return "none yet.";
  const middle = (cell, end) => (cell * degrees + Math.min((cell + 1) * degrees, end)) / 2; // large ones reach beyond it
  const latitude = middle(cells[best + 1], 180) - 90;
  const longitude = middle(cells[best], 360) - 180;
  const spell = (value, positive, negative) => `${Math.abs(value).toFixed(1)}° ${value < 0 ? negative : positive}`;
  return `most of them, ${number(cells[best + 2])}, near ${spell(latitude, "N", "S")}, ${spell(longitude, "E", "W")}.`;
}
