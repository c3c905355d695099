"""Asks a herd again and again: the last status of each server, and what happened since the time before.

The rule: each server has its own thread. So one that hangs, or whose name takes long to look up, delays neither the
others nor the display. A status that is too old is not shown as if it were current.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from proxyherd.admin.status_page.rates import bound, grown, rate
from proxyherd.admin.status_page.state import ServerState
from proxyherd.remote import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxyherd.config.herd_file import Herd, Server

DEADLINE_SECONDS = 1.2
"""The time for one round of questions to a server. Linux repeats a lost SYN after 1 s."""


class Rates(Struct, frozen=True):
    """What a server did between two polls."""

    seconds: float
    """The time between the two."""
    commands: float
    """Commands answered per second; the same for updates that were received and sent over links."""
    floods_in: float
    floods_out: float
    lag_p99: float | None
    """Seconds within which 99 of 100 measurements of the event loop's lag were. It is the bound of a bucket, so it is
    infinity beyond the last one; None if nothing was measured."""


class Seen(Struct, frozen=True):
    """The last status of a server, and its rates; there are none after a silence or a restart."""

    status: ask.Status
    rates: Rates | None = None


def rates(before: ServerState | None, now: ServerState | None) -> Rates | None:
    """Return what happened between two states of one life of a server; None if there are not two, or if they don't give a
    valid number.
    """
    if before is None or now is None or before.life != now.life or not now.uptime > before.uptime:
        return None
    commands, floods_in, floods_out = (
        rate(before, now, name) for name in ("answered", "floods_in", "floods_out")
    )
    if not math.isfinite(commands + floods_in + floods_out):
        return None
    lag = bound(grown(before, now, "lag"), 0.99)
    return Rates(now.uptime - before.uptime, commands, floods_in, floods_out, lag)


class Poller:
    """Asks all servers of a herd every `interval` seconds, from `start` until the process ends or `stop`."""

    def __init__(self, herd: Herd, interval: float) -> None:
        self._herd = herd
        self._servers = list(herd.servers.values())
        self._interval = interval
        self._seen: dict[str, Seen] = {}
        self._first = threading.Semaphore(0)  # released once by each server
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin; return when all servers have answered, or have had their time."""
        deadline = time.monotonic() + DEADLINE_SECONDS + 0.1
        for server in self._servers:
            threading.Thread(target=self._ask, args=(server,), daemon=True).start()
        for _ in self._servers:
            self._first.acquire(timeout=max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """Stop, after servers that are being asked have answered."""
        self._stopped.set()

    def newest(self) -> Iterator[Seen]:
        """Yield the last status of each server, in the order of the herd's file."""
        oldest = time.monotonic() - self._interval - 2 * DEADLINE_SECONDS
        for server in self._servers:
            seen = self._seen.get(server.name)
            if seen is None or seen.status.at < oldest:
                problem = f"{server.admin[0]}: no answer yet"
                seen = Seen(ask.Status(server, problem=problem))
            yield seen

    def _ask(self, server: Server) -> None:
        last: Seen | None = None
        while not self._stopped.is_set():
            due = time.monotonic() + self._interval
            now = ask.status(self._herd, server, DEADLINE_SECONDS)
            if last is None:
                last = Seen(now)
            elif now.told is not None and now.told == last.status.told:
                last = Seen(now, last.rates)  # a server caches its state for a moment
            else:
                last = Seen(now, rates(last.status.told, now.told))
            is_first = server.name not in self._seen
            self._seen[server.name] = last
            if is_first:
                self._first.release()
            self._stopped.wait(max(0.0, due - time.monotonic()))
