// The herd's graph: servers on an ellipse, links between them.

import { byId, drawing, number, setAttribute, setText } from "/words.js";

const WIDTH = 600;
const HEIGHT = 440;
const CLASSES = { live: "live", "catching up": "catching", cut: "cut", unknown: "unknown" };

export class Graph {
  constructor(svg, choose) {
    this.svg = svg;
    this.choose = choose;
    this.shape = "";
  }

  show(herd, chosen) {
    byId("graph-legend").hidden = !herd.edges.length;
    const shape = JSON.stringify([herd.servers.map((one) => one.name), herd.edges.map(([a, b]) => [a, b])]);
    if (shape !== this.shape) this.draw(herd);
    this.shape = shape;
    for (const server of herd.servers) this.showServer(server, herd.server, chosen);
    herd.edges.forEach(([a, b, state], at) => {
      const { line, title, text } = this.edges[at];
      setAttribute(line, "class", `edge ${CLASSES[state]}`);
      setText(title, `${a} – ${b}: ${state}`);
      setText(text, state === "live" || (this.crowded && state === "unknown") ? "" : state); // else the dash says it
    });
  }

  draw(herd) {
    const count = herd.servers.length;
    const crowded = this.crowded = count > 12;
    const across = crowded ? 205 : 235 * (count > 1);
    const high = 150 * (count > 1);
    const radius = crowded ? 9 : 15;
    const order = arranged(herd);
    const places = new Map(herd.servers.map((one) => {
      const at = order.indexOf(one.name);
      const angle = (2 * Math.PI * at) / count - Math.PI / 2;
      return [one.name, { x: WIDTH / 2 + across * Math.cos(angle), y: HEIGHT / 2 + high * Math.sin(angle), angle, at }];
    }));
    this.svg.replaceChildren();
    this.svg.classList.toggle("crowded", crowded);
    this.edges = herd.edges.map(([a, b]) => {
      const [from, to] = [places.get(a), places.get(b)];
      const line = drawing("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y });
      const title = drawing("title");
      line.append(title);
      const text = drawing("text", { class: "edge-text", x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 + 4, "aria-hidden": "true" });
      this.svg.append(line, text);
      return { line, title, text };
    });
    this.nodes = new Map(herd.servers.map((one) => [one.name, this.drawNode(one.name, places.get(one.name), radius, crowded)]));
  }

  drawNode(name, { x, y, angle, at }, radius, crowded) {
    const node = drawing("g", { tabindex: "0", role: "button" });
    const out = crowded && at % 2 ? 44 : 26; // names stand on two rings where they are many
    const below = y > HEIGHT / 2;
    const [nameX, nameY] = crowded
      ? [x + out * 1.3 * Math.cos(angle), y + 4 + out * 0.9 * Math.sin(angle)]
      : [x, y + (below ? radius : -radius)];
    // In ems, because letters are larger on a narrow page.
    const [nameDown, figureDown] = crowded ? ["0", "1.1em"] : below ? ["1.1em", "2.4em"] : ["-1.5em", "-0.5em"];
    const figure = drawing("text", { class: "figure", x: nameX, y: nameY, dy: figureDown });
    node.append(drawing("circle", { cx: x, cy: y, r: radius }), drawing("text", { x: nameX, y: nameY, dy: nameDown }, name), figure);
    node.addEventListener("click", () => this.choose(name));
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.choose(name);
      }
    });
    this.svg.append(node);
    return { node, figure };
  }

  showServer(server, own, chosen) {
    const { node, figure } = this.nodes.get(server.name);
    const state = server.known ? (server.ready ? "ready" : "not-ready") : "unknown";
    const classes = ["node", state, server.name === own ? "own" : "", server.name === chosen ? "chosen" : ""];
    setAttribute(node, "class", classes.filter(Boolean).join(" "));
    setAttribute(node, "aria-pressed", String(server.name === chosen));
    const rate = server.known ? `${number(server.rates.answered)}/s` : "unknown";
    setText(figure, server.known && !server.ready ? `not ready, ${rate}` : rate);
    // A screen reader would read figures aloud each time they change, every second; the details have them.
    setAttribute(node, "aria-label", `${server.name}: ${state.replace("-", " ")}`);
  }
}

// Neighbours are placed near one another: two servers change places as long as this shortens all links together.
function arranged({ servers, edges }) {
  const order = servers.map((one) => one.name);
  if (order.length > 60) return order;
  const count = order.length;
  const at = new Map(order.map((name, index) => [name, index]));
  const length = () => edges.reduce((sum, [a, b]) => {
    const steps = Math.abs(at.get(a) - at.get(b));
    return sum + Math.min(steps, count - steps) ** 2;
  }, 0);
  const swap = (i, j) => {
    [order[i], order[j]] = [order[j], order[i]];
    at.set(order[i], i).set(order[j], j);
  };
  let best = length();
  for (let pass = 0, better = true; better && pass < 5; pass += 1) {
    better = false;
    for (let i = 0; i < count; i += 1) {
      for (let j = i + 1; j < count; j += 1) {
        swap(i, j);
        const now = length();
        if (now < best) [best, better] = [now, true];
        else swap(i, j);
      }
    }
  }
  return order;
}
