// Says what is wrong, where it cannot be overlooked: a banner, the title, the icon, the word beside "Live" and the first figure.

import { byId, element, span, setAttribute, setText } from "/words.js";

const MOST = 6; // troubles that are listed

export class Banner {
  constructor() {
    this.troubles = [];
    this.herd = null;
    this.lostAt = 0;
    setInterval(() => { if (this.lostAt) this.show(); }, 1000);
  }

  // The page's own server does not answer any more, or does again.
  connection(state, words) {
    if (state === "lost") this.lostAt ||= performance.now();
    if (state === "live") this.lostAt = 0;
    const connection = byId("connection");
    connection.dataset.state = state;
    this.words = words;
    document.body.classList.toggle("lost", state === "lost");
    this.show();
  }

  update(herd) {
    this.herd = herd;
    this.show();
  }

  show() {
    const { herd, lostAt } = this;
    const troubles = lostAt ? [lost(herd, (performance.now() - lostAt) / 1000)] : herd?.troubles ?? [];
    const count = troubles.length;
    const connection = byId("connection");
    setAttribute(connection, "data-wrong", count ? "yes" : "no");
    setText(connection, count && !lostAt ? `${this.words}: ${many(count)}` : this.words);
    const banner = byId("banner");
    banner.hidden = !count;
    setText(byId("banner-title"), many(count));
    const list = byId("troubles");
    const lines = troubles.slice(0, MOST).map(spelled);
    if (count > MOST) lines.push(["", `and ${count - MOST} more: see the servers below.`]);
    while (list.children.length > lines.length) list.lastChild.remove();
    lines.forEach(([words, more], at) => {
      const line = list.children[at] ?? list.appendChild(makeLine());
      setText(line.children[0], words);
      setText(line.children[1], more);
    });
    setAttribute(byId("icon"), "href", count ? "/icon-trouble.svg" : "/icon.svg");
    if (herd) document.title = `${mark(herd, count, lostAt)}herd – ${herd.server}`;
  }
}

const many = (count) => (count === 1 ? "1 problem" : `${count} problems`);

function lost(herd, seconds) {
  const when = herd ? `; below is what it said at ${new Date(herd.time * 1000).toLocaleTimeString("en-GB")}` : "";
  return { words: `${herd?.server ?? "The server"} does not answer this page`, seconds, more: when.slice(2) };
}

const spelled = ({ words, seconds, more }) => [words, `, ${span(seconds)}${more && `; ${more}`}`];

function makeLine() {
  const line = element("li");
  line.append(element("strong"), element("span"));
  return line;
}

function mark(herd, count, isLost) {
  if (!count) return "";
  if (isLost) return "(?) ";
  const ready = herd.servers.filter((one) => one.known && one.ready).length;
  return ready < herd.servers.length ? `(${ready}/${herd.servers.length}) ` : "(!) ";
}
