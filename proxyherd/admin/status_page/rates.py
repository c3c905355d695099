"""How fast totals grow, and percentiles of a histogram's last minute, from states that follow one another.

Pure. A server that has started anew counts from nought again: what was known of it before is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from proxyherd.admin.status_page.state import Histogram, ServerState

MINUTE: Final = 60.0

_MOST: Final = 64
"""States of a minute; more only where a server's clock is slow, or a lie."""

EMPTY: Final = Histogram([], [0])


def quantile(histogram: Histogram, part: float) -> float | None:
    """Return the seconds within which this part of the observations were, between bounds as if they were spread
    evenly; past the last bound that one; None where there were none.
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
    """Return the sum of histograms; those with other bounds than the first, of another version, are left out."""
    filled = [one for one in histograms if one.bounds]
    alike = [one.counts for one in filled if one.bounds == filled[0].bounds]
    return (
        Histogram(filled[0].bounds, [sum(counts) for counts in zip(*alike, strict=True)]) if filled else EMPTY
    )


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
        """Add one; one that is no later than the latest says nothing new."""
        last = self.last
        if last is not None and (state.life != last.life or state.uptime < last.uptime):
            self._states.clear()
        elif last is not None and state.uptime == last.uptime:
            return
        self._states.append(state)
        while len(self._states) > 2 and state.uptime - self._states[1].uptime >= MINUTE:
            self._states.popleft()

    def rate(self, name: str) -> float:
        """Return by how much a total grew a second, between the last two states."""
        if len(self._states) < 2:
            return 0.0
        before, last = self._states[-2], self._states[-1]
        grown: int = getattr(last, name) - getattr(before, name)
        return max(0, grown) / (last.uptime - before.uptime)

    def grown(self, name: str) -> Histogram:
        """Return what a histogram grew by in the last minute, or since the first state."""
        first: Histogram = getattr(self._states[0], name)
        last: Histogram = getattr(self._states[-1], name)
        if not first.bounds:  # nothing had been observed
            return last
        if first.bounds != last.bounds:
            return EMPTY
        grown = [max(0, now - then) for now, then in zip(last.counts, first.counts, strict=True)]
        return Histogram(
            last.bounds, [*accumulate(grown, max)]
        )  # as it must be, whatever a server has made up
