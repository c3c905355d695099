"""Points in an order in which near ones are near each other: by strips of latitude, and by longitude in each strip.

A point has a slot, a small number. Its key has its strip, its longitude and its slot, so keys are different even if all
points are at one place. The keys are sorted, in runs of a few hundred, packed in arrays: to put one in or take one out
moves a few KiB at most, however many there are.

A strip is a row around the Earth, so points between two longitudes of it are next to each other, whether they are many or
few. Strips and longitudes are coarse: a point that moves by some metres mostly keeps its key.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from typing import Final

STRIPS_OF_A_DEGREE: Final = 256.0
"""Strips of a degree of latitude: each is 434 m high."""

STRIP_DEGREES: Final = 1 / STRIPS_OF_A_DEGREE
LAST_STRIP: Final = int(180 * STRIPS_OF_A_DEGREE)
"""The strip of the North Pole. The South Pole is in strip 0."""

MOST_SLOTS: Final = 1 << 26
"""As many clients need 30 GB in the table, so no table has them."""

COLUMNS: Final = (1 << 18) / 360
"""Columns of a degree of longitude: each is 153 m wide at the equator."""

COLUMN_BITS: Final = 19
SLOT_BITS: Final = 27
PLACE: Final = (1 << SLOT_BITS) - 1
"""The bits of a key that are twice the slot. There is the point's latitude, in an array where its longitude is next."""

_RUN: Final = 512
"""The length at which a run of keys is cut in two."""

_FEW: Final = 64
"""The length below which a run is put together with the next one."""


def cell_of(latitude: float, longitude: float) -> int:
    """Return the strip and the column of a position: the first bits of a key."""
    return int((latitude + 90.0) * STRIPS_OF_A_DEGREE) << COLUMN_BITS | int((longitude + 180.0) * COLUMNS)


def strip_of(latitude: float) -> int:
    """Return the strip of a latitude."""
    return int((latitude + 90.0) * STRIPS_OF_A_DEGREE)


def start_of(strip: int) -> int:
    """Return what is not greater than any key of a strip, and greater than all keys of earlier strips."""
    return strip << COLUMN_BITS + SLOT_BITS


def columns_between(west: float, east: float) -> tuple[int, int]:
    """Return a range of keys in strip 0: those of all points between two longitudes, and a few around them. Neither is
    less than -180 or greater than 180.
    """
    return (
        int((west + 180.0) * COLUMNS) << SLOT_BITS,
        int((east + 180.0) * COLUMNS) + 1 << SLOT_BITS,
    )


class Keys:
    """The sorted keys of points."""

    def __init__(self) -> None:
        self._runs = [array("Q")]
        self._firsts = [0]  # each is at most the first key of its run, and greater than all keys before it

    def add(self, key: int) -> None:
        """Add a key."""
        firsts, runs = self._firsts, self._runs
        at = bisect_right(firsts, key) - 1
        run = runs[at]
        insort(run, key)
        if len(run) > _RUN:
            half = len(run) // 2
            runs.insert(at + 1, run[half:])
            firsts.insert(at + 1, run[half])
            del run[half:]

    def remove(self, key: int) -> None:
        """Remove a key that is there."""
        at = bisect_right(self._firsts, key) - 1
        run = self._runs[at]
        del run[bisect_left(run, key)]
        if len(run) < _FEW and at + 1 < len(self._runs) and len(run) + len(self._runs[at + 1]) < _RUN:
            run += self._runs.pop(at + 1)
            del self._firsts[at + 1]

    def next_strip(self, strip: int) -> int:
        """Return the first strip from this one on that has points, or LAST_STRIP + 1."""
        key = start_of(strip)
        at = bisect_right(self._firsts, key) - 1
        place = bisect_left(self._runs[at], key)
        while at < len(self._runs):
            run = self._runs[at]
            if place < len(run):
                return run[place] >> COLUMN_BITS + SLOT_BITS
            at, place = at + 1, 0
        return LAST_STRIP + 1

    def sample(self, latitude: float, longitude: float, most: int) -> tuple[int, float]:
        """Return how many of the nearest points in this strip are within how many degrees of longitude: up to `most`, to
        estimate how close points are here.
        """
        key = cell_of(latitude, longitude) << SLOT_BITS
        run = self._runs[bisect_right(self._firsts, key) - 1]
        place = bisect_left(run, key)
        first, last = max(place - most // 2, 0), min(place + most // 2, len(run)) - 1
        start = start_of(strip_of(latitude))
        while first < last and run[first] < start:
            first += 1
        while first < last and run[last] >= start + start_of(1):
            last -= 1
        if first >= last:
            return 0, 0.0
        return last - first + 1, ((run[last] >> SLOT_BITS) - (run[first] >> SLOT_BITS) + 1) / COLUMNS

    def between(self, first: int, last: int) -> tuple[array[int], int]:
        """Return some keys from `first` up to, but not including, `last`; and from where to continue, -1 if that was all."""
        at = bisect_right(self._firsts, first) - 1
        run = self._runs[at]
        start = bisect_left(run, first)
        end = bisect_left(run, last, start)
        if end < len(run) or at + 1 == len(self._runs) or self._firsts[at + 1] >= last:
            return run[start:end], -1
        return run[start:end], self._firsts[at + 1]
