"""How far outside of an area a position is: a client that has left it by less than some metres may count as inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import accumulate, pairwise
from typing import Final, TypeAlias

from proxyherd.base.earth import EARTH_METRES
from proxyherd.core.spatial.areas import Area, Box, Circle
from proxyherd.core.spatial.polygons import Polygon
from proxyherd.core.spatial.sphere import HALF_EARTH, RADIANS, haversine_between, metres_of

Outside: TypeAlias = Callable[[float, float], float]
"""The distance in metres from a position, by its latitude and longitude in degrees, to an area: 0 inside."""

_PART: Final = 0.01
_METRES: Final = 0.001
"""A distance to a polygon is known once it is between two that differ by this part of it, or by a millimetre."""


def outside_of(area: Area) -> Outside:
    """Return how far outside of an area a position is, along the ground, right to 1 % and a millimetre."""
    if isinstance(area, Circle):
        return _OutsideOfCircle(area)
    if isinstance(area, Box):
        return _OutsideOfBox(area)
    if isinstance(area, Polygon):
        return _OutsideOfPolygon(area)
    raise TypeError(f"how far is a {type(area).__name__}?")


class _OutsideOfCircle:
    def __init__(self, circle: Circle) -> None:
        self._circle = circle

    def __call__(self, latitude: float, longitude: float) -> float:
        circle = self._circle
        if circle.contains(latitude, longitude):
            return 0.0
        haversine = haversine_between(circle.latitude, circle.longitude, latitude, longitude)
        return max(metres_of(haversine) - circle.metres, 0.0)


class _OutsideOfBox:
    """On each parallel, the nearest position of the box is on the same meridian, or else on the nearer side. What is
    nearest on a whole meridian follows from the angle to it.
    """

    def __init__(self, box: Box) -> None:
        self._box = box

    def __call__(self, latitude: float, longitude: float) -> float:
        box = self._box
        if box.contains(latitude, longitude):
            return 0.0
        if box.contains(box.south, longitude):
            return EARTH_METRES * RADIANS * max(box.south - latitude, latitude - box.north)
        side = min(box.west, box.east, key=lambda side: -math.cos((longitude - side) * RADIANS))
        phi = latitude * RADIANS
        nearest = math.atan2(math.sin(phi), math.cos(phi) * math.cos((longitude - side) * RADIANS)) / RADIANS
        if not box.south <= nearest <= box.north:
            nearest = max(box.south, box.north, key=lambda end: math.cos((end - nearest) * RADIANS))
        return metres_of(haversine_between(latitude, longitude, nearest, side))


class _OutsideOfPolygon:
    """Rings are cut in halves, and these again, those first that may be nearest: no position of a piece is nearer than its
    middle by more than half of its length. A place on a ring is a number: 2.5 is half-way from its position 2 to 3.
    """

    def __init__(self, polygon: Polygon) -> None:
        self._contains = polygon.contains
        self._rings = polygon.rings
        self._lengths = [
            [0.0, *accumulate(_most_metres(a, b) for a, b in pairwise(ring))] for ring in self._rings
        ]

    def __call__(self, latitude: float, longitude: float) -> float:
        if self._contains(latitude, longitude):
            return 0.0
        most = HALF_EARTH
        pieces = [(0.0, ring, 0.0, float(len(points) - 1)) for ring, points in enumerate(self._rings)]
        while True:
            least, ring, begin, end = heappop(pieces)
            if most - least <= max(_PART * most, _METRES):
                return (most + least) / 2
            points, lengths, middle = self._rings[ring], self._lengths[ring], (begin + end) / 2
            for first, last in ((begin, middle), (middle, end)):
                half = (first + last) / 2
                at, part = int(half), half % 1
                (x, y), (to_x, to_y) = points[at], points[at + 1]
                metres = metres_of(
                    haversine_between(latitude, longitude, y + part * (to_y - y), x + part * (to_x - x))
                )
                most = min(most, metres)
                length = max(
                    _length(lengths, last) - _length(lengths, half),
                    _length(lengths, half) - _length(lengths, first),
                )
                heappush(pieces, (max(metres - length, 0.0), ring, first, last))


def _most_metres(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the length of an edge, or more: as if it were all as far from the poles as its farther end, or as the equator
    where it crosses it.
    """
    (x, y), (to_x, to_y) = a, b
    nearest = 0.0 if y * to_y < 0 else min(abs(y), abs(to_y))
    return EARTH_METRES * RADIANS * math.hypot(to_y - y, (to_x - x) * math.cos(nearest * RADIANS))


def _length(lengths: list[float], place: float) -> float:
    """Return the length of a ring up to a place on it."""
    at = int(place)
    part = place - at
    return lengths[at] + part * (lengths[at + 1] - lengths[at]) if part else lengths[at]
