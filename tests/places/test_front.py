"""The front's laws: whatever the provider does every query gets an answer in time, calls are shared, nothing grows."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from cachetools import TTLCache
from fake_google import Ledger, message, nearby_answer
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxyherd.config import schema
from proxyherd.places import CHOICES, Answer, Places, Query, open_places
from proxyherd.places.answers import MOST_RESULTS, STATUSES, cut, no_results, read_answer
from proxyherd.places.failures import ShareError, failed

BODY = nearby_answer(20)
WHOLE = read_answer(BODY)
LONG = 30.0
"""Seconds that no test takes."""


def query(number: int = 0, most: int = 20) -> Query:
    return Query(f"+{number}.5", "-118.25", Decimal(1_000), most)


class Provider:
    """Answers when it is told; `widens` as the old API of Google does."""

    name = "told"

    def __init__(self, *, widens: bool = False) -> None:
        self.widens = widens
        self.asked: list[tuple[Query, object]] = []
        self.joined: list[tuple[Query, object]] = []
        self.cancelled: list[Query] = []
        self.pending: dict[Query, asyncio.Future[Answer]] = {}
        self.closed = 0
        self.at_once: Answer | Exception | None = None

    def widened(self, query: Query) -> Query:
        return msgspec.structs.replace(query, most=MOST_RESULTS) if self.widens else query

    def join(self, query: Query, asker: str | None) -> None:
        self.joined.append((query, asker))

    def answer_at_once(self, query: Query) -> Answer | None:
        if isinstance(self.at_once, Exception):
            raise self.at_once
        return self.at_once

    async def nearby(self, query: Query, asker: str | None) -> Answer:
        self.asked.append((query, asker))
        assert query not in self.pending, "one call for each query"
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.pending[query] = future
        try:
            return await future
        except asyncio.CancelledError:
            self.cancelled.append(query)
            raise
        finally:
            del self.pending[query]

    async def close(self) -> None:
        self.closed += 1


class Doing(Provider):
    """Does what a function does."""

    def __init__(self, does: Callable[[], Awaitable[Answer]]) -> None:
        super().__init__()
        self.does = does

    async def nearby(self, query: Query, asker: str | None) -> Answer:
        self.asked.append((query, asker))
        return await self.does()


def places_of(
    provider: Provider,
    ledger: Ledger | None = None,
    *,
    deadline: float = LONG,
    most: int = 100,
    kept: TTLCache[Query, Answer] | None = None,
) -> Places:
    return Places(provider, ledger or Ledger(), deadline_seconds=deadline, max_in_flight=most, kept=kept)


def keeping(size: int = 1_000_000, seconds: float = 60, timer: Callable[[], float] = time.monotonic) -> Any:
    """Make what keeps answers as a server has it."""
    return TTLCache(size, seconds, timer, getsizeof=lambda answer: len(answer.body))


def ask(places: Places, query: Query, asker: str | None = None) -> asyncio.Task[Answer]:
    return asyncio.create_task(places.nearby(query, asker))


async def settle() -> None:
    """Let the loop go round until nothing can happen any more."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(scene: Coroutine[Any, Any, None], places: Places) -> None:
    """Run a scene; in the end nothing is under way, and nobody is remembered."""

    async def whole() -> None:
        await scene
        await settle()
        check_empty(places)
        (only,) = asyncio.all_tasks()
        assert only is asyncio.current_task()

    asyncio.run(whole())


def check_empty(places: Places) -> None:
    assert (places.in_flight, places._calls) == (0, {})
    assert not places._crowd._owned


# Sharing. ----------------------------------------------------------------------------------------------------


def test_identical_queries_share_a_call_and_all_get_its_answer() -> None:
    provider, ledger = Provider(), Ledger()
    places = places_of(provider, ledger)

    async def scene() -> None:
        tasks = [ask(places, query(), asker) for asker in "abc"]
        await settle()
        assert (provider.asked, places.in_flight) == ([(query(), "a")], 3)
        provider.pending[query()].set_result(WHOLE)
        assert {(await task).body for task in tasks} == {WHOLE.body}

    run(scene(), places)
    assert ledger.spared == ["shared", "shared"]


