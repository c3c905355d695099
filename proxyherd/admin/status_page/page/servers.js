// The table of servers: a row for each, with a curve of the last minute.

import { drawing, duration, element, number, setAttribute, setText, span } from "/words.js";

const POINTS = 60;
const COLUMNS = ["Server", "State", "Up", "Version", "Links", "Clients", "Connections", "Commands/s", "Floods in/s", "Floods out/s", "Places p50", "Places p95", "Loop lag p99"];
const FIGURES = new Set([2, 5, 6, 7, 8, 9, 10, 11, 12]);
const OF_TABLE = new Set([4, 5, 8, 9]); // what a server in front of Redis cannot know
const SPARKS = { 7: "answered", 8: "floods_in", 9: "floods_out" };

export class Servers {
  constructor(table) {
    this.body = table.tBodies[0];
    this.rows = new Map();
  }

  show(herd, chosen) {
    if (herd.servers.some((one) => !this.rows.has(one.name)) || this.rows.size !== herd.servers.length) {
      this.rows = new Map(herd.servers.map((one) => [one.name, makeRow(one.name)]));
      this.order = "";
    }
    const remarks = new Map(herd.servers.map((one) => [one.name, remarkOn(one)]));
    for (const server of herd.servers) {
      showRow(this.rows.get(server.name), server, herd.time, server.name === chosen, remarks.get(server.name));
    }
    const names = herd.servers.toSorted((a, b) => gravity(b) - gravity(a)).map((one) => one.name);
    const order = names.map((name) => `${name} ${Boolean(remarks.get(name))}`).join();
    if (order === this.order) return;
    this.order = order;
    this.body.replaceChildren(...names.flatMap((name) => {
      const { row, reason } = this.rows.get(name);
      return remarks.get(name) ? [row, reason] : [row];
    }));
  }
}

// Servers with a problem come first, and among them those that cannot be asked.
const gravity = (server) => (server.known ? (server.ready ? Number(otherLinks(server).length > 0) : 2) : 3);

const otherLinks = (server) => Object.entries(server.links).filter(([, state]) => state !== "live");

// What is wrong with a server: it is in a row of its own.
function remarkOn(server) {
  if (!server.known) return server.reason;
  const links = otherLinks(server);
  const told = links.map(([name, state]) => `link with ${name} ${state} for ${span(server.link_seconds[name] ?? 0)}`);
  return [server.ready ? "" : `not ready: ${server.reason}`, ...told].filter(Boolean).join("; ");
}

function makeRow(name) {
  const row = element("tr", { role: "row" });
  const cells = COLUMNS.map((label, at) => {
    const attributes = { "data-label": label };
    if (at === 0) Object.assign(attributes, { scope: "row", role: "rowheader" });
    else attributes.role = "cell";
    const classes = [FIGURES.has(at) ? "number" : "", OF_TABLE.has(at) ? "of-table" : ""].filter(Boolean).join(" ");
    if (classes) attributes.class = classes;
    const cell = element(at === 0 ? "th" : "td", attributes);
    const words = element("span");
    cell.append(words);
    row.append(cell);
    return { cell, words };
  });
  cells[0].words.textContent = name;
  const sparks = Object.entries(SPARKS).map(([at, rate]) => {
    const line = drawing("path");
    const spark = drawing("svg", { class: "spark", viewBox: `0 0 ${POINTS} 18`, preserveAspectRatio: "none", "aria-hidden": "true" });
    spark.append(line);
    cells[at].words.after(spark);
    return { rate, line, values: [] };
  });
  const reason = element("tr", { class: "reason", role: "row" });
  const said = element("td", { role: "cell", colspan: COLUMNS.length, "aria-colspan": COLUMNS.length });
  reason.append(said);
  return { row, cells, sparks, reason, said, time: 0 };
}

function showRow(row, server, time, isChosen, remark) {
  const { cells } = row;
  const classes = [isChosen ? "chosen" : "", server.known && server.ready ? "" : "wrong"];
  const unknown = server.known ? "" : "unknown";
  setAttribute(row.row, "class", [...classes, unknown].filter(Boolean).join(" "));
  setAttribute(row.reason, "class", ["reason", ...classes].filter(Boolean).join(" "));
  const state = server.known ? (server.ready ? "good" : "busy") : "bad";
  setAttribute(cells[1].words, "class", state);
  setText(cells[1].words, server.known ? (server.ready ? "ready" : "not ready") : "unknown");
  setText(row.said, remark);
  const rates = server.known ? server.rates : null;
  const words = server.known ? [
    span(server.uptime), server.version, linksOf(server), number(server.clients), connections(server),
    number(rates.answered), number(rates.floods_in), number(rates.floods_out),
    duration(server.places.p50), duration(server.places.p95), duration(server.lag),
  ] : Array(11).fill("–");
  words.forEach((text, at) => setText(cells[at + 2].words, text));
  if (time !== row.time) {
    for (const spark of row.sparks) draw(spark, rates ? rates[spark.rate] : null);
  }
  row.time = time;
}

function linksOf(server) {
  const links = Object.values(server.links);
  const live = links.filter((one) => one === "live").length;
  if (!links.length) return "none";
  return live === links.length ? `${live} live` : `${live} of ${links.length} live`;
}

// How many clients are connected, and how many of them not by the line protocol.
export function connections(server) {
  const others = Object.entries(server.protocols).filter(([via, count]) => count && via !== "lines");
  const told = others.map(([via, count]) => `${number(count)} ${via}`).join(", ");
  return number(server.connections) + (told && ` (${told})`);
}

// An unknown value, null, is a gap.
function draw(spark, value) {
  spark.values.push(value);
  if (spark.values.length > POINTS) spark.values.shift();
  const most = Math.max(1, ...spark.values);
  const from = POINTS - spark.values.length;
  const height = (one) => (17 - (16 * one) / most).toFixed(1);
  const isGap = (at) => (spark.values[at] ?? null) === null;
  spark.line.setAttribute("d", spark.values.map((one, at) => {
    if (isGap(at)) return "";
    return `${isGap(at - 1) ? "M" : "L"}${from + at},${height(one)}${isGap(at - 1) && isGap(at + 1) ? "h.1" : ""}`;
  }).join(""));
}
