"""Erasures: how many tombstones are held, how many locations they have removed, and how far neighbours' clocks are off."""

from __future__ import annotations

from proxyherd.core.messages import NANOSECONDS
from proxyherd.core.notes import OtherClock, Removed
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.recent import Recent


class ErasureObserver:
    """The erasures of one server. `recent` forgets the clients that were erased."""

    def __init__(self, metrics: Metrics, recent: Recent) -> None:
        self._recent = recent
        self.removed = set[bytes]()
        """Clients that were erased since the last call of `forget_removed`."""
        self._tombstones = metrics.gauge("proxyherd_tombstones", "Tombstones of erased clients that are held")
        self._erased = metrics.total(
            "proxyherd_erased_lines_total", "Locations that left the table because their client was erased"
        )
        self.clocks: dict[str, float] = {}
        """By how many seconds each neighbour's clock is ahead of this server's, as it has told last."""
        self._clocks = metrics.gauge(
            "proxyherd_peer_clock_seconds",
            "Seconds by which this neighbour's clock is ahead of this server's, less the way; told when a link comes up, "
            "and each compare_seconds",
            neighbour=None,
        )

    def note(self, note: Removed | OtherClock) -> None:
        """Note an event of the core."""
        if isinstance(note, Removed):
            self.removed.add(note.client)
        else:
            seconds = self.clocks[note.neighbour] = note.ahead / NANOSECONDS
            self._clocks.labels(note.neighbour).set(seconds)

    def forget_removed(self) -> None:
        """Forget the commands and positions of who was erased, all at once: one by one may take long."""
        self._recent.erase(self.removed)
        self.removed.clear()

    def forget_clock(self, neighbour: str) -> None:
        """Forget a neighbour's clock: its link has ended."""
        if self.clocks.pop(neighbour, None) is not None:
            self._clocks.remove(neighbour)

    def state(self, tombstones: int, erased: int) -> None:
        """Note how many tombstones there are, and how many locations they have removed since the start."""
        self._tombstones.set(tombstones)
        self._erased.reach(erased)
