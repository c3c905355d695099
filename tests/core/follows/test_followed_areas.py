"""Whoever is in an area is found in its cells, wherever on the Earth it lies and however large it is."""

from __future__ import annotations

import math
from random import Random

import pytest

from proxyherd.core.follows.follow import Follow
from proxyherd.core.follows.followed_areas import FollowedArea, FollowedAreas, bounds_of
from proxyherd.core.follows.follower import Follower
from proxyherd.core.messages import Entry
from proxyherd.core.spatial.areas import Area, Box, Circle

LATITUDES = [-90.0, -89.99, -1.0, 0.0, 0.03, 34.07, 63.9, 89.9, 90.0]
LONGITUDES = [-180.0, -179.99, -118.44, -1.0, 0.0, 0.0625, 11.2, 179.99, 180.0]


class Unread:
    """A connection to which nothing is sent."""

    def push(self) -> None: ...

    def fail(self) -> None: ...


def an_area(random: Random) -> Area:
    latitude, longitude = random.choice(LATITUDES), random.choice(LONGITUDES)
    metres = 10 ** random.uniform(0, 7.3)
    if random.random() < 0.5:
        return Circle(latitude, longitude, metres)
    half = metres / 111_195
    south, north = max(latitude - half, -90.0), min(latitude + half, 90.0)
    if half >= 180:
        return Box(-180.0, south, 180.0, north)
    west, east = longitude - half, longitude + half
    return Box(west + 360 if west < -180 else west, south, east - 360 if east > 180 else east, north)


def a_position(random: Random, area: Area) -> tuple[float, float]:
    """Return a position, often one at the edge of the area."""
    if random.random() < 0.3:
        return random.choice(LATITUDES), random.choice(LONGITUDES)
    latitude, longitude = area.centre
    spread = area.reach / 111_195 * random.choice([0.1, 1.0])
    stretch = max(math.cos(math.radians(latitude)), 0.001)
    latitude = min(max(latitude + random.uniform(-spread, spread), -90.0), 90.0)
    return latitude, (longitude + random.uniform(-spread, spread) / stretch + 180) % 360 - 180


def entry(latitude: float, longitude: float, time: int) -> Entry:
    return Entry(b"AT Clark +0.0 kiwi %+.6f%+.6f %d" % (latitude, longitude, time), time)


@pytest.mark.parametrize("seed", range(100))
def test_a_client_is_inside_exactly_where_it_is_inside_of_the_area(seed: int) -> None:
    random, every = Random(seed), FollowedAreas({})
    added = [
        FollowedArea(Follow(Follower(Unread()), b"%d" % number, area=an_area(random))) for number in range(20)
    ]
    for fence in added:
        every.add(fence)
    assert every.count == 20
    for time in range(1, 60):
        latitude, longitude = (round(one, 6) for one in a_position(random, random.choice(added).area))
        every.take_in(b"kiwi", entry(latitude, longitude, time))
        for fence in added:
            inside = fence.area.contains(latitude, longitude)
            assert (b"kiwi" in fence.inside) is inside, (fence.area, latitude, longitude)
            assert not inside or bounds_of(fence.area).contains(latitude, longitude)
            assert fence.follower.inside == inside
    for fence in added:
        every.remove(fence)
    assert every.count == 0
    assert not any(every._grids)
    assert not every._inside_of


def test_what_is_told_is_one_event_for_fences_of_the_same_name() -> None:
    due: dict[Follower, None] = {}
    every, circle = FollowedAreas(due), Circle(1.0, 1.0, 100.0)
    followers = [Follower(Unread()) for _ in range(3)]
    for follower, name in zip(followers, (b"1", b"1", b"2"), strict=True):
        every.add(FollowedArea(Follow(follower, name, area=circle)))
    every.take_in(b"kiwi", entry(1.0, 1.0, 1))
    assert [*due] == followers
    [first], [second], [third] = (follower.outbox for follower in followers)
    assert first is second
    assert (third.kind, third.name, third.entry) == ("enter", b"2", first.entry)
