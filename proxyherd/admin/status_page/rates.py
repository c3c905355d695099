"""How fast totals grow, and percentiles of histograms, from successive states of a server.

Pure. After a restart a server counts from zero again; then its earlier states are dropped.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from proxyherd.admin.status_page.state import Histogram, ServerState

MINUTE: Final = 60.0

_MOST: Final = 64
"""The states of a minute; there are more only if a server's clock is slow or wrong."""

EMPTY: Final = Histogram([], [0])


def quantile(histogram: Histogram, part: float) -> float | None:
    """Return the seconds within which this part of the observations were, as if those between two bounds were spread
    evenly. Beyond the last bound, return that bound; None if there were no observations.
    """
    total = histogram.counts[-1]
    wanted, below, lower = part * total, 0, 0.0
    if not total:
        return None
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        if count >= wanted and count > below:
            return lower + (bound - lower) * (wanted - below) / (count - below)
        below, lower = count, bound
    return histogram.bounds[-1] if histogram.bounds else None


def added(histograms: list[Histogram]) -> Histogram:
    """Return the sum of histograms; those with other bounds than the first (from another version) are left out."""
    filled = [one for one in histograms if one.bounds]
    alike = [one.counts for one in filled if one.bounds == filled[0].bounds]
    return (
        Histogram(filled[0].bounds, [sum(counts) for counts in zip(*alike, strict=True)]) if filled else EMPTY
    )


def bound(histogram: Histogram, part: float) -> float | None:
    """Return the smallest bound in seconds within which this part of the observations were; infinity beyond the last;
    None if there were no observations.
    """
    total = histogram.counts[-1]
    bounds = zip((*histogram.bounds, math.inf), histogram.counts, strict=True)
    return next(one for one, count in bounds if count >= part * total) if total else None


def rate(before: ServerState, last: ServerState, name: str) -> float:
    """Return by how much a total grew per second between two states of one life."""
    growth: int = getattr(last, name) - getattr(before, name)
    return max(0, growth) / (last.uptime - before.uptime)


def grown(before: ServerState, last: ServerState, name: str) -> Histogram:
    """Return by how much a histogram grew between two states of one life."""
    first: Histogram = getattr(before, name)
    now: Histogram = getattr(last, name)
    if not first.bounds:  # nothing had been observed
        return now
    if first.bounds != now.bounds:
        return EMPTY
    growth = [max(0, now - then) for now, then in zip(now.counts, first.counts, strict=True)]
    return Histogram(now.bounds, [*accumulate(growth, max)])  # also if numbers are false


class History:
    """The states of one server in the last minute, and the one before."""

    def __init__(self) -> None:
        self._states: deque[ServerState] = deque(maxlen=_MOST)

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[ServerState]:
        return iter(self._states)

    @property
    def last(self) -> ServerState | None:
        """The latest."""
        return self._states[-1] if self._states else None

    def add(self, state: ServerState) -> None:
        """Add a state; one that is not later than the latest is ignored."""
        last = self.last
        if last is not None and (state.life != last.life or state.uptime < last.uptime):
            self._states.clear()
        elif last is not None and state.uptime == last.uptime:
            return
        self._states.append(state)
        while len(self._states) > 2 and state.uptime - self._states[1].uptime >= MINUTE:
            self._states.popleft()

    def rate(self, name: str) -> float:
        """Return by how much a total grew per second between the last two states."""
        return rate(self._states[-2], self._states[-1], name) if len(self._states) > 1 else 0.0

    def grown(self, name: str) -> Histogram:
        """Return by how much a histogram grew in the last minute, or since the first state."""
        return grown(self._states[0], self._states[-1], name)
