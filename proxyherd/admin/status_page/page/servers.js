// The table of servers: a row for each, with a curve of the last minute.

import { drawing, duration, element, number, setAttribute, setText } from "/words.js";

const POINTS = 60;
const COLUMNS = ["Server", "State", "Links", "Clients", "Connections", "Commands/s", "Floods in/s", "Floods out/s", "Places p50, p95", "Loop lag p99"];
const SPARKS = { 5: "answered", 6: "floods_in", 7: "floods_out" };

export class Servers {
  constructor(table) {
    this.body = table.tBodies[0];
    this.rows = new Map();
  }

  show(herd, chosen) {
    if (herd.servers.some((one) => !this.rows.has(one.name)) || this.rows.size !== herd.servers.length) {
      this.rows = new Map(herd.servers.map((one) => [one.name, makeRow(one.name)]));
      this.body.replaceChildren(...[...this.rows.values()].map((row) => row.row));
    }
    for (const server of herd.servers) showRow(this.rows.get(server.name), server, herd.time, server.name === chosen);
  }
}

function makeRow(name) {
  const row = element("tr", { role: "row" });
  const cells = COLUMNS.map((label, at) => {
    const attributes = { "data-label": label };
    if (at === 0) Object.assign(attributes, { scope: "row", role: "rowheader" });
    else attributes.role = "cell";
    if (at > 2) attributes.class = "number";
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
  return { row, cells, sparks, time: 0 };
}

function showRow(row, server, time, isChosen) {
  const { cells } = row;
  setAttribute(row.row, "class", isChosen ? "chosen" : "");
  const state = server.known ? (server.ready ? "good" : "busy") : "none";
  setAttribute(cells[1].words, "class", state);
  setText(cells[1].words, server.known ? server.reason : `unknown: ${server.reason}`);
  const rates = server.known ? server.rates : null;
  const words = server.known ? [
    Object.entries(server.links).map(([name, link]) => `${name} ${link}`).join(", ") || "none",
    number(server.clients), connections(server), number(rates.answered), number(rates.floods_in), number(rates.floods_out),
    server.places.queries ? `${duration(server.places.p50)}, ${duration(server.places.p95)}` : "–",
    duration(server.lag),
  ] : Array(8).fill("–");
  words.forEach((text, at) => setText(cells[at + 2].words, text));
  if (time !== row.time) {
    for (const spark of row.sparks) draw(spark, rates ? rates[spark.rate] : null);
  }
  row.time = time;
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