class Sharing(Provider):
    """Has a share of calls for these askers alone; each query waits until it is told to go on."""

    def __init__(self, *payers: str) -> None:
        super().__init__()
        self.payers = payers
        self.goes_on = asyncio.Event()

    async def nearby(self, query: Query, asker: str | None) -> Answer:
        self.asked.append((query, asker))
        await self.goes_on.wait()
        if asker in self.payers:
            return WHOLE
        raise ShareError(no_results("OVER_QUERY_LIMIT", "you have had your share"))


@pytest.mark.parametrize(
    ("payers", "asked", "answered"),
    [("a", "a", "aabc"), ("b", "ab", "bc"), ("bc", "ab", "bc"), ("c", "abc", "c"), ("", "abc", "")],
)
def test_one_who_has_had_its_share_spoils_no_call_that_others_wait_for(
    payers: str, asked: str, answered: str
) -> None:
    provider = Sharing(*payers)
    places = places_of(provider)

    async def scene() -> None:
        tasks = [(asker, ask(places, query(), asker)) for asker in "aabc"]
        await settle()
        provider.goes_on.set()
        found = [(asker, (await task).status) for asker, task in tasks]
        assert [payer for _, payer in provider.asked] == [*asked]
        assert [asker for asker, status in found if status == "OK"] == [*answered]
        assert {status for _, status in found} <= {"OK", "OVER_QUERY_LIMIT"}
        assert places.in_flight == 0

    run(scene(), places)


def test_the_deadline_is_the_same_whoever_pays() -> None:
    class Second(Provider):
        async def nearby(self, query: Query, asker: str | None) -> Answer:
            if asker == "a":
                raise ShareError(no_results("OVER_QUERY_LIMIT", "you have had your share"))
            return await super().nearby(query, asker)

    places = places_of(Second(), deadline=0.02)

    async def scene() -> None:
        first, second = ask(places, query(), "a"), ask(places, query(), "b")
        assert "share" in message(await first)
        check_says(await second, "within 0.02 s")

    run(scene(), places)


@pytest.mark.parametrize(
    "other",
    [
        Query("+0.5", "-118.25", Decimal(1_000), 19),
        Query("+0.50", "-118.25", Decimal(1_000), 20),
        Query("+0.5", "-118.2", Decimal(1_000), 20),
        Query("+0.5", "-118.25", Decimal(1_001), 20),
    ],
)
def test_queries_that_differ_at_all_are_calls_of_their_own(other: Query) -> None:
    provider = Provider()
    places = places_of(provider)

    async def scene() -> None:
        tasks = [ask(places, query()), ask(places, other)]
        await settle()
        provider.pending[query()].set_result(WHOLE)
        provider.pending[other].set_result(no_results("ZERO_RESULTS"))
        assert [(await task).status for task in tasks] == ["OK", "ZERO_RESULTS"]

    run(scene(), places)


