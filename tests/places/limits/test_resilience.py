"""A provider that fails early, seldom and fairly: attempts and the pauses between them, deadlines, circuit breaker."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from decimal import Decimal
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest
from fake_google import (
    KEY,
    QUERY,
    FakeGoogle,
    Ledger,
    Reply,
    ask,
    message,
    nearby_answer,
    opened,
)
from places_sim import simulator_in_thread

from proxyherd.config import schema
from proxyherd.places import Answer, Places, Query
from proxyherd.places.answers import no_results, squeeze
from proxyherd.places.failures import FailedError, LateError, failed
from proxyherd.places.google.calling import Caller
from proxyherd.places.google.new import GoogleNew
from proxyherd.places.google.old import Google
from proxyherd.places.limits import resilience
from proxyherd.places.limits.resilience import BrokenError, Resilient
from proxyherd.standin.app import Faults

BOTH = ["google", "google-new"]
FOUND = Answer(b"found", "OK", 1)


def found(provider: str) -> Reply:
    return Reply() if provider == "google" else Reply(b'{"places":[{"id":"x"}]}')


class Scripted:
    """An upstream that does what it is told, one thing after another: it answers, raises, or waits to be told."""

    name = "scripted"

    def __init__(self, *script: Answer | BaseException | asyncio.Future[Answer], then: Any = FOUND) -> None:
        self.script = [*script]
        self.then = then
        self.asked: list[tuple[float, float]] = []
        """When, and how many seconds it was given."""
        self.payers: list[str | None] = []
        self._arrived = asyncio.Condition()

    def widened(self, query: Query) -> Query:
        return query

    async def nearby(self, query: Query, seconds: float, asker: str | None = None) -> Answer:
        self.payers.append(asker)
        async with self._arrived:
            self.asked.append((time.monotonic(), seconds))
            self._arrived.notify_all()
        what = self.script.pop(0) if self.script else self.then
        if isinstance(what, BaseException):
            raise what
        return what if isinstance(what, Answer) else await what

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(5), self._arrived:
            await self._arrived.wait_for(lambda: len(self.asked) >= times)

    async def close(self) -> None:
        pass


def again(status: str = "UNKNOWN_ERROR", after: float = 0.0) -> FailedError:
    return failed(status, "not now", again=True, after=after)


def never() -> asyncio.Future[Answer]:
    return asyncio.get_running_loop().create_future()


async def outcome(resilient: Resilient, asker: str | None = None, query: Query = QUERY) -> Answer:
    """Return what a client would get."""
    try:
        return await resilient.nearby(query, asker)
    except FailedError as error:
        return error.answer


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random.Random, "uniform", lambda _self, _low, _high: 0.0)


# What is tried again. --------------------------------------------------------------------------------------------

PASSING = {
    "drops": Reply(drop=True),
    "429": Reply(status=429),
    "500": Reply(status=500),
    "503": Reply(status=503),
    "nonsense": Reply(b"<html>"),
    "half an answer": Reply(headers={"Content-Length": "99999", "Connection": "close"}),
}
SAID = {status: Reply(nearby_answer(0, status=status)) for status in ("UNKNOWN_ERROR", "OVER_QUERY_LIMIT")}
LASTING = {
    "302": Reply(b"", 302, {"Location": "/"}),
    "400": Reply(status=400),
    "401": Reply(status=401),
    "403": Reply(status=403),
    "404": Reply(status=404),
    "too long": Reply(b" " * 300_000),
    "oddly packed": Reply(b"{}", headers={"Content-Encoding": "br"}),
}


@pytest.mark.parametrize("provider", BOTH)
@pytest.mark.parametrize("failing", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("failures", [1, 2, 3])
def test_what_may_pass_is_tried_again_and_no_more_often_than_allowed(
    google: FakeGoogle, provider: str, failing: Reply, failures: int, no_pauses: None
) -> None:
    google.replies.extend([failing] * failures)
    google.reply, ledger = found(provider), Ledger()
    answer = ask(google.host, ledger, provider=provider, attempts=3, max_answer_bytes=65_536)
    assert (answer.status == "OK") == (failures < 3)
    assert len(google.requests) == ledger.spent == min(failures + 1, 3)


@pytest.mark.parametrize("failing", SAID.values(), ids=SAID)
def test_what_the_old_api_says_in_its_body_is_tried_again_and_goes_on_as_it_is_if_it_stays(
    google: FakeGoogle, failing: Reply, no_pauses: None
) -> None:
    google.replies.append(failing)
    assert ask(google.host, attempts=2).status == "OK"
    google.reply = failing
    answer = ask(google.host, attempts=2)
    assert answer.body == squeeze(failing.body), "byte for byte"
    assert len(google.requests) == 4


@pytest.mark.parametrize("provider", BOTH)
@pytest.mark.parametrize("failing", LASTING.values(), ids=LASTING)
def test_what_would_be_the_same_again_is_not_tried_again(
    google: FakeGoogle, provider: str, failing: Reply
) -> None:
    google.reply = failing
    ask(google.host, provider=provider, attempts=10)
    assert len(google.requests) == 1


@pytest.mark.parametrize("provider", BOTH)
def test_a_refused_connection_is_tried_again(provider: str, no_pauses: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ledger = Ledger()
        ask(f"http://127.0.0.1:{taken.getsockname()[1]}", ledger, provider=provider, attempts=3)
    assert ledger.outcomes == ["unreachable"] * 3


def test_a_budget_at_its_end_is_the_last_word_at_once() -> None:
    async def run() -> None:
        upstream = Scripted(failed("OVER_QUERY_LIMIT", "used up"))
        resilient = Resilient(upstream, schema.PlacesSettings(attempts=10), Ledger())
        assert (await outcome(resilient)).status == "OVER_QUERY_LIMIT"
        assert len(upstream.asked) == 1

    asyncio.run(run())


@pytest.mark.parametrize("attempts", [1, 2, 10])
def test_attempts_are_counted_and_the_last_failure_is_the_last_word(attempts: int, no_pauses: None) -> None:
    async def run() -> None:
        failures = [failed("UNKNOWN_ERROR", f"failure {number}", again=True) for number in range(1, 12)]
        upstream = Scripted(*failures)
        answer = await outcome(Resilient(upstream, schema.PlacesSettings(attempts=attempts), Ledger()))
        assert len(upstream.asked) == attempts
        assert message(answer) == f"failure {attempts}"

    asyncio.run(run())


def test_an_error_of_the_program_is_not_tried_again_and_says_nothing_of_the_upstream() -> None:
    async def run() -> None:
        upstream, ledger = Scripted(then=KeyError("ours")), Ledger()
        resilient = Resilient(upstream, schema.PlacesSettings(breaker_failures=1), ledger)
        for _ in range(3):
            with pytest.raises(KeyError):
                await resilient.nearby(QUERY, None)
        assert len(upstream.asked) == 3
        assert ledger.states == []

    asyncio.run(run())


# Pauses. ---------------------------------------------------------------------------------------------------------


def pauses(
    monkeypatch: pytest.MonkeyPatch, *failures: FailedError, **keys: Any
) -> tuple[list[float], Answer]:
    """Let attempts fail; return the pauses, which take no time here, and the answer."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def run() -> Answer:
        places = schema.PlacesSettings(attempts=len(failures) + 1, **keys)
        return await outcome(Resilient(Scripted(*failures), places, Ledger()))

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        return slept, asyncio.run(run())


