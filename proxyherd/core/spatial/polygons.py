"""Polygons with holes, and several as one area, as in GeoJSON (RFC 7946): rings of positions, longitude first.

An edge is straight in longitude and latitude. It goes the shorter way round the Earth, so it may cross the date line. An
area round a pole has an edge along the pole, from one longitude to another. What is inside is decided by even and odd: so a
hole is a hole whichever way round it is drawn. Of two polygons that share an edge, a position on it is in one.

Edges may touch those of other rings. Within a ring they meet at its positions only: which positions are inside of a ring
that crosses itself, its author may see otherwise than this program.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Final, TypeAlias

from proxyherd.core.spatial.areas import Box, Misdrawn, round_longitude
from proxyherd.core.spatial.crossings import (
    MANY_EDGES,
    Edge,
    Point,
    find_crossing,
    lies_on,
    orientation,
)

Ring: TypeAlias = Sequence[tuple[float, float]]
"""Longitude and latitude of each position; the last one is the first one again."""

MOST_POSITIONS: Final = 1_000
"""Positions of all rings of an area. To compare so many edges with each other takes 0.1 s at most, in slices."""

_SLICE: Final = 32
"""Slabs that are made, or positions of holes that are looked for, in one slice of work: half a millisecond."""

_EDGES_SLICE: Final = 512
"""Edges that are made in one slice of work: a fifth of one."""

_UNITS: Final = 10**9
"""Of a degree. Positions are rounded to it, so that all that follows is exact."""

_TURN: Final = 360 * _UNITS
_TOP: Final = 90 * _UNITS - 1
"""A pole is as near as this to the edge along it, so that it is inside."""


class Polygon:
    """An area of one or more polygons, each with its outer ring and its holes. Raises Misdrawn for rings that are none;
    `check` raises it for rings that cross. Most of the work is left to `check`, which needs to be done once.
    """

    def __init__(self, polygons: Sequence[Sequence[Ring]]) -> None:
        self.positions = sum(len(ring) for rings in polygons for ring in rings)
        if self.positions > MOST_POSITIONS:
            raise Misdrawn(f"an area has at most {MOST_POSITIONS:,} positions")
        self._parts = [_Part(rings) for rings in polygons if rings]
        if not self._parts:
            raise Misdrawn("there is no ring")
        west, east = _shortest_arc(
            [(part.west / _UNITS, (part.east - part.west) / _UNITS) for part in self._parts]
        )
        south = min(part.south for part in self._parts) / _UNITS
        north = max(part.north for part in self._parts) / _UNITS
        self.bounds = Box(west, south, east, north)
        self.centre, self.reach = self.bounds.centre, self.bounds.reach
        self._is_checked = False

    @property
    def rings(self) -> list[list[tuple[float, float]]]:
        """Longitude and latitude of the positions of each ring, in degrees. Longitudes go on beyond the date line."""
        return [[(x / _UNITS, y / _UNITS) for x, y in ring] for part in self._parts for ring in part.rings]

    def check(self) -> Iterator[None]:
        """Compare the edges with each other. Yields after each slice of work. Raises Misdrawn where they cross."""
        if not self._is_checked:
            for part in self._parts:
                yield from part.check()
            self._is_checked = True

    def contains(self, latitude: float, longitude: float) -> bool:
        """Whether a position is inside."""
        x, y = round(longitude * _UNITS), max(min(round(latitude * _UNITS), _TOP), -_TOP)
        for part in self._parts:
            if part.south <= y <= part.north:
                for turned in (x, x + _TURN, x - _TURN):
                    if part.west <= turned <= part.east and part.contains(turned, y):
                        return True
        return False


class _Part:
    """One polygon, in a plane of longitudes and latitudes. Longitudes go on beyond the date line."""

    def __init__(self, rings: Sequence[Ring]) -> None:
        unrolled = [_unroll(ring) for ring in rings]
        outer = unrolled[0]
        self.west, self.east = min(x for x, _ in outer), max(x for x, _ in outer)
        self.south, self.north = min(y for _, y in outer), max(y for _, y in outer)
        if self.east - self.west > _TURN:
            raise Misdrawn("it goes round the Earth more than once")
        self.rings = [outer, *(self._beside(hole) for hole in unrolled[1:])]
        self._slabs: _Slabs | None = None

    def check(self) -> Iterator[None]:
        edges = list[Edge]()
        for edge in self._edges():
            edges.append(edge)
            if not len(edges) % _EDGES_SLICE:
                yield
        for crossing in find_crossing(edges):
            if crossing is None:
                yield
            else:
                first, second, how, (x, y) = crossing
                raise Misdrawn(f"its edges {_edge(first)} and {_edge(second)} {how} {_spell((x, y))}")
        slabs = _Slabs(edges)
        yield from slabs.make()
        self._slabs = slabs
        if len(self.rings) > 1:
            yield from self._check_holes([edge for edge in edges if not edge.ring])

    def _edges(self) -> Iterator[Edge]:
        return (Edge(number, a, b) for number, ring in enumerate(self.rings) for a, b in pairwise(ring))

    def _check_holes(self, outer: list[Edge]) -> Iterator[None]:
        slabs = _Slabs(outer)
        yield from slabs.make()
        for number, (x, y) in enumerate(chain.from_iterable(self.rings[1:])):
            if slabs.contains(x, y):
                if number % _SLICE:
                    continue
            elif not any(lies_on(edge, (x, y)) for edge in outer):
                raise Misdrawn(f"a hole has {_spell((x, y))}, which is outside of the polygon")
            yield

    def contains(self, x: int, y: int) -> bool:
        if self._slabs is None:
            self._slabs = _Slabs([*self._edges()])
            for _ in self._slabs.make():
                pass
        return self._slabs.contains(x, y)

    def _beside(self, hole: list[Point]) -> list[Point]:
        """Return a hole, turned by whole turns so that it is where the outer ring is."""
        west, east = min(x for x, _ in hole), max(x for x, _ in hole)
        for turn in (0, _TURN, -_TURN):
            if self.west <= west + turn and east + turn <= self.east:
                return [(x + turn, y) for x, y in hole]
        raise Misdrawn(f"a hole has {_spell(hole[0])}, and is not inside of the polygon")


class _Slabs:
    """Edges by the latitudes at which some begin or end. Between two of these, they lie side by side, from west to east: so a
    slab is their numbers, in two bytes each. Edges must not cross. Call `make` first.
    """

    def __init__(self, edges: Sequence[Edge]) -> None:
        self._edges = edges
        self._borders: list[int] = []
        self._sides: list[tuple[int, int, float]] = []
        self._slabs: list[array[int]] = []  # one to the north of each border

    def make(self) -> Iterator[None]:
        """Make the slabs from south to north, each from the one before it. Yields after each slice of work."""
        are_many = len(self._edges) > MANY_EDGES
        self._edges = [_northward(edge) for edge in self._edges if edge.a[1] != edge.b[1]]
        if are_many:
            yield
        self._borders = sorted({y for _, a, b in self._edges for _, y in (a, b)})
        self._sides = [(x, y, (to_x - x) / (to_y - y)) for _, (x, y), (to_x, to_y) in self._edges]
        if are_many:
            yield
        begins, ends = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
        for number, (_, a, b) in enumerate(self._edges):
            begins[a[1]].append(number)
            ends[b[1]].append(number)
        if are_many:
            yield
        slab: array[int] = array("H")
        slabs = self._slabs
        for y in self._borders:
            for number in ends[y]:
                slab.remove(number)
            for number in begins[y]:
                slab.insert(self._place(slab, self._edges[number]), number)
            slabs.append(slab[:])
            if not len(slabs) % _SLICE:
                yield

    def contains(self, x: float, y: int) -> bool:
        at = bisect_right(self._borders, y) - 1
        if not 0 <= at < len(self._borders) - 1:
            return False
        sides = self._sides

        def its_x(number: int) -> float:
            side_x, side_y, slope = sides[number]
            return side_x + (y - side_y) * slope

        return bisect_right(self._slabs[at], x, key=its_x) % 2 == 1

    def _place(self, slab: array[int], edge: Edge) -> int:
        """Return where an edge that begins has its place, by numbers without rounding."""
        low, high = 0, len(slab)
        while low < high:
            middle = (low + high) // 2
            _, a, b = self._edges[slab[middle]]
            if (orientation(a, b, edge.a) or orientation(a, b, edge.b)) > 0:
                high = middle
            else:
                low = middle + 1
        return low


def _northward(edge: Edge) -> Edge:
    return edge if edge.a[1] < edge.b[1] else Edge(edge.ring, edge.b, edge.a)


def _unroll(ring: Ring) -> list[Point]:
    """Return a ring in a plane. Raises Misdrawn."""
    if len(ring) < 4:
        raise Misdrawn("a ring has at least four positions")
    if tuple(ring[0]) != tuple(ring[-1]):
        raise Misdrawn(f"a ring ends where it begins, not at {spell_position(*ring[-1])}")
    turns, points = 0, list[Point]()
    before, its_latitude = ring[0]
    for longitude, latitude in ring:
        if not (-180 <= longitude <= 180 and -90 <= latitude <= 90):
            raise Misdrawn(f"{spell_position(longitude, latitude)} is no position: longitude comes first")
        east = longitude - before
        if abs(east) >= 180 and not latitude == its_latitude in (-90, 90):
            if abs(east) in (180, 360):
                raise Misdrawn(
                    f"the edge to {spell_position(longitude, latitude)} may go either way round; put a position on it"
                )
            turns -= int(math.copysign(1, east))
        point = (round(longitude * _UNITS) + turns * _TURN, round(latitude * _UNITS))
        if not points or points[-1] != point:
            points.append(point)
        before, its_latitude = longitude, latitude
    if points[0] != points[-1]:
        raise Misdrawn("a ring goes round a pole; draw it along the date line to the pole, and back")
    if len(points) < 4:
        raise Misdrawn(f"the ring at {spell_position(*ring[0])} has no area")
    return points


def _shortest_arc(arcs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return west and east of the shortest arc that contains these, each of which has a west and a width."""
    if max(width for _, width in arcs) >= 360:
        return -180.0, 180.0
    arcs = sorted((round_longitude(west), width) for west, width in arcs)
    end, gaps = (
        -math.inf,
        list[tuple[float, float, float]](),
    )  # width, end of what is before it, west of what is behind
    first = arcs[0][0]
    for west, width in arcs:
        if end > -math.inf:
            gaps.append((west - end, end, west))
        end = max(end, west + width)
    gaps.append((first + 360 - end, end, first))
    gap, east, west = max(gaps)
    return (west, round_longitude(east)) if gap > 0 else (-180.0, 180.0)


def _edge(edge: Edge) -> str:
    return f"from {_spell(edge.a)} to {_spell(edge.b)}"


def _spell(point: Point) -> str:
    return spell_position(point[0] / _UNITS, point[1] / _UNITS)


def spell_position(longitude: float, latitude: float) -> str:
    """Return a position as GeoJSON has it."""
    return f"[{round_longitude(longitude):.9g}, {latitude:.9g}]"
