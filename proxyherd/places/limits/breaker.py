"""A circuit breaker: if an upstream keeps failing, calls are not made, and one at a time tests whether it works again.

Closed, all calls are made. After a number of failures in a row it opens: no calls are made. After some seconds it is
half open: exactly one call is made, the probe. It closes the breaker, or opens it again for twice as long, up to a
limit. The pause grows because failed probes also use up the budget. A call that was given up because nobody waits for
it says nothing; if it was the probe, the next call may be.

We wrote our own, because those on PyPI (circuitbreaker, pybreaker, purgatory) let all calls through when half open,
and count a cancelled call as a success or a failure. Pure: time is an argument, in seconds of any steady clock.
"""

from __future__ import annotations

from typing import Final, Literal

BreakerState = Literal["closed", "open", "half_open"]

STATES: Final[tuple[BreakerState, ...]] = ("closed", "half_open", "open")

MOST_TIMES: Final = 16
"""The longest pause, as a multiple of the first."""


class Breaker:
    """Opens after `failures` in a row, for `seconds`, and longer after each probe that fails.

    Each admitted call ends in exactly one of `succeeded`, `failed` and `abandoned`, with the value that `admit`
    returned.
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
        """Return the seconds for which no call will be admitted; 0 if one would be admitted now.

        While a probe is under way, nobody knows how long it will take: then it returns half of `seconds`.
        """
        if self.state == "open":
            return max(0.0, self._opened_at + self._seconds - now)
        return self._seconds / 2 if self._probe is not None else 0.0

    def admit(self, now: float) -> object | None:
        """Admit a call, or return None."""
        if self.refuses(now):
            return None
        if self.state == "closed":
            return self._period
        self.state, self._probe = "half_open", object()
        return self._probe

    def succeeded(self, call: object) -> None:
        """Note that a call succeeded, whenever it began: the upstream works."""
        del call
        self.state, self._in_a_row, self._probe, self._seconds = "closed", 0, None, self._shortest

    def failed(self, call: object, now: float) -> None:
        """Note that a call failed. A failure of a call from before it last opened is ignored."""
        if call is self._period:
            self._in_a_row += 1
        if call is self._probe:
            self._seconds = min(2 * self._seconds, MOST_TIMES * self._shortest)
        if call is self._probe or (self.state == "closed" and self._in_a_row >= self._most):
            self.state, self._opened_at, self._period, self._probe = "open", now, object(), None

    def abandoned(self, call: object) -> None:
        """Note that a call was given up, which says nothing."""
        if call is self._probe:
            self._probe = None
