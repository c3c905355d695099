// The ground of the map, seen from above: land, roads and names of Los Angeles; elsewhere on earth, only a grid.

import { moved, plane } from "./earth.js";
import { grid, rounded, ruler } from "./map.js";
import { drawing } from "./words.js";

const FLATNESS = 0.62; // height by width of what must fit in
const TEXT_PX = 7; // a letter is at most so wide

// How places become pixels. At least `km` around the middle fit in, from west to east.
export class View {
  constructor(middle, km, width, height) {
    this.middle = middle;
    this.width = width;
    this.height = height;
    this.scale = Math.max((1000 * km) / width, (1000 * km * FLATNESS) / height); // metres a pixel
  }

  at(place) {
    const { east, north } = plane(this.middle, place);
    return [this.width / 2 + east / this.scale, this.height / 2 - north / this.scale];
  }

  place([x, y]) {
    return moved(this.middle, { east: (x - this.width / 2) * this.scale, north: (this.height / 2 - y) * this.scale });
  }
}

// The path through places, as the data of an SVG path.
export function through(view, places) {
  return `M${places.map((one) => view.at(one).map((number) => number.toFixed(1)).join()).join("L")}`;
}

// A box with the sides so many metres from its middle, as the server wants it.
export function boxAround(middle, half) {
  const [southWest, northEast] = [-half, half].map((far) => moved(middle, { east: far, north: far }));
  const [south, west, north, east] = [southWest.lat, southWest.lon, northEast.lat, northEast.lon].map((one) => one.toFixed(5));
  return { west, south, east, north };
}

export class City {
  constructor(layer) {
    this.layer = layer;
    this.data = { land: [], roads: [], places: [] };
    this.taken = []; // boxes of what is written on the map
  }

  async load() {
    const answer = await fetch(new URL("los-angeles.json", import.meta.url));
    const { land, roads, places } = await answer.json();
    this.data = { land: land.map(pairs), roads: roads.map((one) => ({ ...one, points: pairs(one.points) })), places };
  }

  draw(view) {
    const { land, roads, places } = this.data;
    const step = rounded(90 * view.scale);
    const taken = this.taken = [box(view.width - 60, view.height - 20, 120, 50), box(view.width - 22, 32, 30, 50)]; // the ruler, the arrow
    this.layer.replaceChildren(
      ...land.map((ring) => drawing("path", { class: "land", d: `${through(view, ring)}Z` })),
      ...grid(view, view.middle, step, view.width, view.height),
      ...["path", "street", "freeway"].flatMap((kind) => roads.filter((one) => one.kind === kind).map((one) => line(view, one))),
      ...places.flatMap((one) => label(view, one, taken)),
      ...roads.filter((one) => one.kind === "freeway").flatMap((one) => shield(view, one, taken)),
      ...ruler(step, view.scale, view.width, view.height),
    );
  }
}

// Longitude and latitude in turn become places.
function pairs(numbers) {
  const places = [];
  for (let at = 0; at < numbers.length; at += 2) places.push({ lon: numbers[at], lat: numbers[at + 1] });
  return places;
}

const line = (view, { kind, points }) => drawing("path", { class: `road ${kind}`, d: through(view, points) });

export const box = (x, y, width, height) => ({ left: x - width / 2, right: x + width / 2, top: y - height / 2, bottom: y + height / 2 });

// Takes the place for a text, if all of it is on the map and no other is there.
export function free(view, one, taken) {
  const outside = one.left < 2 || one.right > view.width - 2 || one.top < 2 || one.bottom > view.height - 2;
  if (outside || taken.some((other) => one.left < other.right && one.right > other.left && one.top < other.bottom && one.bottom > other.top)) return false;
  taken.push(one);
  return true;
}

function label(view, { name, lat, lon }, taken) {
  const [x, y] = view.at({ lat, lon });
  if (!free(view, box(x, y - 4, TEXT_PX * name.length + 6, 18), taken)) return [];
  const water = /Ocean|Bay/.test(name) ? "water" : "town";
  return [drawing("text", { class: water, x: x.toFixed(1), y: y.toFixed(1) }, name)];
}

// A freeway's number, at the first of its points where there is room.
function shield(view, { name, points }, taken) {
  const width = TEXT_PX * name.length + 8;
  for (const point of points) {
    const [x, y] = view.at(point);
    if (free(view, box(x, y, width, 18), taken)) {
      const group = drawing("g", { class: "shield", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
      group.append(drawing("rect", { x: -width / 2, y: -8, width, height: 16, rx: 4 }), drawing("text", { y: 4 }, name));
      return [group];
    }
  }
  return [];
}
