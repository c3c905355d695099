"""The table of one server: how many clients have left it to make room for others, and its index of positions."""

from __future__ import annotations

from typing import Final

from proxyherd.telemetry.event_limits import Events
from proxyherd.telemetry.metrics import Metrics

_TOLD_SECONDS: Final = 10.0
"""The least time between two log lines about clients that have left."""


class TableObserver:
    """The table of one server."""

    def __init__(self, events: Events, metrics: Metrics) -> None:
        self._events = events
        self._clock = events.clock
        self._evictions = metrics.total(
            "proxyherd_clients_evicted_total", "Clients that have left the full table to make room for others"
        )
        self._indexed = metrics.gauge(
            "proxyherd_index_clients",
            "Clients in the index of positions; 0 while nobody asks who is in an area",
        )
        self._searches = metrics.gauge(
            "proxyherd_area_searches", "Queries of areas that wait for their answers"
        )
        self._left = self._told = self._held = 0
        self._told_at = -_TOLD_SECONDS

    def evicted(self, clients: int, held: int) -> None:
        """Note how many clients have left since the start, and how many there are now. Call a few times a minute."""
        self._evictions.reach(clients)
        self._left, self._held = clients, held
        now = self._clock()
        if clients > self._told and now - self._told_at >= _TOLD_SECONDS:
            self._told_at = now
            self.tell_evicted()

    def tell_evicted(self) -> None:
        """Log how many clients have left since the last such line, as far as was noted; nothing if none has."""
        if more := self._left - self._told:
            self._told = self._left
            remedy = "raise max_clients and max_table_bytes, if there is memory, or lower max_age_seconds"
            self._events.log.warning("clients_evicted", evicted=more, clients=self._held, remedy=remedy)

    def index(self, clients: int, searches: int) -> None:
        """Note how many clients are in the index, and how many queries of areas wait."""
        self._indexed.set(clients)
        self._searches.set(searches)
