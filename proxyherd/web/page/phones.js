// The clients on the map: each a dot with its name, and the way that it has come.

import { metres } from "./earth.js";
import { drawing } from "./words.js";

const WAKE = 24; // places that are drawn behind a client
const OLD_MS = 60_000; // without a report
const NEWS_MS = 5000; // for so long a name is shown

export class Phones {
  constructor(layer) {
    this.layer = layer;
    this.all = new Map();
    this.view = null;
  }

  put({ client, lat, lon, time }) {
    const phone = this.all.get(client) ?? this.made(client);
    phone.places.push({ lat, lon, time: Number(time) });
    if (phone.places.length > WAKE) phone.places.shift();
    phone.heard = performance.now();
    this.drawOne(phone);
  }

  remove(client) {
    const phone = this.all.get(client);
    phone?.dot.remove();
    phone?.wake.remove();
    this.all.delete(client);
  }

  // Whether a client is inside of the fence; `news`: its name is shown for a while.
  mark(client, inside, news = false) {
    const phone = this.all.get(client);
    if (!phone) return;
    phone.dot.classList.toggle("inside", inside);
    phone.wake.classList.toggle("inside", inside);
    if (news) phone.told = performance.now();
    this.age(phone);
  }

  // Metres a second in the last half minute, null if that is not known yet.
  speed(client) {
    const places = this.all.get(client)?.places ?? [];
    if (places.length < 5) return null;
    const seconds = places.at(-1).time - places[0].time;
    return seconds > 0 ? metres(places[0], places.at(-1)) / seconds : null;
  }

  draw(view) {
    this.view = view;
    for (const phone of this.all.values()) this.drawOne(phone);
  }

  // To be called from time to time.
  tick() {
    for (const phone of this.all.values()) this.age(phone);
  }

  age(phone) {
    const now = performance.now();
    phone.dot.classList.toggle("old", now - phone.heard > OLD_MS);
    phone.dot.classList.toggle("news", now - phone.told < NEWS_MS);
  }

  made(client) {
    const dot = drawing("g", { class: "phone" });
    dot.append(drawing("circle", { r: 5 }), drawing("text", { x: 9, y: 4 }, client), drawing("title", {}, client));
    const wake = drawing("polyline", { class: "wake" });
    this.layer.append(dot);
    this.layer.prepend(wake);
    const phone = { dot, wake, places: [], heard: 0, told: -Infinity };
    this.all.set(client, phone);
    return phone;
  }

  drawOne({ dot, wake, places }) {
    if (!this.view || !places.length) return;
    const points = places.map((one) => this.view.at(one).map((number) => number.toFixed(1)));
    const [x, y] = points.at(-1);
    dot.style.transform = `translate(${x}px, ${y}px)`;
    wake.setAttribute("points", points.map((one) => one.join()).join(" "));
  }
}
