"""Links with neighbours: their beginnings and ends, and the lines that cross them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import accumulate, repeat
from typing import Final, Literal

from msgspec import Struct

from proxyherd.core.messages import NANOSECONDS
from proxyherd.core.notes import (
    REPLACED,
    CaughtUp,
    Flooded,
    Heard,
    LinkDown,
    LinkFailed,
    LinkUp,
    Note,
    OtherClock,
    Removed,
    Skipped,
)
from proxyherd.telemetry.erasures import ErasureObserver
from proxyherd.telemetry.event_limits import Events
from proxyherd.telemetry.frequent import FrequentEvent, Only
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.recent import Recent

_PROPAGATION_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a hop takes less than a millisecond; updates that take more than five seconds come by catching up."""


OTHER_KEY: Final = (
    "its table has another key than this server's: erasures at one have no effect at the other, and each comparison sends "
    "the whole table; the same secret.table belongs on all hosts, or on none: see docs/security.md"
)
"""What is wrong with a neighbour whose table has another key, and what to do."""

SETTINGS_DIFFER: Final = (
    "with these, the tables of the two would not end the same, or erased clients could come back; give both the same herd's "
    "file, and restart them"
)
"""What is wrong with a neighbour whose settings differ, and what to do."""

_BY_THE_OTHER: Final = "refused by the other: "
"""How the reason begins that a neighbour gives who refuses this server (core/handshake.py)."""

_State = Literal["live", "catching up", "cut"]

_SHOWN_BYTES: Final = 1024
"""The approximate length of the list of clients in a line."""

_SHOWN_CLIENT_BYTES: Final = _SHOWN_BYTES - 3
"""Of a client's ID, at most: with its quotation marks and its comma."""


class FloodSentEvent(FrequentEvent):
    """A batch of updates was sent to a neighbour."""

    name = "flood_sent"
    neighbour: bytes
    updates: int
    clients: list[bytes]


class UpdateSentEvent(FrequentEvent):
    """An update was sent to a neighbour, alone."""

    name = "flood_sent"
    neighbour: bytes
    updates: int
    clients: Only


class FloodReceivedEvent(FrequentEvent):
    """A batch of live updates came from a neighbour."""

    name = "flood_received"
    neighbour: bytes
    updates: int
    news: int
    clients: list[bytes]


class UpdateReceivedEvent(FrequentEvent):
    """A live update came from a neighbour, alone."""

    name = "flood_received"
    neighbour: bytes
    updates: int
    news: int
    clients: Only


class _Received(Struct):
    """What has come from a neighbour, in plain numbers, since they were settled."""

    neighbour: bytes
    batches: int = 0
    updates: int = 0
    news: int = 0


class _Sent(Struct):
    """What was sent to the same neighbours, to each of them, in plain numbers, since they were settled."""

    neighbours: list[bytes]
    batches: int = 0
    updates: int = 0


_MOST_SETS: Final = 64
"""So many sets of neighbours are counted apart at most: usually, there are as many as neighbours."""

_ONE: Final = repeat(1)


