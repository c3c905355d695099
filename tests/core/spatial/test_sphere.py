"""Distances agree with vectors through the Earth, and a disc is as wide as what is inside of it."""

from __future__ import annotations

import math
from random import Random

import pytest

from proxyherd.base.earth import EARTH_METRES
from proxyherd.core.spatial.sphere import (
    HALF_EARTH,
    Disc,
    haversine_between,
    haversine_of,
    metres_of,
)


def vector(latitude: float, longitude: float) -> tuple[float, float, float]:
    phi, lam = math.radians(latitude), math.radians(longitude)
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)


def by_vectors(a: tuple[float, float], b: tuple[float, float]) -> float:
    return 2 * EARTH_METRES * math.asin(min(1.0, math.dist(vector(*a), vector(*b)) / 2))


def a_position(random: Random) -> tuple[float, float]:
    return random.choice([90, -90, 0, random.uniform(-90, 90)]), random.choice(
        [180, -180, random.uniform(-180, 180)]
    )


def test_distances_agree_with_vectors() -> None:
    random = Random(1)
    for _ in range(2_000):
        a = a_position(random)
        b = a_position(random) if random.random() < 0.5 else (a[0] * 0.999_999, a[1] * 0.999_999)
        metres = metres_of(haversine_between(*a, *b))
        assert metres == pytest.approx(by_vectors(a, b), rel=1e-6, abs=0.01), (a, b)
        assert metres == pytest.approx(metres_of(haversine_between(*b, *a)), rel=1e-12)


def test_a_distance_over_the_date_line_is_short_and_a_pole_is_one_place() -> None:
    assert metres_of(haversine_between(0, 180, 0, -180)) < 1e-6
    assert metres_of(haversine_between(90, 0, 90, 123)) < 1e-6
    assert metres_of(haversine_between(0, 179.9, 0, -179.9)) == pytest.approx(HALF_EARTH / 900)
    assert metres_of(haversine_between(0, 0, 0, 180)) == HALF_EARTH


def test_a_haversine_and_its_distance_belong_together() -> None:
    for metres in (0, 0.01, 1, 1e3, 1e6, HALF_EARTH):
        assert metres_of(haversine_of(metres)) == pytest.approx(metres, rel=1e-9)


def test_a_disc_is_nowhere_narrower_than_what_is_inside_nor_wider_than_it_says() -> None:
    random = Random(2)
    inside = outside = 0
    for _ in range(5_000):
        latitude = random.choice([90, -90, random.uniform(-90, 90)])
        metres = random.choice([10, 1e4, 1e6, HALF_EARTH * 0.7]) * random.random()
        disc = Disc(latitude, metres)
        south = max(-90.0, min(90.0, latitude + random.gauss(0, 1) * metres / 1e5))
        north = min(90.0, south + random.choice([0.004, 1.0]))
        widest, narrowest = disc.widest(south, north), disc.narrowest(south, north)
        for _ in range(10):
            other = random.choice([south, north, random.uniform(south, north)])
            away = random.choice(
                [random.uniform(0, 180), widest, narrowest, random.uniform(0, max(widest, 0))]
            )
            within = haversine_between(latitude, 0, other, away) <= haversine_of(metres)
            if within and 0 <= away <= 180:
                inside += 1
                assert away <= widest, (latitude, metres, south, north, other, away)
            elif 0 <= away <= 180:
                outside += 1
                assert away > narrowest, (latitude, metres, south, north, other, away)
            if within:
                assert disc.south <= other <= disc.north
    assert min(inside, outside) > 5_000
