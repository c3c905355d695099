"""The clock that only the simulation turns, what happens by it, and the first law that is broken."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any, NoReturn

from proxyherd.config.schema import Timing
from simulation.plan import SECOND, Plan

EPOCH = 1_600_000_000
MOST_EVENTS = 400_000
TRACE_LINES = 400


class LawBroken(AssertionError):  # noqa: N818 - it is no error of the test's
    """A run broke a law; the text has the seed, the law and the trace."""


class SimulatedWorld:
    """Time, chance and the trace of one run."""

    def __init__(self, seed: int, plan: Plan, *, trace: bool) -> None:
        self.seed = seed
        self.plan = plan
        self.rng = Random(f"run {seed}")
        self.now = 0.0
        self.trace: deque[str] | None = deque(maxlen=TRACE_LINES) if trace else None
        self.nonces = count(1)
        self.timing = Timing(compare_seconds=plan.compare_seconds)
        self._verdict = ""
        self._events_run = 0
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = count()

    @property
    def posix(self) -> int:
        """Nanoseconds of POSIX time."""
        return EPOCH * SECOND + int(self.now * SECOND)

    def after(self, seconds: float, action: Callable[..., object], *arguments: Any) -> None:
        self.at(self.now + seconds, action, *arguments)

    def at(self, time: float, action: Callable[..., object], *arguments: Any) -> None:
        """Do something at a time, behind what is to be done then already."""
        heapq.heappush(self._events, (time, next(self._order), action, arguments))

    def run_until(self, time: float) -> None:
        events = self._events
        while events and events[0][0] <= time:
            self.now, _, action, arguments = heapq.heappop(events)
            action(*arguments)
            if self._verdict:  # by whatever it was caught
                raise LawBroken(self._verdict)
            self._events_run += 1
            if self._events_run > MOST_EVENTS:
                self.broken("the herd does not come to rest")
        self.now = time

    def say(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now:9.4f} {text}")

    def broken(self, law: str) -> NoReturn:
        """End the run. The program may catch what is raised here: the run ends all the same, by the first law."""
        self._verdict = self._verdict or f"seed {self.seed}, at {self.now:.4f} s: {law}"
        raise LawBroken(self._verdict)
