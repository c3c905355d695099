"""Areas: circles, and boxes between meridians and parallels. `polygons` has the others.

Positions are latitudes and longitudes in degrees, distances metres. A longitude is between -180 and 180; these two are
the same meridian, the date line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Protocol

from proxyherd.core.spatial.sphere import HALF_EARTH, haversine_between, haversine_of, metres_of
from proxyherd.core.value import Value

_SLACK_METRES: Final = 1.0


class Area(Protocol):
    """An area that can be searched: from its centre outwards, as far as it reaches."""

    @property
    def centre(self) -> tuple[float, float]:
        """The latitude and longitude from which distances are told. It need not be inside."""

    @property
    def reach(self) -> float:
        """The distance from the centre to the farthest point of the area, or more."""

    @property
    def bounds(self) -> Box:
        """A box that contains the area."""

    @property
    def positions(self) -> int:
        """How many positions describe it: each of a polygon may take 1 KiB of memory."""

    def check(self) -> Iterator[None]:
        """Check what takes long to check. Yields after each slice of work. Raises Misdrawn."""

    def contains(self, latitude: float, longitude: float) -> bool:
        """Whether a position is inside. Those farther away than `reach` are not asked."""


class Misdrawn(ValueError):  # noqa: N818 - it is not an error of the program
    """An area cannot be one; the text says where and why."""


class Box(Value):
    """What is between two meridians and two parallels, these included. If `west` is greater than `east`, it crosses the
    date line.
    """

    west: float
    south: float
    east: float
    north: float

    def check(self) -> Iterator[None]:
        """Check the bounds. Raises Misdrawn."""
        yield from ()
        for name, value, most in (
            ("west", self.west, 180),
            ("south", self.south, 90),
            ("east", self.east, 180),
            ("north", self.north, 90),
        ):
            if not -most <= value <= most:
                raise Misdrawn(f"{name} is between -{most} and {most}")
        if self.south > self.north:
            raise Misdrawn("south is not greater than north")

    @property
    def width(self) -> float:
        """Degrees from west to east."""
        return self.east - self.west if self.west <= self.east else self.east - self.west + 360

    @property
    def centre(self) -> tuple[float, float]:
        """The middle between the meridians, and between the parallels."""
        return (self.south + self.north) / 2, round_longitude(self.west + self.width / 2)

    @property
    def reach(self) -> float:
        """The distance to the farthest corner. In a wide box, it may be another point that is the farthest."""
        if self.width > 180:
            return HALF_EARTH
        latitude, longitude = self.centre
        return _SLACK_METRES + metres_of(
            max(
                haversine_between(latitude, longitude, self.south, self.west),
                haversine_between(latitude, longitude, self.north, self.west),
            )
        )

    @property
    def bounds(self) -> Box:
        """Itself."""
        return self

    @property
    def positions(self) -> int:
        """Two of its corners."""
        return 2

    @property
    def spans(self) -> list[tuple[float, float]]:
        """Its longitudes from west to east: one range, or two if it touches the date line."""
        west, east = self.west, self.east
        if west > east:
            return [(west, 180.0), (-180.0, east)]
        spans = [(west, east)]
        if west == -180 and east < 180:
            spans.append((180.0, 180.0))
        elif east == 180 and west > -180:
            spans.append((-180.0, -180.0))
        return spans

    def contains(self, latitude: float, longitude: float) -> bool:
        """Whether a position is inside, or on the edge."""
        if not self.south <= latitude <= self.north:
            return False
        if self.west <= self.east:
            return self.west <= longitude <= self.east or (
                abs(longitude) == 180 and (self.west == -180 or self.east == 180)
            )
        return longitude >= self.west or longitude <= self.east


EVERYWHERE: Final = Box(-180.0, -90.0, 180.0, 90.0)


class Circle(Value):
    """What is within some metres of a position along the ground."""

    latitude: float
    longitude: float
    metres: float

    def check(self) -> Iterator[None]:
        """Check the bounds. Raises Misdrawn."""
        yield from ()
        if not (-90 <= self.latitude <= 90 and -180 <= self.longitude <= 180):
            raise Misdrawn("a latitude is between -90 and 90, and a longitude between -180 and 180")
        if not 0 <= self.metres < math.inf:
            raise Misdrawn("a radius is not negative")

    @property
    def centre(self) -> tuple[float, float]:
        """Its centre."""
        return self.latitude, self.longitude

    @property
    def reach(self) -> float:
        """Its radius."""
        return self.metres

    @property
    def bounds(self) -> Box:
        """A search within the reach needs no other bounds."""
        return EVERYWHERE

    @property
    def positions(self) -> int:
        """Its centre."""
        return 1

    def contains(self, latitude: float, longitude: float) -> bool:
        """Whether a position is inside: all within the reach are."""
        haversine = haversine_between(self.latitude, self.longitude, latitude, longitude)
        return self.metres >= HALF_EARTH or haversine <= haversine_of(self.metres)


def round_longitude(degrees: float) -> float:
    """Return a longitude between -180 and 180, of degrees that may be up to one turn beyond."""
    if degrees > 180:
        return degrees - 360
    return degrees + 360 if degrees < -180 else degrees
