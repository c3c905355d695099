// The page with the fence: clients move on a map, and whoever crosses the fence is named.

import { City, View, boxAround, through } from "./city.js";
import { metres } from "./earth.js";
import { Follows } from "./follows.js";
import { Guard } from "./guard.js";
import { addCrossing, lasting, showRows } from "./names.js";
import { Pencil } from "./pencil.js";
import { Phones } from "./phones.js";
import { Circle } from "./shapes.js";
import { byId, drawing, setAttribute, setText } from "./words.js";

const HOME = { lat: 34.0655, lon: -118.4465 }; // UCLA, and Westwood's village
const RADIUS_M = 1500;
const NARROW = innerWidth < 600;
const MIDDLE = NARROW ? { lat: 34.035, lon: -118.435 } : { lat: 34.017, lon: -118.39 };
const KM = NARROW ? 16 : 27;
const FAR = 1.6; // clients are followed as far from the middle as this many times what is seen
const STRUCK_MS = 900;
const EVERYBODY = "map";

const svg = byId("city");
const city = new City(byId("ground"));
const phones = new Phones(byId("phones"));
const seen = new Set(); // who was named since the connection was made
let { middle, km, shape } = beginning();
const whole = { middle, km };
let view = null;
let struck = 0;

// `#lat,lon,km` in the address shows another place.
function beginning() {
  const [lat, lon, width] = location.hash.slice(1).split(",").map(Number);
  if (!(Math.abs(lat) <= 90 && Math.abs(lon) <= 180 && width > 0 && width <= 200)) {
    return { middle: MIDDLE, km: KM, shape: new Circle(HOME, RADIUS_M) };
  }
  setText(byId("map-title"), "Map");
  return { middle: { lat, lon }, km: width, shape: new Circle({ lat, lon }, 60 * width) };
}

const guard = new Guard({
  say: (op) => follows.say(op),
  changed: showInside,
  refused(words) {
    byId("fence").classList.toggle("refused", Boolean(words));
    tell(words);
  },
});

const follows = new Follows({
  open() {
    tell("");
    seen.clear();
    guard.forget();
    follows.say({ op: "follow", id: EVERYBODY, within: boxAround(whole.middle, 500 * whole.km * FAR), buffer_m: 0 });
    guard.follow(shape);
  },
  answer(answer) {
    if (answer.id === EVERYBODY) connected(answer);
    guard.answer(answer);
  },
  event(event) {
    if (event.follow === EVERYBODY) move(event);
    else guard.event(event);
  },
  lost(words) {
    showState("looking", "Not connected.");
    tell(words);
  },
});

function connected({ problem, server }) {
  if (problem) {
    showState("off", "Not following.");
    tell([problem.title, problem.detail].filter(Boolean).join(". "));
  } else showState("on", `Live, from ${server}.`);
}

function move(event) {
  const { client } = event;
  if (event.event === "enter" || event.event === "move") {
    seen.add(client);
    phones.put(event);
    phones.mark(client, guard.inside.has(client));
  } else if (event.event === "snapshot") {
    // A server that is not ready names the others as it learns of them.
    if (event.complete) for (const one of [...phones.all.keys()]) if (!seen.has(one)) phones.remove(one);
  } else if (event.event === "ended") tell(event.reason);
  else phones.remove(client);
}

function tell(words) {
  setText(byId("trouble"), words);
  byId("trouble").hidden = !words;
}

function showState(state, words) {
  byId("state").dataset.state = state;
  setText(byId("state"), words);
}

function showInside(client = null, entered = false) {
  for (const one of phones.all.keys()) phones.mark(one, guard.inside.has(one));
  byId("fence").classList.toggle("lit", guard.inside.size > 0);
  if (client !== null) {
    if (entered) strike();
    phones.mark(client, entered, true);
    addCrossing(byId("crossings"), client, entered);
    byId("still").hidden = true;
  }
  showNames();
}

function strike() {
  byId("fence").classList.add("struck");
  clearTimeout(struck);
  struck = setTimeout(() => byId("fence").classList.remove("struck"), STRUCK_MS);
}

function showNames() {
  const now = Date.now();
  const newest = [...guard.inside].sort(([, one], [, other]) => other - one);
  showRows(byId("inside"), newest.map(([client, since]) => [client, `${pace(client)}${lasting((now - since) / 1000)}`]));
  setText(byId("count"), String(newest.length));
  byId("nobody").hidden = newest.length > 0;
}

function pace(client) {
  const speed = phones.speed(client);
  return speed === null ? "" : `${Math.round(3.6 * speed)} km/h, `;
}

// --- Drawing

function draw() {
  const { clientWidth: width, clientHeight: height } = svg;
  if (!width) return;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  view = new View(middle, km, width, height);
  svg.classList.remove("live"); // nothing glides when the view changes
  city.draw(view);
  phones.draw(view, city.taken);
  drawFence();
  requestAnimationFrame(() => requestAnimationFrame(() => svg.classList.add("live")));
}

function drawFence() {
  const fence = byId("fence");
  if (!fence.firstChild) fence.append(drawing("path", { class: "outline" }), drawing("circle", { class: "handle", r: 9 }));
  const [outline, handle] = fence.children;
  setAttribute(outline, "d", `${through(view, shape.outline)}Z`);
  setAttribute(handle, "visibility", shape.handle ? "visible" : "hidden");
  const [x, y] = view.at(shape.handle ?? shape.middle);
  setAttribute(handle, "cx", String(x));
  setAttribute(handle, "cy", String(y));
}

function put(fence) {
  shape = fence;
  drawFence();
  guard.follow(shape);
}

function zoom(factor) {
  if (factor) [km, middle] = [Math.max(1, Math.min(100, km * factor)), shape.middle];
  else ({ km, middle } = whole);
  draw();
}

// --- What a visitor does

new Pencil(svg, byId("fence"), {
  view: () => view,
  shape: () => shape,
  put,
  drawing(isOn) {
    svg.classList.toggle("drawing", isOn);
    setAttribute(byId("draw"), "aria-pressed", String(isOn));
  },
}, byId("draw"));

byId("round").addEventListener("click", () => put(new Circle(shape.middle, Math.max(...shape.outline.map((one) => metres(shape.middle, one))))));
byId("smaller").addEventListener("click", () => put(shape.scaled(1 / 1.25)));
byId("larger").addEventListener("click", () => put(shape.scaled(1.25)));
byId("closer").addEventListener("click", () => zoom(1 / 2));
byId("wider").addEventListener("click", () => zoom(2));
byId("fit").addEventListener("click", () => zoom(0));

new ResizeObserver(draw).observe(svg);
city.load().then(draw).catch(() => {});
setInterval(() => {
  phones.tick();
  showNames();
}, 1000);
