"""Whether edges cross. Positions are integers, so that there is no rounding, and no doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

Point: TypeAlias = tuple[int, int]
"""Longitude and latitude in billionths of a degree: a tenth of a millimetre."""

CROSSINGS_SLICE: Final = 768
"""Pairs of edges that are compared in one slice of work: less than a millisecond. To take up an edge costs as much as two."""


MANY_EDGES: Final = 128
"""With more edges than these, a step that all of them need is a slice of work by itself."""


class Edge(NamedTuple):
    """A straight edge, and the number of its ring."""

    ring: int
    a: Point
    b: Point


class Crossing(NamedTuple):
    """Two edges, how they meet, and where."""

    first: Edge
    second: Edge
    how: str
    point: Point


def find_crossing(edges: Sequence[Edge]) -> Iterator[Crossing | None]:
    """Compare all edges. Yields None after each slice of work; then, if two edges meet that must not, how they do.

    Edges of a ring follow each other in `edges`. Two neighbours of a ring have a point in common, and others none. Edges
    of two rings may touch.
    """
    order = sorted(range(len(edges)), key=lambda at: min(edges[at].a[0], edges[at].b[0]))
    if len(edges) > MANY_EDGES:
        yield None
    wests = [min(edges[at].a[0], edges[at].b[0]) for at in order]
    if len(edges) > MANY_EDGES:
        yield None
    left = CROSSINGS_SLICE
    for place, at in enumerate(order):
        left -= 2
        if left <= 0:
            left = CROSSINGS_SLICE
            yield None
        edge = edges[at]
        east = max(edge.a[0], edge.b[0])
        low, high = sorted((edge.a[1], edge.b[1]))
        for other in range(place + 1, len(order)):
            if wests[other] > east:
                break
            left -= 1
            if left <= 0:
                left = CROSSINGS_SLICE
                yield None
            second = edges[order[other]]
            (_, y), (_, to_y) = second.a, second.b
            if (y > high and to_y > high) or (y < low and to_y < low):
                continue
            if (crossing := _compare(edge, second)) is not None:
                yield crossing
                return


def _compare(first: Edge, second: Edge) -> Crossing | None:
    (a, b), (c, d) = first[1:], second[1:]
    c_side, d_side = orientation(a, b, c), orientation(a, b, d)
    a_side, b_side = orientation(c, d, a), orientation(c, d, b)
    if c_side * d_side > 0 or a_side * b_side > 0:
        return None
    if c_side * d_side < 0 and a_side * b_side < 0:
        part = c_side / (c_side - d_side)
        point = (c[0] + round(part * (d[0] - c[0])), c[1] + round(part * (d[1] - c[1])))
        return Crossing(first, second, "cross at", point)
    common = sorted(point for point in (a, b, c, d) if lies_on(first, point) and lies_on(second, point))
    if not common:
        return None
    if common[0] != common[-1]:
        return Crossing(first, second, "run along each other from", common[0])
    if first.ring != second.ring or (b == c and a != d) or (d == a and b != c):
        return None
    return Crossing(first, second, "touch at", common[0])


def orientation(a: Point, b: Point, c: Point) -> int:
    """Return a number greater than 0 if `c` is to the left of the way from `a` to `b`, less than 0 if it is to the right,
    and 0 if it is on the straight line.
    """
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def lies_on(edge: Edge, point: Point) -> bool:
    """Whether a point is on an edge."""
    _, a, b = edge
    return (
        min(a[0], b[0]) <= point[0] <= max(a[0], b[0])
        and min(a[1], b[1]) <= point[1] <= max(a[1], b[1])
        and orientation(a, b, point) == 0
    )
