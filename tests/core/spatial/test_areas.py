"""Boxes and circles: their edges belong to them, and the date line is one meridian."""

from __future__ import annotations

import math
from random import Random

import pytest

from proxyherd.core.spatial.areas import EVERYWHERE, Area, Box, Circle, Misdrawn, round_longitude
from proxyherd.core.spatial.sphere import HALF_EARTH, haversine_between, metres_of

FIJI = Box(177.0, -20.0, -178.0, -15.0)


@pytest.mark.parametrize(
    ("box", "inside", "outside"),
    [
        (Box(-1, -2, 3, 4), [(4, 3), (-2, -1), (0, 0)], [(4.1, 0), (0, 3.1), (0, -1.1), (-2.1, 0)]),
        (
            FIJI,
            [(-18, 177), (-18, -178), (-18, 180), (-18, -180)],
            [(-18, 176.9), (-18, -177.9), (-18, 0), (-14, 180)],
        ),
        (Box(170, 0, 180, 1), [(0.5, 180), (0.5, -180)], [(0.5, -179.9)]),
        (Box(-180, 0, -170, 1), [(0.5, 180), (0.5, -180)], [(0.5, 179.9)]),
        (Box(5, 5, 5, 5), [(5, 5)], [(5, 5.000001)]),
        (EVERYWHERE, [(90, 0), (-90, 180), (0, -180)], []),
    ],
)
def test_a_box_contains_its_edges(
    box: Box, inside: list[tuple[float, float]], outside: list[tuple[float, float]]
) -> None:
    assert [*box.check()] == []
    assert all(box.contains(*place) for place in inside)
    assert not any(box.contains(*place) for place in outside)
    for _, longitude in inside:
        assert any(west <= longitude <= east for west, east in box.spans)


def test_the_centre_of_a_box_is_in_its_middle_and_nothing_of_it_is_out_of_reach() -> None:
    assert FIJI.centre == (-17.5, 179.5)
    assert Box(178, 0, -176, 2).centre == (1.0, -179.0)
    random = Random(1)
    for _ in range(2_000):
        south, north = sorted((random.uniform(-90, 90), random.choice([90, -90, random.uniform(-90, 90)])))
        west = random.uniform(-180, 180)
        box = Box(west, south, round_longitude(west + random.choice([360, 10]) * random.random()), north)
        assert box.contains(*box.centre)
        for _ in range(20):
            latitude = random.choice([south, north, random.uniform(south, north)])
            longitude = round_longitude(west + random.choice([0, box.width, random.uniform(0, box.width)]))
            assert metres_of(haversine_between(*box.centre, latitude, longitude)) <= box.reach


def test_a_circle_contains_what_is_near_enough_also_over_a_pole() -> None:
    circle = Circle(89.9, 0, 30_000)
    assert circle.contains(89.9, 180)
    assert circle.contains(90, -77)
    assert not circle.contains(89.8, 180)
    assert Circle(10, 20, 0).contains(10, 20)
    assert Circle(10, 20, HALF_EARTH).contains(-10, -160)
    assert circle.bounds == EVERYWHERE
    assert circle.reach == 30_000


@pytest.mark.parametrize(
    ("area", "why"),
    [
        (Box(-180.1, 0, 0, 1), "west"),
        (Box(0, -90.1, 0, 1), "south"),
        (Box(0, 0, math.inf, 1), "east"),
        (Box(0, 0, 0, math.nan), "north"),
        (Box(0, 2, 1, 1), "south is not greater"),
        (Circle(90.1, 0, 1), "latitude"),
        (Circle(0, math.nan, 1), "longitude"),
        (Circle(0, 0, -1), "radius"),
        (Circle(0, 0, math.inf), "radius"),
    ],
)
def test_an_area_that_is_none_is_refused(area: Area, why: str) -> None:
    with pytest.raises(Misdrawn, match=why):
        [*area.check()]
