// The table of the latest commands, newest first. It can be filtered and paused.

import { byId, element, number, setText } from "/words.js";

const MOST = 500; // commands that are kept
const SHOWN = 200; // rows
const LABELS = ["Time", "Server", "Kind", "Outcome", "Command", "Answer"];
const OUTCOMES = { stored: "good", answered: "good", invalid: "bad", overlong: "bad", refused: "bad" };

export class Commands {
  constructor(table) {
    this.body = table.tBodies[0];
    this.all = []; // the newest first
    this.keys = new Set();
    this.waiting = []; // came while paused
    this.leftOut = 0;
    this.paused = false;
    this.filter = byId("filter");
    this.filter.addEventListener("input", () => this.draw());
    this.pause = byId("pause");
    this.pause.addEventListener("click", () => this.toggle());
  }

  withhold(why) {
    byId("withheld").hidden = !why;
    setText(byId("withheld"), why ? `Not shown: ${why}` : "");
    byId("command-tools").hidden = Boolean(why);
    byId("commands-box").hidden = Boolean(why);
  }

  add({ commands, left_out: leftOut }) {
    this.leftOut += leftOut;
    const fresh = [];
    for (const [server, values] of commands) {
      const [count, at, kind, outcome, command, answer] = values;
      const key = `${server} ${count} ${at}`; // once more, after a connection was lost
      if (this.keys.has(key)) continue;
      this.keys.add(key);
      fresh.push({ key, values: [time(at), server, kind, outcome, command, answer] });
    }
    if (this.paused) {
      this.waiting.push(...fresh);
      for (const gone of this.waiting.splice(0, this.waiting.length - MOST)) this.keys.delete(gone.key);
      this.count();
    } else this.take(fresh);
  }

  toggle() {
    this.paused = !this.paused;
    this.pause.setAttribute("aria-pressed", String(this.paused));
    if (!this.paused) {
      const waiting = this.waiting;
      this.waiting = [];
      this.take(waiting);
    }
    this.count();
  }

  take(fresh) {
    if (!fresh.length) {
      this.count();
      return;
    }
    this.all = [...fresh.toReversed(), ...this.all];
    for (const gone of this.all.splice(MOST)) this.keys.delete(gone.key);
    const matching = fresh.filter((one) => this.matches(one)).slice(-SHOWN);
    this.body.prepend(...matching.toReversed().map(makeRow));
    while (this.body.rows.length > SHOWN) this.body.lastElementChild.remove();
    this.count();
  }

  draw() {
    this.body.replaceChildren(...this.all.filter((one) => this.matches(one)).slice(0, SHOWN).map(makeRow));
    this.count();
  }

  matches({ values }) {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = values.join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  count() {
    const parts = [`${number(this.body.rows.length)} of ${number(this.all.length)} shown`];
    if (this.paused) parts.push(`${number(this.waiting.length)} new since the pause`);
    if (this.leftOut) parts.push(`${number(this.leftOut)} came too fast to be told`);
    setText(byId("command-count"), parts.join(", "));
  }
}

function makeRow({ values }) {
  const row = element("tr", { role: "row" });
  values.forEach((value, at) => {
    const attributes = { role: "cell", "data-label": LABELS[at] };
    if (at > 3) attributes.class = "line";
    if (at === 3) attributes.class = OUTCOMES[value] || "none";
    const cell = element("td", attributes);
    cell.append(element("span", {}, value));
    row.append(cell);
  });
  return row;
}

function time(seconds) {
  const at = new Date(seconds * 1000);
  const two = (value) => String(value).padStart(2, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}
