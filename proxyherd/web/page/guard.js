// Who is inside of the fence, as the server says. One question at a time: a fence that is dragged asks again after the answer.

const BUFFER_M = 25; // a client that stands at the fence does not come and go

export class Guard {
  // `say`: sends an operation. `changed`: somebody crossed, or the fence was asked for anew. `refused`: words, or "".
  constructor({ say, changed, refused }) {
    Object.assign(this, { say, changed, refused });
    this.inside = new Map(); // name: since when, milliseconds
    this.number = 0;
    this.forget();
  }

  // The connection is a new one.
  forget() {
    this.followed = "";
    this.coming = null; // who is inside of the fence that was asked for, until all are told
    this.next = null;
  }

  follow(shape) {
    if (this.coming) {
      this.next = shape;
      return;
    }
    this.next = null;
    this.coming = new Map();
    if (this.followed) this.say({ op: "unfollow", id: "unfollow", follow: this.followed });
    this.number += 1;
    this.followed = `fence ${this.number}`;
    this.say({ op: "follow", id: this.followed, ...shape.area, buffer_m: BUFFER_M });
  }

  answer({ id, problem }) {
    if (id !== this.followed) return;
    if (problem) this.end([problem.title, problem.detail].filter(Boolean).join(". "));
    else this.refused("");
  }

  event({ event, follow, client, initial, reason }) {
    if (follow !== this.followed) return;
    if (event === "snapshot") {
      if (this.coming) this.settle(); // one more comes when a server has become ready
    } else if (event === "ended") this.end(reason);
    else if (event === "enter") this.enter(client, Boolean(initial));
    else if (event === "leave" || event === "gone") this.leave(client);
  }

  // The server does not follow that fence.
  end(words) {
    this.followed = "";
    this.coming = null;
    this.inside = new Map();
    this.refused(words);
    this.settle();
  }

  settle() {
    const now = this.coming ?? new Map();
    for (const client of now.keys()) if (this.inside.has(client)) now.set(client, this.inside.get(client));
    this.inside = now;
    this.coming = null;
    this.changed();
    if (this.next) this.follow(this.next);
  }

  enter(client, initial) {
    (this.coming ?? this.inside).set(client, Date.now());
    if (!initial) this.changed(client, true);
  }

  leave(client) {
    (this.coming ?? this.inside).delete(client);
    this.changed(client, false);
  }
}
