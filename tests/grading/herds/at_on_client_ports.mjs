// Node.js. Servers tell each other AT lines at the client ports, as the assignment's text does.
import fs from "node:fs";
import net from "node:net";

const ports = JSON.parse(fs.readFileSync("ports.json", "utf8"));
const graph = { Alford: ["Parker", "Hamilton"], Hamilton: ["Parker", "Alford"], Parker: ["Alford", "Hamilton"] };
const name = process.argv[2];
const known = new Map();

const nanoseconds = (text) => {
  const [whole, part = ""] = text.split(".");
  return BigInt(whole + part.padEnd(9, "0"));
};

function learn(line) {
  const [, , , client, , stamp] = line.split(" ");
  if (known.has(client) && known.get(client).stamp >= nanoseconds(stamp)) return;
  known.set(client, { stamp: nanoseconds(stamp), line });
  for (const other of graph[name]) {
    const socket = net.connect(ports[other], "127.0.0.1", () => {
      console.log("connected to", other);
      socket.end(line + "\n", "latin1");
    });
    socket.on("error", (error) => console.log(`${other}: ${error.code}`));
  }
}

function iamat(client, place, stamp) {
  const now = BigInt(Date.now()) * 1000000n;
  const match = /^([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)$/.exec(place);
  if (!match || Math.abs(match[1]) > 90 || Math.abs(match[2]) > 180) return;
  if (!/^\d{1,12}(\.\d{1,9})?$/.test(stamp)) return;
  let gap = now - nanoseconds(stamp);
  const sign = gap < 0n ? "-" : "+";
  gap = gap < 0n ? -gap : gap;
  const seconds = `${gap / 1000000000n}.${String(gap % 1000000000n).padStart(9, "0")}`;
  const line = `AT ${name} ${sign}${seconds} ${client} ${place} ${stamp}`;
  learn(line);
  return line;
}

function whatsat(client, radius, bound) {
  if (!known.has(client) || !/^\d+(\.\d+)?$/.test(radius) || !/^\d{1,9}$/.test(bound)) return;
  if (radius > 50 || bound > 20) return;
  const json = JSON.stringify({ html_attributions: [], results: [], status: "ZERO_RESULTS" });
  return `${known.get(client).line}\n${json}\n`;
}

function answer(line) {
  const words = line.split(/[ \t\r\f\v]+/).filter((word) => word);
  if (words.length === 6 && words[0] === "AT") return learn(words.join(" ")), null;
  const handler = words.length === 4 && { IAMAT: iamat, WHATSAT: whatsat }[words[0]];
  return (handler && handler(...words.slice(1))) || `? ${line}`;
}

net.createServer({ allowHalfOpen: true }, (socket) => {
  let rest = "";
  const say = (line) => {
    const said = answer(line);
    console.log("in", line, "out", said);
    if (said !== null) socket.write(said + "\n", "latin1");
  };
  socket.setEncoding("latin1");
  socket.on("data", (data) => {
    const lines = (rest + data).split("\n");
    rest = lines.pop();
    lines.forEach(say);
  });
  socket.on("end", () => {
    if (rest) say(rest);
    socket.end();
  });
  socket.on("error", () => socket.destroy());
}).listen(ports[name], "127.0.0.1");
