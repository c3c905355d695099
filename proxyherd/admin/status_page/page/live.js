// The stream of events: reports when it is lost, and connects again, forever.

const SILENT_MS = 5000; // an update comes every second
const AGAIN_MS = 2000;

export function connect(url, on) {
  let source = null;
  let silent = 0;
  let again = 0;

  function lost() {
    on.state("lost", "Connection lost; trying again …");
    clearTimeout(silent);
    source.close();
    clearTimeout(again);
    again = setTimeout(open, AGAIN_MS);
  }

  function heard() {
    clearTimeout(silent);
    silent = setTimeout(lost, SILENT_MS);
  }

  function open() {
    source = new EventSource(url);
    heard();
    source.addEventListener("error", lost);
    for (const name of ["hello", "herd", "hour", "commands", "pings", "cells"]) {
      source.addEventListener(name, (event) => {
        heard();
        if (name === "herd") on.state("live", "Live");
        on[name](JSON.parse(event.data));
      });
    }
  }

  open();
}
