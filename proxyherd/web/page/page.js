// The page: one phone, which this browser may be. What the parts find out is shown here; all of it as text.

import { ago, distance, metres, spelled } from "./earth.js";
import { Trouble, locate, places } from "./herd.js";
import { TrailMap } from "./map.js";
import { attributions, nothing, placesIn, rows } from "./places.js";
import { Reporter } from "./reporter.js";
import { Trail } from "./trail.js";
import { byId, setText } from "./words.js";

const LOOK_MS = 3000;
const SOON_MS = 500; // by then the button may have been pressed
const STATES = { off: "Not reporting from here.", looking: "Waiting for this device's location …", on: "Reporting. Keep this page in sight." };

const trail = new Trail();
const map = new TrailMap(byId("map"));
let near = [];
let count = 0;
let state = "off";
let watched = ""; // what became of looking the phone up
let asking = false;
let hopeless = ""; // a name that no phone can have

const reporter = new Reporter({
  state(now) {
    state = now;
    watched = "";
    showState();
  },
  trouble: tell,
  refused: (trouble) => tell(trouble.message, trouble.field === "client"),
  reported(position, answer) {
    const isNew = trail.points.every((one) => one.time !== position.time);
    tell(isNew && answer.outcome === "stale" ? "The herd has a later report for this name. Does another phone use it?" : "");
    count += 1;
    trail.add({ ...position, server: answer.server });
    show();
  },
});

function tell(words, isName = false) {
  setText(byId("trouble"), words);
  byId("trouble").hidden = !words;
  byId("name").setAttribute("aria-invalid", String(isName));
}

function showState() {
  byId("state").dataset.state = state;
  setText(byId("state"), state === "off" ? `${STATES.off} ${watched}`.trim() : STATES[state]);
  setText(byId("report"), state === "off" ? "Report from this browser" : "Stop reporting");
}

function show() {
  const { last, name, points } = trail;
  map.show(points, near);
  byId("forget").hidden = !name;
  byId("ask").disabled = !last;
  byId("figures").hidden = !last;
  setText(byId("caption"), last ? travelled(points) : "No location yet.");
  setText(byId("accuracy"), last?.accuracy ? distance(last.accuracy) : "–");
  setText(byId("server"), last?.server ?? "–");
  setText(byId("count"), String(count));
  showTime();
}

function travelled(points) {
  const where = spelled(points.at(-1));
  if (points.length === 1) return `One location, at ${where}.`;
  const length = points.slice(1).reduce((sum, one, at) => sum + metres(points[at], one), 0);
  return `${points.length} locations over ${distance(length)}; the last at ${where}.`;
}

function showTime() {
  if (trail.last) setText(byId("seen"), ago(Date.now() / 1000 - trail.last.time));
}

function chosen() {
  const name = byId("name").value.trim();
  if (!name) {
    tell("Give the phone a name first.", true);
    byId("name").focus();
  }
  return name;
}

// Begins anew with another name.
function choose(name) {
  if (name === trail.name) return;
  reporter.stop();
  tell("");
  watched = "";
  showState();
  trail.rename(name);
  count = 0;
  forgetPlaces();
  show();
}

function forgetPlaces() {
  near = [];
  byId("places").replaceChildren();
  byId("attribution").replaceChildren();
}

// A phone that reports with an app is looked up again and again, while somebody looks.
async function look() {
  const { name } = trail;
  if (!name || name === hopeless || asking || reporter.active || document.hidden) return;
  asking = true;
  const words = await lookUp(name).finally(() => { asking = false; });
  if (name !== trail.name || reporter.active) return;
  watched = words;
  showState();
}

// Returns words about what went wrong.
async function lookUp(name) {
  try {
    const found = await locate(name);
    if (name === trail.name && trail.add(found)) show();
    return "";
  } catch (trouble) {
    if (!(trouble instanceof Trouble)) throw trouble;
    if (trouble.field === "client") hopeless = name;
    return trouble.message;
  }
}

async function askPlaces() {
  const { name, last } = trail;
  const radius = byId("radius").value;
  setText(byId("places-note"), "Asking …");
  try {
    const answer = await places(name, radius);
    if (name !== trail.name) return;
    forgetPlaces();
    near = placesIn(answer, last);
    byId("places").replaceChildren(...rows(near, last));
    byId("attribution").replaceChildren(...attributions(answer));
    setText(byId("places-note"), near.length ? `${near.length} places within ${radius} km, nearest first. The map has their numbers.` : nothing(answer.status, radius));
    show();
  } catch (trouble) {
    if (!(trouble instanceof Trouble)) throw trouble;
    setText(byId("places-note"), trouble.message);
  }
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (reporter.active) {
    reporter.stop();
    tell("");
    return;
  }
  const name = chosen();
  if (!name) return;
  choose(name);
  tell("");
  reporter.start(name);
});
byId("name").addEventListener("change", () => {
  choose(byId("name").value.trim());
  setTimeout(look, SOON_MS);
});
byId("forget").addEventListener("click", () => {
  byId("name").value = "";
  choose("");
});
byId("ask").addEventListener("click", askPlaces);
byId("closer").addEventListener("click", () => map.closer(1));
byId("wider").addEventListener("click", () => map.closer(-1));
byId("fit").addEventListener("click", () => map.closer(0));
document.addEventListener("visibilitychange", look);

byId("name").value = trail.name;
show();
look();
setInterval(look, LOOK_MS);
setInterval(showTime, 1000);
