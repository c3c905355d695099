"""Where clients last reported, counted in cells of equal degrees: one sweep over the table after another, in slices.

A slice takes milliseconds, so nobody's answer waits; a sweep of a large table takes as many slices as it needs, and
meanwhile the last whole one is shown. Cells grow until there are few enough to send.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import Final

from msgspec import Struct

from proxyherd.core.sizes import SIZES
from proxyherd.core.table import Table

MOST_CELLS: Final = 4_000
_FINEST: Final = 0.5
"""Degrees of the smallest cell: on the page some two pixels, on the ground 55 km at most."""

_EAST: Final = 360 - _FINEST / 2
_NORTH: Final = 180 - _FINEST / 2
"""The edges of the world belong to the last cells, and not to others beyond."""

_AT_ONCE: Final = 32
"""Leaves between two looks at the clock."""

_SLICE_SECONDS: Final = 0.002

# Of an AT line that is known to be one.
_place: Final = re.compile(rb"AT \S+ \S+ \S+ ([+-][0-9.]+)([+-][0-9.]+)").match


class Cells(Struct, frozen=True):
    """Clients by cell: `cells` has the columns from 180 degrees west, the rows from 90 degrees south, and how many,
    one after the other; `degrees` is the side of a cell. `whole` is whether all of the table has been counted.
    """

    degrees: float
    cells: list[int]
    clients: int
    whole: bool


def place(line: bytes) -> tuple[float, float]:
    """Return latitude and longitude of an AT line, as near as a float comes."""
    match = _place(line)
    assert match is not None
    return float(match[1]), float(match[2])


class Density:
    """Counts the clients of a table; where there is none, nobody."""

    def __init__(self, table: Table | None) -> None:
        self._table = table
        self._shown: Cells | None = None
        self._start()

    def _start(self) -> None:
        self._leaf = 0
        self._degrees = _FINEST
        self._counts: Counter[tuple[int, int]] = Counter()

    def slice(self) -> bool:
        """Count for two milliseconds; True if that ended a sweep."""
        end = time.perf_counter() + _SLICE_SECONDS
        while time.perf_counter() < end:
            self._count(self._leaf, self._leaf + _AT_ONCE)
            self._leaf += _AT_ONCE
            if self._leaf >= SIZES.leaves:
                self._shown = self._cells(whole=True)
                self._start()
                return True
        return False

    @property
    def counted(self) -> bool:
        """Whether there has been a whole sweep."""
        return self._shown is not None

    def cells(self) -> Cells:
        """Return the last whole sweep, or, before there is one, what the first has counted."""
        return self._shown or self._cells(whole=False)

    def _count(self, first: int, last: int) -> None:
        degrees, counts = self._degrees, self._counts
        for _, entry in self._table.entries(first, last) if self._table is not None else ():
            match = _place(entry.line)
            assert match is not None
            east, north = min(float(match[2]) + 180, _EAST), min(float(match[1]) + 90, _NORTH)
            counts[int(east / degrees), int(north / degrees)] += 1
        while len(self._counts) > MOST_CELLS:
            self._grow()

    def _grow(self) -> None:
        counts: Counter[tuple[int, int]] = Counter()
        for (column, row), count in self._counts.items():
            counts[column // 2, row // 2] += count
        self._counts, self._degrees = counts, 2 * self._degrees

    def _cells(self, *, whole: bool) -> Cells:
        cells = [number for (column, row), count in self._counts.items() for number in (column, row, count)]
        return Cells(self._degrees, cells, sum(self._counts.values()), whole)
