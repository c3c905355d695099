"""Removes entries and tombstones that are too old from a table, a part of its leaves at each tick."""

from __future__ import annotations

from collections.abc import Callable

from proxyherd.core.messages import Entry
from proxyherd.core.table import Table


class Expiry:
    """The removal of old entries and tombstones from one table. `ticks`: after so many, all leaves have been visited once.
    Without `too_old`, entries stay.
    """

    def __init__(self, table: Table, too_old: Callable[[Entry], bool] | None, ticks: float) -> None:
        self._table = table
        self._too_old = too_old
        self._leaves = int(table.leaf_count / ticks) + 1
        self._next = 0  # the next leaf to visit

    def tick(self, oldest: int = 0) -> None:
        """Remove what is too old from the next leaves: also tombstones before the moment `oldest`, in nanoseconds of POSIX
        time.
        """
        table = self._table
        last = min(table.leaf_count, self._next + self._leaves)
        table.drop_tombstones(self._next, last, oldest)
        if self._too_old is not None:
            for client, entry in table.entries(self._next, last):
                if self._too_old(entry):
                    table.remove(client, table.leaf(client))
        self._next = last % table.leaf_count
