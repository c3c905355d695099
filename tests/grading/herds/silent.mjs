// Node.js. Blank lines are passed over in silence.
import * as fs from "fs";
import * as net from "net";

const me = process.argv[2];
const ports = JSON.parse(fs.readFileSync("ports.json").toString());
const edges = [["Alford", "Parker"], ["Parker", "Hamilton"], ["Hamilton", "Alford"]];
const others = edges.filter((edge) => edge.includes(me)).flat().filter((one) => one !== me);
const newest = {};
const links = {};
const places = { html_attributions: [], results: [], status: "ZERO_RESULTS" };

function order(time) {
  const [a, b] = `${time}.`.split(".");
  return [a.padStart(12, "0"), b.padEnd(9, "0")].join("");
}

function store(fields, from) {
  const client = fields[3];
  if (newest[client] && order(newest[client][5]) >= order(fields[5])) return;
  newest[client] = fields;
  for (const other of others) if (other !== from) links[other]?.write(fields.join(" ") + "\n", "latin1");
}

function difference(time) {
  const digits = order(time);
  const gap = BigInt(Date.now()) * 1000000n - BigInt(digits);
  const size = (gap < 0n ? -gap : gap).toString().padStart(10, "0");
  return (gap < 0n ? "-" : "+") + size.replace(/(.{9})$/, ".$1");
}

function reply(line) {
  const [command, ...rest] = line.trim().split(/\s+/);
  if (rest.length === 3 && command === "IAMAT") {
    const [client, place, time] = rest;
    const parts = /^([-+][0-9]{1,2}(?:[.][0-9]+)?)([-+][0-9]{1,3}(?:[.][0-9]+)?)$/.exec(place);
    const inside = parts && Math.abs(+parts[1]) <= 90 && Math.abs(+parts[2]) <= 180;
    if (inside && /^[0-9]{1,12}([.][0-9]{1,9})?$/.test(time)) {
      const fields = ["AT", me, difference(time), client, place, time];
      store(fields);
      return fields.join(" ");
    }
  }
  if (rest.length === 3 && command === "WHATSAT" && newest[rest[0]]) {
    const [client, radius, bound] = rest;
    const good = /^[0-9]+([.][0-9]+)?$/.test(radius) && +radius <= 50 && /^[0-9]+$/.test(bound) && +bound <= 20;
    if (good) return newest[client].join(" ") + "\n" + JSON.stringify(places, null, 1) + "\n";
  }
  return "? " + line;
}

function eachLine(socket, take) {
  let held = "";
  socket.on("data", (data) => {
    held += data.toString("latin1");
    for (let end; (end = held.indexOf("\n")) >= 0; held = held.slice(end + 1)) take(held.slice(0, end));
  });
  socket.on("error", () => {});
  return () => held;
}

const server = net.createServer({ allowHalfOpen: true }, (socket) => {
  let peer;
  const take = (line) => {
    const hello = /^neighbour (\w+) of 118$/.exec(line);
    if (hello) peer = hello[1];
    else if (peer) store(line.split(" "), peer);
    else if (line.trim()) {
      const text = reply(line);
      console.log("<", line, ">", text);
      socket.write(text + "\n", "latin1");
    }
  };
  const rest = eachLine(socket, take);
  socket.on("end", () => {
    if (rest()) take(rest());
    socket.end();
  });
});

function dial(other) {
  const socket = net.connect(ports[other], "127.0.0.1", () => {
    links[other] = socket;
    console.log("linked with", other);
    socket.write(`neighbour ${me} of 118\n`);
    for (const fields of Object.values(newest)) socket.write(fields.join(" ") + "\n", "latin1");
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    if (links[other]) console.log("lost", other);
    delete links[other];
    setTimeout(dial, 200, other);
  });
}

server.listen(ports[me], "127.0.0.1");
others.forEach(dial);
