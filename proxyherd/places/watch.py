"""Who counts what Places do and what it costs, and the few words that are counted by.

Pure.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from proxyherd.places.limits.breaker import BreakerState

CallOutcome = Literal[
    "answered", "denied", "limited", "failed", "unreachable", "broken", "late", "nonsense", "abandoned"
]
"""What can become of a call: an answer, a refusal, one for the quota's sake, HTTP 5xx, no connection, a connection that
broke, no answer in time, an answer that is none, given up since nobody waits for it any more."""

BILLED: Final = frozenset[CallOutcome]({"answered", "broken", "late", "nonsense", "abandoned"})
"""What Google may take money for: it did the work, or nobody knows."""

Spared = Literal["shared", "kept", "shed", "late", "breaker", "budget", "unrecorded"]
"""Why a query, or another attempt at it, cost no call: one under way answered it, an answer that was kept did, there
were too many queries, none could have been answered in the time that was left, the circuit breaker was open, or the
budget was used up or could not be recorded."""


class Watch(Protocol):
    """Who counts what Places do."""

    def count_call(self, provider: str, outcome: CallOutcome, seconds: float, dollars: float) -> None:
        """Count a call over the network, and what it may have cost."""

    def count_spared(self, why: Spared) -> None:
        """Count a query, or another attempt at it, that cost no call."""

    def note_breaker(self, state: BreakerState) -> None:
        """Note that the circuit breaker has changed."""


class Spend(Protocol):
    """What a call is recorded in before it is made."""

    def spend(self) -> int:
        """Record a call, and return what `give_back` takes. Raises FailedError if it must not be made."""

    def give_back(self, spent: int) -> None:
        """Take a call off the record that was not made after all."""

    def close(self) -> None:
        """Let go of the record."""


class NoBudget:
    """For one who asks by hand, and says so."""

    def spend(self) -> int:
        return 0

    def give_back(self, spent: int) -> None:
        pass

    def close(self) -> None:
        pass
