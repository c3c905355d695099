// The clients on the map: each a dot with its name, and the way that it has come.

import { box, free } from "./city.js";
import { metres } from "./earth.js";
import { drawing } from "./words.js";

const WAKE = 24; // places that are drawn behind a client
const OLD_MS = 60_000; // without a report
const NEWS_MS = 5000; // for so long a name is shown
const LETTER_PX = 8.5; // a bold letter is about so wide

export class Phones {
  constructor(layer) {
    this.layer = layer;
    this.all = new Map();
    this.view = null;
    this.taken = [];
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
    if (news) {
      phone.told = performance.now();
      this.name(phone);
    }
    this.age(phone);
  }

  // Metres a second in the last half minute, null if that is not known yet.
  speed(client) {
    const places = this.all.get(client)?.places ?? [];
    if (places.length < 5) return null;
    const seconds = places.at(-1).time - places[0].time;
    return seconds > 0 ? metres(places[0], places.at(-1)) / seconds : null;
  }

  // `taken`: boxes of what is written on the map.
  draw(view, taken) {
    [this.view, this.taken] = [view, taken];
    for (const phone of this.all.values()) {
      this.drawOne(phone);
      phone.box = null;
    }
    for (const phone of this.all.values()) this.name(phone);
  }

  // Puts a name beside its dot, on a side where nothing else is written. If there is none, it is only in the list.
  name(phone) {
    if (!this.view || performance.now() - phone.told > NEWS_MS) return;
    phone.box = null;
    const text = phone.dot.children[1];
    const [x, y] = this.view.at(phone.places.at(-1));
    const width = LETTER_PX * text.textContent.length;
    const others = [...this.all.values()].filter((one) => one.box && performance.now() - one.told < NEWS_MS);
    const beside = 9 + width / 2;
    for (const [right, down] of [...[0, 12, -12].flatMap((one) => [[beside, one], [-beside, one]]), [0, 18], [0, -18]]) {
      const one = box(x + right, y + down, width, 18);
      if (!free(this.view, one, [...this.taken, ...others.map((other) => other.box)])) continue;
      phone.box = one;
      text.setAttribute("x", right);
      text.setAttribute("y", down + 4);
      return;
    }
  }

  // To be called from time to time.
  tick() {
    for (const phone of this.all.values()) this.age(phone);
  }

  age(phone) {
    const now = performance.now();
    phone.dot.classList.toggle("old", now - phone.heard > OLD_MS);
    phone.dot.classList.toggle("news", Boolean(phone.box) && now - phone.told < NEWS_MS);
  }

  made(client) {
    const dot = drawing("g", { class: "phone" });
    dot.append(drawing("circle", { r: 5 }), drawing("text", {}, client), drawing("title", {}, client));
    const wake = drawing("polyline", { class: "wake" });
    this.layer.append(dot);
    this.layer.prepend(wake);
    const phone = { dot, wake, places: [], heard: 0, told: -Infinity, box: null };
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
