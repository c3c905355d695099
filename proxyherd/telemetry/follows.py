"""Follows: how many follow, how many clients and areas, and what they were told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxyherd.core.follows.event import EventKind
from proxyherd.telemetry.metrics import LabelValues, Metrics

FOLLOWED: Final[LabelValues] = {
    "clients": "each counts once, however many follow it",
    "areas": "each counts as often as it is followed",
}
"""What is followed."""

TOLD: Final[LabelValues] = {
    "enter": "a client is there: in an area, or known at all if it is followed itself; also in a snapshot",
    "move": "it is still there",
    "leave": "it has left an area",
    "gone": "it was erased, has expired, or has left the full table",
}
"""Kinds of events."""


class FollowObserver:
    """The follows of one server."""

    def __init__(self, metrics: Metrics) -> None:
        self._followers = metrics.gauge("proxyherd_followers", "Connections that follow clients or areas")
        self._followed = metrics.gauge(
            "proxyherd_followed", "Clients and areas that are followed", what=FOLLOWED
        )
        self._told = metrics.counter(
            "proxyherd_follow_events_total",
            "Events for followers, each counted for each of them, also those that a slow one misses for later ones",
            kind=TOLD,
        )
        for what in FOLLOWED:
            self._followed.labels(what)
        for kind in TOLD:
            self._told.labels(kind)

    def state(self, followers: int, clients: int, areas: int, told: Mapping[EventKind, int]) -> None:
        """Note who follows whom now, and what was told since the last call."""
        self._followers.set(followers)
        self._followed.labels("clients").set(clients)
        self._followed.labels("areas").set(areas)
        for kind, number in told.items():
            self._told.labels(kind).inc(number)
