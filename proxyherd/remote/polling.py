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


def rates(before: ask.Status, now: ask.Status) -> Rates | None:
    """Return what happened between two answers of one process; None where there are no two, or such as no server
    gives: figures that no float holds.
    """
    seconds = now.at - before.at
    if not (before.up and now.up and before.started == now.started and seconds > 0):
        return None
    try:
        found = Rates(
            seconds=seconds,
            commands=(now.commands - before.commands) / seconds,
            floods_in=(now.floods_in - before.floods_in) / seconds,
            floods_out=(now.floods_out - before.floods_out) / seconds,
            lag_p99=_quantile(0.99, {le: count - before.lag.get(le, 0) for le, count in now.lag.items()}),
        )
    except OverflowError:
        return None
    return found if math.isfinite(found.commands + found.floods_in + found.floods_out) else None


def _quantile(part: float, buckets: dict[float, int]) -> float | None:
    """Return the least bound that holds so large a part of all that cumulative buckets have counted."""
    whole = buckets.get(math.inf, 0)
    bounds = sorted(
        le for le, count in buckets.items() if le >= 0 and count >= part * whole
    )  # NaN is not >= 0
    return bounds[0] if whole > 0 and bounds else None


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
        before: ask.Status | None = None
        while not self._stopped.is_set():
            due = time.monotonic() + self._interval
            now = ask.status(server, DEADLINE_SECONDS)
            self._seen[server.name] = Seen(now, rates(before, now) if before else None)
            if before is None:
                self._first.release()
            before = now
            self._stopped.wait(max(0.0, due - time.monotonic()))
