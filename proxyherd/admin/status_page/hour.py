"""The last hour of this server: a sample of its figures every ten seconds, in memory, whether somebody looks or not.

Pure. What is kept is bounded: 360 samples of a few numbers each.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct

from proxyherd.admin.status_page.rates import grown, quantile, rate
from proxyherd.admin.status_page.state import ServerState

SAMPLE_SECONDS: Final = 10.0
"""The interval of samples."""

MOST_SAMPLES: Final = 360
"""An hour of them."""


class Sample(Struct, frozen=True, array_like=True):
    """What a server did in one interval: its end in POSIX seconds; commands, updates received and updates sent per
    second; percentiles of the seconds that queries for places took, and of the event loop's lag, None if there were
    none; and the number of clients at the end.
    """

    at: float
    commands: float
    floods_in: float
    floods_out: float
    places_p50: float | None
    places_p99: float | None
    lag_p99: float | None
    clients: int


class Hour:
    """The samples of the last hour."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self._last: ServerState | None = None

    def add(self, state: ServerState, at: float) -> Sample | None:
        """Add what happened since the state before, which ended now, at this POSIX time; return it. The first state has
        none before it, and one that is not later is ignored.
        """
        last = self._last
        if last is None:
            self._last = state
            return None
        if state.uptime <= last.uptime:
            return None
        places, lag = grown(last, state, "places"), grown(last, state, "lag")
        commands, floods_in, floods_out = (
            round(rate(last, state, name), 1) for name in ("answered", "floods_in", "floods_out")
        )
        p50, p99 = _rounded(quantile(places, 0.5)), _rounded(quantile(places, 0.99))
        sample = Sample(
            round(at, 1),
            commands,
            floods_in,
            floods_out,
            p50,
            p99,
            _rounded(quantile(lag, 0.99)),
            state.clients,
        )
        self.samples.append(sample)
        self._last = state
        return sample


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)
