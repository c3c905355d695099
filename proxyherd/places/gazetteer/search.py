"""Which places are in a circle, and in which order: geometry, and a search of sorted arrays.

A place is a point on the unit sphere. Its distance is the chord, the straight line through the Earth, which has no date
line and no pole. A place is within d metres along the ground if its chord, in doubles, is at most 2 sin(d / 2R). The
points are sorted into strips of latitude, and by longitude in each strip. Bisection finds those near a circle.

Google's default order is by prominence. Here it is gravity, (population + FLOOR) / (distance² + SOFTENING²).

Pure.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate
from operator import itemgetter
from struct import Struct
from typing import Final

from proxyherd.base.earth import EARTH_METRES

FLOOR: Final = 5_000
"""Added to the population of every place. Half of the places have fewer than 1,710 inhabitants, and for one in eight the
population is not known. So among small places the nearest comes first, and only towns come before nearer places."""

SOFTENING_METRES: Final = 1_000.0
"""Within this distance, being nearer counts little: a town is a kilometre wide, and its position is one point in it."""

STRIPS: Final = 10
"""Strips of a degree of latitude: 11 km each."""

SLICE: Final = 512
"""Points that one step of a search looks at: it takes up to 0.2 ms."""

_SLACK: Final = 1e-12
"""The circle is enlarged by this angle, 6 micrometres, before points are chosen, because of rounding. The chord decides.
"""

_POINT: Final = Struct("=4dQ")  # x, y, z, weight, number
_STARTS: Final = (
    180 * STRIPS + 2
)  # the North Pole has a strip of its own, and the last entry is the end of it
_number = itemgetter(1)
_SOFTENING: Final = (SOFTENING_METRES / EARTH_METRES) * (SOFTENING_METRES / EARTH_METRES)


class Points:
    """The points that `pack` has packed, for searches."""

    def __init__(self, data: memoryview) -> None:
        longitudes = _STARTS * 4
        points = longitudes + (len(data) - longitudes) // (8 + _POINT.size) * 8
        self._starts = data[:longitudes].cast("I")
        self._longitudes = data[longitudes:points].cast("d")
        self._points = data[points:]

    def near(
        self, latitude: float, longitude: float, metres: float, most: int
    ) -> Iterator[tuple[int, ...] | None]:
        """Search a circle around a position in degrees. Yields None after each step but the last; then it yields the numbers
        of the `most` points with the greatest scores, greatest first. Of equal scores, the smaller number comes first.

        A step looks at no more than SLICE points. If there are more points, the first step looks at none. So a caller that
        wants only answers of one step spends little on a longer search.
        """
        runs = [*self._runs(latitude, longitude, metres)]
        if sum([last - first for first, last in runs]) > SLICE:
            yield None
        x, y, z = vector(latitude, longitude)
        chord = 2 * math.sin(metres / EARTH_METRES / 2)
        limit, softening, points, size = chord * chord, _SOFTENING, self._points, _POINT.size
        best: list[tuple[float, int]] = []
        left = SLICE
        for first, last in runs:
            at = first
            while at < last:
                if not left:
                    best.sort()
                    del best[most:]
                    yield None
                    left = SLICE
                end = min(last, at + left)
                left -= end - at
                # Not a comprehension: that would cost a quarter more, because it reads the variables of this function.
                for px, py, pz, weight, number in _POINT.iter_unpack(points[at * size : end * size]):
                    dx, dy, dz = px - x, py - y, pz - z
                    square = dx * dx + dy * dy + dz * dz
                    if square <= limit:
                        best.append((-weight / (square + softening), number))
                at = end
        best.sort()
        yield tuple(map(_number, best[:most]))

    def all(self) -> Iterator[tuple[int, int]]:
        """Yield the number and the inhabitants of each point."""
        for *_, weight, number in _POINT.iter_unpack(self._points):
            yield number, int(weight) - FLOOR

    def _runs(self, latitude: float, longitude: float, metres: float) -> Iterator[tuple[int, int]]:
        """Yield ranges of points: all that are in a circle, and a few around it."""
        angle = metres / EARTH_METRES + _SLACK
        height = math.degrees(angle)
        south, north = max(latitude - height, -90.0), min(latitude + height, 90.0)
        spans = [(-180.0, 180.0)]
        if south > -90 and north < 90:  # otherwise the circle contains a pole
            sine = math.sin(angle) / math.cos(math.radians(latitude))
            width = math.degrees(math.asin(min(sine, 1.0)))
            spans = [(longitude - width, longitude + width)]
            if longitude - width < -180:
                spans.append((longitude - width + 360, 180.0))
            elif longitude + width > 180:
                spans.append((-180.0, longitude + width - 360))
        for strip in range(_strip(south), _strip(north) + 1):
            first, last = self._starts[strip], self._starts[strip + 1]
            for west, east in spans:
                start = bisect_left(self._longitudes, west, first, last)
                yield start, bisect_right(self._longitudes, east, start, last)


def pack(places: Iterable[tuple[float, float, int, int]]) -> bytes:
    """Pack places for a search, in this machine's byte order: latitude, longitude, inhabitants, and number of each."""
    rows = sorted(
        (_strip(latitude), longitude, number, latitude, people)
        for latitude, longitude, people, number in places
    )
    counts = Counter(strip for strip, *_ in rows)
    starts = accumulate((counts[strip] for strip in range(_STARTS - 1)), initial=0)
    points = (
        _POINT.pack(*vector(latitude, longitude), people + FLOOR, number)
        for _, longitude, number, latitude, people in rows
    )
    return b"".join((array("I", starts), array("d", (longitude for _, longitude, *_ in rows)), *points))


def vector(latitude: float, longitude: float) -> tuple[float, float, float]:
    """Return a position in degrees as a point on the unit sphere: x to 0° east, y to 90° east, z to the north."""
    phi, lam = math.radians(latitude), math.radians(longitude)
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)


def _strip(latitude: float) -> int:
    return math.floor((latitude + 90) * STRIPS)
