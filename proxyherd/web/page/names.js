// The lists beside the map: who is inside, and who came and went.

import { element, setText } from "./words.js";

const MOST_CROSSINGS = 10;

// `rows`: a name and words about it each. Rows are kept, so that nothing is read aloud again without need.
export function showRows(list, rows) {
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach(([name, words], at) => {
    const row = list.children[at] ?? list.appendChild(element("li"));
    if (!row.firstChild) row.append(element("b"), element("span"));
    setText(row.children[0], name);
    setText(row.children[1], words);
  });
}

export function addCrossing(list, name, entered) {
  const row = element("li", {}, name);
  row.append(element("span", {}, `${entered ? "came in" : "went out"} ${new Date().toLocaleTimeString("en-GB")}`));
  list.prepend(row);
  while (list.children.length > MOST_CROSSINGS) list.lastChild.remove();
}

export function lasting(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return `${Math.round(seconds / 60)} min`;
}
