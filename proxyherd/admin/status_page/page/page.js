// The status page: passes the server's updates to the parts that show them. All text is set as text, never as markup,
// because client IDs come from strangers.

import { connect } from "/live.js";
import { Banner } from "/banner.js";
import { Graph } from "/graph.js";
import { Hour } from "/hour.js";
import { Servers, connections } from "/servers.js";
import { WorldMap } from "/map.js";
import { Commands } from "/commands.js";
import { Follow } from "/follow.js";
import { byId, duration, number, setAttribute, setText, span } from "/words.js";

const banner = new Banner();
const hour = new Hour(byId("charts"), byId("hour-note"));
const graph = new Graph(byId("graph"), choose);
const servers = new Servers(byId("servers"));
const map = new WorldMap(byId("map"), byId("map-note"));
const commands = new Commands(byId("commands"));

const section = byId("follow");
let follow = null; // made when this server says that clients can be followed
let herd = null;
let chosen = "";
let version = "";

connect("/events", {
  state: (state, words) => banner.connection(state, words),
  hello(data) {
    if (version && version !== data.version) location.reload(); // this page is an older version's
    version = data.version;
    commands.withhold(data.withheld);
    map.withhold(data.withheld);
    byId("map-section").hidden = !data.map;
    document.body.classList.toggle("tableless", !data.map); // neither links nor clients nor floods are known
    section.hidden = byId("draw").hidden = !data.follows;
    if (data.follows) follow ??= new Follow(map);
    else follow?.stop();
    map.canvas.classList.toggle("picked", data.follows);
  },
  herd(data) {
    tellChanges(herd, data);
    herd = data;
    setText(byId("title"), `Herd, as ${data.server} sees it`);
    setText(byId("hour-server"), data.server);
    banner.update(data);
    showSums(data);
    graph.show(data, chosen);
    servers.show(data, chosen);
    showDetails();
  },
  hour: (data) => hour.add(data),
  commands: (data) => commands.add(data),
  pings: (data) => map.ping(data),
  cells: (data) => map.show(data),
});

function choose(name) {
  chosen = name === chosen ? "" : name;
  if (!herd) return;
  graph.show(herd, chosen);
  servers.show(herd, chosen);
  showDetails();
}

function showSums(data) {
  const known = data.servers.filter((one) => one.known);
  const sum = (rate) => known.reduce((total, one) => total + one.rates[rate], 0);
  const set = (id, text) => setText(byId(id), text);
  const ready = known.filter((one) => one.ready).length;
  const unknown = data.servers.length - known.length;
  const rest = [[known.length - ready, "not ready"], [unknown, "unknown"]].filter(([count]) => count);
  set("sum-ready", `${ready} of ${data.servers.length}`);
  set("sum-rest", rest.map(([count, words]) => `${count} ${words}`).join(", "));
  setAttribute(byId("sum-ready").parentNode, "class", rest.length ? (unknown ? "bad" : "busy") : "good");
  set("sum-clients", number(Math.max(0, ...known.map((one) => one.clients))));
  set("sum-commands", number(sum("answered")));
  set("sum-floods", number(sum("floods_out")));
  set("sum-p50", duration(data.places.p50));
  set("sum-p95", duration(data.places.p95));
}

function showDetails() {
  const server = herd.servers.find((one) => one.name === chosen);
  let words = "Choose a server to see what it says.";
  if (server && !server.known) words = `${server.name} is unknown: ${server.reason}. It may serve clients all the same.`;
  if (server && server.known) {
    const links = Object.values(server.links);
    const live = links.filter((one) => one === "live").length;
    words = `${server.name}: ${server.reason}, version ${server.version}, up ${span(server.uptime)}, `
      + `${live} of ${links.length} links live, ${number(server.clients)} clients, ${connections(server)} connections, `
      + `${number(server.answered)} commands answered, ${number(server.rates.answered)} a second, `
      + `${number(server.rates.invalid)} of them invalid, `
      + `${number(server.mended)} entries mended by the last checks, places by ${server.places_by}.`;
  }
  setText(byId("details"), words);
}

// Screen readers read only changes of servers and links.
function tellChanges(before, now) {
  if (!before) return;
  const state = (one) => (one.known ? (one.ready ? "ready" : one.reason) : "unknown");
  const was = new Map(before.servers.map((one) => [one.name, state(one)]));
  const wasEdge = new Map(before.edges.map(([a, b, link]) => [`${a} ${b}`, link]));
  const changes = now.servers.filter((one) => was.get(one.name) !== state(one)).map((one) => `${one.name} is ${state(one)}`);
  for (const [a, b, link] of now.edges) {
    if (wasEdge.get(`${a} ${b}`) !== link) changes.push(`link ${a} to ${b} is ${link}`);
  }
  if (changes.length) byId("news").textContent = `${changes.slice(0, 6).join(", ")}.`;
}
