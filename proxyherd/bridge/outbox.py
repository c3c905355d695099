"""Clients that the cluster is yet to be told of, tag by tag. What is told of a client is looked up in the table when it
is sent: so a client waits here once however often it reports, and no more can wait than the table holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct

from proxyherd.engines.redis import layout

_TAG_CLIENTS: Final = 50
"""Clients of one tag in one load: a call is not interrupted."""


class Shipment(Struct, eq=False):
    """Clients on their way to a master, by tag, the oldest of them waiting since then."""

    clients: dict[int, list[bytes]]
    since: float


class Outbox:
    """`wake` is told of a tag that has something to send now. Times are seconds of one monotonic clock."""

    def __init__(self, wake: Callable[[int], None]) -> None:
        self._wake = wake
        self._waiting: list[dict[bytes, None]] = [{} for _ in range(layout.TAGS)]
        self._since: dict[int, float] = {}  # of tags with clients that wait
        self._loads: set[Shipment] = set()
        self.count = 0
        """Clients that wait or are on their way."""

    def add(self, client: bytes, now: float) -> None:
        """Let the cluster be told of a client."""
        tag = layout.tag_of(client)
        waiting = self._waiting[tag]
        if client not in waiting:
            waiting[client] = None
            self.count += 1
            if tag not in self._since:
                self._since[tag] = now
                self._wake(tag)

    def take(self, tags: Iterable[int], most: int) -> Shipment | None:
        """Take about `most` clients of these tags, those that have waited longest first."""
        since = self._since
        load = Shipment({}, float("inf"))
        for tag in sorted(since.keys() & {*tags}, key=since.__getitem__):
            if most <= 0:
                break
            load.since = min(load.since, since[tag])
            waiting = self._waiting[tag]
            taken = list(waiting)[:_TAG_CLIENTS]
            if len(taken) == len(waiting):
                self._waiting[tag] = {}
                del since[tag]
            else:
                for client in taken:
                    del waiting[client]
            load.clients[tag] = taken
            most -= len(taken)
        if not load.clients:
            return None
        self._loads.add(load)
        return load

    def done(self, load: Shipment, again: Sequence[int] = ()) -> None:
        """A load has arrived, less these tags', which are to be sent again."""
        self._loads.remove(load)
        for tag, clients in load.clients.items():
            self.count -= len(clients)
            if tag in again:
                for client in clients:
                    self.add(client, load.since)
                self._since[tag] = min(self._since[tag], load.since)

    def lost(self, load: Shipment) -> None:
        """Nobody knows whether a load has arrived: all of it is to be sent again."""
        self.done(load, tuple(load.clients))

    @property
    def oldest(self) -> float:
        """Since when the oldest has waited, or been on its way; infinite where there is none."""
        return min([*self._since.values(), *(load.since for load in self._loads)], default=float("inf"))
