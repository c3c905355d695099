"""Clients that are not yet written to the cluster, by tag. A client's line is looked up in the table when it is sent. So
a client waits here once, however often it reports, and never more clients wait than the table has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct

from proxyherd.engines.redis import layout

_TAG_CLIENTS: Final = 50
"""Clients of one tag in one shipment, because a call is not interrupted."""


class Shipment(Struct, eq=False):
    """Clients that are being sent to a master, by tag; `since`: when the oldest of them began to wait."""

    clients: dict[int, list[bytes]]
    since: float


class Outbox:
    """`wake` is called with a tag that has something to send now. Times are seconds of one monotonic clock."""

    def __init__(self, wake: Callable[[int], None]) -> None:
        self._wake = wake
        self._waiting: list[dict[bytes, None]] = [{} for _ in range(layout.TAGS)]
        self._since: dict[int, float] = {}  # of tags with clients that wait
        self._loads: set[Shipment] = set()
        self.count = 0
        """Clients that wait or are being sent."""

    def add(self, client: bytes, now: float) -> None:
        """Add a client to write to the cluster."""
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
        """Note that a shipment has arrived, except these tags' clients, which must be sent again."""
        self._loads.remove(load)
        for tag, clients in load.clients.items():
            self.count -= len(clients)
            if tag in again:
                for client in clients:
                    self.add(client, load.since)
                self._since[tag] = min(self._since[tag], load.since)

    def lost(self, load: Shipment) -> None:
        """Note that a shipment may be lost: all of it must be sent again."""
        self.done(load, tuple(load.clients))

    @property
    def oldest(self) -> float:
        """When the oldest client began to wait; infinity if there is none."""
        return min([*self._since.values(), *(load.since for load in self._loads)], default=float("inf"))