@given(
    results=st.integers(0, 30),
    bounds=st.lists(st.integers(1, MOST_RESULTS), min_size=1, max_size=8),
    keeps=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_where_the_provider_widens_all_bounds_share_a_call_and_each_gets_the_whole_cut_to_it(
    results: int, bounds: list[int], keeps: bool
) -> None:
    body, provider = nearby_answer(results), Provider(widens=True)
    places = places_of(provider, kept=keeping() if keeps else None)

    async def scene() -> None:
        tasks = [ask(places, query(most=most)) for most in bounds]
        await settle()
        (future,) = provider.pending.values()
        future.set_result(read_answer(body))
        answers = [await task for task in tasks]
        if keeps:
            answers += [await places.nearby(query(most=most)) for most in bounds]
        assert answers == [cut(body, most) for most in bounds] * (2 if keeps else 1)

    run(scene(), places)
    assert len(provider.asked) == 1


def test_who_leaves_leaves_the_call_to_the_others_the_first_too() -> None:
    provider = Provider()
    places = places_of(provider)

    async def scene() -> None:
        tasks = [ask(places, query(), asker) for asker in "abc"]
        await settle()
        tasks[0].cancel()
        tasks[1].cancel()
        await settle()
        assert places.in_flight == 1
        provider.pending[query()].set_result(WHOLE)
        assert (await tasks[2]).status == "OK"
        assert tasks[0].cancelled()
        assert tasks[1].cancelled()

    run(scene(), places)
    assert not provider.cancelled


def test_the_last_to_leave_cancels_the_call_and_an_identical_query_makes_a_new_one() -> None:
    provider = Provider()
    places = places_of(provider)

    async def scene() -> None:
        tasks = [ask(places, query()), ask(places, query())]
        await settle()
        for task in tasks:
            task.cancel()
        await settle()
        assert provider.cancelled == [query()]
        check_empty(places)
        task = ask(places, query())
        await settle()
        provider.pending[query()].set_result(WHOLE)
        assert (await task).status == "OK"

    run(scene(), places)
    assert len(provider.asked) == 2


def test_who_comes_as_the_last_one_leaves_gets_an_answer() -> None:
    provider = Provider()
    places = places_of(provider)

    async def scene() -> None:
        for rounds in range(5):
            first = ask(places, query())
            await settle()
            first.cancel()
            for _ in range(rounds):
                await asyncio.sleep(0)
            second = ask(places, query())
            await settle()
            provider.pending[query()].set_result(WHOLE)
            assert (await second).status == "OK"

    run(scene(), places)


def test_who_comes_as_the_answer_does_gets_one_too() -> None:
    provider = Provider()
    places = places_of(provider)

    async def scene() -> None:
        for rounds in range(5):
            first = ask(places, query())
            await settle()
            provider.pending[query()].set_result(WHOLE)
            for _ in range(rounds):
                await asyncio.sleep(0)
            second = ask(places, query())
            await settle()
            if provider.pending:
                provider.pending[query()].set_result(WHOLE)
            assert [(await task).status for task in (first, second)] == ["OK", "OK"]

    run(scene(), places)


def test_who_waits_has_tried_already_and_the_provider_is_not_tried_again() -> None:
    provider = Provider(widens=True)
    provider.at_once = WHOLE
    places = places_of(provider)

    async def scene() -> None:
        task = asyncio.create_task(places.wait(query(most=3)))
        await settle()
        provider.pending[provider.widened(query(most=3))].set_result(WHOLE)
        assert await task == cut(BODY, 3)

    run(scene(), places)
    assert len(provider.asked) == 1


@pytest.mark.parametrize("keeps", [False, True])
def test_what_the_provider_answers_at_once_waits_for_nothing_and_is_cut_and_kept(keeps: bool) -> None:
    provider, ledger = Provider(widens=True), Ledger()
    places = places_of(provider, ledger, most=0, kept=keeping() if keeps else None)
    provider.at_once = WHOLE

    async def scene() -> None:
        assert places.answer_at_once(query(most=3)) == cut(BODY, 3)
        provider.at_once = None
        assert places.answer_at_once(query(most=5)) == (cut(BODY, 5) if keeps else None)
        provider.at_once = WHOLE
        assert await places.nearby(query(most=7)) == cut(BODY, 7)

    run(scene(), places)
    assert provider.asked == []
    assert ledger.spared == ["kept", "kept"] * keeps


def test_a_provider_that_raises_at_once_is_asked_and_waited_for() -> None:
    provider = Provider()
    provider.at_once = ZeroDivisionError()
    places = places_of(provider)

    async def scene() -> None:
        assert places.answer_at_once(query()) is None
        task = ask(places, query())
        await settle()
        provider.pending[query()].set_result(WHOLE)
        assert (await task).status == "OK"

    run(scene(), places)


# Keeping. ----------------------------------------------------------------------------------------------------


def answering(*answers: Answer | Exception) -> Doing:
    """Make a provider that gives these answers, the last one from then on."""
    left = list(answers)

    async def answer() -> Answer:
        one = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(one, Exception):
            raise one
        return one

    return Doing(answer)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (WHOLE, True),
        (no_results("ZERO_RESULTS"), True),
        *((no_results(status), False) for status in sorted(STATUSES - {"OK", "ZERO_RESULTS"})),
        (no_results("SOMETHING_NEW"), False),
        (failed("UNKNOWN_ERROR", "broken"), False),
        (failed("OVER_QUERY_LIMIT", "used up"), False),
        (RuntimeError(), False),
    ],
)
def test_what_answers_is_kept_and_what_fails_is_not(answer: Answer | Exception, kept: bool) -> None:
    provider, ledger = answering(answer), Ledger()
    places = places_of(provider, ledger, kept=keeping())

    async def scene() -> None:
        first = await places.nearby(query())
        assert await places.nearby(query()) == first

    run(scene(), places)
    assert len(provider.asked) == (1 if kept else 2)
    assert ledger.spared == (["kept"] if kept else [])


