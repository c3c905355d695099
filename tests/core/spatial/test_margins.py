"""How far outside of an area a position is agrees with a look along its edges, wherever on the Earth it is."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest

from proxyherd.core.spatial.areas import EVERYWHERE, Area, Box, Circle, Misdrawn, round_longitude
from proxyherd.core.spatial.margins import outside_of
from proxyherd.core.spatial.polygons import Polygon, Ring
from proxyherd.core.spatial.sphere import HALF_EARTH, haversine_between, metres_of

Place = tuple[float, float]


def between(a: Place, b: Place) -> float:
    return metres_of(haversine_between(*a, *b))


def a_place(random: Random) -> Place:
    latitude = random.choice([90.0, -90.0, random.uniform(-90, 90), random.uniform(-90, 90)])
    return latitude, random.choice([180.0, -180.0, random.uniform(-180, 180)])


def beside(random: Random, place: Place, degrees: float) -> Place:
    latitude = max(-90.0, min(90.0, place[0] + random.uniform(-degrees, degrees)))
    wide = degrees / max(math.cos(math.radians(place[0])), 0.01)
    return latitude, round_longitude(place[1] + random.uniform(-min(wide, 180), min(wide, 180)))


def a_box(random: Random, size: float) -> Box:
    latitude, longitude = a_place(random)
    west = random.uniform(0, size)
    return Box(
        round_longitude(longitude - west),
        max(-90.0, latitude - random.uniform(0, size)),
        round_longitude(longitude + min(random.uniform(0, size), 360 - west)),
        min(90.0, latitude + random.uniform(0, size)),
    )


def a_star(random: Random, size: float, hole: bool = True) -> Polygon:
    """Return a star, mostly with a hole, perhaps over the date line."""
    latitude, longitude = a_place(random)
    latitude = max(min(latitude, 90 - size), size - 90)
    radii = [size * random.uniform(0.5, 1) for _ in range(random.randint(3, 12))]
    star, inner = list[Place](), list[Place]()
    for at, radius in enumerate(radii):
        angle = at * 2 * math.pi / len(radii)
        for ring, part in ((star, 1.0), (inner, 0.2)):
            east = round_longitude(longitude + part * radius * math.cos(angle))
            ring.append((east, latitude + part * radius * math.sin(angle)))
    return Polygon([[[*star, star[0]], [*inner, inner[0]]] if hole else [[*star, star[0]]]])


def ring_of(box: Box) -> list[Place]:
    east = box.west + box.width
    corners = [(box.west, box.south), (east, box.south), (east, box.north), (box.west, box.north)]
    return [*corners, corners[0]]


def by_looking(rings: list[list[Place]], place: Place, steps: int = 48) -> float:
    """Return the distance to the nearest position on some edges: look at many, then closer at the nearest ones."""
    nearest = HALF_EARTH
    for ring in rings:
        for (x, y), (to_x, to_y) in pairwise(ring):

            def at(
                part: float, x: float = x, y: float = y, dx: float = to_x - x, dy: float = to_y - y
            ) -> float:
                return between(place, (y + part * dy, x + part * dx))

            looks = [at(step / steps) for step in range(steps + 1)]
            best = looks.index(min(looks))
            if looks[best] - 2 * max(abs(one - other) for one, other in pairwise(looks)) > nearest:
                continue
            low, high = max(best - 1, 0) / steps, min(best + 1, steps) / steps
            for _ in range(45):
                third = (high - low) / 3
                if at(low + third) < at(high - third):
                    high -= third
                else:
                    low += third
            nearest = min(nearest, at(low))
    return nearest


@pytest.mark.parametrize("size", [0.001, 1.0, 150.0])
def test_the_distance_to_an_area_is_that_to_its_nearest_edge(size: float) -> None:
    random, outside = Random(1), 0
    for number in range(80):
        area = a_box(random, size) if number % 2 else a_star(random, min(size, 20.0))
        rings = [ring_of(area)] if isinstance(area, Box) else area.rings
        metres_outside = outside_of(area)
        for _ in range(3):
            place = random.choice([a_place(random), beside(random, area.centre, 2 * size)])
            metres = metres_outside(*place)
            if area.contains(*place):
                assert metres == 0
                continue
            outside += 1
            assert metres == pytest.approx(by_looking(rings, place), rel=0.01, abs=0.001), (area, place)
    assert outside > 80


def test_the_distance_to_a_circle_is_that_to_its_centre_without_its_radius() -> None:
    random = Random(2)
    for _ in range(500):
        circle = Circle(*a_place(random), random.choice([0, 100, 1e6]) * random.random())
        place = random.choice([a_place(random), beside(random, circle.centre, circle.metres / 5e4)])
        away = between(circle.centre, place) - circle.metres
        assert outside_of(circle)(*place) == pytest.approx(max(away, 0), abs=1e-6)
    assert outside_of(Circle(0, 0, HALF_EARTH))(0, 180) == 0


def areas(random: Random) -> list[Area]:
    return [a_box(random, 30), a_star(random, 10), a_star(random, 0.01), Circle(*a_place(random), 1e5)]


def test_who_moves_by_some_metres_is_nearer_or_farther_by_no_more() -> None:
    random = Random(3)
    for _ in range(150):
        for area in areas(random):
            here = beside(random, area.centre, random.choice([0.02, 50]))
            there = beside(random, here, random.choice([1e-4, 1]))
            metres_outside = outside_of(area)
            metres, other = metres_outside(*here), metres_outside(*there)
            assert abs(metres - other) <= between(here, there) + 0.01 * max(metres, other) + 0.001, area


def test_the_date_line_is_a_meridian_like_others() -> None:
    """An area and a position that are turned together stay as far from each other."""
    random = Random(4)
    for _ in range(200):
        ring: Ring = [(x, y) for x, y in a_star(random, 5, hole=False).rings[0]]
        box, place, turn = a_box(random, 20), a_place(random), random.uniform(-180, 180)

        def turned(longitude: float, turn: float = turn) -> float:
            return (longitude + turn + 180) % 360 - 180

        there = place[0], turned(place[1])
        moved = Box(turned(box.west), box.south, turned(box.east), box.north)
        if moved.width == pytest.approx(box.width):
            assert outside_of(box)(*place) == pytest.approx(outside_of(moved)(*there), abs=0.01)
        here, away = (Polygon([[[(turned(x, by), y) for x, y in ring]]]) for by in (0.0, turn))
        assert outside_of(here)(*place) == pytest.approx(outside_of(away)(*there), rel=0.01, abs=0.01)


def test_over_a_pole_the_way_is_short() -> None:
    degree = HALF_EARTH / 180
    cap: Ring = [(-180, 80), (-60, 80), (60, 80), (180, 80), (180, 90), (-180, 90), (-180, 80)]
    for north in (Polygon([[cap]]), Box(-180, 80, 180, 90)):
        for longitude in (-180, 17, 180):
            assert outside_of(north)(79, longitude) == pytest.approx(degree, rel=0.01)
            assert outside_of(north)(90, longitude) == 0
    assert outside_of(Box(0, 80, 10, 89))(89, -175) == pytest.approx(2 * degree, rel=0.001)
    assert outside_of(Box(0, -89, 0, -80))(-90, 123) == pytest.approx(degree, rel=0.001)
    square = Polygon([[[(0, 85), (20, 85), (20, 88), (0, 88), (0, 85)]]])
    assert outside_of(square)(88, -170) == pytest.approx(4 * degree, rel=0.01)


def test_who_is_in_a_hole_is_outside_by_the_way_to_its_edge() -> None:
    outer: Ring = [(0, 0), (10, 0), (10, 10), (0, 10), (0, 0)]
    hole: Ring = [(4, 4), (6, 4), (6, 6), (4, 6), (4, 4)]
    other: Ring = [(20, 0), (21, 0), (21, 10), (20, 10), (20, 0)]
    metres_outside = outside_of(Polygon([[outer, hole], [other]]))
    degree = HALF_EARTH / 180
    assert metres_outside(5, 5.9) == pytest.approx(0.1 * degree, rel=0.02)
    assert metres_outside(5, 19) == pytest.approx(degree, rel=0.02)
    assert metres_outside(5, 11) == pytest.approx(degree, rel=0.02)
    assert metres_outside(5, 1) == metres_outside(5, 20.5) == 0


def test_the_nearest_edge_of_many_is_found_with_few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that leaves an area of 1,000 positions does not cost a look at each of them."""
    looks = 0

    def count(haversine: float) -> float:
        nonlocal looks
        looks += 1
        return metres_of(haversine)

    monkeypatch.setattr("proxyherd.core.spatial.margins.metres_of", count)
    ring = [
        (math.cos(at / 499 * math.pi), 0.2 * math.sin(at / 499 * math.pi) + 0.01 * (at % 2))
        for at in range(-498, 500)
    ]
    metres_outside = outside_of(Polygon([[[*ring, ring[0]]]]))
    random = Random(5)
    for _ in range(100):
        metres_outside(*beside(random, (0.3, 0), 0.1))
    assert looks / 100 < 250


def test_everywhere_has_no_outside_and_what_is_no_area_is_an_error() -> None:
    assert outside_of(EVERYWHERE)(90, 0) == 0
    with pytest.raises(TypeError, match="Misdrawn"):
        outside_of(Misdrawn())  # type: ignore[arg-type]
