// The places near a phone: a list, and their numbers on the map. Names are text, whatever is in them.

import { distance, metres, wind } from "./earth.js";
import { element } from "./words.js";

// Returns the places of an answer, which has the form of Google's Nearby Search, nearest first.
export function placesIn(answer, from) {
  const found = answer.results.map((one) => ({
    name: one.name,
    vicinity: one.vicinity ?? "",
    lat: one.geometry.location.lat,
    lon: one.geometry.location.lng,
  }));
  return found.sort((one, other) => metres(from, one) - metres(from, other));
}

export function rows(places, from) {
  return places.map((one) => {
    const row = element("li");
    const where = [`${distance(metres(from, one))} ${wind(from, one)}`, one.vicinity].filter(Boolean).join(", ");
    row.append(element("strong", {}, one.name), element("span", { class: "where" }, where));
    return row;
  });
}

// Attributions are HTML from elsewhere: only their text, and their links over HTTPS, are taken over.
export function attributions(answer) {
  const parsed = new DOMParser().parseFromString((answer.html_attributions ?? []).join(" "), "text/html");
  return [...parsed.body.childNodes].map((node) => {
    const words = `${node.textContent}`; // a form may have a field of any name, also of this one
    if (!(node instanceof HTMLAnchorElement) || !node.href.startsWith("https://")) return words;
    return element("a", { href: node.href, rel: "noopener noreferrer" }, words);
  });
}

// Words for an answer without places.
export function nothing(status, radius) {
  if (status === "ZERO_RESULTS") return `No place is known within ${radius} km.`;
  return "Places cannot be asked now. Try again later.";
}