def test_nothing_is_kept_where_nothing_may_be() -> None:
    provider = answering(WHOLE)
    places = places_of(provider)

    async def scene() -> None:
        for _ in range(3):
            await places.nearby(query())

    run(scene(), places)
    assert len(provider.asked) == 3
    assert not places._kept


def test_what_is_kept_is_forgotten_in_time() -> None:
    now = 0.0
    provider = answering(WHOLE)
    places = places_of(provider, kept=keeping(seconds=60, timer=lambda: now))

    async def scene() -> None:
        nonlocal now
        for moment, asked in ((0.0, 1), (59.0, 1), (60.0, 2), (119.0, 2), (121.0, 3)):
            now = moment
            await places.nearby(query())
            assert len(provider.asked) == asked

    run(scene(), places)


def test_what_is_kept_is_bounded_in_bytes_and_what_is_larger_than_all_is_answered_all_the_same() -> None:
    size = len(WHOLE.body)
    provider, kept = answering(WHOLE), keeping(size * 3 + 1)
    places = places_of(provider, kept=kept)
    small = places_of(answering(WHOLE), kept=keeping(size - 1))

    async def scene() -> None:
        for number in range(50):
            await places.nearby(query(number))
            assert kept.currsize == size * min(3, number + 1)
        assert (await small.nearby(query())).results == 20

    run(scene(), places)
    assert not small._kept


def opened_with(**settings: Any) -> Places:
    """Open what a server asks."""
    places, ledger = schema.PlacesSettings(**settings), Ledger()
    return open_places(
        places, schema.Limits(), ledger, key=None, gazetteer=Path("none.sqlite"), budget=ledger
    )


def test_each_answer_that_is_kept_counts_with_a_kibibyte_more_than_it_has() -> None:
    kept: Any = opened_with(cache_bytes=9_000, cache_seconds=7)._kept
    assert (kept.maxsize, kept.ttl, kept.getsizeof(WHOLE)) == (9_000, 7, len(WHOLE.body) + 1_024)


@pytest.mark.parametrize(
    ("settings", "name", "keeps"),
    [
        ({}, "gazetteer", True),
        ({"provider": "gazetteer"}, "gazetteer", True),
        ({"cache_seconds": 0}, "gazetteer", False),
        ({"cache_bytes": 0}, "gazetteer", False),
        ({"provider": "google"}, "google", False),
        ({"provider": "google", "google_cache_seconds": 9}, "google", True),
        ({"provider": "google-new"}, "google-new", False),
    ],
)
def test_the_herds_file_says_who_is_asked_and_whether_answers_are_kept(
    settings: dict[str, Any], name: str, keeps: bool
) -> None:
    places = opened_with(**settings)
    assert (places.name, places._keeps) == (name, keeps)
    if name != "gazetteer":
        answer = asyncio.run(places.nearby(query()))
        assert answer.status == "REQUEST_DENIED"
        assert "has no key for Google Places" in message(answer)


def test_each_name_that_the_herds_file_may_have_has_a_provider_and_no_other() -> None:
    assert set(CHOICES) == set(get_args(get_type_hints(schema.PlacesSettings)["provider"]))


