"""When a server was in contact with its herd, and what it does not tell after a long absence.

A server is in contact while it has caught up over a live link. If it was cut off, or suspended with its machine, for most
of `tombstone_seconds`, clients may have been erased meanwhile, and nobody may know that any more. So when it is linked
again, its lines are in doubt, as those of a journal that is too old. They are set aside: neither told nor answered. Only
the reports that it has taken itself in the last part of that time stay: nobody else can have them, and whoever has
erased their clients still knows it.

A first catch-up ends that. Neighbours tell each other since when they have had the table (`began`). One that has had it all
the time may have forgotten an erasure, and has what is left: so what was set aside is dropped. One that began later, with an
empty table, was away too. It has erased nobody: so what was set aside is put back. The same is true of one that was
suspended: it counts as one that began when it went on. So a herd on one machine that sleeps for long keeps its table.
"""

from __future__ import annotations

from proxyherd.core.messages import CLOCK_IS_SET, Entry, received
from proxyherd.core.table import Table


class Contact:
    """The contact of one server with its herd. `longest`: how long it may have been without. All are nanoseconds, and
    moments are POSIX time.

    `last`: when it was last in contact, as far as known. `began`: since when it has had the table, or whoever it had it from; 0:
    always, as far as known. `aside`: the entries that are set aside; None: there are none, and
    nothing is to be decided. `doubted`: since when it had been without contact, until the journal has none of these entries
    any more; otherwise 0. `dropped`: how many entries it has ever dropped.
    """

    __slots__ = ("_by", "_longest", "_seen", "aside", "began", "doubted", "dropped", "last")

    def __init__(self, name: str, longest: int) -> None:
        self.last = self.began = self.doubted = 0
        self.dropped = 0
        self.aside: dict[bytes, Entry] | None = None
        self._longest = longest
        self._seen = 0  # the clock, when it was looked at last
        self._by = b"AT %b " % name.encode()

    @property
    def of_journal(self) -> int:
        """When the journal was last as the herd knew it."""
        return self.doubted or self.last

    def look_at_clock(self, clock: int) -> None:
        """Note whether the process was suspended for too long. Call often, and before a neighbour is told of `began`."""
        if self._seen >= CLOCK_IS_SET and clock - self._seen > self._longest:
            self.began = clock
        self._seen = clock

    def was_lost(self, clock: int) -> bool:
        """Whether the server was without contact for too long. A clock that was not set says nothing."""
        return self.last >= CLOCK_IS_SET and clock - self.last > self._longest

    def set_aside(self, table: Table, clock: int) -> None:
        """Take the lines that are in doubt out of the table. This takes about a second for a million clients."""
        self.aside = aside = self.aside or {}
        since = clock - self._longest
        for leaf in range(table.leaf_count):
            for client, entry in table.entries(leaf, leaf + 1):
                if not entry.line.startswith(self._by) or received(entry.line) <= since:
                    aside[client] = entry
                    table.remove(client, leaf)
        self.doubted = self.doubted or self.last
        self.last = clock

    def caught_up(self, began: int) -> dict[bytes, Entry]:
        """Note that a catch-up from a neighbour has ended, which has had the table since `began`. Decide about what is set
        aside; return the entries to put back.
        """
        self.began = min(self.began, began)
        aside, self.aside = self.aside or {}, None
        if aside and began <= self.doubted:
            self.dropped += len(aside)
            return {}
        self.doubted = 0 if aside else self.doubted
        return aside