class LinkObserver:
    """The links of one server. `recent` keeps the clients of the latest updates, while somebody views the
    status page.
    """

    def __init__(
        self,
        events: Events,
        metrics: Metrics,
        neighbours: Iterable[str],
        recent: Recent,
        erasures: ErasureObserver,
    ) -> None:
        self._erasures = erasures
        self._events = events
        self._frequent, self._all_frequent = events.frequent, events.all_frequent
        self._recent = recent
        self.states: dict[str, _State] = dict.fromkeys(neighbours, "cut")
        self.since = dict.fromkeys(self.states, time.monotonic())
        """When each link got its state, by the monotonic clock."""
        self.refusals: dict[str, str] = {}
        """Why neighbours were refused last, by this server or by them, until there is a link or nobody is there."""
        self._up = metrics.gauge(
            "proxyherd_links_up", "1 while the link with this neighbour is live", neighbour=None
        )
        self.other_keys: set[str] = set()
        """The neighbours whose tables had another key than this server's when their links came up last."""
        self._other_key = metrics.gauge(
            "proxyherd_peer_table_key_differs",
            "1 if this neighbour's table had another key than this server's when the link came up last, otherwise 0",
            neighbour=None,
        )
        self._failures = metrics.counter(
            "proxyherd_link_failures_total",
            "Attempts at a link that came to nothing, made or received, and live links that a newer one replaced; unknown for strangers",
            neighbour=None,
        )
        self.updates = metrics.counter(
            "proxyherd_flood_updates_total",
            "Updates that crossed a link live, by neighbour, direction and whether they were news",
            neighbour=None,
            direction={"in": "", "out": "always with news true: a server only passes on what is new to it"},
            news={"true": "", "false": "this server knew it already"},
        )
        self._batches = metrics.counter(
            "proxyherd_flood_batches_total",
            "Batches of live updates: what a turn passes on, and what is read at once",
            neighbour=None,
            direction=None,
        )
        self._received = {neighbour: _Received(neighbour.encode()) for neighbour in self.states}
        self._sent: dict[tuple[str, ...], _Sent] = {}
        self._propagation = metrics.histogram(
            "proxyherd_propagation_seconds",
            "Seconds from a server's taking a report to its being learned here, by both servers' clocks; of each "
            "batch of live updates its first that was news",
            _PROPAGATION_BUCKETS,
        )
        self._skipped = metrics.counter(
            "proxyherd_peer_lines_skipped_total",
            "Lines from a neighbour that were not learned: malformed, from too far in the future, or the table was full",
            neighbour=None,
        )
        self.mended = metrics.gauge(
            "proxyherd_mended_entries",
            "Entries that the last catch-up from this neighbour brought",
            neighbour=None,
        )
        self._checks = metrics.counter(
            "proxyherd_checks_total", "Catch-ups from this neighbour that ended", neighbour=None
        )
        for neighbour in self.states:
            self._up.labels(neighbour)
            self._failures.labels(neighbour)

    def note(self, note: Note) -> None:
        """Note an event of the core that is neither of the frequent ones, `flooded` and `heard`."""
        match note:
            case CaughtUp(neighbour, lines, news, seconds):
                self._becomes(neighbour, "live")
                self.mended.labels(neighbour).set(news)
                self._checks.labels(neighbour).inc()
                self._seldom(neighbour, "caught_up", lines=lines, news=news, seconds=round(seconds, 3))
            case LinkUp():
                self._opened(note)
            case LinkDown(neighbour, reason):
                self._becomes(neighbour, "cut")
                self._up.labels(neighbour).set(0)
                self._erasures.forget_clock(neighbour)
                if reason == REPLACED:  # repeatedly, if two servers have one name
                    self._failures.labels(neighbour).inc()
                self._seldom(neighbour, "peer_closed", reason=reason)
            case LinkFailed(claimed, dialled, reason, address):
                self._failures.labels(claimed or "unknown").inc()
                if dialled:
                    self._refuse(claimed, reason if reason.startswith(_BY_THE_OTHER) else "")
                    self._events.limited(claimed, "peer_unreachable", reason, neighbour=claimed)
                else:
                    self._refuse(claimed, f"refused: {reason}")
                    self._events.limited(claimed, "peer_refused", reason, neighbour=claimed, address=address)
            case Skipped(neighbour, line, reason):
                self._skipped.labels(neighbour).inc()
                self._events.limited(neighbour, "peer_line_skipped", reason, neighbour=neighbour, line=line)
            case Removed() | OtherClock():
                self._erasures.note(note)

    def _becomes(self, neighbour: str, state: _State) -> None:
        if self.states.get(neighbour) != state:
            self.states[neighbour] = state
            self.since[neighbour] = time.monotonic()

    def _refuse(self, neighbour: str | None, reason: str) -> None:
        if neighbour is not None and self.states.get(neighbour) == "cut":  # else it is linked
            self.refusals.pop(neighbour, None)
            if reason:
                self.refusals[neighbour] = reason

    def _opened(self, note: LinkUp) -> None:
        neighbour = note.neighbour
        self._refuse(neighbour, "")
        self._events.lift_limits(neighbour, "peer_unreachable", "peer_refused")
        self._becomes(neighbour, "catching up")
        self._up.labels(neighbour).set(1)
        self._seldom(neighbour, "peer_opened", dialled=note.dialled)
        self._compare_keys(neighbour, differ=note.other_key)
        if note.differing:
            reason = f"it has {note.differing}; {SETTINGS_DIFFER}"
            self._events.limited(neighbour, "peer_settings_differ", reason, neighbour=neighbour)
        else:
            self._events.lift_limits(neighbour, "peer_settings_differ")

    def _compare_keys(self, neighbour: str, *, differ: bool) -> None:
        self._other_key.labels(neighbour).set(int(differ))
        if differ:
            self.other_keys.add(neighbour)
            self._events.limited(neighbour, "peer_key_differs", OTHER_KEY, neighbour=neighbour)
        else:
            self.other_keys.discard(neighbour)
            self._events.lift_limits(neighbour, "peer_key_differs")

    def flooded(self, note: Flooded) -> None:
        """Note that updates were sent."""
        sent = self._sent.get(note.neighbours) or self._begin_to_count(note.neighbours)
        clients = note.clients
        updates = len(clients)
        sent.batches += 1
        sent.updates += updates
        if updates == 1 and len(clients[0]) <= _SHOWN_CLIENT_BYTES:
            self._all_frequent(map(UpdateSentEvent, sent.neighbours, _ONE, repeat(clients[0])))
        else:
            self._all_frequent(map(FloodSentEvent, sent.neighbours, repeat(updates), repeat(_shown(clients))))

    def _begin_to_count(self, neighbours: tuple[str, ...]) -> _Sent:
        """Begin to count what is sent to these neighbours."""
        if len(self._sent) >= _MOST_SETS:
            self.settle()
        sent = self._sent[neighbours] = _Sent([*map(str.encode, neighbours)])
        return sent

    def heard(self, note: Heard) -> None:
        """Note that updates came."""
        clients, news, received = note.clients, note.news, self._received[note.neighbour]
        updates = len(clients)
        received.batches += 1
        received.updates += updates
        if news:
            received.news += news
        if note.late is not None:
            self._propagation.observe(max(0, note.late) / NANOSECONDS)
        if self._recent.wanted:
            self._recent.heard(clients)
        if updates == 1 and len(clients[0]) <= _SHOWN_CLIENT_BYTES:
            self._frequent(UpdateReceivedEvent(received.neighbour, 1, news, clients[0]))
        else:
            self._frequent(FloodReceivedEvent(received.neighbour, updates, news, _shown(clients)))

    def settle(self) -> None:
        """Update the metrics to what has crossed the links."""
        for neighbours, sent in self._sent.items():
            for neighbour in neighbours:
                self.updates.labels(neighbour, "out", "true").inc(sent.updates)
                self._batches.labels(neighbour, "out").inc(sent.batches)
        self._sent.clear()
        for neighbour, received in self._received.items():
            if received.batches:
                self._batches.labels(neighbour, "in").inc(received.batches)
                for known, number in ("true", received.news), ("false", received.updates - received.news):
                    if number:
                        self.updates.labels(neighbour, "in", known).inc(number)
            received.batches = received.updates = received.news = 0

    def _seldom(self, neighbour: str, event: str, **fields: object) -> None:
        self._events.seldom(neighbour, event, neighbour=neighbour, **fields)


def _shown(clients: list[bytes]) -> list[bytes]:
    """Return the first client IDs, as many as a line shows."""
    sizes = accumulate(len(client) + 3 for client in clients)
    return clients[: next((at for at, size in enumerate(sizes) if size > _SHOWN_BYTES), None)]
