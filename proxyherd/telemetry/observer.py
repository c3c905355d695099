"""Reports what happens to one server, to its log and its metrics.

Each subject has a file, with its events, its metrics and the values of their labels. What several subjects share is
here, in `event_limits` and in `metrics`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from proxyherd.core.notes import Flooded, Heard, Note
from proxyherd.telemetry.cluster import ClusterObserver
from proxyherd.telemetry.commands import CommandObserver
from proxyherd.telemetry.connections import ConnectionObserver
from proxyherd.telemetry.erasures import ErasureObserver
from proxyherd.telemetry.event_limits import EventLog, Events
from proxyherd.telemetry.expiry import ExpiryObserver
from proxyherd.telemetry.follows import FollowObserver
from proxyherd.telemetry.journal import JournalObserver
from proxyherd.telemetry.links import LinkObserver
from proxyherd.telemetry.logs import LogFile
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.places import PlacesObserver
from proxyherd.telemetry.process import LogObserver, LoopObserver, ProcessObserver
from proxyherd.telemetry.recent import Recent
from proxyherd.telemetry.table import TableObserver
from proxyherd.telemetry.web import WebObserver


class Observer:
    """Turns events of one server into log events and metrics, by subject."""

    def __init__(
        self,
        log: EventLog,
        file: LogFile,
        metrics: Metrics,
        neighbours: Iterable[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recent = Recent()
        self._file = file
        self.metrics = metrics
        self._events = events = Events(log, clock)
        # In the order in which /metrics and docs/metrics.md show them.
        self.process = ProcessObserver(metrics)
        self.table = TableObserver(events, metrics)
        self.follows = FollowObserver(metrics)
        self.commands = CommandObserver(events, metrics, self.recent)
        self.connections = ConnectionObserver(events, metrics)
        self.web = WebObserver(events, metrics)
        self.erasures = ErasureObserver(metrics, self.recent)
        self.links = LinkObserver(events, metrics, neighbours, self.recent, self.erasures)
        self.expiry = ExpiryObserver(events, metrics)
        self.places = PlacesObserver(events, metrics)
        self.journal = JournalObserver(events, metrics)
        self.loop = LoopObserver(metrics)
        self.cluster = ClusterObserver(events, metrics)
        self.log = LogObserver(metrics, file)

    def fault(self, what: str, error: BaseException | None) -> None:
        """Note a bug of ours, with its traceback."""
        self._events.seldom(None, "internal_error", reason=what, exc_info=error)

    def note(self, notes: Iterable[Note]) -> None:
        """Note an event of the core."""
        links = self.links
        for note in notes:
            try:
                if type(note) is Heard:  # the frequent ones first
                    links.heard(note)
                elif type(note) is Flooded:
                    links.flooded(note)
                else:
                    links.note(note)
            except Exception as error:  # noqa: BLE001 - the other notes are told
                self.fault("a note of the core cannot be told", error)
        if self.erasures.removed:
            self.erasures.forget_removed()

    def end_turn(self) -> None:
        """Write the turn's log lines."""
        try:
            self._events.tell(flush_follows=True)
        finally:
            self._file.flush()

    def tick(self) -> None:
        """Log what only time brings. Call every few seconds."""
        self.commands.tick()
        self.expiry.tick()

    def end(self) -> None:
        """Log what would have waited: the server stops."""
        self.commands.tell_left_out()
        self.table.tell_evicted()

    def open_web(self) -> None:
        """Have the series of the web port from now on: to Prometheus, a counter's first appearance is no increase."""
        self.commands.open_web()
        self.web.open()

    def settle(self) -> None:
        """Update the metrics to what was counted."""
        self.commands.settle()
        self.links.settle()
        self.metrics.settle()
        self.log.settle()
