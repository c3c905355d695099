"""Keeps a provider over the network useful while the network or the provider fails.

Each query has a circuit breaker, a turn at a gate that limits the calls at once, a deadline for each attempt, and a
limited number of attempts with random pauses. The rules: when the breaker opens, waiting and new queries are answered
at once. A pause that an upstream asks for keeps its turn at the gate, so an upstream that says "too many" gets fewer
calls. No attempt begins that could not end before the deadline of the whole.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

from proxyherd.base.backoff import backoff
from proxyherd.config import schema
from proxyherd.places.answers import Answer, no_results
from proxyherd.places.failures import FailedError, LateError, failed
from proxyherd.places.limits.breaker import Breaker, BreakerState
from proxyherd.places.limits.gate import Gate
from proxyherd.places.query import Query, Upstream
from proxyherd.places.watch import Watch

PAUSE_SECONDS: Final = 0.1
"""The longest first pause; each next one may be twice as long. The length is random, so that callers spread out."""

MOST_PAUSE_SECONDS: Final = 1.0
"""The longest pause that an upstream did not ask for. tenacity has such loops too, but costs 24 microseconds for every
query, and needs as much code for Retry-After and the remaining time as this loop has."""

_SHARE: Final = 0.98
"""The part of the deadline that attempts may take; the rest is for the answer."""

_WEIGHT: Final = 0.1
"""The weight of the latest answer's time in the running mean."""

_MARGIN: Final = 1.25
"""How many times the mean an answer may take."""

_NEARLY: Final = 0.9
"""The part of a whole attempt's seconds that is nearly as good as all of them."""


class BrokenError(FailedError):
    """The circuit breaker refused the call."""


class Resilient:
    """A provider with limits: its failures are quick, rare, and fair to all askers."""

    def __init__(self, provider: Upstream, places: schema.PlacesSettings, watch: Watch) -> None:
        self._provider = provider
        self._places = places
        self._watch = watch
        self._gate = Gate(places.max_connections)
        self._breaker = Breaker(places.breaker_failures, places.breaker_seconds)
        # A whole attempt, and the recent time of answers: with less time, a call would be made for nothing.
        self._whole = min(places.attempt_seconds, _SHARE * places.deadline_seconds)
        self._usual = self._least = 0.0
        self._told: BreakerState = "closed"
        self._rng = random.Random()  # noqa: S311 - so that callers part, no secret
        # Of the last failure; it is also that of the answers while the breaker is open.
        self._status = "UNKNOWN_ERROR"

    @property
    def name(self) -> str:
        """The provider's own name."""
        return self._provider.name

    def widened(self, query: Query) -> Query:
        """Return the query that the provider really sends."""
        return self._provider.widened(query)

    def answer_at_once(self, query: Query) -> None:
        """Answer nothing at once: the provider is over the network."""

    async def nearby(self, query: Query, asker: str | None) -> Answer:
        """Answer a query of `asker`. Raises FailedError."""
        deadline = time.monotonic() + _SHARE * self._places.deadline_seconds
        try:
            if self._breaker.refuses(time.monotonic()):
                raise self._broken()
            async with self._gate.turn(asker, query):
                return await self._try(query, deadline, asker)
        except BrokenError:
            self._watch.count_spared("breaker")
            raise

    def join(self, query: Query, asker: str | None) -> None:
        """Let a query that waits at the gate also take a turn of this asker."""
        self._gate.join(asker, query)

    async def close(self) -> None:
        """Close the provider."""
        await self._provider.close()

    async def _try(self, query: Query, deadline: float, asker: str | None) -> Answer:
        pauses = backoff(PAUSE_SECONDS, MOST_PAUSE_SECONDS, self._rng, least=0.0)
        for _ in range(1, self._places.attempts):
            try:
                return await self._attempt(query, deadline, asker)
            except FailedError as error:
                pause = error.after + next(pauses)
                if not error.again or time.monotonic() + pause + self._least >= deadline:
                    raise
            await asyncio.sleep(pause)
        return await self._attempt(query, deadline, asker)

    def _broken(self) -> BrokenError:
        seconds = self._breaker.refuses(time.monotonic())
        words = f"Google Places keeps failing; this server calls it again in {seconds:.1f} s"
        return BrokenError(no_results(self._status, words))

    async def _attempt(self, query: Query, deadline: float, asker: str | None) -> Answer:
        breaker, began = self._breaker, time.monotonic()
        seconds = min(deadline - began, self._whole)
        if seconds < self._least:
            self._watch.count_spared("late")
            raise failed("UNKNOWN_ERROR", "too many queries wait for Google Places; try again later")
        call = breaker.admit(began)
        if call is None:
            raise self._broken()
        self._tell()
        try:
            answer = await self._provider.nearby(query, seconds, asker)
        except FailedError as error:
            ours = isinstance(error, LateError) and seconds < _NEARLY * self._whole
            if error.again and not ours:
                self._status = error.answer.status
                breaker.failed(call, time.monotonic())
            else:
                breaker.abandoned(call)
            raise
        except BaseException:
            breaker.abandoned(call)
            raise
        else:
            breaker.succeeded(call)
            self._learn(time.monotonic() - began)
            return answer
        finally:
            self._tell()

    def _learn(self, seconds: float) -> None:
        """Update the mean time of answers. A whole attempt, or nearly a whole one, is always worth making."""
        self._usual = self._usual + (seconds - self._usual) * _WEIGHT if self._usual else seconds
        self._least = min(_MARGIN * self._usual, _NEARLY * self._whole)

    def _tell(self) -> None:
        """Report a change of the breaker's state; nobody waits at the gate of an open one."""
        if self._breaker.state == self._told:
            return
        self._told = self._breaker.state
        self._watch.note_breaker(self._told)
        if self._told == "open":
            self._gate.turn_away(self._broken())