def test_a_name_without_a_provider_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(CHOICES, "gazetteer")
    with pytest.raises(KeyError):
        opened_with(provider="gazetteer")


# Shedding. ---------------------------------------------------------------------------------------------------


def test_past_the_bound_the_greediest_loses_its_newest_and_is_told_so_at_once() -> None:
    provider, ledger = Provider(), Ledger()
    places = places_of(provider, ledger, most=4)

    async def scene() -> None:
        greedy = [ask(places, query(number), "greedy") for number in range(4)]
        await settle()
        modest = [ask(places, query(10 + number), "modest") for number in range(3)]
        await settle()
        shed = [*greedy[2:], modest[2]]
        assert [task.done() for task in greedy + modest] == [task in shed for task in greedy + modest]
        for task in shed:
            answer = await task
            assert answer.status == "UNKNOWN_ERROR"
            assert "4 queries wait" in message(answer)
        assert provider.cancelled == [query(3), query(2)], "the calls of those that were shed are given up"
        assert places.in_flight == 4
        for future in list(provider.pending.values()):
            future.set_result(WHOLE)
        for task in greedy + modest:
            await task

    run(scene(), places)
    assert ledger.spared == ["shed"] * 3


def test_who_is_shed_from_a_shared_call_does_not_hurt_the_others() -> None:
    provider = Provider()
    places = places_of(provider, most=3)

    async def scene() -> None:
        first = ask(places, query(0), "greedy")
        shared = [ask(places, query(1), "modest"), ask(places, query(1), "greedy")]
        await settle()
        newcomer = ask(places, query(2), "third")
        await settle()
        assert "queries wait" in message(await shared[1])
        for future in list(provider.pending.values()):
            future.set_result(WHOLE)
        assert [(await task).status for task in (first, shared[0], newcomer)] == ["OK"] * 3

    run(scene(), places)


def test_where_whoever_began_the_call_is_shed_it_goes_on_for_who_joined() -> None:
    provider = Provider()
    places = places_of(provider, most=3)

    async def scene() -> None:
        begun = [ask(places, query(number), "greedy") for number in range(2)]
        joined = ask(places, query(1), "modest")
        await settle()
        newcomer = ask(places, query(2), "third")
        await settle()
        assert "queries wait" in message(await begun[1])
        assert not provider.cancelled
        for future in list(provider.pending.values()):
            future.set_result(WHOLE)
        assert [(await task).status for task in (begun[0], joined, newcomer)] == ["OK"] * 3

    run(scene(), places)


@pytest.mark.parametrize("rounds", range(6))
def test_who_has_an_answer_already_is_not_shed(rounds: int) -> None:
    provider, ledger = Provider(), Ledger()
    places = places_of(provider, ledger, most=2)

    async def scene() -> None:
        tasks = [ask(places, query(number), "greedy") for number in range(2)]
        await settle()
        provider.pending[query(1)].set_result(WHOLE)
        for _ in range(rounds):
            await asyncio.sleep(0)
        tasks.append(ask(places, query(2), "modest"))
        await settle()
        for future in provider.pending.values():
            future.set_result(WHOLE)
        shed = [answer for answer in [await task for task in tasks] if answer.status != "OK"]
        assert ledger.spared == ["shed"] * len(shed), "each that is counted was told so"

    run(scene(), places)


# Whatever the provider does. ---------------------------------------------------------------------------------


class OddError(BaseException):
    """What no `except Exception` catches."""


