// The map: a coastline, the numbers of clients by cell, and new reports. Equirectangular. It can be moved and zoomed.

import { coastline } from "/coast.js";
import { Hand } from "/pick.js";
import { View } from "/view.js";
import { byId, number, setText } from "/words.js";

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
    this.frame = 0;
    this.picks = null; // who wants to know places and circles: `place`, `circle` and `draft`
    this.draws = false; // whether the next drag draws a circle
    this.view = new View();
    this.hand = new Hand(canvas, this.view, {
      moved: () => this.moved(),
      place: (place) => this.picks?.place(place),
      circle: (circle) => { this.draw(false); this.picks?.circle(circle); },
      draft: (circle) => this.picks?.draft(circle),
      draws: () => this.draws,
    });
    byId("closer").addEventListener("click", () => this.hand.closer());
    byId("wider").addEventListener("click", () => this.hand.wider());
    byId("world").addEventListener("click", () => { this.view.all(); this.moved(); });
    byId("draw").addEventListener("click", () => this.draw(!this.draws));
    canvas.addEventListener("keydown", (event) => { if (event.key === "Escape") this.draw(false); });
    this.moved();
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.resize());
    coastline().then((path) => {
      this.land = new Path2D(path);
      this.resize();
    }).catch(() => {});
  }

  // Let the next drag draw a circle, or not.
  draw(draws) {
    this.draws = draws && Boolean(this.picks);
    byId("draw").setAttribute("aria-pressed", String(this.draws));
    this.canvas.classList.toggle("draws", this.draws);
  }

  moved() {
    const { view, canvas } = this;
    canvas.dataset.view = `${view.left} ${view.top} ${view.zoom}`;
    canvas.classList.toggle("zoomed", !view.isAll);
    // A button that has the focus keeps it, so it is not disabled.
    byId("wider").setAttribute("aria-disabled", String(view.isAll));
    byId("world").setAttribute("aria-disabled", String(view.isAll));
    byId("closer").setAttribute("aria-disabled", String(view.isClosest));
    this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.resize(); });
  }

  // Show a place, if it is outside of what is shown.
  reveal(place) {
    if (this.view.reveal(place)) this.moved();
  }

  withhold(why) {
    this.withheld = why;
    byId("map-legend").hidden = Boolean(why);
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
    showLegend(cells);
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
    const { view } = this;
    const unit = width / 360 * view.zoom; // pixels of a degree
    context.setTransform(unit, 0, 0, unit, -view.left * unit, -view.top * unit);
    if (this.land) {
      context.fillStyle = colour("--land");
      context.strokeStyle = colour("--shore");
      context.lineWidth = 0.3 / view.zoom;
      context.fill(this.land);
      context.stroke(this.land);
    }
    if (this.cells) paintCells(context, this.cells, colour("--cell"), view.zoom);
    this.paint();
  }

  paint() {
    if (!this.base) return;
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.base, 0, 0);
    const { view } = this;
    const scale = this.canvas.width / 360;
    const unit = scale * view.zoom;
    const x = (longitude) => (longitude + 180 - view.left) * unit;
    const y = (latitude) => (90 - latitude - view.top) * unit;
    const now = performance.now();
    this.pings = this.pings.filter((one) => one.until > now);
    context.strokeStyle = this.pingColour;
    context.lineWidth = Math.max(1, scale / 2);
    for (const one of this.pings) {
      const age = this.still.matches ? 0.2 : 1 - (one.until - now) / PING_MS;
      context.globalAlpha = 0.8 * (1 - age);
      context.beginPath();
      context.arc(x(one.longitude), y(one.latitude), (1 + 5 * age) * Math.max(scale, 1.5), 0, 2 * Math.PI);
      context.stroke();
    }
    context.globalAlpha = 1;
    if (!this.marked) return;
    const { latitude, longitude, km } = this.marked;
    const up = Math.max(km / 111.195 * unit, 2 * scale);
    const wide = km ? Math.min(180 * unit, up / Math.max(0.01, Math.cos(latitude * Math.PI / 180))) : up;
    context.lineWidth = Math.max(2, scale / 2);
    context.beginPath();
    context.ellipse(x(longitude), y(latitude), wide, up, 0, 0, 2 * Math.PI);
    context.stroke();
  }
}

// How strong the colour of a cell is: from a half for one client to 1 for the most.
const strengthOf = (count, most) => 0.5 + (0.5 * Math.log1p(count)) / Math.log1p(most);

const mostOf = ({ cells }) => cells.reduce((most, value, at) => (at % 3 === 2 ? Math.max(most, value) : most), 1);

function showLegend(cells) {
  const most = mostOf(cells);
  const counts = [1, Math.round(Math.sqrt(most)), most];
  byId("map-legend").querySelectorAll("[data-count]").forEach((item, at) => {
    item.hidden = at > 0 && counts[at] === counts[at - 1];
    item.querySelector("rect").setAttribute("fill-opacity", strengthOf(counts[at], most).toFixed(2));
    setText(item.querySelector("span"), at === 0 ? "1 client in a cell" : number(counts[at]));
  });
}

function paintCells(context, { degrees, cells }, colour, zoom) {
  const most = mostOf({ cells });
  const side = Math.max(degrees, 1.8 / zoom); // one cell is to be seen
  for (let at = 0; at < cells.length; at += 3) {
    context.fillStyle = `rgba(${colour}, ${strengthOf(cells[at + 2], most).toFixed(2)})`;
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
