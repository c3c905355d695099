"""Where clients last reported: counts them in cells of equal degrees. One sweep over the table follows another, in
slices.

A slice takes milliseconds, so no answer waits. A sweep of a large table takes as many slices as it needs; meanwhile
the last complete one is shown. If there are too many cells to send, larger ones are used.
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
"""Degrees of the smallest cell: about two pixels on the page, and at most 55 km on the ground."""

_EAST: Final = 360 - _FINEST / 2
_NORTH: Final = 180 - _FINEST / 2
"""The northern and eastern edges of the world belong to the last cells."""

_AT_ONCE: Final = 32
"""Leaves between two checks of the clock."""

_SLICE_SECONDS: Final = 0.002

# It is only used for valid AT lines.
_place: Final = re.compile(rb"AT \S+ \S+ \S+ ([+-][0-9.]+)([+-][0-9.]+)").match


class Cells(Struct, frozen=True):
    """Clients by cell. `cells` has for each one, in a flat list, the column from 180 degrees west, the row from 90
    degrees south, and the number of clients. `degrees` is the side of a cell. `whole`: whether the whole table is
    counted.
    """

    degrees: float
    cells: list[int]
    clients: int
    whole: bool


def place(line: bytes) -> tuple[float, float]:
    """Return latitude and longitude of an AT line as floats."""
    match = _place(line)
    assert match is not None
    return float(match[1]), float(match[2])


class Density:
    """Counts the clients of a table; without a table, none."""

    def __init__(self, table: Table | None) -> None:
        self._table = table
        self._shown: Cells | None = None
        self._start()

    def _start(self) -> None:
        self._leaf = 0
        self._degrees = _FINEST
        self._counts: Counter[tuple[int, int]] = Counter()

    def slice(self) -> bool:
        """Count for two milliseconds; return whether that ended a sweep."""
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
        """Whether there has been a complete sweep."""
        return self._shown is not None

    def cells(self) -> Cells:
        """Return the last complete sweep, or the counts of the first one so far."""
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