def test_pauses_are_random_grow_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        pauses(monkeypatch, *[again() for _ in range(7)], deadline_seconds=600.0, breaker_failures=1_000)[0]
        for _ in range(50)
    ]
    for number, column in enumerate(zip(*runs, strict=True)):
        longest = min(0.1 * 2**number, 1.0)
        assert all(0 <= pause <= longest for pause in column)
        assert min(column) < longest / 4, "uniform from nothing on: one in 50 is there, but for 1 in 10^6"
        assert max(column) > longest * 3 / 4
        assert len(set(column)) == 50


def test_what_the_upstream_asks_for_comes_before_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        (pause,), answer = pauses(monkeypatch, again(after=3.0))
        assert 3.0 <= pause <= 3.1
        assert answer == FOUND


@pytest.mark.parametrize("after", [4.95, 5.0, 3_600.0, float("inf")])
def test_a_pause_past_the_deadline_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, after: float) -> None:
    slept, answer = pauses(monkeypatch, again("OVER_QUERY_LIMIT", after), deadline_seconds=5.0)
    assert slept == []
    assert answer.status == "OVER_QUERY_LIMIT"


@pytest.mark.parametrize("provider", BOTH)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honoured_on_the_wire(
    google: FakeGoogle, provider: str, status: int
) -> None:
    arrivals: list[float] = []
    google.on_request = lambda: arrivals.append(time.monotonic())
    google.replies.append(Reply(b"", status, {"Retry-After": "1"}))
    google.reply = found(provider)
    assert ask(google.host, provider=provider, attempts=2).status == "OK"
    first, second = arrivals
    assert second - first >= 1.0


