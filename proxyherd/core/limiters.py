"""Limits of what is logged: nobody can fill the log, and so erase it, with events that cost nothing."""

from __future__ import annotations

from collections import Counter
from typing import Final

_REPEAT_SECONDS: Final = 60.0
_REFILL_SECONDS: Final = 6.0
_BURST: Final = 10

COMMANDS_BURST: Final = 2_000
"""Commands without effect, of all clients, that are logged one by one: this many at once, and then one a second. Each
takes up to 2.3 KB of log."""

ADDRESS_BURST: Final = 1_000
"""The same for one address, so that one flooder leaves some for others."""

_MOST_ADDRESSES: Final = 1_024
"""Addresses whose left out commands are counted separately."""

SHOWN_ADDRESSES: Final = 10


class Limiter:
    """Decides which events of one kind are logged: a burst, then one in so many seconds. A repetition of the last one is
    logged only after a longer time.
    """

    __slots__ = ("_at", "_burst", "_left_out", "_refill", "_repeat", "_said", "_said_at", "_tokens")

    def __init__(
        self, burst: int = _BURST, refill: float = _REFILL_SECONDS, repeat: float = _REPEAT_SECONDS
    ) -> None:
        self._tokens = self._burst = float(burst)
        self._refill = refill
        self._repeat = repeat
        self._at = 0.0
        self._said: str | None = None
        self._said_at: float
        self._left_out = 0

    def pass_on(self, reason: str, now: float) -> int | None:
        """Return how many were left out before this one, or None if this one is left out too."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) / self._refill)
        self._at = now
        repeats = reason == self._said and now < self._said_at + self._repeat
        if repeats or self._tokens < 1:
            self._left_out += 1
            return None
        self._tokens -= 1
        self._said, self._said_at = reason, now
        left_out, self._left_out = self._left_out, 0
        return left_out


class CommandLimiter:
    """Decides which commands without effect are logged one by one, and counts the others.

    It reads no clock for a command: `refill` raises the limits again as time passes.
    """

    def __init__(self) -> None:
        self._left = float(COMMANDS_BURST)
        self._logged: dict[str, float] = {}  # by address, less one for each second since
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._addresses: Counter[str] = Counter()

    def passes(self, client: str, kind: str, outcome: str) -> bool:
        """Whether a command of this client (address and port) is logged; if not, it is counted."""
        address = client.rpartition(":")[0]
        logged = self._logged.get(address, 0.0)
        if logged <= ADDRESS_BURST - 1 and self._left >= 1:
            self._left -= 1
            self._logged[address] = logged + 1
            return True
        self._outcomes[kind, outcome] += 1
        if address not in self._addresses and len(self._addresses) >= _MOST_ADDRESSES:
            address = "others"
        self._addresses[address] += 1
        return False

    def refill(self, seconds: float) -> None:
        """Let time pass."""
        self._left = min(COMMANDS_BURST, self._left + seconds)
        self._logged = {
            address: logged - seconds for address, logged in self._logged.items() if logged > seconds
        }

    def take_left_out(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return how many were left out since the last time: by kind and outcome, and by address for those that sent
        most.
        """
        outcomes = {f"{kind} {outcome}": count for (kind, outcome), count in self._outcomes.items()}
        addresses = dict(self._addresses.most_common(SHOWN_ADDRESSES))
        self._outcomes.clear()
        self._addresses.clear()
        return outcomes, addresses
