// The map: the trail, places and a scale, seen from above around the last location; and a small map of the world.

import { coastline } from "./coast.js";
import { distance, plane } from "./earth.js";
import { drawing } from "./words.js";

const MARGIN = 36;
const LEAST_M = 250; // that fit in, however short the trail is
const WORLD = { width: 108, height: 54 };

export class TrailMap {
  constructor(svg) {
    this.svg = svg;
    this.points = [];
    this.places = [];
    this.zoom = 0; // doublings; 0: all fits in
    this.world = world();
    new ResizeObserver(() => this.draw()).observe(svg);
  }

  show(points, places) {
    this.points = points;
    this.places = places;
    this.draw();
  }

  closer(doublings) {
    this.zoom = doublings ? Math.max(-12, Math.min(12, this.zoom + doublings)) : 0;
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.svg;
    if (!width) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const here = this.points.at(-1);
    const drawn = here ? this.around(here, width, height) : [];
    this.svg.replaceChildren(...drawn, this.world);
    this.world.setAttribute("y", height - WORLD.height - 10);
    const spot = this.world.querySelector(".spot");
    spot.setAttribute("cx", here ? here.lon + 180 : -99);
    spot.setAttribute("cy", here ? 90 - here.lat : -99);
  }

  around(here, width, height) {
    const flat = (point) => plane(here, point);
    const trail = this.points.map(flat);
    const places = this.places.map(flat);
    const view = this.view([...trail, ...places], width, height);
    const step = rounded(90 * view.scale);
    return [
      ...grid(view, trail[0], step, width, height),
      drawing("circle", { class: "circle", ...view.circle(trail.at(-1)), r: Math.max(0, (here.accuracy ?? 0) / view.scale) }),
      drawing("polyline", { class: "trail", points: trail.map((one) => view.at(one).join()).join(" ") }),
      ...trail.slice(0, -1).map((one) => drawing("circle", { class: "step", ...view.circle(one), r: 3 })),
      ...places.map((one, at) => numbered(view.at(one), at + 1)),
      drawing("circle", { class: "pulse", ...view.circle(trail.at(-1)), r: 9 }),
      drawing("circle", { class: "here", ...view.circle(trail.at(-1)), r: 9 }),
      ...ruler(step, view.scale, width, height),
    ];
  }

  // How metres become pixels. Who zooms looks at the last location, which is at 0, 0.
  view(all, width, height) {
    const east = all.map((one) => one.east);
    const north = all.map((one) => one.north);
    const [west, right, south, top] = [Math.min(...east), Math.max(...east), Math.min(...north), Math.max(...north)];
    const fits = Math.max((right - west) / (width - 2 * MARGIN), (top - south) / (height - 2 * MARGIN), LEAST_M / Math.min(width, height));
    const scale = fits / 2 ** this.zoom;
    const middle = this.zoom ? { east: 0, north: 0 } : { east: (west + right) / 2, north: (south + top) / 2 };
    const at = (one) => [
      Number((width / 2 + (one.east - middle.east) / scale).toFixed(1)),
      Number((height / 2 - (one.north - middle.north) / scale).toFixed(1)),
    ];
    const circle = (one) => ({ cx: at(one)[0], cy: at(one)[1] });
    return { scale, at, circle };
  }
}

// The greatest 1, 2 or 5 with zeros that is not above.
export function rounded(length) {
  const power = 10 ** Math.floor(Math.log10(length));
  return power * [5, 2, 1].find((one) => one * power <= length);
}

// Lines that stay where they are on the ground while the phone moves: they go through the beginning of the trail.
export function grid(view, anchor, step, width, height) {
  const [x, y] = view.at(anchor);
  const gap = step / view.scale;
  let path = "";
  for (let at = ((x % gap) + gap) % gap; at < width; at += gap) path += `M${at.toFixed(1)},0V${height}`;
  for (let at = ((y % gap) + gap) % gap; at < height; at += gap) path += `M0,${at.toFixed(1)}H${width}`;
  return [drawing("path", { class: "grid", d: path })];
}

function numbered([x, y], number) {
  const group = drawing("g", { class: "place", transform: `translate(${x} ${y})` });
  group.append(drawing("circle", { r: 10 }), drawing("text", { y: 4 }, String(number)));
  return group;
}

export function ruler(step, scale, width, height) {
  const length = step / scale;
  const [x, y] = [width - 16 - length, height - 16];
  return [
    drawing("path", { class: "scale", d: `M${x},${y - 6}v6h${length}v-6` }),
    drawing("text", { x, y: y - 12 }, distance(step)),
    drawing("path", { class: "scale", d: `M${width - 22},34v-20m-5,7l5,-7l5,7` }),
    drawing("text", { x: width - 26, y: 50 }, "N"),
  ];
}

// Degrees are its units. What reaches beyond it is cut off.
function world() {
  const svg = drawing("svg", { x: 10, ...WORLD, viewBox: "0 0 360 180" });
  const land = drawing("path", { class: "land" });
  svg.append(drawing("rect", { class: "sea", width: 360, height: 180 }), land, drawing("circle", { class: "spot", r: 14 }));
  coastline().then((path) => land.setAttribute("d", path)).catch(() => {});
  return svg;
}
