// Watches where this browser is, and reports it. Only the newest position counts: while one is sent, or the server cannot
// take it, later ones replace each other.

import { Trouble, report } from "./herd.js";

const PACE_MS = 1000;
const WATCH = { enableHighAccuracy: true, maximumAge: 5000, timeout: 30_000 };

const DENIED = "This browser does not tell the page where it is: location is blocked. Allow location for this page in the "
  + "browser's settings, and for the browser in those of the phone. Then press the button again.";
const NO_FIX = "The device cannot find out where it is. Switch location on, or go where the sky is in sight. This page keeps trying.";
const SLOW = "The device has not found out where it is yet. This page keeps trying.";
const NOT_SECURE = "Browsers tell a page where they are only over HTTPS, or on the computer itself (localhost). This page came "
  + "over plain HTTP. Ask the operator for an address that begins with https://. You can still watch a phone here that reports with an app.";
const UNABLE = "This browser cannot tell where it is. You can still watch a phone here that reports with an app.";

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

// A pause that also ends when the phone has a network again.
function pauseWithoutNetwork(ms) {
  return new Promise((resolve) => {
    const timer = setTimeout(end, ms);
    addEventListener("online", end);
    function end() {
      clearTimeout(timer);
      removeEventListener("online", end);
      resolve();
    }
  });
}

export class Reporter {
  // `on`: what to call: state(state), trouble(words), reported(position, answer), refused(trouble).
  constructor(on) {
    this.on = on;
    this.run = null;
  }

  get active() {
    return this.run !== null;
  }

  start(name) {
    this.stop();
    if (!window.isSecureContext) this.on.trouble(NOT_SECURE);
    else if (!navigator.geolocation) this.on.trouble(UNABLE);
    else this.watch(name);
  }

  stop() {
    if (!this.run) return;
    navigator.geolocation.clearWatch(this.run.watch);
    this.run.lock?.release();
    this.run = null;
    this.on.state("off");
  }

  watch(name) {
    const run = this.run = { name, next: null, found: false, sends: false, lock: null, watch: 0 };
    this.on.state("looking");
    run.watch = navigator.geolocation.watchPosition(
      (found) => { if (run === this.run) this.take(run, found); },
      (error) => { if (run === this.run) this.miss(run, error); },
      WATCH,
    );
    stayAwake(run, () => run === this.run);
  }

  take(run, { coords, timestamp }) {
    run.found = true;
    run.next = { lat: coords.latitude, lon: coords.longitude, accuracy: coords.accuracy, time: timestamp / 1000 };
    if (!run.sends) this.send(run);
  }

  miss(run, { code }) {
    if (code === 1) this.stop();
    if (code === 3 && run.found) return; // it has not moved
    this.on.trouble({ 1: DENIED, 2: NO_FIX, 3: SLOW }[code]);
  }

  async send(run) {
    run.sends = true;
    while (run === this.run && run.next) {
      const position = run.next;
      run.next = null;
      try {
        const answer = await report(run.name, position);
        if (run !== this.run) break;
        this.on.state("on");
        this.on.reported(position, answer);
        await pause(PACE_MS);
      } catch (trouble) {
        if (!(trouble instanceof Trouble)) throw trouble;
        if (run !== this.run) break;
        await this.fail(run, position, trouble);
      }
    }
    run.sends = false;
  }

  async fail(run, position, trouble) {
    if (!trouble.retrySeconds) {
      this.stop();
      this.on.refused(trouble);
      return;
    }
    run.next ??= position;
    this.on.trouble(`${trouble.message} Trying again in ${trouble.retrySeconds} s; your last location is kept until then.`);
    await pauseWithoutNetwork(1000 * trouble.retrySeconds);
  }
}

// Where the browser can, the screen stays on: behind a dark one no page is told where it is.
async function stayAwake(run, isWanted) {
  try {
    const lock = await navigator.wakeLock.request("screen");
    if (isWanted()) run.lock = lock;
    else lock.release();
  } catch {
    // Low battery, or a browser without it: the page says that it must be in sight.
  }
}
