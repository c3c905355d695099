"""The gate's laws: so many inside, askers by turns, and no turn lost or doubled whoever leaves at whatever moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxyherd.places.limits.gate import IN_ONE_GO, Gate

ASKERS = ["ann", "bob", None]


class TurnedAwayError(Exception):
    pass


@dataclass(eq=False)
class Visit:
    """A task that wants a turn, and is told how to end it."""

    asker: object
    number: int
    task: asyncio.Task[None] = field(init=False)
    leave: asyncio.Future[None] = field(init=False)
    inside: bool = False


class House:
    """A gate and everybody who has been sent to it; `entered` says who came in, in that order."""

    def __init__(self, at_once: int) -> None:
        self.gate = Gate(at_once)
        self.at_once = at_once
        self.entered: list[Visit] = []
        self.number = 0

    def send(self, asker: object) -> Visit:
        visit = Visit(asker, self.number)
        self.number += 1
        loop = asyncio.get_running_loop()
        visit.leave = loop.create_future()
        visit.task = loop.create_task(self._visit(visit))
        visit.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen
        return visit

    async def _visit(self, visit: Visit) -> None:
        async with self.gate.turn(visit.asker):
            self.entered.append(visit)
            visit.inside = True
            assert sum(one.inside for one in self.entered) <= self.at_once
            try:
                await visit.leave
            finally:
                visit.inside = False

    @property
    def inside(self) -> int:
        return sum(visit.inside for visit in self.entered)

    async def check_empty(self) -> None:
        """Hold that nobody is in it, nothing is left in it, and exactly so many turns are free."""
        await settle()
        assert self.inside == 0
        assert not self.gate._lines
        assert self.gate._free == self.at_once
        visits = [self.send("late") for _ in range(self.at_once + 1)]
        await settle(self.at_once)
        assert [visit.inside for visit in visits] == [True] * self.at_once + [False]
        for visit in visits:
            visit.leave.set_result(None)
        await asyncio.gather(*(visit.task for visit in visits))


async def settle(visits: int = 64) -> None:
    """Let the loop go round until nothing can happen any more: by turns, `IN_ONE_GO` come in each time."""
    for _ in range(4 * (visits // IN_ONE_GO + 2)):
        await asyncio.sleep(0)


def in_a_house(at_once: int) -> Callable[[Callable[[House], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Make a test of a scene in a house with so many turns; in the end nothing is left in it."""

    def decorate(scene: Callable[[House], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        def test() -> None:
            async def run() -> None:
                house = House(at_once)
                await scene(house)
                await house.check_empty()

            asyncio.run(run())

        return test

    return decorate


async def let_all_leave(visits: list[Visit]) -> None:
    for visit in visits:
        visit.leave.set_result(None)
    await asyncio.gather(*(visit.task for visit in visits), return_exceptions=True)


@in_a_house(2)
async def test_who_finds_room_does_not_wait_for_the_loop(house: House) -> None:
    async with house.gate.turn("ann"):
        pass
    turn = house.gate.turn("ann")
    with pytest.raises(StopIteration):  # it came in without awaiting anything
        turn.__aenter__().__await__().send(None)
    await turn.__aexit__(None, None, None)


@in_a_house(3)
async def test_no_more_than_there_is_room_for_are_inside(house: House) -> None:
    visits = [house.send(number) for number in range(10)]
    for gone in range(10):
        await settle()
        assert house.inside == min(3, 10 - gone)
        assert [visit.number for visit in house.entered] == list(range(min(10, 3 + gone)))
        visits[gone].leave.set_result(None)


@in_a_house(100)
async def test_of_a_crowd_a_few_come_in_each_time_the_loop_goes_round(house: House) -> None:
    visits = [house.send(number) for number in range(50)]
    came = [0]
    while came[-1] < 50:
        await asyncio.sleep(0)
        came.append(len(house.entered))
    most = max(after - before for before, after in pairwise(came))
    assert most == IN_ONE_GO == 4
    assert len(came) <= 50 / IN_ONE_GO + 4, "nearly each round"
    await let_all_leave(visits)


@in_a_house(1)
async def test_askers_take_turns_and_each_ones_queries_come_in_their_order(house: House) -> None:
    first = house.send("first")
    await settle()
    crowd = [house.send("greedy") for _ in range(5)]
    await settle()
    others = [house.send(asker) for asker in ("modest", "second", "modest")]
    await settle()
    everybody = [first, *crowd, *others]
    while len(house.entered) < len(everybody):
        house.entered[-1].leave.set_result(None)
        await settle()
    house.entered[-1].leave.set_result(None)
    assert [(visit.asker, visit.number) for visit in house.entered[1:]] == [
        ("greedy", 1),
        ("modest", 6),
        ("second", 7),
        ("greedy", 2),
        ("modest", 8),
        ("greedy", 3),
        ("greedy", 4),
        ("greedy", 5),
    ]


@given(st.lists(st.sampled_from("abcd"), max_size=25), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_the_order_is_that_of_a_round_robin(askers: list[str], at_once: int) -> None:
    async def run() -> list[tuple[object, int]]:
        house = House(at_once)
        holders = [house.send("holder") for _ in range(at_once)]
        await settle(at_once)
        visits = [house.send(asker) for asker in askers]
        await settle(len(visits))
        for holder in holders[1:]:
            holder.leave.set_result(None)
            await settle()
        holders[0].leave.set_result(None)
        await settle()
        for number in range(len(visits)):
            house.entered[at_once + number].leave.set_result(None)
            await settle()
        return [(visit.asker, visit.number - at_once) for visit in house.entered[at_once:]]

    lines: dict[str, deque[int]] = {}
    for number, asker in enumerate(askers):
        lines.setdefault(asker, deque()).append(number)
    turns, expected = deque(lines), []
    while turns:
        asker = turns.popleft()
        expected.append((asker, lines[asker].popleft()))
        if lines[asker]:
            turns.append(asker)
    assert asyncio.run(run()) == expected


@in_a_house(1)
async def test_a_newcomer_does_not_overtake_who_waits(house: House) -> None:
    holder = house.send("ann")
    await settle()
    waiting = house.send("bob")
    await settle()
    holder.leave.set_result(None)
    newcomer = house.send("ann")
    await settle()
    assert (waiting.inside, newcomer.inside) == (True, False)
    await let_all_leave([waiting, newcomer])


@in_a_house(1)
async def test_who_is_cancelled_while_waiting_is_gone_at_once_and_leaves_nothing_behind(house: House) -> None:
    holder = house.send("holder")
    await settle()
    waiting = [house.send(number % 7) for number in range(100)]
    await settle()
    for visit in waiting:
        visit.task.cancel()
    await settle()
    assert all(visit.task.cancelled() for visit in waiting)
    assert not house.gate._lines, "however long the holder stays"
    holder.leave.set_result(None)


@pytest.mark.parametrize("rounds", range(5))
@pytest.mark.parametrize("order", ["leaves first", "is cancelled first"])
def test_a_turn_that_comes_as_its_task_is_cancelled_is_the_next_ones(rounds: int, order: str) -> None:
    async def run() -> None:
        house = House(1)
        holder, waiting, after = house.send("a"), house.send("b"), house.send("c")
        await settle()
        if order == "leaves first":
            holder.leave.set_result(None)
            for _ in range(rounds):
                await asyncio.sleep(0)
            waiting.task.cancel()
        else:
            waiting.task.cancel()
            for _ in range(rounds):
                await asyncio.sleep(0)
            holder.leave.set_result(None)
        await settle()
        assert waiting.task.done()
        assert after.inside
        after.leave.set_result(None)
        await house.check_empty()

    asyncio.run(run())


@in_a_house(1)
async def test_a_turn_is_handed_on_past_a_whole_line_that_is_cancelled_in_the_moment(house: House) -> None:
    holder = house.send("a")
    await settle()
    waiting = [house.send(number % 3) for number in range(30)]
    last = house.send("last")
    await settle()
    holder.leave.set_result(None)
    await asyncio.sleep(0)  # the holder goes, and the first of the line has the turn
    for visit in waiting:
        visit.task.cancel()
    await settle()
    assert last.inside
    last.leave.set_result(None)


@in_a_house(2)
async def test_an_exception_inside_gives_the_turn_back_and_goes_on(house: House) -> None:
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            async with house.gate.turn("ann"):
                raise ZeroDivisionError


@in_a_house(2)
async def test_turning_away_wakes_all_who_wait_and_nobody_inside(house: House) -> None:
    holders = [house.send("a"), house.send("b")]
    await settle()
    waiting = [house.send(number % 3) for number in range(20)]
    await settle()
    error = TurnedAwayError()
    house.gate.turn_away(error)
    await settle()
    assert all(visit.task.exception() is error for visit in waiting)
    assert house.inside == 2
    next_one = house.send("c")
    await settle()
    assert not next_one.inside, "whoever comes later waits as before"
    await let_all_leave([*holders, next_one])


@in_a_house(1)
async def test_who_is_turned_away_and_cancelled_in_one_moment_gives_no_turn_back(house: House) -> None:
    holder = house.send("a")
    await settle()
    waiting = [house.send("b"), house.send("b")]
    await settle()
    waiting[0].task.cancel()
    house.gate.turn_away(TurnedAwayError())
    waiting[1].task.cancel()
    await settle()
    assert all(visit.task.done() for visit in waiting)
    with contextlib.suppress(asyncio.CancelledError, TurnedAwayError):
        await waiting[1].task
    newcomer = house.send("c")
    await settle()
    assert house.inside == 1
    await let_all_leave([holder, newcomer])


@in_a_house(1)
async def test_a_turn_that_has_come_is_not_turned_away(house: House) -> None:
    holder, waiting = house.send("a"), house.send("b")
    await settle()
    holder.leave.set_result(None)
    await asyncio.sleep(0)  # `waiting` has the turn, and has not run since
    house.gate.turn_away(TurnedAwayError())
    await settle()
    assert waiting.inside
    waiting.leave.set_result(None)


class Moments(RuleBasedStateMachine):
    """Whoever comes, goes, fails, is cancelled or turned away, with the loop going round in between or not."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.house = House(2)
        self.visits: list[Visit] = []

    def run(self, rounds: int = 0) -> None:
        async def go_round() -> None:
            for _ in range(rounds):
                await asyncio.sleep(0)

        self.loop.run_until_complete(go_round())
        self.visits = [visit for visit in self.visits if not visit.task.done()]

    @rule(asker=st.sampled_from(ASKERS), times=st.integers(1, 6))
    def come(self, asker: object, times: int) -> None:
        async def send() -> None:
            self.visits += [self.house.send(asker) for _ in range(times)]

        self.loop.run_until_complete(send())

    @precondition(lambda self: self.visits)
    @rule(which=st.sets(st.integers(0, 20), min_size=1, max_size=5))
    def are_cancelled(self, which: set[int]) -> None:
        for number in which:
            self.visits[number % len(self.visits)].task.cancel()

    @precondition(lambda self: any(visit.inside for visit in self.visits))
    @rule(which=st.integers(0, 1), error=st.sampled_from([None, ZeroDivisionError()]))
    def leaves(self, which: int, error: Exception | None) -> None:
        inside = [visit for visit in self.visits if visit.inside and not visit.leave.done()]
        if inside:
            leave = inside[which % len(inside)].leave
            leave.set_result(None) if error is None else leave.set_exception(error)

    @rule()
    def are_turned_away(self) -> None:
        self.house.gate.turn_away(TurnedAwayError())

    @rule(rounds=st.integers(1, 3))
    def loop_goes_round(self, rounds: int) -> None:
        self.run(rounds)

    @rule()
    def nothing_is_left_to_happen(self) -> None:
        self.run(100)
        assert self.house.inside == min(2, len(self.visits)), "a turn is neither lost nor doubled"
        held = sum(map(len, self.house.gate._lines.values()))
        assert held == len(self.visits) - self.house.inside, "it holds nobody who has gone"

    @invariant()
    def no_more_than_two_are_inside(self) -> None:
        assert self.house.inside <= 2

    def teardown(self) -> None:
        async def end() -> None:
            for visit in self.visits:
                visit.task.cancel()
            await self.house.check_empty()

        self.run(100)
        try:
            self.loop.run_until_complete(end())
        finally:
            self.loop.close()


TestMoments = Moments.TestCase
TestMoments.settings = settings(deadline=None, max_examples=50, stateful_step_count=40)


def test_a_query_that_another_asker_wants_too_comes_in_by_whoevers_turn_is_first() -> None:
    async def scene() -> None:
        gate, came = Gate(1), []

        async def come(asker: str, query: str) -> None:
            async with gate.turn(asker, query):
                came.append(query)

        async with gate.turn("somebody"):
            tasks = [asyncio.create_task(come("greedy", f"greedy {number}")) for number in range(5)]
            tasks.append(asyncio.create_task(come("greedy", "popular")))
            await asyncio.sleep(0)
            gate.join("modest", "popular")
            gate.join("modest", "popular")
            gate.join("modest", "not there")
        await asyncio.gather(*tasks)
        assert came == ["greedy 0", "popular", "greedy 1", "greedy 2", "greedy 3", "greedy 4"]
        assert not gate._lines
        assert not gate._standing

    asyncio.run(scene())


def test_a_query_of_several_askers_that_is_given_up_leaves_all_their_lines() -> None:
    async def scene() -> None:
        gate = Gate(1)

        async def come() -> None:
            async with gate.turn("one", "query"):
                raise AssertionError("it was given up")

        async with gate.turn("somebody"):
            task = asyncio.create_task(come())
            await asyncio.sleep(0)
            gate.join("other", "query")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not gate._lines
            assert not gate._standing

    asyncio.run(scene())
