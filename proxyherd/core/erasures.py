"""Erases clients from one table: by commands of clients, and by tombstones that neighbours or the journal tell.

- A command erases what this server holds of the client, and whatever any server has received until now. So a report
  that comes after it is stored.
- With `before`, an earlier moment, a client stays if it was seen after that moment. If this server holds what is to be
  erased, the tombstone may cover a little more time, so that it is kept for long enough. Otherwise it covers no more,
  because another server may have seen the client since; and there is none if it would end at once.
- A tombstone is kept for `tombstone_seconds`. After that, no copy of the erased line can come back: a journal that has
  not been written for most of that time is not used any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxyherd.config.schema import ErasureSettings, Limits
from proxyherd.core.messages import NANOSECONDS, Forget, received
from proxyherd.core.news import News
from proxyherd.core.notes import Note, Removed
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules, refuse_to_erase
from proxyherd.core.table import Erasure, Table
from proxyherd.core.tombstones import Tombstone

SLACK: Final = 8
"""A divisor: by this part of `tombstone_seconds`, a journal is too old before its time."""

REACH: Final = 16
"""A divisor: by this part of `tombstone_seconds`, the moment of an erasure may be in the past. It is half of the other one.
The rest is for differences of clocks, and for the time until everybody has heard of the erasure."""


RESERVE: Final = 8
"""A divisor: this part of `max_tombstones` is for revocations of tokens only, so that nobody who may erase clients can use
up what revokes his token."""


def longest_absence(settings: ErasureSettings) -> int:
    """Return how long a server may have been away, in nanoseconds, and still use its journal."""
    keep = int(settings.tombstone_seconds * NANOSECONDS)
    return keep - keep // SLACK


class Erasures:
    """The erasures of one server. `tell` gets notes for the log, and `erased` is called with what each erasure has changed.
    Those of clients count when they are settled.
    """

    def __init__(
        self,
        table: Table,
        rules: Rules,
        limits: Limits,
        settings: ErasureSettings | None,
        tell: Callable[[Note], None],
        erased: Callable[[Erasure], None],
    ) -> None:
        self._table = table
        self._rules = rules
        self._tell, self._erased = tell, erased
        self._most = limits.max_tombstones
        self._most_of_clients = self._most - self._most // RESERVE
        self._most_to_learn = limits.max_tombstones * 5 // 4
        self.count = 0  # tombstones that were new, or later than before
        self.lines = 0  # that they have removed from the table
        # By clients, and perhaps not in the journal yet: what was erased, and clients of which no line was held.
        self._unsettled: list[Erasure | Removed] = []
        self._keep = int((settings or ErasureSettings()).tombstone_seconds * NANOSECONDS)

    @property
    def oldest(self) -> int:
        """The earliest moment of a tombstone that is still kept, in nanoseconds of POSIX time."""
        return self._rules.clock - self._keep

    @property
    def unsettled(self) -> bool:
        """Whether there are erasures that may have to be undone."""
        return bool(self._unsettled)

    def forget(self, command: Forget) -> tuple[Reply, list[News]]:
        """Erase a client. Return the reply, and what is to be kept and told."""
        table, client, clock = self._table, command.client, self._rules.clock
        held = table.get(client)
        last = received(held.line) if held is not None else 0
        until = max(clock - 1, last, 1)
        if command.before is not None:
            holds = held is not None and last <= command.before
            earliest = clock - self._keep // REACH if holds else 1
            until = min(until, max(command.before, earliest, 1))
            if until < self.oldest:
                outcome = "stayed" if last > until else "erased"
                return Reply("forget", outcome, table.tombstone(client, until).line), []
        before = table.erased_until(client)
        most = self._most if command.is_revocation else self._most_of_clients
        if not before and len(table.tombstones) >= most:
            return refuse_to_erase("full"), []
        tombstone = table.tombstone(client, max(until, before))
        erasure = table.erase(tombstone)
        news: list[News] = []
        if erasure is not None:
            self._unsettled.append(erasure)
            news.append(News(tombstone.client, tombstone.line, None, False, erasure))
        outcome = "stayed" if last > tombstone.until else "erased"
        if outcome == "erased" and (erasure is None or erasure.client is None):
            self._unsettled.append(Removed(client))  # what was said of the client may still be in memory
        return Reply("forget", outcome, tombstone.line), news

    def admit(self, tombstone: Tombstone) -> bool | None:
        """Learn a tombstone. Return whether it was news, or None if there is no room for it."""
        table = self._table
        if tombstone.until < self.oldest:
            return False
        if len(table.tombstones) >= self._most_to_learn and not table.held_until(tombstone.digest):
            return None
        erasure = table.erase(tombstone)
        if erasure is not None:
            self._count(erasure)
        return erasure is not None

    def settle(self) -> None:
        """Count the erasures of clients since the last call, and tell them: they are kept, and nothing undoes them."""
        if self._unsettled:
            for one in self._unsettled:
                if isinstance(one, Removed):
                    self._tell(one)
                else:
                    self._count(one)
            self._unsettled.clear()

    def undo(self) -> None:
        """Forget these erasures: they could not be kept."""
        self._unsettled.clear()

    def _count(self, erasure: Erasure) -> None:
        self.count += 1
        if erasure.client is not None:
            self.lines += 1
            self._tell(Removed(erasure.client))
        self._erased(erasure)
