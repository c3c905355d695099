"""Distances on the Earth as a sphere. Positions are latitudes and longitudes in degrees, distances are metres."""

from __future__ import annotations

import math
from typing import Final

from proxyherd.base.earth import EARTH_METRES

HALF_EARTH: Final = math.pi * EARTH_METRES
"""The distance to the other side of the Earth: no two positions are farther apart."""

RADIANS: Final = math.pi / 180
HALF_RADIANS: Final = math.pi / 360


def haversine_between(latitude: float, longitude: float, other: float, its_longitude: float) -> float:
    """Return the haversine of the angle between two positions: 0 if they are the same, 1 on the other side of the Earth. It
    grows with the distance, is exact for small ones, and knows neither a date line nor a pole.
    """
    u, v = math.sin((other - latitude) * HALF_RADIANS), math.sin((its_longitude - longitude) * HALF_RADIANS)
    return u * u + math.cos(latitude * RADIANS) * math.cos(other * RADIANS) * v * v


def metres_of(haversine: float) -> float:
    """Return the distance, along the ground, of two positions whose haversine is known."""
    return 2 * EARTH_METRES * math.asin(math.sqrt(haversine)) if haversine < 1 else HALF_EARTH


def haversine_of(metres: float) -> float:
    """Return the haversine of two positions at this distance."""
    sine = math.sin(metres / EARTH_METRES / 2)
    return sine * sine


_SLACK: Final = 1e-15
_SLACK_DEGREES: Final = 1e-6
"""Because of rounding, discs are this much larger than they are, or smaller; the first is a haversine. Distances decide."""


class Disc:
    """What is within a distance of a position: how far it reaches along a latitude. It may be anywhere, also around a pole."""

    def __init__(self, latitude: float, metres: float) -> None:
        self.south = latitude - metres / EARTH_METRES / RADIANS - _SLACK_DEGREES
        self.north = latitude + metres / EARTH_METRES / RADIANS + _SLACK_DEGREES
        self._latitude, self._cosine = latitude, math.cos(latitude * RADIANS)
        self._larger = haversine_of(min(metres, HALF_EARTH)) + _SLACK
        self._smaller = haversine_of(metres) - _SLACK
        self._small = metres < HALF_EARTH / 2
        # Where its meridians touch it: there it is widest, unless a pole is inside of it.
        sine = math.sin(latitude * RADIANS) / math.cos(metres / EARTH_METRES) if self._small else 2.0
        self._peak = math.asin(sine) / RADIANS if -1 < sine < 1 else 100.0

    def widest(self, south: float, north: float) -> float:
        """Return how many degrees of longitude it reaches to either side at most, between two latitudes. It is negative if
        the disc is not there, and 180 or more where it goes all the way round.
        """
        width = max(self._width(south, self._larger), self._width(north, self._larger))
        if south < self._peak < north:
            width = max(width, self._width(self._peak, self._larger))
        return width + _SLACK_DEGREES

    def narrowest(self, south: float, north: float) -> float:
        """Return how many degrees it reaches to either side at least. It is negative if it may not be everywhere between
        the two latitudes.
        """
        if not self._small:
            return -1.0
        width = min(self._width(south, self._smaller), self._width(north, self._smaller))
        return width - _SLACK_DEGREES

    def _width(self, latitude: float, haversine: float) -> float:
        sine = math.sin((latitude - self._latitude) * HALF_RADIANS)
        left = haversine - sine * sine
        if left < 0:
            return -1.0
        product = self._cosine * math.cos(latitude * RADIANS)
        return math.asin(math.sqrt(left / product)) / HALF_RADIANS if left < product else 180.0
