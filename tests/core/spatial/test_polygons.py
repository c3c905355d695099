"""Polygons: what is inside is decided by even and odd, over the date line too; those that cross themselves are refused."""

from __future__ import annotations

import math
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from random import Random
from types import FrameType
from typing import Any

import pytest

from proxyherd.core.spatial import crossings
from proxyherd.core.spatial.areas import Misdrawn
from proxyherd.core.spatial.polygons import MOST_POSITIONS, Polygon, Ring

SQUARE: Ring = [(0, 0), (10, 0), (10, 10), (0, 10), (0, 0)]
HOLE: Ring = [(2, 2), (2, 8), (8, 8), (8, 2), (2, 2)]
OVER_THE_DATE_LINE: Ring = [(175, -5), (-175, -5), (-175, 5), (175, 5), (175, -5)]
ANTARCTIC: Ring = [
    (-180, -60),
    (-60, -60),
    (60, -60),
    (179, -60),
    (180, -60),
    (180, -90),
    (-180, -90),
    (-180, -60),
]


def drawn(*rings: Ring) -> Polygon:
    polygon = Polygon([rings])
    assert all(step is None for step in polygon.check())
    return polygon


def test_a_hole_is_outside_and_edges_belong_to_one_side() -> None:
    polygon = drawn(SQUARE, HOLE)
    assert polygon.contains(1, 1)
    assert not polygon.contains(5, 5)
    assert not polygon.contains(11, 5)
    beside = drawn([(10, 0), (20, 0), (20, 10), (10, 10), (10, 0)])
    for latitude in (0, 5, 9.9):
        assert drawn(SQUARE).contains(latitude, 10) != beside.contains(latitude, 10)


@pytest.mark.parametrize("turned", [False, True])
def test_a_polygon_may_cross_the_date_line(turned: bool) -> None:
    polygon = drawn(
        OVER_THE_DATE_LINE[::-1] if turned else OVER_THE_DATE_LINE, [(179, 0), (-179, 0), (180, 2), (179, 0)]
    )
    for longitude in (176, 180, -180, -176):
        assert polygon.contains(-2, longitude)
    for longitude in (174, -174, 0):
        assert not polygon.contains(-2, longitude)
    assert not polygon.contains(1, 180)
    assert not polygon.contains(1, -180)
    assert polygon.centre == (0.0, 180.0)
    assert (polygon.bounds.west, polygon.bounds.east) == (175, -175)


def test_two_halves_on_both_sides_of_the_date_line_are_one_small_area() -> None:
    west: Ring = [(175, 0), (180, 0), (180, 5), (175, 5), (175, 0)]
    east: Ring = [(-180, 0), (-175, 0), (-175, 5), (-180, 5), (-180, 0)]
    polygon = Polygon([[west], [east]])
    assert [*polygon.check()] == []
    assert all(polygon.contains(2, longitude) for longitude in (176, 180, -180, -176))
    assert polygon.bounds.width == 10
    assert polygon.reach < 1e6


def test_an_area_round_a_pole_is_drawn_to_the_pole() -> None:
    polygon = drawn(ANTARCTIC)
    assert all(polygon.contains(-90, longitude) for longitude in (-180, 0, 180))
    assert all(polygon.contains(-70, longitude) for longitude in (-180, -179.5, 0, 179.5, 180))
    assert not polygon.contains(-59, 0)
    assert drawn([(-180, -90), (180, -90), (180, 90), (-180, 90), (-180, -90)]).contains(90, 12)


