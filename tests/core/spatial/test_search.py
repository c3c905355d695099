"""A search finds what a look at every client finds, wherever it is; and what it says is true when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
from worlds import ClientWorld, clients, last

from proxyherd.base.earth import EARTH_METRES
from proxyherd.core.messages import Entry
from proxyherd.core.spatial import index as index_module
from proxyherd.core.spatial import search as search_module
from proxyherd.core.spatial.areas import Area, Box, Circle
from proxyherd.core.spatial.polygons import Polygon
from proxyherd.core.spatial.search import FIRST, Question, Rank, search
from proxyherd.core.spatial.sphere import HALF_EARTH, metres_of

CITY = Circle(34.05, -118.25, 50_000)


def a_circle(world: ClientWorld) -> Circle:
    metres = world.random.choice([0, 1, 30, 1_000, 50_000, 3e6, HALF_EARTH * 0.99, HALF_EARTH])
    return Circle(*world.position(), metres * world.random.choice([1, world.random.random()]))


def a_box(world: ClientWorld) -> Box:
    (south, west), (north, east) = sorted([world.position(), world.position()])
    if world.random.random() < 0.5:
        size = world.random.choice([0, 0.001, 1])
        latitude, longitude = world.position()
        south, north = max(latitude - size, -90.0), min(latitude + size, 90.0)
        west, east = longitude - size, longitude + size
        west, east = west + 360 if west < -180 else west, east - 360 if east > 180 else east
    return Box(west, south, east, north)


def a_polygon(world: ClientWorld) -> Polygon:
    """Return a star with a hole, perhaps over the date line."""
    random = world.random
    latitude, longitude = world.position()
    size = random.choice([0.001, 0.1, 2.0])
    latitude = max(min(latitude, 90 - 2 * size), 2 * size - 90)
    radii = [size * random.uniform(0.5, 1) for _ in range(random.randint(3, 12))]
    star, hole = list[tuple[float, float]](), list[tuple[float, float]]()
    for at, radius in enumerate(radii):
        angle = at * 2 * math.pi / len(radii)
        for ring, part in ((star, 1.0), (hole, 0.2)):
            east = longitude + part * radius * math.cos(angle)
            ring.append(((east + 180) % 360 - 180, latitude + part * radius * math.sin(angle)))
    return Polygon([[[*star, star[0]], [*hole, hole[0]]]])


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "areas", "least"), [(a_circle, 50, 10_000), (a_box, 50, 10_000), (a_polygon, 10, 300)]
)
def test_a_search_finds_what_a_look_at_all_clients_finds(
    kind: Callable[[ClientWorld], Area], areas: int, least: int
) -> None:
    """10,000 circles and boxes, and 1,000 polygons, with moves in between."""
    found = 0
    for seed in range(100):
        world = ClientWorld(seed, clients=1 + 97 * seed % 120)
        for _ in range(areas):
            area, most = kind(world), world.random.choice([1, 3, 20, 1_000])
            expected = world.all_in(area)
            answer = world.search(area, most)
            told = [(one.metres, one.client) for one in answer.found]
            assert told == [(metres_of(far), client) for far, client in expected[:most]], (seed, area, most)
            assert all(world.table.get(one.client) is one.entry for one in answer.found)
            assert (answer.next is None) == (len(expected) <= most), (seed, area, most)
            found += len(told)
            world.stir(20)
    assert found > least


@pytest.mark.parametrize("kind", [a_circle, a_box])
def test_the_pages_of_an_answer_have_each_client_once_in_order(kind: Callable[[ClientWorld], Area]) -> None:
    for seed in range(20):
        world = ClientWorld(seed, clients=60)
        for _ in range(10):
            area, most = kind(world), world.random.choice([1, 7, 30])
            paged: list[bytes] = []
            place: Rank | None = FIRST
            while place is not None:
                answer = world.search(area, most, after=place)
                paged += clients(answer)
                place = answer.next
            assert paged == [client for _, client in world.all_in(area)], (seed, area, most)


def test_clients_at_one_place_come_in_the_order_of_their_ids() -> None:
    world = ClientWorld(1, clients=0)
    for number in range(1_000):
        world.put(b"%03d" % (number * 7 % 1_000), 34.0, -118.0)
    here = Circle(34.0, -118.0, 0)
    answer = world.search(here, 10)
    assert clients(answer) == [b"%03d" % number for number in range(10)]
    assert clients(world.search(here, 1_000, after=answer.next)) == [b"%03d" % n for n in range(10, 1_000)]


def test_clients_that_may_not_be_told_are_left_out_and_others_come_in_their_place() -> None:
    world = ClientWorld(2, clients=150)

    def accepts(client: bytes, entry: Entry) -> bool:
        assert world.table.get(client) is entry
        return client.endswith(b"7")

    area = Circle(0, 0, HALF_EARTH)
    expected = [client for _, client in world.all_in(area) if client.endswith(b"7")]
    assert clients(world.search(area, 10, accepts=accepts)) == expected[:10]
    assert clients(world.search(area, 150, accepts=accepts)) == expected


KINDS: list[Callable[[ClientWorld], Area]] = [a_circle, a_box, a_polygon]


def city(clients: int, metres: float = 20_000) -> ClientWorld:
    world, random = ClientWorld(3, clients=0), Random(3)
    for number in range(clients):
        north, east = random.gauss(0, metres), random.gauss(0, metres)
        latitude = 34.05 + math.degrees(north / EARTH_METRES)
        world.put(b"%d" % number, latitude, -118.25 + math.degrees(east / EARTH_METRES / math.cos(0.594)))
    return world


@pytest.mark.parametrize(
    ("metres", "most", "looked_at"), [(20_000, 20, 150), (2_000, 20, 250), (20_000, 500, 1_100)]
)
def test_the_nearest_of_a_city_are_found_without_a_look_at_the_city(
    metres: float, most: int, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a large radius costs no more than a small one."""
    counts = list[int]()
    look_at = search_module._Search._look_at

    def count(self: search_module._Search, keys: list[int], *others: float) -> None:
        counts.append(len(keys))
        look_at(self, keys, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(search_module._Search, "_look_at", count)
    world = city(10_000, metres)
    places = Random(4).sample([*world.positions.values()], 50)
    answers = [world.search(Circle(*place, 50_000), most) for place in places]
    assert all(len(answer.found) == most for answer in answers)
    assert sum(counts) / len(places) < looked_at


def test_a_search_in_slices_says_what_is_true_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two slices clients move, come and go, and others search. Those that stay are all there."""
    monkeypatch.setattr(search_module, "SEARCH_SLICE", 5)
    monkeypatch.setattr(search_module, "RESULT_SLICE", 2)
    monkeypatch.setattr(search_module, "_LEAVING", 1)
    monkeypatch.setattr(index_module, "INDEX_SLICE", 3)
    monkeypatch.setattr(index_module, "CHANGES_SLICE", 3)
    slices = 0
    for seed in range(150):
        world = ClientWorld(seed, clients=100)
        area = KINDS[seed % 3](world)
        most = world.random.choice([5, 1_000])
        before = {client for _, client in world.all_in(area)}
        moved = set[bytes]()
        for answer in search(world.index, Question(area, most)):
            if answer is not None:
                break
            slices += 1
            positions = dict(world.positions)
            world.stir(4)
            moved |= {
                client for client in world.names if positions.get(client) is not world.positions.get(client)
            }
            if world.random.random() < 0.3:
                world.search(a_circle(world), 3)
        assert answer is not None
        inside = world.all_in(area)
        told = [(one.metres, one.client) for one in answer.found]
        true = [(metres_of(far), client) for far, client in inside]
        assert [one for one in true if one[1] in dict.fromkeys(clients(answer))] == told, seed
        end = told[-1] if answer.next is not None and told else (math.inf, b"")
        stayed = [one for one in true if one[1] in before - moved and one <= end]
        assert set(stayed) <= set(told), seed
        assert all(world.table.get(one.client) is one.entry for one in answer.found)
        assert world.index._searches == []
    assert slices > 1_000


def test_who_is_erased_while_a_search_goes_on_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "SEARCH_SLICE", 50)
    world = city(1_000)
    steps = search(world.index, Question(CITY, 1_000))
    while not world.index._searches:  # until it has looked at some
        assert next(steps) is None
    for name in [*world.positions][::2]:
        world.table.erase(world.table.tombstone(name, 2 * 10**18))
        world.positions.pop(name)
    assert clients(last(steps)) == [client for _, client in world.all_in(CITY)]


def test_an_answer_that_lost_clients_says_where_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was forgotten because enough was found is still there for the next page."""
    monkeypatch.setattr(search_module, "SEARCH_SLICE", 100)
    monkeypatch.setattr(search_module, "_SPARE", 0)
    world = city(2_000, metres=3_000)
    steps = search(world.index, Question(CITY, 300, accepts=lambda client, _: client != b"1"))
    while not world.index._searches:
        assert next(steps) is None
    answer = None
    while answer is None:
        for name in [client for _, client in world.all_in(CITY)[:40]]:
            world.remove(name)
        answer = next(steps)
    assert answer.next is not None
    paged = clients(answer)
    while answer.next is not None:
        answer = world.search(CITY, 300, after=answer.next, accepts=lambda client, _: client != b"1")
        paged += clients(answer)
    assert paged == [client for _, client in world.all_in(CITY) if client != b"1"]


def test_a_slice_looks_at_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "SEARCH_SLICE", 700)
    world = city(5_000, metres=100)
    most = []
    look_at = search_module._Search._look_at

    def count(self: search_module._Search, keys: list[int], *others: float) -> None:
        most.append(len(keys))
        look_at(self, keys, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(search_module._Search, "_look_at", count)
    world.search(CITY, 1_000)
    slices = sum(1 for answer in search(world.index, Question(CITY, 1_000)) if answer is None)
    assert max(most) <= 700 + 512
    assert slices >= 3
