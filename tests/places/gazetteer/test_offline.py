"""The gazetteer behind its gate: a few queries at once, and none more while a thread is busy with one given up."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any, cast

from proxyherd.places import Answer, Query, no_results
from proxyherd.places.gazetteer.file import THREADS
from proxyherd.places.gazetteer.offline import Offline

QUERIES = [Query("+1", "+1", Decimal(number), 5) for number in range(1, 4 * THREADS)]


class Slow:
    """A gazetteer whose answers come when the test says so."""

    def __init__(self) -> None:
        self.asked: dict[Query, asyncio.Future[Answer]] = {}
        self.closed = False

    def nearby(self, query: Query) -> asyncio.Future[Answer]:
        self.asked[query] = asyncio.get_running_loop().create_future()
        return self.asked[query]

    async def close(self) -> None:
        self.closed = True


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_who_joins_a_query_that_waits_lends_it_its_own_turn() -> None:
    async def run() -> None:
        offline = Offline(cast("Any", slow := Slow()))
        asking = [asyncio.create_task(offline.nearby(query, "ann")) for query in QUERIES]
        last = QUERIES[-1]
        await settle()
        offline.join(last, "bob")
        for query in (QUERIES[0], QUERIES[1]):  # two turns: one of each
            slow.asked[query].set_result(no_results("OK"))
        await settle()
        let_in = last in slow.asked
        for one in asking:
            one.cancel()
        for waiting in slow.asked.values():
            if not waiting.done():
                waiting.set_result(no_results("OK"))
        await asyncio.wait(asking)
        assert let_in, "behind all of Ann's, but first of Bob's"

    asyncio.run(run())


def test_two_queries_for_each_thread_are_under_way_and_one_given_up_keeps_its_turn_until_its_thread_is_free() -> (
    None
):
    async def run() -> None:
        offline = Offline(cast("Any", slow := Slow()))
        assert [offline.widened(query) for query in QUERIES] == QUERIES
        asking = [asyncio.create_task(offline.nearby(query, "ann")) for query in QUERIES]
        await settle()
        assert len(slow.asked) == 2 * THREADS == 4
        asking[0].cancel()
        await settle()
        assert len(slow.asked) == 2 * THREADS, "its thread is not free"
        assert not asking[0].done()
        slow.asked[QUERIES[0]].set_result(no_results("OK"))
        await settle()
        assert asking[0].cancelled()
        assert len(slow.asked) == 2 * THREADS + 1
        while not all(one.done() for one in asking):
            for waiting in slow.asked.values():
                if not waiting.done():
                    waiting.set_result(no_results("OK"))
            await settle()
        assert {one.result().status for one in asking[1:]} == {"OK"}
        await offline.close()
        assert slow.closed

    asyncio.run(run())
