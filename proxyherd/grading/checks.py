"""What a check is: one rule of the protocol, what it is about, and how to see whether it holds.

A judgement is one of

    passed          the rule holds
    fault           it is broken, and this check carries the mark
    not judged      a fault of another check explains it, or keeps it from being seen; that one carries the mark
    not seen        something is missing here that would show it, such as a log
    not applicable  it is about a feature that this herd does not have
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct

from proxyherd.grading.forms import FOUND_OUT, Form
from proxyherd.grading.herds import GradedHerd


class Check(Struct, frozen=True):
    """One check. `run` returns if the rule holds, and otherwise raises Fault, NotSeen, NotJudged or NotApplicable."""

    id: str
    title: str
    rule: str
    run: Callable[[], Awaitable[None]]
    seconds: float = 60.0
    """If it takes longer, it is not seen: each wait has a deadline of its own, but there may be many."""
    about: Form | None = None
    """The form that is its subject; None: the substance."""
    needs: frozenset[Form] = frozenset()
    """Forms in which the check talks: it is not run if a server has another one."""
    follows: frozenset[str] = frozenset()
    """IDs of checks of which a fault explains a fault of this one."""

    @property
    def explained_by(self) -> frozenset[str]:
        """The IDs of all checks that carry the mark in place of this one."""
        forms = self.needs | ({self.about} if self.about else set())
        return (self.follows | {form.check for form in forms if form in FOUND_OUT}) - {self.id}


class Section(Struct, frozen=True):
    """Checks about one subject. Those of a section run at once if they don't affect one another."""

    name: str
    title: str
    checks: Callable[[GradedHerd], list[Check]]
    at_once: bool = True
    in_steps: bool = False
    """Whether each check builds on those before it."""
