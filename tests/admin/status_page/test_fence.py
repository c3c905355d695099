"""What the map follows: what is told after each look, compared with what has happened in the table."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from turns import node

from proxyherd.admin.status_page.fence import MOST_IN_CIRCLE, Fence, FenceUpdate, search_circle
from proxyherd.core.area_searches import AreaSearches
from proxyherd.core.messages import Entry
from proxyherd.core.node import Node
from proxyherd.core.spatial import searches as searches_module
from proxyherd.core.spatial.areas import Circle

CIRCLE = Circle(0.0, 0.0, 200_000.0)


def put(server: Node, client: bytes, latitude: float, longitude: float, moment: int = 1) -> None:
    line = b"AT Clark +0.000000000 %b %+.6f%+.6f %d" % (client, latitude, longitude, moment)
    server.table.put(client, Entry(line, moment), server.table.leaf(client))


def remove(server: Node, client: bytes) -> None:
    server.table.remove(client, server.table.leaf(client))


@pytest.fixture
def server() -> Node:
    return node()


def names(update: FenceUpdate) -> list[list[str]]:
    entered, moved = ([name for name, _, _ in told] for told in (update.enter, update.move))
    return [entered, moved, update.leave, update.gone]


def test_a_client_is_told_when_it_comes_moves_and_is_gone(server: Node) -> None:
    fence = Fence(server.table, AreaSearches(server), b"my%20phone", None)

    async def scenario() -> None:
        first = await fence.look()
        assert (first.first, names(first)) == (True, [[], [], [], []])
        put(server, b"my%20phone", 1.5, 2.5)
        assert (await fence.look()).enter == [("my phone", 1.5, 2.5)]
        assert (await fence.look()).says_nothing
        put(server, b"my%20phone", 1.5, -2.5, 2)
        assert (await fence.look()).move == [("my phone", 1.5, -2.5)]
        remove(server, b"my%20phone")
        assert names(await fence.look()) == [[], [], [], ["my phone"]]

    asyncio.run(scenario())


def test_what_was_told_of_a_circle_is_who_is_inside(server: Node) -> None:
    fence, random, inside = (
        Fence(server.table, AreaSearches(server), b"", CIRCLE),
        Random(1),
        dict[str, float](),
    )

    async def scenario() -> None:
        for moment in range(1, 30):
            for _ in range(random.randrange(10)):
                client = b"c%d" % random.randrange(30)
                if random.random() < 0.2:
                    remove(server, client)
                else:
                    put(server, client, random.uniform(-3, 3), 0.0, moment)
            update = await fence.look()
            assert update.first == (moment == 1)
            for name, latitude, _ in update.enter:
                assert name not in inside
                inside[name] = latitude
            for name, latitude, _ in update.move:
                assert name in inside
                inside[name] = latitude
            for name in (*update.leave, *update.gone):
                del inside[name]
                assert (server.table.get(name.encode()) is None) == (name in update.gone)
            held = {client.decode(): float(entry.line.split()[4][:9]) for client, entry in server.table}
            assert inside == {name: latitude for name, latitude in held.items() if abs(latitude) < 1.798}

    asyncio.run(scenario())


def test_of_a_crowd_the_nearest_are_told_and_that_there_are_more(server: Node) -> None:
    for number in range(MOST_IN_CIRCLE + 1):
        put(server, b"c%d" % number, number / 1_000, 0.0)
    update = asyncio.run(Fence(server.table, AreaSearches(server), b"", CIRCLE).look())
    assert update.more
    assert {name for name, _, _ in update.enter} == {f"c{number}" for number in range(MOST_IN_CIRCLE)}


def test_while_too_many_search_nothing_changes(server: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    put(server, b"kiwi", 0.0, 0.0)
    areas = AreaSearches(server)
    fence = Fence(server.table, areas, b"", CIRCLE)
    assert names(asyncio.run(fence.look())) == [["kiwi"], [], [], []]
    monkeypatch.setattr(searches_module, "MOST_SEARCHES", 0)
    assert asyncio.run(fence.look()).says_nothing
    monkeypatch.undo()
    remove(server, b"kiwi")
    assert names(asyncio.run(fence.look())) == [[], [], [], ["kiwi"]]


def test_a_search_ends_with_who_has_asked_for_it(server: Node) -> None:
    async def scenario() -> None:
        searching = asyncio.create_task(search_circle(AreaSearches(server), CIRCLE, 5))
        await asyncio.sleep(0)
        assert server.searches.has_work
        searching.cancel()
        await asyncio.gather(searching, return_exceptions=True)
        assert not server.searches.has_work

    asyncio.run(scenario())