@pytest.mark.parametrize(
    ("rings", "why"),
    [
        (
            [[(0, 0), (10, 10), (10, 0), (0, 10), (0, 0)]],
            r"edges from \[0, 0\] to \[10, 10\] and .* cross at \[5, 5\]",
        ),
        ([[(175, 0), (-175, 10), (-175, 0), (175, 10), (175, 0)]], r"cross at \[180, 5\]"),
        ([[(0, 0), (10, 0), (10, 10), (5, 0), (0, 10), (0, 0)]], r"touch at \[5, 0\]"),
        ([[(0, 0), (5, 5), (10, 0), (10, 10), (5, 5), (0, 10), (0, 0)]], r"touch at \[5, 5\]"),
        ([[(0, 0), (10, 0), (5, 0), (5, 5), (0, 0)]], r"run along each other"),
        ([[(0, 0), (10, 0), (0, 0), (0, 10), (0, 0)]], r"run along each other"),
        ([SQUARE, [(5, 5), (15, 5), (5, 6), (5, 5)]], "a hole has .*not inside"),
        ([SQUARE, [(1, 1), (9, 15), (2, 5), (1, 1)]], "cross at"),
        ([SQUARE, [(20, 20), (21, 20), (21, 21), (20, 20)]], "a hole has"),
        ([[(0, 0), (10, 0), (10, 10), (5, 1), (0, 10), (0, 0)], [(4, 8), (6, 8), (5, 9), (4, 8)]], "outside"),
        ([[(0, 0), (1, 0), (0, 0)]], "four positions"),
        ([[(0, 0), (1, 0), (1, 1), (0, 1)]], "ends where it begins"),
        ([[(0, 0), (0, 0), (1, 1), (0, 0)]], "no area"),
        ([[(0, 0), (0, 91), (1, 1), (0, 0)]], "longitude comes first"),
        ([[(0, 0), (math.nan, 1), (1, 1), (0, 0)]], "no position"),
        ([[(0, 0), (180, 0), (90, 10), (0, 0)]], "either way round"),
        ([[(-180, 0), (180, 0), (180, 10), (-180, 10), (-180, 0)]], "either way round"),
        ([[(-120, 60), (0, 60), (120, 60), (-120, 60)]], "goes round a pole"),
        ([], "no ring"),
        ([[(0.0, 0.0)] * (MOST_POSITIONS + 1)], "at most 1,000"),
    ],
)
def test_what_is_no_polygon_is_refused_with_the_reason(rings: Sequence[Ring], why: str) -> None:
    with pytest.raises(Misdrawn, match=why):
        drawn(*rings)


def test_a_hole_may_touch_the_edge() -> None:
    polygon = drawn(SQUARE, [(0, 5), (5, 2), (5, 8), (0, 5)])
    assert not polygon.contains(5, 3)
    assert polygon.contains(9, 1)


def star(random: Random, positions: int) -> list[tuple[float, float]]:
    """Return a ring that does not cross itself: positions in the order of their directions."""
    angles = sorted(random.uniform(0, 2 * math.pi) for _ in range(positions))
    radii = [random.uniform(1, 10) for _ in angles]
    ring = [(r * math.cos(angle), r * math.sin(angle)) for angle, r in zip(angles, radii, strict=True)]
    return [*ring, ring[0]]


def is_inside(ring: Ring, x: float, y: float) -> bool:
    """Count the edges to the west, with exact numbers."""
    crossed = 0
    for (ax, ay), (bx, by) in pairwise(ring):
        if (ay <= y) != (by <= y):
            at = Fraction(ax) + (Fraction(y) - Fraction(ay)) * (Fraction(bx) - Fraction(ax)) / (
                Fraction(by) - Fraction(ay)
            )
            crossed += at <= x
    return crossed % 2 == 1


def test_what_is_inside_agrees_with_a_count_of_edges() -> None:
    random = Random(1)
    for _ in range(60):
        ring = star(random, random.choice([5, 20, 60]))
        try:
            polygon = drawn(ring)
        except (
            Misdrawn
        ):  # there was no position in some half: a star that goes around nothing may cross itself
            continue
        for _ in range(60):
            x, y = random.uniform(-11, 11), random.choice([random.uniform(-11, 11), random.choice(ring)[1]])
            assert polygon.contains(y, x) == is_inside(ring, x, y), (ring, x, y)


def crosses(ring: Ring) -> bool:
    """Whether two edges have a point in common that they should not have, by exact numbers."""
    edges = [
        ((Fraction(ax), Fraction(ay)), (Fraction(bx), Fraction(by))) for (ax, ay), (bx, by) in pairwise(ring)
    ]

    def side(a: tuple[Fraction, Fraction], b: tuple[Fraction, Fraction], c: tuple[Fraction, Fraction]) -> int:
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        return (area > 0) - (area < 0)

    def on(a: tuple[Fraction, Fraction], b: tuple[Fraction, Fraction], c: tuple[Fraction, Fraction]) -> bool:
        return side(a, b, c) == 0 and min(a, b) <= c <= max(a, b)

    for i, (a, b) in enumerate(edges):
        for j in range(i + 1, len(edges)):
            c, d = edges[j]
            if j == i + 1 or (i == 0 and j == len(edges) - 1):
                shared, ends = (b, (a, d)) if j == i + 1 else (a, (b, c))
                if on(a, b, ends[1]) or on(c, d, ends[0]):
                    return True
                assert shared in (c, d)
                continue
            if side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0:
                return True
            if on(a, b, c) or on(a, b, d) or on(c, d, a) or on(c, d, b):
                return True
    return False


