"""The index knows what the table holds, however that came about, and costs little memory, and none that nobody wants."""

from __future__ import annotations

import gc
import tracemalloc
from random import Random

import pytest
from worlds import ClientWorld

from proxyherd.core.messages import Entry
from proxyherd.core.spatial import index as index_module
from proxyherd.core.spatial.areas import Circle
from proxyherd.core.spatial.index import SpatialIndex, degrees
from proxyherd.core.spatial.keys import LAST_STRIP, PLACE, SLOT_BITS, cell_of, start_of
from proxyherd.core.spatial.sphere import HALF_EARTH
from proxyherd.core.table import Room, Table

ROOM = Room(10**6, 10**9)


def check(world: ClientWorld) -> None:
    """The index must have all of the table, in all of its parts, and nothing else."""
    index = world.index
    assert index.behind == 0
    assert len(index) == len(world.table) == len(world.positions)
    keys, first = list[int](), 0
    while first >= 0:
        some, first = index.keys.between(first, start_of(LAST_STRIP + 1))
        keys += some
    found = {}
    for key in keys:
        at = key & PLACE
        position = index.positions[at], index.positions[at + 1]
        assert key >> SLOT_BITS == cell_of(*position)
        client = index.clients[at // 2]
        assert index.entry(at // 2) is world.table.get(client)
        found[client] = position
    assert found == world.positions
    assert len(keys) == len(found)


def catch_up(index: SpatialIndex) -> int:
    return sum(1 for _ in index.catch_up())


def test_the_index_has_what_the_table_has_after_any_changes() -> None:
    world = ClientWorld(1, clients=200)
    for _ in range(100):
        world.stir(60)
        catch_up(world.index)
        check(world)


def test_erased_clients_leave_the_index_and_may_come_back() -> None:
    world = ClientWorld(2, clients=100)
    catch_up(world.index)
    for name in world.names[:50]:
        assert world.table.erase(world.table.tombstone(name, 10**18)) is not None
        world.positions.pop(name)
    catch_up(world.index)
    check(world)
    assert not any(name in world.index.clients for name in world.names[:50])  # the ID itself is forgotten
    for name in world.names[:50]:
        world.put(name, 1, 1)
    catch_up(world.index)
    check(world)
    assert len(world.index.clients) == 100  # their places were used again


@pytest.mark.parametrize("learned", [False, True])
def test_reports_and_updates_of_neighbours_are_noticed(learned: bool) -> None:
    table, entry = Table(bytes(32), depth=2), Entry(b"AT Clark +0.000000000 client +1+2 2.000000000", 2)
    index = SpatialIndex(table)
    for entry in (
        Entry(b"AT Clark +0.000000000 client +1.0+2 2.000000000", 2),
        Entry(b"AT Clark +0.000000000 client +3.0-4 3.000000000", 3),  # as long as the one before it
        Entry(b"AT Clark +0.000000000 client +5.12345-6 4.000000000", 4),
    ):
        assert (table.admit if learned else table.advance)(b"client", entry, ROOM) is not False
        catch_up(index)
        assert (index.positions[0], index.positions[1]) == degrees(entry.line)
    stale = Entry(b"AT Clark +0.000000000 client +9-9 1.000000000", 1)
    (table.admit if learned else table.advance)(b"client", stale, ROOM)
    assert index.behind == 0


def test_several_catch_up_at_once_while_the_table_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends with all in the index that was in the table when it began, whoever takes it in."""
    monkeypatch.setattr(index_module, "INDEX_SLICE", 3)
    monkeypatch.setattr(index_module, "CHANGES_SLICE", 3)
    for seed in range(40):
        world = ClientWorld(seed, clients=60)
        random = Random(seed)
        running = [world.index.catch_up() for _ in range(4)]
        while running:
            one = random.choice(running)
            if next(one, "ended") == "ended":
                running.remove(one)
            world.stir(3)
            if random.random() < 0.1:
                world.index.catch_up_with(random.choice(world.names))
        catch_up(world.index)
        check(world)


def test_what_had_changed_when_it_began_is_taken_in_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "INDEX_SLICE", 3)
    monkeypatch.setattr(index_module, "CHANGES_SLICE", 3)
    world = ClientWorld(5, clients=60)
    catch_up(world.index)
    for _ in range(50):
        world.stir(30)
        began = world.index.behind
        steps = world.index.catch_up()
        for _ in steps:
            world.put(b"other", *world.position())  # one more each time, for ever
        assert world.index.behind <= 1 <= began + 1


def test_a_slice_of_work_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "INDEX_SLICE", 10)
    monkeypatch.setattr(index_module, "CHANGES_SLICE", 10)
    world = ClientWorld(6, clients=1_000)
    slices = catch_up(world.index)
    assert slices >= 256 // 10  # a leaf has four clients
    for name in world.names:
        world.put(name, 1, 1)
    assert catch_up(world.index) >= 1_000 // 10 - 1


def test_the_table_notes_changes_only_while_there_is_an_index() -> None:
    world = ClientWorld(7, clients=10)
    world.index.close()
    assert world.table.changes is None
    world.stir(10)
    assert world.table.changes is None


@pytest.mark.long
def test_a_client_costs_at_most_150_bytes_and_nothing_without_an_index() -> None:
    table, random = Table(bytes(32), depth=2), Random(1)
    for number in range(20_000):
        line = b"AT Clark +0.000000000 client%05d %+.6f%+.6f 1.000000000" % (
            number,
            random.gauss(34, 0.2),
            random.gauss(-118, 0.2),
        )
        name = b"client%05d" % number
        table.put(name, Entry(line, 1), table.leaf(name))
    gc.collect()
    tracemalloc.start()
    try:
        index = SpatialIndex(table)
        catch_up(index)
        kept, _ = tracemalloc.get_traced_memory()
        index.close()
        del index
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept / 20_000 <= 150
    assert left / 20_000 < 1


@pytest.mark.parametrize(
    "spelled",
    ["+34.068930-118.445127", "-0-0", "+90.000+180.0", "-90-180", "-1.5+2.25", "+0.1-0.1", "+05+005"],
)
def test_degrees_are_those_of_the_line(spelled: str) -> None:
    sign = max(spelled.rfind("+"), spelled.rfind("-"))
    line = b"AT Clark +0.000000000 a-b+c %b 1.5" % spelled.encode()
    assert degrees(line) == (float(spelled[:sign]), float(spelled[sign:]))


def test_a_circle_round_the_world_has_all_of_the_index() -> None:
    world = ClientWorld(8, clients=150)
    assert len(world.search(Circle(12, 34, HALF_EARTH), 1_000).found) == 150
