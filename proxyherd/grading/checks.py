"""What a check is: one rule of the protocol, how many points it is worth, and how to see whether it holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from proxyherd.grading.herds import GradedHerd

POINTS: Final = 4
"""What a check is worth that tries a rule in several ways; an example of the conformance cases is worth one."""


class Check(Struct, frozen=True):
    """One check. `run` returns where the rule holds, and else raises Fault, NotSeen or NotApplicable."""

    id: str
    title: str
    rule: str
    run: Callable[[], Awaitable[None]]
    points: int = POINTS
    seconds: float = 60.0
    """It is a fault to take longer: each wait has a deadline of its own, but there may be many."""


class Section(Struct, frozen=True):
    """Checks about one matter. Those of a section run at once if they don't disturb one another."""

    name: str
    title: str
    checks: Callable[[GradedHerd], list[Check]]
    at_once: bool = True
