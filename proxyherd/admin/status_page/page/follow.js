// Follows a client, or all that are in a circle: a stream of its own, which says who enters, moves, leaves or is gone.

import { CloseUp } from "/closeup.js";
import { MOST_KILOMETRES, pick } from "/pick.js";
import { byId, element, number, setText } from "/words.js";

const MOST_PLACES = 200; // of the way of a client
const MOST_NEWS = 10;
const HELP = "Click a client in the map, or draw a circle: press where its middle is, and let go at its edge.";

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
      const [latitude, longitude, km] = byId("circle").value.split(/[\s,;]+/).map(Number);
      const is = Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180 && km > 0 && km <= MOST_KILOMETRES;
      if (is) this.followCircle({ latitude, longitude, km });
      else this.stop(`A circle is a latitude, a longitude and at most ${number(MOST_KILOMETRES)} kilometres.`);
    });
    byId("unfollow").addEventListener("click", () => this.stop());
    pick(map.canvas, {
      place: (place) => this.followNearest(place),
      circle: (circle) => {
        byId("circle").value = `${circle.latitude.toFixed(4)}, ${circle.longitude.toFixed(4)}, ${circle.km.toFixed(1)}`;
        this.followCircle(circle);
      },
      draft: (circle) => map.mark(circle || this.circle || this.place),
    });
  }

  stop(words = HELP) {
    this.source?.close();
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
    const answer = await fetch(`/near?${new URLSearchParams({ lat: latitude, lon: longitude, km, most: 1 })}`);
    const { clients } = answer.ok ? await answer.json() : { clients: [] };
    if (clients.length) this.followClient(clients[0].client);
    else setText(byId("follow-note"), `Nobody is within ${number(km)} km of that place.`);
  }

  start(query, name, circle = null) {
    this.stop("Looking …");
    this.name = name;
    this.circle = circle;
    this.map.mark(circle);
    byId("unfollow").hidden = false;
    this.source = new EventSource(`/follow?${new URLSearchParams(query)}`);
    this.source.addEventListener("fence", (event) => this.tell(JSON.parse(event.data)));
    this.source.addEventListener("error", () => {
      if (this.source.readyState === EventSource.CLOSED) this.stop("This cannot be followed now; too many may be looking.");
    });
  }

  tell(update) {
    if (update.first) this.ways = new Map([...this.ways].filter(([name]) => name === this.name));
    for (const [name, latitude, longitude] of [...update.enter, ...update.move]) {
      const way = [...(this.ways.get(name) || []), { latitude, longitude }];
      this.ways.set(name, way.slice(-MOST_PLACES));
    }
    for (const name of [...update.leave, ...update.gone]) this.ways.delete(name);
    if (!update.first) {
      this.news(update.enter.map(([name]) => `${name} has come`));
      this.news(update.leave.map((name) => `${name} has left`));
      this.news(update.gone.map((name) => `${name} is gone`));
    }
    this.show(update);
  }

  news(lines) {
    const list = byId("fence-news");
    for (const line of lines.slice(-MOST_NEWS)) list.prepend(element("li", {}, `${new Date().toLocaleTimeString("en-GB")} ${line}`));
    while (list.children.length > MOST_NEWS) list.lastChild.remove();
    list.hidden = !list.children.length;
  }

  show(update) {
    byId("closeup").hidden = !this.circle && !this.ways.size;
    this.closeUp.show(this.circle, this.ways);
    const count = this.ways.size;
    let words = count === 1 ? "1 client is in the circle." : `${number(count)} clients are in the circle.`;
    if (update.more) words = `More than ${number(count)} clients are in the circle; these are nearest to its centre.`;
    if (!this.circle) {
      const place = this.ways.get(this.name)?.at(-1);
      words = place ? `${this.name} is at ${place.latitude}, ${place.longitude}.` : `${this.name} is not known.`;
      if (!place && this.name.includes("%20")) words += " In a name, a space is a space, not %20.";
      this.place = place ? { ...place, km: 0 } : null;
      this.map.mark(this.place);
    }
    setText(byId("follow-note"), words);
  }
}
