"""Keys are found where a sorted list has them."""

from __future__ import annotations

from bisect import bisect_left, insort
from random import Random

import pytest

from proxyherd.core.spatial.keys import (
    LAST_STRIP,
    PLACE,
    SLOT_BITS,
    Keys,
    cell_of,
    columns_between,
    start_of,
    strip_of,
)


def key_of(latitude: float, longitude: float, slot: int) -> int:
    return cell_of(latitude, longitude) << SLOT_BITS | 2 * slot


def all_between(keys: Keys, first: int, last: int) -> list[int]:
    found: list[int] = []
    while first >= 0:
        some, first = keys.between(first, last)
        found += some
    return found


@pytest.mark.parametrize("spread", [0.0, 0.01, 10.0])
def test_keys_are_those_of_a_sorted_list(spread: float) -> None:
    """Whether all points are at one place, in a city, or in a country: many come, most go, and some come back."""
    random = Random(1)
    keys, kept = Keys(), list[int]()
    for slot in range(6_000):
        key = key_of(34 + random.gauss(0, spread), -118 + random.gauss(0, spread), slot)
        keys.add(key)
        insort(kept, key)
        if slot % 3 == 2 or slot > 4_000:
            gone = kept.pop(random.randrange(len(kept)))
            keys.remove(gone)
        if not slot % 100:
            first, last = sorted((random.choice(kept), random.choice(kept)))
            assert all_between(keys, first, last) == kept[bisect_left(kept, first) : bisect_left(kept, last)]
            assert all_between(keys, 0, start_of(LAST_STRIP + 1)) == kept
            strip = random.choice([0, LAST_STRIP, first >> SLOT_BITS + 19, (first >> SLOT_BITS + 19) + 1])
            later = kept[bisect_left(kept, start_of(strip)) :]
            assert keys.next_strip(strip) == (later[0] >> SLOT_BITS + 19 if later else LAST_STRIP + 1)
    while kept:
        keys.remove(kept.pop(random.randrange(len(kept))))
    assert all_between(keys, 0, start_of(LAST_STRIP + 1)) == []
    assert keys.next_strip(0) == LAST_STRIP + 1


def test_few_keys_are_not_spread_over_many_runs() -> None:
    """Otherwise what is left of a city of a million would need the memory of a city of a million."""
    keys = Keys()
    many = [key_of(34 + slot / 1e4, -118, slot) for slot in range(10_000)]
    for key in many:
        keys.add(key)
    for key in many[50:]:
        keys.remove(key)
    assert len(keys._runs) <= 2


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [(-90, -180), (90, 180), (0, 0), (90, -180), (-90, 180), (34.06893, -118.445127)],
)
def test_a_position_is_in_its_strip_and_between_its_longitudes(latitude: float, longitude: float) -> None:
    key, start = key_of(latitude, longitude, 7), start_of(strip_of(latitude))
    first, end = columns_between(longitude, longitude)
    assert start + first <= key < start + end <= start_of(strip_of(latitude) + 1)
    assert key & PLACE == 14
    assert 0 <= strip_of(latitude) <= LAST_STRIP
    assert key < 1 << 64


def test_a_sample_says_how_close_points_are_in_a_strip() -> None:
    keys = Keys()
    assert keys.sample(34.0, -118.0, 10) == (0, 0.0)
    for slot in range(1_000):
        keys.add(key_of(34.0, -118 + slot / 100, slot))
        keys.add(key_of(35.0, 10 + slot / 10, 1_000 + slot))
    count, width = keys.sample(34.0, -113.0, 20)
    assert count == 20
    assert width == pytest.approx(0.2, rel=0.1)
    assert keys.sample(34.5, -113.0, 20) == (0, 0.0)
    count, width = keys.sample(34.0, 170.0, 20)  # at its end, with none of the next strip
    assert 2 <= count <= 20
    assert width <= 0.2
