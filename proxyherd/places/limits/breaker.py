"""A circuit breaker: calls to an upstream that keeps failing are spared, and one at a time finds out whether it is
back.

Closed, every call goes. After so many failures in a row it opens: none goes. After so many seconds it is half open:
exactly one call goes, the probe, and closes it or opens it again, for twice as long, up to a bound: calls are counted
in a budget, which a long failure must not use up. A call that was given up because nobody waits for it any more says
nothing; if it was the probe, the next may be.

Our own, since those on PyPI (circuitbreaker, pybreaker, purgatory) let every call through when half open, and take a
cancelled one for a success or a failure. Pure: the time comes in, in seconds of any steady clock.
"""

from __future__ import annotations

from typing import Final, Literal

BreakerState = Literal["closed", "open", "half_open"]

STATES: Final[tuple[BreakerState, ...]] = ("closed", "half_open", "open")

MOST_TIMES: Final = 16
"""How many times as long as the first the longest pause is."""


class Breaker:
    """Opens after `failures` in a row, for `seconds`, and longer after each probe that fails.

    Each call that is admitted ends in exactly one of `succeeded`, `failed` and `abandoned`, with what `admit` returned.
    """

    def __init__(self, failures: int, seconds: float) -> None:
        self._most = failures
        self._shortest = self._seconds = seconds
        self._in_a_row = 0
        self._opened_at = 0.0
        self._period = object()  # which every call of one time of being closed is admitted with
        self._probe: object | None = None
        self.state: BreakerState = "closed"

    def refuses(self, now: float) -> float:
        """Return the seconds for which no call would be admitted; 0 if one would be now.

        While a probe is under way nobody knows for how long: then it is half of `seconds`.
        """
        if self.state == "open":
            return max(0.0, self._opened_at + self._seconds - now)
        return self._seconds / 2 if self._probe is not None else 0.0

    def admit(self, now: float) -> object | None:
        """Let a call through, or return None."""
        if self.refuses(now):
            return None
        if self.state == "closed":
            return self._period
        self.state, self._probe = "half_open", object()
        return self._probe

    def succeeded(self, call: object) -> None:
        """Note that a call went well, whenever it began: the upstream works."""
        del call
        self.state, self._in_a_row, self._probe, self._seconds = "closed", 0, None, self._shortest

    def failed(self, call: object, now: float) -> None:
        """Note that a call failed. Of one from before it last opened, late news says nothing."""
        if call is self._period:
            self._in_a_row += 1
        if call is self._probe:
            self._seconds = min(2 * self._seconds, MOST_TIMES * self._shortest)
        if call is self._probe or (self.state == "closed" and self._in_a_row >= self._most):
            self.state, self._opened_at, self._period, self._probe = "open", now, object(), None

    def abandoned(self, call: object) -> None:
        """Note that a call was given up and says nothing."""
        if call is self._probe:
            self._probe = None
