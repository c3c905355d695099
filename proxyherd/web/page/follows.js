// The conversation with this page's server about whom to follow. What breaks is connected again, to ask anew.

const PATH = "v1/ws"; // behind whatever path this page has before its own
const LEAST_MS = 500;
const MOST_MS = 15_000;
const NO_TOKEN = 4401;

export class Follows {
  // `open`: ask again for all; `event`, `answer`: what the server says; `lost`: words about why, until `open`.
  constructor(told) {
    this.told = told;
    this.tries = 0;
    this.connect();
  }

  connect() {
    const here = new URL(PATH, location.href);
    here.protocol = here.protocol.replace("http", "ws");
    here.hash = "";
    this.socket = new WebSocket(here, "proxyherd.json.v1");
    this.socket.addEventListener("open", () => {
      this.tries = 0;
      this.told.open();
    });
    this.socket.addEventListener("message", ({ data }) => {
      const message = JSON.parse(data);
      if ("event" in message) this.told.event(message);
      else this.told.answer(message);
    });
    this.socket.addEventListener("close", ({ code }) => this.again(code));
  }

  // Pauses double, and differ from page to page.
  again(code) {
    if (code === NO_TOKEN) {
      this.told.lost("The server wants a token. Open this page with one in its address: /t/TOKEN/fence.");
      return;
    }
    this.tries += 1;
    const pause = Math.min(MOST_MS, LEAST_MS * 2 ** this.tries) * (0.5 + Math.random() / 2);
    this.told.lost("The server cannot be reached. Trying again …");
    setTimeout(() => this.connect(), pause);
  }

  get isOpen() { return this.socket.readyState === WebSocket.OPEN; }

  say(op) {
    if (this.isOpen) this.socket.send(JSON.stringify(op));
  }
}