def test_rings_that_cross_are_those_that_cross_by_exact_numbers() -> None:
    """On a small grid, where edges often touch, and run along each other."""
    random, refused = Random(2), 0
    for _ in range(800):
        points = [
            (float(random.randint(0, 4)), float(random.randint(0, 4))) for _ in range(random.randint(3, 6))
        ]
        points = [
            point for point, after in zip(points, [*points[1:], points[0]], strict=True) if point != after
        ]
        if len(points) < 3:
            continue
        ring = [*points, points[0]]
        try:
            drawn(ring)
            refused_now = False
        except Misdrawn:
            refused_now = True
        assert refused_now == crosses(ring), ring
        refused += refused_now
    assert 100 < refused < 750


def test_rounding_does_not_make_edges_cross() -> None:
    """Positions that are almost on a straight line, which rounding puts on either side of it."""
    ring = [(0.1 * at, 0.1 * at + 1e-17 * (at % 2)) for at in range(50)]
    drawn([*ring, (4.9, 0.0), ring[0]])


def test_edges_are_compared_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    comb = [(float(at // 2), float(at % 2 * 50)) for at in range(-100, 100)]
    ring = [*comb, (99.0, 60.0), (-51.0, 60.0), comb[0]]
    monkeypatch.setattr(crossings, "CROSSINGS_SLICE", 10)
    assert sum(1 for _ in Polygon([[ring]]).check()) >= 200 // 10


def comb(teeth: int) -> Polygon:
    """Return a polygon of long edges beside each other, each of which begins and ends at a latitude of its own."""
    ring = list[tuple[float, float]]()
    for tooth in range(teeth):
        ring += [
            (-170 + 340 * tooth / teeth, 0.1 + 80 * (tooth * 7_919 % teeth) / teeth),
            (-170 + 340 * (tooth + 0.3) / teeth, -0.1 - 80 * (tooth * 104_729 % teeth) / teeth),
        ]
    return Polygon([[[*ring, (170.5, 85.0), (0.0, 86.0), (-171.0, 86.0), ring[0]]]])


def steps_of(work: Callable[[], object]) -> int:
    """Return how many lines of the package's core some work runs through."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if "spatial" not in frame.f_code.co_filename:
            return None
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


def test_the_largest_polygons_are_checked_in_short_slices_and_answer_quickly_then() -> None:
    angles = [2 * math.pi * at / 498 for at in range(498)]
    outer = [(30 * math.cos(angle), 30 * math.sin(angle)) for angle in angles]
    hole = [(29 * math.cos(angle + 0.004), 29 * math.sin(angle + 0.004)) for angle in angles]
    random = Random(3)
    for polygon in (comb(497), Polygon([[[*outer, outer[0]], [*hole, hole[0]]]])):
        check, slices = polygon.check(), list[int]()
        going_on = True

        def work() -> None:
            nonlocal going_on
            going_on = next(check, False) is None  # noqa: B023 - it is called at once

        while going_on:
            slices.append(steps_of(work))
        assert max(slices) < 25_000
        places = [(random.uniform(-80, 85), random.uniform(-170, 170)) for _ in range(200)]
        assert steps_of(lambda: [polygon.contains(*place) for place in places]) < 12_000  # noqa: B023


def test_little_is_done_before_the_check_and_the_check_is_done_once() -> None:
    ring = [(math.cos(at / 500 * math.pi), math.sin(at / 500 * math.pi)) for at in range(999)]
    polygons = [[[*ring, ring[0]]]]
    assert steps_of(lambda: Polygon(polygons)) < 13 * MOST_POSITIONS
    polygon = Polygon(polygons)
    first = steps_of(lambda: [*polygon.check()])
    assert first > 50 * MOST_POSITIONS
    assert steps_of(lambda: [*polygon.check()]) < 10


def test_a_small_polygon_is_checked_in_one_slice() -> None:
    assert [*Polygon([[SQUARE]]).check()] == []


def test_a_search_in_the_largest_polygon_keeps_little_memory() -> None:
    polygon = comb(497)
    tracemalloc.start()
    try:
        for _ in polygon.check():
            pass
        for latitude in range(-800, 850):
            polygon.contains(latitude / 10, 0.0)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 << 20


def test_a_hole_that_touches_an_edge_has_its_place_beside_it_however_flat_it_begins() -> None:
    """Its first slab is so thin that rounding does not tell which edge is in the west."""
    outer: Ring = [(0, 0), (100, 0), (100, 10), (30, 30), (0, 0)]
    polygon = drawn(outer, [(10, 10), (90, 10.000000001), (30.0, 20), (10, 10)])
    assert polygon.contains(15, 16)
    assert not polygon.contains(15, 25)
    assert polygon.contains(9, 60)
    assert not polygon.contains(15, 14)
