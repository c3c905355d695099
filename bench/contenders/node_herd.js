// A herd on Node's net: a callback for each chunk, links that stay, a log stream. No package but Node's own.
//
//     node node_herd.js HERD.json NAME [--equal | --bare]
//
// With --bare there is neither a log nor a link.
//
// Times are BigInts of nanoseconds. Text is latin1, so that bytes come back as they came.

'use strict';

const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');

const [file, name, flag] = process.argv.slice(2);
const equal = flag === '--equal';
const bare = flag === '--bare';
const servers = JSON.parse(fs.readFileSync(file, 'utf8'));
const own = servers[name];
const log = bare ? null : fs.createWriteStream(path.join(path.dirname(file), `${name}.log`), { flags: 'a' });

const LOCATION = /^([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)$/;
const TIME = /^(\d{1,12})(?:\.(\d{1,9}))?$/;
const RADIUS = /^\d{1,3}(?:\.\d{1,16})?$/;
const BOUND = /^\d{1,20}$/;
const SPACE = /[ \t\r\f\v]+/;
const PLACES = JSON.stringify({ html_attributions: [], results: [], status: 'ZERO_RESULTS' }, null, 3);
const MAX_LINE = 8192;

const table = new Map();
const links = new Map();

function nanoseconds(text) {
  const found = TIME.exec(text);
  return found === null ? null : BigInt(found[1] + (found[2] ?? '').padEnd(9, '0'));
}

function now() {
  return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e3)) * 1000n;
}

function difference(later, earlier) {
  const difference = later - earlier;
  const digits = String(difference < 0n ? -difference : difference).padStart(10, '0');
  return `${difference < 0n ? '-' : '+'}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}

function iamat(client, location, time) {
  const place = LOCATION.exec(location);
  const sent = nanoseconds(time);
  if (place === null || sent === null || Math.abs(place[1]) > 90 || Math.abs(place[2]) > 180) return null;
  const answer = `AT ${name} ${difference(now(), sent)} ${client} ${location} ${time}`;
  const known = table.get(client);
  if (known !== undefined && sent <= known.sent) return { kind: 'iamat', answer };
  table.set(client, { sent, line: answer });
  return { kind: 'iamat', answer, news: answer };
}

function whatsat(client, radius, bound) {
  const known = table.get(client);
  if (known === undefined || !RADIUS.test(radius) || !BOUND.test(bound)) return null;
  if (Number(radius) > 50 || Number(bound) > 20) return null;
  return { kind: 'whatsat', answer: `${known.line}\n${PLACES}\n` };
}

function learn(line, client, time) {
  const sent = nanoseconds(time);
  if (sent === null) return null;
  const known = table.get(client);
  if (known !== undefined && (sent < known.sent || (sent === known.sent && line <= known.line))) return { kind: 'at' };
  table.set(client, { sent, line });
  return { kind: 'at', news: line };
}

function handle(line) {
  const words = line.split(SPACE).filter((word) => word !== '');
  let outcome = null;
  if (words[0] === 'IAMAT' && words.length === 4) outcome = iamat(words[1], words[2], words[3]);
  else if (words[0] === 'WHATSAT' && words.length === 4) outcome = whatsat(words[1], words[2], words[3]);
  else if (words[0] === 'AT' && words.length === 6) outcome = learn(line, words[3], words[5]);
  else if (words[0] === 'PEER' && words.length === 2) outcome = { kind: 'peer', peer: words[1] };
  return outcome ?? { kind: 'invalid', answer: `? ${line}` };
}

function note(event, fields) {
  const timestamp = new Date().toISOString();
  if (equal) log.write(`${JSON.stringify({ timestamp, level: 'info', server: name, event, ...fields })}\n`);
  else log.write(`${timestamp} ${event} ${fields.command ?? fields.neighbour}\n`);
}

function flood(line, origin) {
  for (const [neighbour, socket] of links) {
    if (neighbour !== origin) socket.write(`${line}\n`, 'latin1');
  }
}

function serve(socket) {
  const client = `${socket.remoteAddress}:${socket.remotePort}`;
  let rest = '';
  let peer = '';
  socket.setEncoding('latin1');
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    if (rest.length > MAX_LINE) socket.destroy();
    socket.cork();
    for (const line of lines) {
      const outcome = handle(line);
      note('command', {
        client,
        kind: outcome.kind,
        outcome: outcome.kind === 'invalid' ? 'invalid' : 'ok',
        command: line,
        answer: outcome.answer,
      });
      if (outcome.peer !== undefined) peer = outcome.peer;
      if (outcome.news !== undefined) flood(outcome.news, peer);
      if (outcome.answer !== undefined) socket.write(`${outcome.answer}\n`, 'latin1');
    }
    socket.uncork();
  });
}

function serveBare(socket) {
  let rest = '';
  socket.setEncoding('latin1');
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    if (rest.length > MAX_LINE) socket.destroy();
    socket.cork();
    for (const line of lines) {
      const { answer } = handle(line);
      if (answer !== undefined) socket.write(`${answer}\n`, 'latin1');
    }
    socket.uncork();
  });
}

function dial(neighbour, delay = 50) {
  const socket = net.connect({ host: '127.0.0.1', port: servers[neighbour].port, noDelay: true });
  let next = Math.min(2 * delay, 5000);
  socket.on('connect', () => {
    next = 50;
    socket.write(`PEER ${name}\n`);
    links.set(neighbour, socket);
    note('linked', { neighbour });
  });
  socket.on('error', () => {});
  socket.on('close', () => {
    links.delete(neighbour);
    setTimeout(dial, delay, neighbour, next);
  });
  socket.resume();
}

const server = net.createServer({ noDelay: true }, bare ? serveBare : serve);
server.listen({ host: '127.0.0.1', port: own.port, backlog: 1024 });
for (const neighbour of bare ? [] : own.neighbours) dial(neighbour);
