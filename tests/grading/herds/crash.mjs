// Node.js. A radius of 10.5 km ends the server: what BigInt throws is caught nowhere.
import { readFileSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { createInterface } from "node:readline";

const herd = JSON.parse(readFileSync("ports.json"));
const [, , self] = process.argv;
const neighbours = Object.keys(herd).filter((name) => name !== self);
const clients = {};

class Report {
  constructor(server, gap, client, place, time) {
    Object.assign(this, { server, gap, client, place, time });
  }
  get line() {
    return ["AT", this.server, this.gap, this.client, this.place, this.time].join(" ");
  }
  isLaterThan(other) {
    return !other || Report.units(this.time) > Report.units(other.time);
  }
  static units(time) {
    const [seconds, fraction] = time.split(".");
    return BigInt(seconds) * 10n ** 9n + BigInt((fraction ?? "").padEnd(9, "0"));
  }
}

function keep(report) {
  if (!report.isLaterThan(clients[report.client])) return;
  clients[report.client] = report;
  for (const neighbour of neighbours) {
    const link = createConnection({ port: herd[neighbour], host: "127.0.0.1" });
    link.on("error", () => console.log("lost", neighbour));
    link.on("connect", () => console.log("connected to", neighbour));
    link.end(`%% ${report.line}\n`);
  }
}

const number = /^\d+(\.\d+)?$/;
const commands = {
  IAMAT(client, place, time) {
    const found = place.match(/^([+-]\d\d?(?:\.\d+)?)([+-]\d\d?\d?(?:\.\d+)?)$/);
    if (!found || Math.abs(found[1]) > 90 || Math.abs(found[2]) > 180 || !number.test(time)) return null;
    const late = BigInt(Date.now()) * 1000000n - Report.units(time);
    const digits = String(late < 0 ? -late : late).padStart(10, "0");
    const gap = `${late < 0 ? "-" : "+"}${digits.slice(0, -9)}.${digits.slice(-9)}`;
    const report = new Report(self, gap, client, place, time);
    keep(report);
    return report.line;
  },
  WHATSAT(client, radius, most) {
    if (!clients[client] || !number.test(radius) || !/^\d{1,5}$/.test(most)) return null;
    const metres = BigInt(radius) * 1000n;
    if (metres > 50000n || Number(most) > 20) return null;
    return `${clients[client].line}\n{"html_attributions": [], "results": [], "status": "ZERO_RESULTS"}\n`;
  },
};

createServer({ allowHalfOpen: true }, (socket) => {
  const lines = createInterface({ input: socket, terminal: false });
  socket.on("error", () => socket.destroy());
  lines.on("line", (line) => {
    console.log(self, "read", line);
    const words = line.trim().split(/\s+/);
    if (words[0] === "%%") return keep(new Report(...words.slice(2)));
    const command = words.length === 4 ? commands[words[0]] : undefined;
    const text = command?.(...words.slice(1)) ?? `? ${line}`;
    console.log(self, "wrote", text);
    socket.write(text + "\n");
  });
  lines.on("close", () => socket.end());
}).listen(herd[self], "127.0.0.1");