def test_retry_after_as_a_date_is_honoured_on_the_wire(google: FakeGoogle) -> None:
    arrivals: list[float] = []
    google.on_request = lambda: arrivals.append(time.time())
    due = int(time.time()) + 2
    google.replies.append(Reply(b"", 429, {"Retry-After": formatdate(due, usegmt=True)}))
    assert ask(google.host, attempts=2).status == "OK"
    assert arrivals[1] >= due - 0.001, "a hair for the clocks' difference"


@pytest.mark.parametrize("value", ["5", "86400", "9" * 30, "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_retry_after_past_the_deadline_is_answered_at_once(google: FakeGoogle, value: str) -> None:
    google.reply = Reply(b"", 429, {"Retry-After": value})
    began = time.monotonic()
    assert ask(google.host, attempts=3).status == "OVER_QUERY_LIMIT"
    assert time.monotonic() - began < 1.0
    assert len(google.requests) == 1


# Deadlines. ------------------------------------------------------------------------------------------------------


def test_an_attempt_gets_its_share_and_never_more_than_what_is_left(no_pauses: None) -> None:
    async def run() -> None:
        upstream = Scripted(again(), again())
        places = schema.PlacesSettings(deadline_seconds=5.0, attempt_seconds=2.5, attempts=3)
        await outcome(Resilient(upstream, places, Ledger()))
        assert [seconds for _, seconds in upstream.asked] == [2.5] * 3
        upstream = Scripted(again(), again())
        places = schema.PlacesSettings(deadline_seconds=1.0, attempt_seconds=2.5, attempts=3)
        await outcome(Resilient(upstream, places, Ledger()))
        given = [seconds for _, seconds in upstream.asked]
        assert given == sorted(given, reverse=True)
        assert all(0.5 < seconds < 1.0 for seconds in given)

    asyncio.run(run())


@pytest.mark.parametrize("provider", BOTH)
def test_a_call_that_is_lost_on_the_way_is_made_again_in_time(google: FakeGoogle, provider: str) -> None:
    google.replies.append(Reply(hold=True))
    google.reply, ledger = found(provider), Ledger()
    began = time.monotonic()
    answer = ask(
        google.host, ledger, provider=provider, attempts=2, attempt_seconds=0.5, deadline_seconds=5.0
    )
    assert answer.status == "OK"
    assert 0.5 <= time.monotonic() - began < 2.0
    assert ledger.outcomes == ["late", "answered"]


@pytest.mark.parametrize("provider", BOTH)
def test_all_attempts_together_end_within_the_deadline(google: FakeGoogle, provider: str) -> None:
    google.reply, ledger = Reply(hold=True), Ledger()
    began = time.monotonic()
    answer = ask(
        google.host, ledger, provider=provider, attempts=10, attempt_seconds=0.3, deadline_seconds=0.5
    )
    assert time.monotonic() - began < 1.0
    assert answer.status == "UNKNOWN_ERROR"
    assert set(ledger.outcomes) == {"late"}, "none was left to be given up"
    assert len(google.requests) <= 3


def test_one_call_lost_in_a_hundred_is_not_seen() -> None:
    async def run(url: str) -> list[Answer]:
        patient: dict[str, Any] = {"attempts": 4, "attempt_seconds": 60.0, "deadline_seconds": 60.0}
        async with opened(url, max_connections=32, **patient) as places:
            queries = [Query("+34.0689", "-118.4451", Decimal(5_000 + number), 5) for number in range(300)]
            return await asyncio.gather(*map(places.nearby, queries))

    with simulator_in_thread(Faults(drop=0.015), seed=5) as sim:
        answers = asyncio.run(run(sim.url))
        assert {answer.status for answer in answers} == {"OK"}
        assert len(sim.requests) > 300, "some were lost"


@pytest.mark.parametrize("provider", [Google, GoogleNew])
def test_a_turn_that_comes_when_no_time_is_left_makes_no_call(
    google: FakeGoogle, provider: type[Google | GoogleNew]
) -> None:
    ledger = Ledger()

    async def run() -> None:
        places = schema.PlacesSettings(base_url=google.host, max_connections=1, deadline_seconds=0.1)
        resilient = Resilient(provider(places, Caller(places, KEY, ledger, ledger)), places, ledger)
        async with resilient._gate.turn("somebody else"):
            query = asyncio.create_task(outcome(resilient))
            await asyncio.sleep(0.15)  # past the deadline
        assert "too many queries wait" in message(await query)
        await resilient.close()

    asyncio.run(run())
    assert (google.requests, ledger.spent, ledger.states) == ([], 0, [])


# The breaker. ----------------------------------------------------------------------------------------------------


def queries(number: int) -> list[Query]:
    return [Query("+1", "+1", Decimal(metres), 5) for metres in range(1, number + 1)]


@pytest.mark.parametrize("provider", BOTH)
def test_after_so_many_failures_in_a_row_queries_are_answered_at_once_without_a_call(
    google: FakeGoogle, provider: str
) -> None:
    google.reply, ledger = Reply(status=500), Ledger()

    async def run() -> None:
        async with opened(google.host, ledger, provider=provider, breaker_failures=4) as places:
            for query in queries(3):
                await places.nearby(query)
            google.replies.append(found(provider))
            assert (await places.nearby(QUERY)).status == "OK", "so it begins anew"
            for query in queries(4):
                assert "HTTP 500" in message(await places.nearby(query))
            assert len(google.requests) == 8
            began = time.perf_counter()
            for query in queries(100):
                answer = await places.nearby(query)
                assert answer.status == "UNKNOWN_ERROR"
                assert "keeps failing" in message(answer)
            assert (time.perf_counter() - began) / 100 < 0.005

    asyncio.run(run())
    assert len(google.requests) == ledger.spent == 8
    assert ledger.states == ["open"]
    assert ledger.spared == ["breaker"] * 100


def test_an_open_breaker_answers_those_who_wait_too_even_where_a_pause_keeps_its_turn() -> None:
    async def run() -> None:
        slow, ledger = never(), Ledger()
        upstream = Scripted(slow)
        resilient = Resilient(
            upstream, schema.PlacesSettings(max_connections=1, breaker_failures=1, attempts=2), ledger
        )
        first, *others = [
            asyncio.create_task(outcome(resilient, str(number), query))
            for number, query in enumerate(queries(50))
        ]
        await upstream.until_asked(1)
        assert not any(task.done() for task in others)
        slow.set_exception(again(after=3.0))
        async with asyncio.timeout(1):
            answers = await asyncio.gather(*others)
        assert not first.done()
        first.cancel()
        assert len(upstream.asked) == 1
        assert all("keeps failing" in message(answer) for answer in answers)
        assert ledger.spared == ["breaker"] * 49

    asyncio.run(run())


def test_a_query_that_waits_comes_in_by_the_turn_of_whoever_joins_it() -> None:
    async def run() -> list[int]:
        slow, came_in = never(), list[int]()

        async def ask(number: int) -> None:
            await outcome(resilient, "hoarder", hoarded[number])
            came_in.append(number)

        upstream, hoarded = Scripted(slow), queries(10)
        resilient = Resilient(upstream, schema.PlacesSettings(max_connections=1), Ledger())
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            for number in range(10):
                tasks.create_task(ask(number))
            await upstream.until_asked(1)
            resilient.join(hoarded[-1], "modest")
            slow.set_result(FOUND)
        return came_in

    assert asyncio.run(run())[:3] == [0, 1, 9]


@pytest.mark.parametrize("status", ["OVER_QUERY_LIMIT", "UNKNOWN_ERROR"])
def test_while_the_breaker_is_open_queries_get_the_status_that_opened_it(status: str) -> None:
    async def run() -> None:
        places = schema.PlacesSettings(breaker_failures=2, attempts=1, breaker_seconds=60.0)
        resilient = Resilient(Scripted(again("UNKNOWN_ERROR"), again(status)), places, Ledger())
        answers = [await outcome(resilient) for _ in range(3)]
        assert "keeps failing" in message(answers[2])
        assert answers[2].status == status

    asyncio.run(run())


def test_a_breaker_that_is_half_open_lets_one_call_through_and_closes_by_its_success() -> None:
    async def run() -> None:
        upstream, ledger = Scripted(again()), Ledger()
        places = schema.PlacesSettings(breaker_failures=1, breaker_seconds=0.05, attempts=1)
        resilient = Resilient(upstream, places, ledger)
        assert "not now" in message(await outcome(resilient))
        assert "keeps failing" in message(await outcome(resilient))
        probe, opened_at = never(), time.monotonic()
        upstream.script = [probe]
        await asyncio.sleep(0.06)  # the breaker's own time
        first = asyncio.create_task(outcome(resilient))
        await upstream.until_asked(2)
        others = await asyncio.gather(*(outcome(resilient) for _ in range(20)))
        assert all("keeps failing" in message(answer) for answer in others)
        assert len(upstream.asked) == 2
        assert upstream.asked[1][0] - opened_at >= 0.05
        probe.set_result(FOUND)
        assert await first == FOUND
        assert await asyncio.gather(*(outcome(resilient) for _ in range(5))) == [FOUND] * 5
        assert ledger.states == ["open", "half_open", "closed"]

    asyncio.run(run())


def test_a_probe_that_fails_opens_the_breaker_again_and_is_not_tried_again() -> None:
    async def run() -> None:
        upstream, ledger = Scripted(then=again()), Ledger()
        places = schema.PlacesSettings(breaker_failures=1, breaker_seconds=0.05, attempts=1)
        resilient = Resilient(upstream, places, ledger)
        await outcome(resilient)
        await asyncio.sleep(0.06)  # the breaker's own time
        assert "not now" in message(await outcome(resilient))
        assert "keeps failing" in message(await outcome(resilient))
        assert len(upstream.asked) == 2
        assert ledger.states == ["open", "half_open", "open"]

    asyncio.run(run())


def test_a_probe_whose_client_leaves_makes_room_for_the_next() -> None:
    async def run() -> None:
        upstream, ledger = Scripted(again(), never()), Ledger()
        places = schema.PlacesSettings(breaker_failures=1, breaker_seconds=0.05, attempts=1)
        resilient = Resilient(upstream, places, ledger)
        await outcome(resilient)
        await asyncio.sleep(0.06)  # the breaker's own time
        probe = asyncio.create_task(outcome(resilient))
        await upstream.until_asked(2)
        probe.cancel()
        await asyncio.wait([probe])
        assert await outcome(resilient) == FOUND
        assert ledger.states == ["open", "half_open", "closed"]

    asyncio.run(run())


NOT_ITS_FAULT = {
    "denied": no_results("REQUEST_DENIED"),
    "invalid": no_results("INVALID_REQUEST"),
    "redirected": no_results("UNKNOWN_ERROR"),
    "budget": failed("OVER_QUERY_LIMIT", "used up"),
}


@pytest.mark.parametrize("what", NOT_ITS_FAULT.values(), ids=NOT_ITS_FAULT)
def test_what_is_not_the_upstreams_fault_opens_no_breaker(what: Answer | FailedError) -> None:
    async def run() -> None:
        upstream, ledger = Scripted(then=what), Ledger()
        resilient = Resilient(upstream, schema.PlacesSettings(breaker_failures=2), ledger)
        for _ in range(10):
            await outcome(resilient)
        assert len(upstream.asked) == 10
        assert ledger.states == []

    asyncio.run(run())


def test_late_answers_of_calls_that_had_too_little_time_open_no_breaker() -> None:
    """They were begun late, because others came first: that is not the upstream's fault."""

    async def run() -> None:
        places = schema.PlacesSettings(
            breaker_failures=2, attempts=1, attempt_seconds=1.0, deadline_seconds=1.0
        )
        ledger, late = Ledger(), LateError(no_results("UNKNOWN_ERROR", "late"), again=True)
        resilient = Resilient(upstream := Scripted(then=late), places, ledger)
        now = time.monotonic()
        for _ in range(5):
            with pytest.raises(LateError):
                await resilient._attempt(QUERY, now + 0.5, None)
        assert ledger.states == []
        for _ in range(2):
            with pytest.raises(LateError):
                await resilient._attempt(QUERY, now + 5, None)
        assert ledger.states == ["open"]
        assert len(upstream.asked) == 7

    asyncio.run(run())


def test_no_call_begins_in_less_time_than_answers_take() -> None:
    async def run() -> None:
        places, ledger = schema.PlacesSettings(attempts=1), Ledger()
        resilient = Resilient(upstream := Scripted(), places, ledger)
        resilient._learn(0.3)
        with pytest.raises(FailedError) as caught:
            await resilient._attempt(QUERY, time.monotonic() + 0.3, None)
        assert "too many queries wait" in message(caught.value.answer)
        assert (upstream.asked, ledger.spared) == ([], ["late"])
        assert (await resilient._attempt(QUERY, time.monotonic() + 0.4, None)).status == "OK"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("taken", "least"),
    [
        ([0.4], 0.5),
        ([0.4, 1.4], 0.625),
        ([0.4, 1.4, 1.4], 0.7375),
        ([1.4, 0.4], 1.625),
        ([2.4], 2.25),
        ([0.4] * 5, 0.5),
    ],
    ids=str,
)
def test_a_call_takes_a_quarter_more_than_answers_took_on_average_or_nearly_a_whole_attempt(
    monkeypatch: pytest.MonkeyPatch, taken: list[float], least: float
) -> None:
    """Of the average, the first answer is all and each later one a tenth; a whole attempt is 2.5 s here."""

    class Taking(Scripted):
        async def nearby(self, query: Query, seconds: float, asker: str | None = None) -> Answer:
            clock.now += left.pop(0) if left else 0.0
            return await super().nearby(query, seconds, asker)

    clock, left = SimpleNamespace(now=1_000.0), [*taken]
    monkeypatch.setattr(resilience, "time", SimpleNamespace(monotonic=lambda: clock.now))

    async def run() -> None:
        ledger = Ledger()
        resilient = Resilient(Taking(), schema.PlacesSettings(attempts=1, attempt_seconds=2.5), ledger)
        for _ in taken:
            await resilient._attempt(QUERY, clock.now + 2.5, None)
        with pytest.raises(FailedError):
            await resilient._attempt(QUERY, clock.now + least - 0.001, None)
        assert ledger.spared == ["late"]
        assert await resilient._attempt(QUERY, clock.now + least + 0.001, None) == FOUND

    asyncio.run(run())


def test_a_whole_attempt_is_made_however_slow_answers_are() -> None:
    async def run() -> None:
        for attempt_seconds in (2.5, 60.0):  # less than the deadline, and more
            places = schema.PlacesSettings(attempts=1, attempt_seconds=attempt_seconds)
            resilient = Resilient(Scripted(), places, Ledger())
            resilient._learn(places.deadline_seconds)
            assert (await outcome(resilient)).status == "OK"

    asyncio.run(run())


def test_calls_that_had_all_the_time_there_is_count_where_an_attempt_may_take_longer_than_the_deadline() -> (
    None
):
    async def run() -> None:
        places = schema.PlacesSettings(attempts=1, attempt_seconds=60.0, breaker_failures=2)
        late, ledger = LateError(no_results("UNKNOWN_ERROR", "late"), again=True), Ledger()
        resilient = Resilient(Scripted(then=late), places, ledger)
        for _ in range(2):
            await outcome(resilient)
        assert ledger.states == ["open"]

    asyncio.run(run())


@pytest.mark.parametrize("what", [failed("OVER_QUERY_LIMIT", "the budget"), RuntimeError("ours")])
def test_a_probe_that_says_nothing_of_the_upstream_makes_room_for_the_next(what: Exception) -> None:
    async def run() -> None:
        ledger = Ledger()
        resilient = Resilient(
            Scripted(again(), what), schema.PlacesSettings(breaker_failures=1, attempts=1), ledger
        )
        await outcome(resilient)
        assert ledger.states == ["open"]
        resilient._breaker._opened_at = float("-inf")
        with pytest.raises(type(what)):
            await resilient.nearby(QUERY, None)
        assert (await outcome(resilient)).status == "OK"
        assert ledger.states == ["open", "half_open", "closed"]

    asyncio.run(run())


def test_clients_that_leave_count_neither_as_failures_nor_as_successes() -> None:
    async def leave(resilient: Resilient, upstream: Scripted) -> None:
        asked = len(upstream.asked)
        query = asyncio.create_task(outcome(resilient))
        await upstream.until_asked(asked + 1)
        query.cancel()
        await asyncio.wait([query])

    async def run() -> None:
        upstream, ledger = Scripted(), Ledger()
        resilient = Resilient(upstream, schema.PlacesSettings(breaker_failures=2, attempts=1), ledger)
        for _ in range(5):
            upstream.script = [never()]
            await leave(resilient, upstream)
        assert ledger.states == []
        upstream.script = [again(), never(), again()]
        await outcome(resilient)
        await leave(resilient, upstream)
        await outcome(resilient)
        assert ledger.states == ["open"], "two in a row, whoever left between them"

    asyncio.run(run())


def test_the_breaker_sees_a_real_upstream_fall_and_rise() -> None:
    """Nobody's query takes long meanwhile."""

    async def until(places: Places, status: str) -> None:
        for number in range(1, 1_000):
            began = time.monotonic()
            answer = await places.nearby(Query("+34.0689", "-118.4451", Decimal(5_000 + number), 5))
            assert time.monotonic() - began < 2.0
            if answer.status == status:
                return
            await asyncio.sleep(0.01)  # clients that come now and then
        raise AssertionError(f"never {status}")

    async def run() -> None:
        keys: dict[str, Any] = {"breaker_failures": 3, "breaker_seconds": 0.1, "attempts": 1}
        async with opened(sim.url, ledger, provider="google-new", **keys) as places:
            await until(places, "OK")
            sim.faults = Faults(unavailable=0.5, drop=0.5)
            await until(places, "UNKNOWN_ERROR")
            for _ in range(5):
                await until(places, "UNKNOWN_ERROR")
            assert ledger.states[0] == "open"
            sim.faults = Faults()
            await until(places, "OK")

    ledger = Ledger()
    with simulator_in_thread() as sim:
        asyncio.run(run())
    assert ledger.states[-2:] == ["half_open", "closed"]


def test_what_broken_says_is_an_answer_of_its_own() -> None:
    async def run() -> None:
        resilient = Resilient(
            Scripted(again()),
            schema.PlacesSettings(breaker_failures=1, breaker_seconds=9.0, attempts=1),
            Ledger(),
        )
        await outcome(resilient)
        with pytest.raises(BrokenError) as caught:
            await resilient.nearby(QUERY, None)
        assert not caught.value.again
        assert json.loads(caught.value.answer.body)["status"] == "UNKNOWN_ERROR"
        assert "calls it again in 9.0 s" in message(caught.value.answer)

    asyncio.run(run())
