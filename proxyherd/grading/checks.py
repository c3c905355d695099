"""What a check is: one rule of the protocol, its points, and how to see whether it holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from proxyherd.grading.herds import GradedHerd

POINTS: Final = 4
"""The points of a check that tests a rule in several ways; an example of the conformance cases has one point."""


class Check(Struct, frozen=True):
    """One check. `run` returns if the rule holds, and otherwise raises Fault, NotSeen or NotApplicable."""

    id: str
    title: str
    rule: str
    run: Callable[[], Awaitable[None]]
    points: int = POINTS
    seconds: float = 60.0
    """Taking longer is a fault: each wait has a deadline of its own, but there may be many."""


class Section(Struct, frozen=True):
    """Checks about one subject. Those of a section run at once if they don't affect one another."""

    name: str
    title: str
    checks: Callable[[GradedHerd], list[Check]]
    at_once: bool = True
