"""Queries of Places as turns begin them: how many, for whom, what is counted, and what is answered whatever happens."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import fake_redis
import pytest

from proxyherd.core.messages import Entry, Whatsat, received
from proxyherd.core.reply import Reply
from proxyherd.core.table import Table
from proxyherd.places import Answer, Query, no_results
from proxyherd.server.places_queries import AsyncPlacesQueries
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

A_TURN: Final = 32
"""Queries that begin in one turn, as docs/design.md says."""

LINE = b"AT Bob +0.000000000 kiwi +34.068930-118.445127 5"


class Client:
    """One with an address of its own."""

    gone = False

    def __init__(self) -> None:
        self.payer = f"10.0.{next(_numbers)}.1"
        self.too_fast = False

    def may_ask_places(self, now: float) -> bool:
        return not self.too_fast


_numbers = itertools.count()


class Provider:
    """Answers when it is told to."""

    name = "gazetteer"
    in_flight = 0

    def __init__(self) -> None:
        self.asked: list[tuple[Query, object]] = []
        self.tried: list[Query] = []
        self.status = "OK"
        self.error: Exception | None = None
        self.may = asyncio.Event()
        self.broken_off = 0
        self.at_once: Answer | None = None

    def answer_at_once(self, query: Query) -> Answer | None:
        self.tried.append(query)
        if self.at_once is None:
            return None
        if self.error is not None:
            raise self.error
        return self.at_once

    async def nearby(self, query: Query, asker: object) -> Answer:
        return self.answer_at_once(query) or await self.wait(query, asker)

    async def wait(self, query: Query, asker: object) -> Answer:
        self.asked.append((query, asker))
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        if self.error is not None:
            raise self.error
        return no_results(self.status)

    async def close(self) -> None:
        pass


class Asked:
    """The questions of one server, and what came of them."""

    def __init__(self, observer: Observer, log: Path) -> None:
        self.provider = Provider()
        self.answered: list[Client] = []
        self._observer = observer
        self._log = log
        loop = asyncio.get_running_loop()
        places: asyncio.Future[Any] = loop.create_future()
        places.set_result(self.provider)
        self.table = Table(bytes(32), 2)
        self.queries = AsyncPlacesQueries[Client](places, observer, loop, self.table)

    def add(self, client: Client, *, radius: bytes = b"10", most: int = 5) -> Reply:
        reply = Reply("whatsat", "found", None, Whatsat(b"kiwi", radius, most), Entry(LINE, 5 * 10**9))
        self.queries.add(client, reply)
        return reply

    async def turn(self) -> None:
        self.queries.ask_some(self.answered.append)
        for _ in range(5):
            await asyncio.sleep(0)

    async def answer(self) -> None:
        self.provider.may.set()
        for _ in range(5):
            await asyncio.sleep(0)

    def counted(self) -> dict[str, float]:
        """Return how many queries were counted, by outcome."""
        (metric,) = self._observer.places.seconds.collect()
        return {
            sample.labels["outcome"]: sample.value
            for sample in metric.samples
            if sample.name.endswith("_count") and sample.value
        }

    def logged(self, event: str) -> list[dict[str, Any]]:
        self._observer.end_turn()
        lines = map(json.loads, self._log.read_text().splitlines())
        return [line for line in lines if line["event"] == event]


Run = Callable[[Callable[[Asked], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run a test's body."""
    file = LogFile(tmp_path / "log")
    log = make_logger(file, server="Bob", level="info", max_field_bytes=1_024)
    observer = Observer(log, file, Metrics(), [])

    def run_it(body: Callable[[Asked], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            await body(Asked(observer, tmp_path / "log"))

        fake_redis.run(whole())

    yield run_it
    file.close()


def test_a_turn_begins_32_queries_in_the_order_in_which_they_came(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stopwatch(monkeypatch)  # which stands still, whatever the machine does

    async def body(asked: Asked) -> None:
        clients = [Client() for _ in range(2 * A_TURN + 5)]
        for client in clients:
            asked.add(client)
        for number in (A_TURN, 2 * A_TURN, 2 * A_TURN + 5):
            assert asked.queries, "there is something left"
            await asked.turn()
            assert [asker for _, asker in asked.provider.asked] == [one.payer for one in clients[:number]]
        assert not asked.queries

    run(body)


async def opened(asked: Asked) -> None:
    """Let a first query have its answer: Places are open from then on, and answer others at once."""
    asked.add(Client())
    asked.provider.may.set()
    await asked.turn()
    asked.provider.may.clear()
    asked.provider.asked.clear()
    asked.answered.clear()
    asked.provider.at_once = no_results("OK")


class Stopwatch:
    """The clock by which it is measured how long Places take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("proxyherd.server.places_queries.time", self)

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "a_turn"), [(0.000_01, A_TURN), (0.000_1, 8), (0.000_25, 4), (0.01, 1)])
def test_what_places_answer_at_once_is_answered_in_the_turn_while_that_takes_less_than_a_millisecond(
    run: Run, monkeypatch: pytest.MonkeyPatch, seconds: float, a_turn: int
) -> None:
    clock = Stopwatch(monkeypatch)

    async def body(asked: Asked) -> None:
        await opened(asked)
        answer = asked.provider.answer_at_once

        def answer_at_once(query: Query) -> Answer | None:
            clock.now += seconds
            return answer(query)

        monkeypatch.setattr(asked.provider, "answer_at_once", answer_at_once)
        clients = [Client() for _ in range(2 * a_turn)]
        replies = [asked.add(client) for client in clients]
        asked.queries.ask_some(asked.answered.append)
        assert asked.answered == clients[:a_turn]
        assert asked.queries, "the others are left for the next"
        asked.queries.ask_some(asked.answered.append)
        assert asked.answered == clients
        assert not asked.queries
        assert {reply.answer for reply in replies} == {LINE + b"\n" + no_results("OK").body + b"\n"}
        assert asked.provider.asked == []
        assert asked.counted() == {"OK": 1 + len(clients)}
        assert [event["seconds"] for event in asked.logged("places")[1:]] == [seconds] * len(clients)

    run(body)


@pytest.mark.parametrize("answers", [True, False])
def test_it_is_told_how_long_an_answer_took_or_the_attempt(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, answers: bool
) -> None:
    clock = Stopwatch(monkeypatch)

    async def body(asked: Asked) -> None:
        reply = Reply("whatsat", "found", None, Whatsat(b"kiwi", b"10", 5), Entry(LINE, 5 * 10**9))
        assert asked.queries.answer_at_once(reply) == 0.0, "Places are not open"
        await opened(asked)

        def answer_at_once(_: Query) -> Answer | None:
            clock.now += 0.125
            return no_results("OK") if answers else None

        monkeypatch.setattr(asked.provider, "answer_at_once", answer_at_once)
        assert asked.queries.answer_at_once(reply) == 0.125
        assert (reply.answer is not None) == answers

    run(body)


def test_what_is_not_answered_at_once_is_not_tried_a_second_time_when_it_is_asked(run: Run) -> None:
    async def body(asked: Asked) -> None:
        asked.add(Client())
        asked.provider.may.set()
        await asked.turn()
        assert len(asked.provider.tried) == 1, "Places were not open before"
        asked.add(Client())
        await asked.turn()
        assert len(asked.provider.tried) == 2
        assert asked.counted() == {"OK": 2}

    run(body)


def test_what_cannot_be_answered_at_once_for_an_error_is_told_of_once_and_nobody_is_asked(run: Run) -> None:
    async def body(asked: Asked) -> None:
        await opened(asked)
        asked.provider.error = ZeroDivisionError("division by nothing")
        reply = asked.add(Client())
        await asked.turn()
        assert (reply.outcome, reply.status) == ("answered", "UNKNOWN_ERROR")
        assert asked.provider.asked == []
        assert not asked.queries
        (fault,) = asked.logged("internal_error")
        assert fault["reason"] == "Places cannot be asked"
        assert "division by nothing" in fault["exception"]
        assert asked.counted() == {"OK": 1}

    run(body)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("log_fails", [True, False])
def test_an_answer_that_cannot_be_counted_is_given_all_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, at_once: bool, log_fails: bool
) -> None:
    async def body(asked: Asked) -> None:
        await opened(asked)
        if not at_once:
            asked.provider.at_once = None
            asked.provider.may.set()

        def fail(*_: object) -> None:
            raise ZeroDivisionError("division by nothing")

        monkeypatch.setattr(asked._observer.places, "asked", fail)
        if log_fails:
            monkeypatch.setattr(asked._observer, "fault", fail)
        client = Client()
        reply = asked.add(client)
        await asked.turn()
        assert (reply.outcome, reply.status) == ("answered", "OK")
        assert reply.answer == LINE + b"\n" + no_results("OK").body + b"\n"
        assert asked.answered == [client]
        assert len(asked.provider.asked) == (not at_once)
        if not log_fails:
            (fault,) = asked.logged("internal_error")
            assert fault["reason"] == "a query for places cannot be counted"

    run(body)


def test_nobody_is_asked_for_who_has_gone_before_a_query_was_added_or_begun(run: Run) -> None:
    async def body(asked: Asked) -> None:
        left, leaves, given_up, stays = (Client() for _ in range(4))
        left.gone = True
        replies = {who: asked.add(who) for who in (left, leaves, given_up, stays)}
        assert replies[left].outcome == "left"
        leaves.gone = True
        asked.queries.drop({given_up})
        await asked.turn()
        assert [asker for _, asker in asked.provider.asked] == [stays.payer]
        assert (replies[leaves].outcome, replies[leaves].answer, replies[leaves].entry) == ("left", b"", None)
        assert asked.answered == [leaves], "what is behind it is logged"

    run(body)


def test_who_leaves_breaks_off_its_own_queries_and_nobody_elses(run: Run) -> None:
    async def body(asked: Asked) -> None:
        leaves, stays = Client(), Client()
        left = [asked.add(leaves), asked.add(leaves)]
        stayed = asked.add(stays)
        await asked.turn()
        asked.queries.cancel(leaves)
        asked.queries.cancel(Client())  # who has asked nothing
        await asked.answer()
        assert asked.provider.broken_off == 2
        assert [one.outcome for one in left] == ["left", "left"]
        assert stayed.outcome == "answered"
        assert asked.answered == [leaves, leaves, stays]
        assert asked.counted() == {"OK": 1}
        assert not asked.queries._queries

    run(body)


def test_a_query_broken_off_before_its_first_step_has_its_answer_too(run: Run) -> None:
    """Else whatever is behind it on its connection would never be logged."""

    async def body(asked: Asked) -> None:
        leaves = Client()
        left = asked.add(leaves)
        asked.queries.ask_some(asked.answered.append)
        asked.queries.cancel(leaves)
        await asked.turn()
        assert (left.outcome, left.answer) == ("left", b"")
        assert asked.answered == [leaves]
        assert asked.provider.asked == []

    run(body)


def test_an_answer_is_the_at_line_and_the_places_and_is_counted_once(run: Run) -> None:
    async def body(asked: Asked) -> None:
        reply = asked.add(Client(), radius=b"10.5", most=7)
        await asked.turn()
        (query, _) = asked.provider.asked[0]
        assert query == Query("+34.068930", "-118.445127", Decimal(10_500), 7)
        await asked.answer()
        assert reply.outcome == "answered"
        assert reply.status == "OK"
        assert reply.answer == LINE + b"\n" + no_results("OK").body + b"\n"
        assert asked.counted() == {"OK": 1}
        (told,) = asked.logged("places")
        assert told["status"] == "OK"
        assert 0 <= told["seconds"] < 600

    run(body)


def test_a_status_that_nobody_knows_is_counted_as_other(run: Run) -> None:
    async def body(asked: Asked) -> None:
        asked.provider.status = "NEWS_OF_GOOGLES"
        asked.add(Client())
        await asked.turn()
        await asked.answer()
        assert asked.counted() == {"OTHER": 1}
        assert [one["status"] for one in asked.logged("places")] == ["NEWS_OF_GOOGLES"]

    run(body)


def test_a_fault_of_places_is_logged_with_its_traceback_and_answered(run: Run) -> None:
    async def body(asked: Asked) -> None:
        asked.provider.error = ZeroDivisionError("division by nothing")
        client = Client()
        reply = asked.add(client)
        await asked.turn()
        await asked.answer()
        assert reply.outcome == "answered"
        assert reply.status == "UNKNOWN_ERROR"
        assert reply.answer is not None
        assert reply.answer.startswith(LINE + b"\n{")
        assert asked.answered == [client]
        (fault,) = asked.logged("internal_error")
        assert fault["reason"] == "Places cannot be asked"
        assert "division by nothing" in fault["exception"]
        assert asked.counted() == {}

    run(body)


def test_who_leaves_before_places_is_open_leaves_it_to_the_others(run: Run) -> None:
    """The opening is one, and shared: who is broken off while it waits for it must not break it off."""

    async def body(asked: Asked) -> None:
        opening: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asked.queries._places = opening
        asked.provider.may.set()
        leaves, stays = Client(), Client()
        left, stayed = asked.add(leaves), asked.add(stays)
        await asked.turn()
        asked.queries.cancel(leaves)
        await asked.turn()
        assert left.outcome == "left"
        assert not opening.cancelled()
        opening.set_result(asked.provider)
        await asked.turn()
        assert stayed.outcome == "answered"
        assert stayed.status == "OK"
        assert asked.answered == [leaves, stays]

    run(body)


def test_who_asks_too_fast_is_told_so_in_googles_words_and_nobody_is_asked(run: Run) -> None:
    async def body(asked: Asked) -> None:
        await asked.turn()
        fast, other = Client(), Client()
        fast.too_fast = True
        replies = [
            Reply("whatsat", "found", None, Whatsat(b"kiwi", b"10", 5), Entry(LINE, 5)) for _ in range(2)
        ]
        assert not asked.queries.admit(fast, replies[0])
        assert asked.queries.admit(other, replies[1])
        assert replies[1].answer is None
        line, document = (replies[0].answer or b"").split(b"\n", 1)
        assert (line, json.loads(document)["status"]) == (LINE, "OVER_QUERY_LIMIT")
        assert "too fast" in json.loads(document)["error_message"]
        assert asked.provider.asked == []
        assert [one["reason"] for one in asked.logged("places_spared")] == ["rate"]

    run(body)


@pytest.mark.parametrize("again", [False, True])
def test_of_a_client_that_is_erased_while_its_query_waits_nothing_from_before_is_told(
    run: Run, again: bool
) -> None:
    """If it has reported again, it is not unknown, but the places are near where it was: these are not told either."""

    async def body(asked: Asked) -> None:
        reply = asked.add(Client())
        reply.line = b"WHATSAT  kiwi 10 5"
        other = asked.add(Client())
        other.entry = Entry(b"AT Clark +0.000000001 kiwi +1+1 9", 9 * 10**9)
        await asked.turn()
        asked.table.erase(asked.table.tombstone(b"kiwi", received(LINE)))
        if again:
            asked.table.put(b"kiwi", other.entry, asked.table.leaf(b"kiwi"))
        await asked.answer()
        if again:
            assert (reply.outcome, reply.status, reply.results) == ("answered", "UNKNOWN_ERROR", 0)
            assert reply.answer is not None
            assert reply.answer.startswith(other.entry.line + b"\n")
        else:
            assert (reply.outcome, reply.answer, reply.entry) == ("unknown", b"? WHATSAT  kiwi 10 5", None)
        assert other.outcome == "answered"

    run(body)
