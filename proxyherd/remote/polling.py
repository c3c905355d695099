"""A herd asked again and again: what each server said last, and what happened since it was asked before.

The rule: each server has a thread of its own, so that one that hangs, or whose name takes long to look up, holds up
neither the others nor whoever looks; what is older than it should be is not shown as if it were of now.
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
"""For all that one server is asked at once. Linux sends a lost SYN again after 1 s."""


class Rates(Struct, frozen=True):
    """What a server did between two askings."""

    seconds: float
    """Between the two."""
    commands: float
    """Commands answered a second; likewise updates that came and went over links."""
    floods_in: float
    floods_out: float
    lag_p99: float | None
    """Seconds: of a hundred times that the event loop was measured it was once late by more, at most. It is the bound
    of a bucket, so infinity behind the last; None if it was not measured."""


class Seen(Struct, frozen=True):
    """A server as it was when last asked, and how it got there; no rates after a silence or a restart."""

    status: ask.Status
    rates: Rates | None = None


def rates(before: ServerState | None, now: ServerState | None) -> Rates | None:
    """Return what happened between two states of one life of a server; None where there are no two, or such as make no
    number.
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
        self._servers = list(herd.servers.values())
        self._interval = interval
        self._seen: dict[str, Seen] = {}
        self._first = threading.Semaphore(0)  # released once by each server
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin; return when all have answered, or have had their time."""
        deadline = time.monotonic() + DEADLINE_SECONDS + 0.1
        for server in self._servers:
            threading.Thread(target=self._ask, args=(server,), daemon=True).start()
        for _ in self._servers:
            self._first.acquire(timeout=max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """Ask no more, once those have answered that are being asked."""
        self._stopped.set()

    def newest(self) -> Iterator[Seen]:
        """Yield what is known of each server, in the order of the herd's file."""
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
            now = ask.status(server, DEADLINE_SECONDS)
            if last is None:
                self._seen[server.name] = last = Seen(now)
                self._first.release()
            elif (
                now.told is not None and now.told == last.status.told
            ):  # a server keeps what it says for a moment
                self._seen[server.name] = last = Seen(now, last.rates)
            else:
                self._seen[server.name] = last = Seen(now, rates(last.status.told, now.told))
            self._stopped.wait(max(0.0, due - time.monotonic()))
