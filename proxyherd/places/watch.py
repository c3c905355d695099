"""The interfaces for counting calls and their costs, and the few words by which they are counted.

Pure.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from proxyherd.places.limits.breaker import BreakerState

CallOutcome = Literal[
    "answered", "denied", "limited", "failed", "unreachable", "broken", "late", "nonsense", "abandoned"
]
"""The outcomes of a call: an answer; a refusal; a refusal because of the quota; HTTP 5xx; no connection; a connection
that broke; no answer in time; an invalid answer; a call that was given up because nobody waits for it any more."""

BILLED: Final = frozenset[CallOutcome]({"answered", "broken", "late", "nonsense", "abandoned"})
"""The outcomes for which Google may take money: it did the work, or nobody knows."""

Spared = Literal["shared", "kept", "shed", "rate", "late", "breaker", "share", "budget", "unrecorded"]
"""Why a query, or another attempt at it, needed no call: a call under way or the cache answered it; there were too many
queries; its asker has asked too fast; too little time was left; the circuit breaker was open; its asker had its share of the budget; or the budget was
used up or could not be recorded."""


class Watch(Protocol):
    """Counts what Places do."""

    def count_call(self, provider: str, outcome: CallOutcome, seconds: float, dollars: float) -> None:
        """Count a call over the network, and its estimated cost."""

    def count_spared(self, why: Spared) -> None:
        """Count a query, or another attempt at it, that needed no call."""

    def note_breaker(self, state: BreakerState) -> None:
        """Note that the circuit breaker has changed."""


class Spend(Protocol):
    """Records calls before they are made."""

    def spend(self, asker: str | None) -> int:
        """Record a call for this asker, None: for nobody in particular; return what `give_back` takes. Raises FailedError
        if it must not be made.
        """

    def give_back(self, spent: int, asker: str | None) -> None:
        """Remove the record of a call that was not made after all."""

    def close(self) -> None:
        """Close the record."""


class NoBudget:
    """No limit, for a person who asks by hand."""

    def spend(self, asker: str | None) -> int:  # noqa: ARG002 - as above
        return 0

    def give_back(self, spent: int, asker: str | None) -> None:
        pass

    def close(self) -> None:
        pass