def check_says(answer: Answer, words: str) -> None:
    assert answer.status == "UNKNOWN_ERROR"
    assert words in message(answer)
    assert set(json.loads(answer.body)) == {"html_attributions", "results", "status", "error_message"}


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("https://host/?key=secret"),
        KeyError("secret"),
        OSError(5, "secret"),
        TimeoutError("secret"),
        asyncio.CancelledError("secret"),
        asyncio.InvalidStateError("secret"),
        StopAsyncIteration("secret"),
        MemoryError("secret"),
        RecursionError("secret"),
        ExceptionGroup("secret", [ValueError("secret")]),
        GeneratorExit("secret"),
        OddError("secret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_the_provider_raises_all_get_an_answer_without_its_words(error: BaseException) -> None:
    async def fail() -> Answer:
        await asyncio.sleep(0)
        raise error

    provider = Doing(fail)
    places = places_of(provider)

    async def scene() -> None:
        tasks = [ask(places, query()) for _ in range(3)]
        async with asyncio.timeout(5):
            answers = [await task for task in tasks]
        for answer in answers:
            check_says(answer, "Places")
            assert b"secret" not in answer.body
        async with asyncio.timeout(5):
            check_says(await places.nearby(query()), "Places")

    run(scene(), places)
    assert len(provider.asked) == 2


def test_a_failure_is_answered_in_its_own_words() -> None:
    places = places_of(answering(failed("OVER_QUERY_LIMIT", "the quota is used up")))

    async def scene() -> None:
        answer = await places.nearby(query())
        assert (answer.status, message(answer)) == ("OVER_QUERY_LIMIT", "the quota is used up")

    run(scene(), places)


def test_a_provider_that_hangs_is_given_up_at_the_deadline_for_all_who_wait() -> None:
    provider = Provider()
    places = places_of(provider, deadline=0.05)

    async def scene() -> None:
        began = time.monotonic()
        for answer in await asyncio.gather(*(places.nearby(query()) for _ in range(3))):
            check_says(answer, "within 0.05 s")
        assert 0.04 < time.monotonic() - began < 5
        await settle()
        assert provider.cancelled == [query()]

    run(scene(), places)
    assert len(provider.asked) == 1


def test_who_asks_again_at_once_when_it_was_given_up_makes_a_new_call_whoever_has_not_gone_yet() -> None:
    provider = Provider()
    places = places_of(provider, deadline=0.02)

    async def ask_twice() -> tuple[Answer, Answer]:
        return await places.nearby(query()), await places.nearby(query())

    async def scene() -> None:
        async with asyncio.timeout(5):
            for answers in await asyncio.gather(*(ask_twice() for _ in range(3))):
                for answer in answers:
                    check_says(answer, "within 0.02 s")

    run(scene(), places)
    assert len(provider.asked) == 2


def test_a_provider_that_will_not_be_cancelled_holds_up_no_answer() -> None:
    async def stay() -> Answer:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await let_go.wait()
        return WHOLE

    let_go = asyncio.Event()
    provider = Doing(stay)
    places = places_of(provider, deadline=0.02, kept=keeping())

    async def scene() -> None:
        async with asyncio.timeout(5):
            check_says(await places.nearby(query()), "within 0.02 s")
            check_says(await places.nearby(query()), "within 0.02 s")
        check_empty(places)
        let_go.set()

    run(scene(), places)
    assert len(provider.asked) == 2


def test_an_error_while_a_call_is_given_up_reaches_nobody() -> None:
    async def stay() -> Answer:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise ZeroDivisionError

    places = places_of(Doing(stay), deadline=0.02)
    noise: list[dict[str, Any]] = []

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
        given_up = ask(places, query(1))
        await settle()
        given_up.cancel()
        check_says(await places.nearby(query()), "within 0.02 s")
        await settle()
        gc.collect()  # which tells of exceptions that nobody has seen

    run(scene(), places)
    assert not noise


def test_a_query_that_is_cancelled_is_cancelled() -> None:
    places = places_of(Provider())

    async def scene() -> None:
        task = ask(places, query())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scene(), places)


def test_closing_closes_the_provider() -> None:
    provider = Provider(widens=True)
    places = places_of(provider)
    run(places.close(), places)
    assert (provider.closed, places.name) == (1, "told")


