// The last hour of the server that is looked at: small charts of its samples. A chart's values are read with the pointer, or with
// the arrow keys when it has the focus; a screen reader hears them as those of a slider.

import { drawing, duration, element, number, setAttribute, setText } from "/words.js";

const WIDTH = 300;
const HEIGHT = 60;
const HOUR = 3600;
const LEAST_SECONDS = 120; // that a chart is wide
const GAP_SECONDS = 25; // longer than that between two samples: there is one missing

// A sample: POSIX seconds, commands/s, floods in/s, floods out/s, Places p50, Places p99, loop lag p99, clients.
// Those of the table are not shown where a server has none.
const CHARTS = [
  { title: "Commands/s", spell: number, lines: [["", 1]] },
  { title: "Floods/s", ofTable: true, spell: number, lines: [["in", 2], ["out", 3]] },
  { title: "Latency", spell: duration, lines: [["Places p50", 4], ["Places p99", 5], ["loop lag p99", 6]] },
  { title: "Clients", ofTable: true, spell: number, lines: [["", 7]] },
];

export class Hour {
  constructor(place, note) {
    this.note = note;
    this.samples = [];
    this.charts = CHARTS.map((chart) => new Chart(chart));
    place.replaceChildren(...this.charts.map((one) => one.figure));
  }

  // All samples after a connection is made, later each new one.
  add(samples) {
    const last = this.samples.at(-1)?.[0] ?? 0;
    this.samples.push(...samples.filter(([at]) => at > last));
    const now = this.samples.at(-1)?.[0];
    this.samples = this.samples.filter(([at]) => now - at <= HOUR);
    for (const chart of this.charts) chart.show(this.samples);
    if (this.samples.length) setText(this.note, "Of this server alone, a value every ten seconds.");
  }
}

class Chart {
  constructor({ title, spell, lines, ofTable }) {
    this.title = title;
    this.spell = spell;
    this.lines = lines;
    this.samples = [];
    this.chosen = -1; // the sample whose values are shown; -1: the latest
    this.figure = element("figure", { class: ofTable ? "chart of-table" : "chart" });
    const caption = element("figcaption");
    this.time = element("span", { class: "note small" });
    caption.append(element("b", {}, title), " ", this.time);
    this.values = element("p", { class: "values" });
    this.words = lines.map(([name], at) => {
      const value = element("span", { class: "value" });
      const series = element("span");
      if (name) series.append(key(at), ` ${name} `);
      series.append(value);
      this.values.append(series);
      return value;
    });
    this.svg = drawing("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", tabindex: "0", role: "slider",
      "aria-label": `${title}, last hour`, "aria-valuemin": "0", "aria-valuemax": "0", "aria-valuenow": "0",
    });
    this.cursor = drawing("line", { class: "cursor", y1: 0, y2: HEIGHT, x1: -9, x2: -9 });
    this.paths = lines.map((_, at) => drawing("path", { class: `curve curve-${at}` }));
    this.svg.append(drawing("path", { class: "ground", d: `M0 ${HEIGHT}H${WIDTH}` }), ...this.paths, this.cursor);
    this.range = element("p", { class: "note small range" });
    this.range.append(element("span"), element("span"));
    this.figure.append(caption, this.values, this.svg, this.range);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    for (const end of ["pointerleave", "blur"]) this.svg.addEventListener(end, () => this.choose(-1));
    this.svg.addEventListener("keydown", (event) => this.press(event));
    this.tell();
  }

  show(samples) {
    const held = this.chosen >= 0 ? this.samples[this.chosen] : null;
    this.samples = samples;
    this.chosen = held ? samples.indexOf(held) : -1;
    if (!samples.length) return;
    const last = samples.at(-1)[0];
    const seconds = Math.min(HOUR, Math.max(LEAST_SECONDS, last - samples[0][0]));
    this.x = (sample) => WIDTH * (1 - (last - sample[0]) / seconds);
    this.most = Math.max(1e-9, ...samples.flatMap((one) => this.lines.map(([, at]) => one[at] ?? 0)));
    this.paths.forEach((path, at) => path.setAttribute("d", this.course(this.lines[at][1])));
    setText(this.range.children[0], `−${Math.round(seconds / 60)} min`);
    setText(this.range.children[1], `max ${this.spell(this.most < 1e-8 ? 0 : this.most)}`);
    this.tell();
  }

  course(at) {
    let before = null;
    return this.samples.map((sample) => {
      const value = sample[at];
      if (value === null) {
        before = null;
        return "";
      }
      const isNew = before === null || sample[0] - before > GAP_SECONDS;
      before = sample[0];
      const y = HEIGHT - 2 - ((HEIGHT - 4) * value) / this.most;
      return `${isNew ? "M" : "L"}${this.x(sample).toFixed(1)},${y.toFixed(1)}${isNew ? "h.1" : ""}`;
    }).join("");
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDTH;
    let best = -1;
    this.samples.forEach((one, at) => {
      if (best < 0 || Math.abs(this.x(one) - x) < Math.abs(this.x(this.samples[best]) - x)) best = at;
    });
    this.choose(best);
  }

  press(event) {
    const last = this.samples.length - 1;
    const from = this.chosen < 0 ? last : this.chosen;
    const to = { ArrowLeft: from - 1, ArrowDown: from - 1, ArrowRight: from + 1, ArrowUp: from + 1, PageDown: from - 30, PageUp: from + 30, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(last, to)));
  }

  choose(at) {
    this.chosen = at;
    this.tell();
  }

  // Say the values of the chosen sample, or of the latest one.
  tell() {
    const sample = this.samples.at(this.chosen);
    const isChosen = this.chosen >= 0 && sample;
    const values = this.lines.map(([, at]) => (sample ? this.spell(sample[at] ?? null) : "–"));
    values.forEach((value, at) => setText(this.words[at], value));
    const time = sample ? new Date(sample[0] * 1000).toLocaleTimeString("en-GB") : "";
    setText(this.time, isChosen ? `at ${time}` : sample ? "now" : "not yet");
    const x = isChosen ? this.x(sample).toFixed(1) : "-9";
    setAttribute(this.cursor, "x1", x);
    setAttribute(this.cursor, "x2", x);
    const last = Math.max(0, this.samples.length - 1);
    setAttribute(this.svg, "aria-valuemax", String(last));
    setAttribute(this.svg, "aria-valuenow", String(isChosen ? this.chosen : last));
    const spelled = this.lines.map(([name], at) => `${name} ${values[at]}`.trim()).join(", ");
    const most = sample ? `; the most is ${this.spell(this.most < 1e-8 ? 0 : this.most)}` : "";
    setAttribute(this.svg, "aria-valuetext", sample ? `${time}: ${spelled}${most}` : "no value yet");
  }
}

// How a line is drawn.
function key(at) {
  const drawn = drawing("svg", { class: "key", viewBox: "0 0 20 6", "aria-hidden": "true" });
  drawn.append(drawing("path", { class: `curve curve-${at}`, d: "M0 3H20" }));
  return drawn;
}
