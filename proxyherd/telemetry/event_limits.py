"""Log events that others can cause in large numbers are limited; an event that is logged says how many were left out
before it.

A failure that repeats the last one is limited further. Events that can't fill the log go to `log` directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from structlog.typing import FilteringBoundLogger

from proxyherd.core.limiters import Limiter
from proxyherd.telemetry.frequent import FrequentEvent, SeveralEvents

_OFTEN_BURST: Final = 20_000
_OFTEN_REFILL_SECONDS: Final = 0.1
_SELDOM_BURST: Final = 100
_SELDOM_REFILL_SECONDS: Final = 1.0

_LEVELS: Final = {"peer_closed": 30, "internal_error": 40}


class EventLog(FilteringBoundLogger, Protocol):
    """The bound logger of a server."""

    def frequent(self, said: Sequence[FrequentEvent | SeveralEvents], *, flush_follows: bool = False) -> None:
        """Log frequent events, of level info, in one call. `flush_follows`: whether the caller flushes the log's file."""


class Events:
    """The log of one server, with its limits. `of`: a neighbour or master, which has limits of its own, or None."""

    def __init__(self, log: EventLog, clock: Callable[[], float]) -> None:
        self._log = log
        self._tell = log.frequent
        self._said: list[FrequentEvent | SeveralEvents] = []
        self.frequent: Callable[[FrequentEvent | SeveralEvents], None] = self._said.append
        self.all_frequent: Callable[[Iterable[FrequentEvent]], None] = self._said.extend
        self.clock = clock
        self._limiters: dict[tuple[str | None, str], Limiter] = {}

    @property
    def log(self) -> EventLog:
        """The log, after the frequent events that have gathered."""
        self.tell()
        return self._log

    def tell(self, *, flush_follows: bool = False) -> None:
        """Log the frequent events that have gathered: one call of the logger for all of them."""
        said = self._said
        if said:
            try:
                self._tell(said, flush_follows=flush_follows)
            finally:
                said.clear()

    def often(self, event: str, **fields: object) -> None:
        """Log a frequent event, unless there are so many that they only fill the log."""
        self._let_through(self._limiter(None, event, _OFTEN_BURST, _OFTEN_REFILL_SECONDS), event, fields)

    def seldom(self, of: str | None, event: str, **fields: object) -> None:
        """Log a rare event, with a lower limit."""
        self._let_through(self._limiter(of, event, _SELDOM_BURST, _SELDOM_REFILL_SECONDS), event, fields)

    def limited(self, of: str | None, event: str, reason: str, **fields: object) -> None:
        """Log a failure, unless it is a repetition or one of many. The same failure at another address is no repetition."""
        limiter = self._limiters.setdefault((of, event), Limiter())
        left_out = limiter.pass_on(f"{fields.get('address')} {reason}", self.clock())
        if left_out is not None:
            self.log.warning(event, **fields, reason=reason, left_out=left_out)

    def lift_limits(self, of: str, *failures: str) -> None:
        """Let the next one of these failures be logged, because it is news."""
        for failure in failures:
            self._limiters.pop((of, failure), None)

    def _limiter(self, of: str | None, event: str, burst: int, refill: float) -> Limiter:
        found = self._limiters.get((of, event))
        return found or self._limiters.setdefault((of, event), Limiter(burst, refill, 0))

    def _let_through(self, limiter: Limiter, event: str, fields: dict[str, object]) -> None:
        left_out = limiter.pass_on("", self.clock())
        if left_out:
            fields["left_out"] = left_out
        if left_out is not None:
            self.log.log(_LEVELS.get(event, 20), event, **fields)