class Anything(RuleBasedStateMachine):
    """Queries that come, leave and are answered in any order, with the loop going round in between or not."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.provider, self.ledger = Provider(widens=True), Ledger()
        self.places = places_of(self.provider, self.ledger, most=5)
        self.tasks: list[tuple[asyncio.Task[Answer], Query]] = []
        self.cancelled: set[asyncio.Task[Answer]] = set()

    def go_round(self, rounds: int) -> None:
        async def wait() -> None:
            for _ in range(rounds):
                await asyncio.sleep(0)

        self.loop.run_until_complete(wait())

    @rule(number=st.integers(0, 3), most=st.integers(1, 20), asker=st.sampled_from("ab"))
    def come(self, number: int, most: int, asker: str) -> None:
        asked = query(number, most)
        task = self.loop.create_task(self.places.nearby(asked, asker))
        self.tasks.append((task, asked))

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 30))
    def leave(self, number: int) -> None:
        task, _ = self.tasks[number % len(self.tasks)]
        if task.cancel():
            self.cancelled.add(task)

    @precondition(lambda self: self.provider.pending)
    @rule(
        number=st.integers(0, 30), outcome=st.sampled_from([WHOLE, failed("REQUEST_DENIED", "no"), OSError()])
    )
    def is_answered(self, number: int, outcome: Answer | Exception) -> None:
        pending = list(self.provider.pending.values())
        future = pending[number % len(pending)]
        if not future.done():
            if isinstance(outcome, Answer):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    @rule(rounds=st.integers(1, 4))
    def loop_goes_round(self, rounds: int) -> None:
        self.go_round(rounds)

    @rule()
    def nothing_is_left_to_happen(self) -> None:
        self.go_round(20)
        self.check_answers()
        waiting = {self.provider.widened(asked) for _, asked in self.tasks}
        assert set(self.provider.pending) == waiting == set(self.places._calls)
        assert self.places.in_flight == len(self.tasks)

    @invariant()
    def no_more_wait_than_may(self) -> None:
        assert self.places.in_flight <= 5

    def check_answers(self) -> None:
        """Hold that whoever is done has a right answer, and forget them."""
        for task, asked in self.tasks:
            if task.done() and not task.cancelled():
                answer = task.result()
                if answer.status == "OK":
                    assert answer == cut(BODY, asked.most)
                else:
                    assert message(answer)
            elif task.done():
                assert task in self.cancelled, "nobody is cancelled but who was"
        self.tasks = [(task, asked) for task, asked in self.tasks if not task.done()]

    def teardown(self) -> None:
        self.go_round(20)
        for future in self.provider.pending.values():
            future.set_result(WHOLE)
        self.go_round(20)
        self.check_answers()
        assert not self.tasks
        check_empty(self.places)
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


TestAnything = Anything.TestCase
TestAnything.settings = settings(deadline=None, max_examples=80, stateful_step_count=40)


def test_askers_share_what_there_is_whoever_comes_in_numbers() -> None:
    provider = Provider()
    places = places_of(provider, most=20)

    async def scene() -> None:
        tasks = [(ask(places, query(number), "greedy"), "greedy") for number in range(200)]
        for asker in "abc":
            tasks += [
                (ask(places, query(1_000 + ord(asker) * 10 + number), asker), asker) for number in range(5)
            ]
        await settle()
        for future in list(provider.pending.values()):
            future.set_result(WHOLE)
        answered = Counter([asker for task, asker in tasks if (await task).status == "OK"])
        assert answered == {"greedy": 5, "a": 5, "b": 5, "c": 5}

    run(scene(), places)


def test_an_answer_about_an_endless_location_is_not_kept() -> None:
    async def answers() -> Answer:
        return no_results("ZERO_RESULTS")

    kept = keeping()
    places = places_of(Doing(answers), kept=kept)

    async def scene() -> None:
        for fraction in ("5", "5" * 4_000):
            await places.nearby(Query(f"+1.{fraction}", "+2", Decimal(1), 1))

    run(scene(), places)
    assert [one.latitude for one in kept] == ["+1.5"]


def test_who_joins_a_call_lends_it_its_own_turn() -> None:
    places = places_of(provider := Provider())

    async def scene() -> None:
        waiting = [ask(places, query(), asker) for asker in ("one", "other")]
        await settle()
        assert (provider.asked, provider.joined) == ([(query(), "one")], [(query(), "other")])
        provider.pending[query()].set_result(WHOLE)
        await asyncio.gather(*waiting)

    run(scene(), places)
