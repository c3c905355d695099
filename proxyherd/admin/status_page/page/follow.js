// Follows a client, or all that are in a circle: a stream of its own, which says who enters, moves, leaves or is gone.

import { CloseUp } from "/closeup.js";
import { MOST_KILOMETRES } from "/pick.js";
import { byId, element, number, setText } from "/words.js";

const MOST_PLACES = 200; // of the way of a client
const MOST_NEWS = 10;
const NEWS = { enter: "has come", leave: "has left", gone: "is gone" };
const HELP = "Click a client in the map. Or press “Draw a circle”, then press where its middle is, and let go at its edge.";

export class Follow {
  constructor(map) {
    this.map = map;
    this.closeUp = new CloseUp(byId("closeup"));
    this.stop();
    byId("follow-client").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = byId("client").value.trim();
      if (name) this.followClient(name);
    });
    byId("follow-circle").addEventListener("submit", (event) => {
      event.preventDefault();
      const [latitude, longitude, km] = byId("circle").value.trim().split(/[\s,;]+/).map(Number);
      const is = Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180 && km > 0 && km <= MOST_KILOMETRES;
      if (is) this.followCircle({ latitude, longitude, km });
      else this.stop(`A circle is a latitude, a longitude and at most ${number(MOST_KILOMETRES)} kilometres.`);
    });
    byId("unfollow").addEventListener("click", () => this.stop());
    map.picks = {
      place: (place) => this.followNearest(place),
      circle: (circle) => {
        byId("circle").value = `${circle.latitude.toFixed(4)}, ${circle.longitude.toFixed(4)}, ${circle.km.toFixed(1)}`;
        this.followCircle(circle);
      },
      draft: (circle) => map.mark(circle || this.circle || this.place),
    };
  }

  stop(words = HELP) {
    this.asked = null;
    this.source?.close();
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.told = false;
    this.named = null;
    this.source = this.circle = this.place = null;
    this.ways = new Map();
    this.map.mark(null);
    for (const id of ["closeup", "fence-news", "unfollow"]) byId(id).hidden = true;
    byId("fence-news").replaceChildren();
    setText(byId("follow-note"), words);
  }

  followClient(name) {
    byId("client").value = name;
    this.start({ client: name }, name);
  }

  followCircle(circle) {
    this.start({ lat: circle.latitude, lon: circle.longitude, km: circle.km }, "", circle);
  }

  async followNearest({ latitude, longitude, km }) {
    const asked = this.asked = {}; // until something else is wanted
    let words = `Nobody is within ${number(km)} km of that place.`;
    try {
      const answer = await fetch(`/near?${new URLSearchParams({ lat: latitude, lon: longitude, km, most: 1 })}`);
      if (!answer.ok) throw new Error(answer.status);
      const { clients: [nearest] } = await answer.json();
      if (asked !== this.asked) return;
      if (nearest) return this.followClient(nearest.client);
    } catch {
      words = "The server does not say now who is near that place.";
    }
    if (asked === this.asked) setText(byId("follow-note"), words);
  }

  start(query, name, circle = null) {
    this.stop("Looking …");
    this.name = name;
    this.circle = circle;
    this.map.mark(circle);
    if (circle) this.map.reveal(circle);
    byId("unfollow").hidden = false;
    this.source = new EventSource(`/follow?${new URLSearchParams(query)}`);
    // Each connection begins with a snapshot: whoever is not in it is no longer there.
    this.source.addEventListener("open", () => { this.named = new Set(); });
    for (const kind of ["enter", "move", "leave", "gone", "snapshot"]) {
      this.source.addEventListener(kind, (event) => this.tell(kind, JSON.parse(event.data)));
    }
    this.source.addEventListener("ended", (event) => this.stop(`Not followed any more: ${JSON.parse(event.data).reason}.`));
    this.source.addEventListener("error", () => {
      if (this.source.readyState === EventSource.CLOSED) this.stop("This cannot be followed now; too many may be looking.");
    });
  }

  tell(kind, { client: name, lat: latitude, lon: longitude, initial }) {
    if (kind === "enter" || kind === "move") {
      const way = this.ways.get(name) || [], last = way.at(-1);
      if (last?.latitude !== latitude || last?.longitude !== longitude) way.push({ latitude, longitude });
      this.ways.set(name, way.slice(-MOST_PLACES));
      this.named?.add(name);
    } else if (kind === "snapshot") {
      if (this.named) this.ways = new Map([...this.ways].filter(([one]) => this.named.has(one)));
      this.named = null;
      this.told = true;
    } else {
      this.ways.delete(name);
      this.named?.delete(name);
    }
    if (kind in NEWS && !initial) this.news(`${name} ${NEWS[kind]}`);
    this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.show(); });
  }

  news(words) {
    const list = byId("fence-news");
    list.prepend(element("li", {}, `${new Date().toLocaleTimeString("en-GB")} ${words}`));
    while (list.children.length > MOST_NEWS) list.lastChild.remove();
    list.hidden = false;
  }

  show() {
    if (!this.told) return; // some of those who are there are not told yet
    byId("closeup").hidden = !this.circle && !this.ways.size;
    this.closeUp.show(this.circle, this.ways);
    const count = this.ways.size;
    let words = count === 1 ? "1 client is in the circle." : `${number(count)} clients are in the circle.`;
    if (!this.circle) {
      const place = this.ways.get(this.name)?.at(-1);
      words = place ? `${this.name} is at ${place.latitude}, ${place.longitude}.` : `${this.name} is not known.`;
      if (!place && this.name.includes("%20")) words += " In a name, a space is a space, not %20.";
      const wasThere = this.place;
      this.place = place ? { ...place, km: 0 } : null;
      this.map.mark(this.place);
      if (place && !wasThere) this.map.reveal(place);
    }
    setText(byId("follow-note"), words);
  }
}
