"""The crowd's laws: it stays bounded, who has most gives way, and size costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxyherd.places.limits import crowd as module
from proxyherd.places.limits.crowd import Crowd


def crowd_of(most: int, *owners: str) -> Crowd[str]:
    """Make a crowd whose members are called after their owner, and numbered: a1, a2, b3."""
    crowd: Crowd[str] = Crowd(most)
    for number, owner in enumerate(owners, 1):
        assert crowd.add(owner, f"{owner}{number}") is None
    return crowd


def test_the_greediest_loses_its_newest_to_a_newcomer_that_has_fewer() -> None:
    crowd = crowd_of(5, "a", "b", "a", "a", "b")
    assert crowd.add("c", "c6") == "a4"
    assert len(crowd) == 5


@pytest.mark.parametrize("newcomer", ["a", "b"])
def test_a_newcomer_with_as_many_as_the_greediest_is_shed_itself(newcomer: str) -> None:
    crowd = crowd_of(4, "a", "b", "a", "b")
    assert crowd.add(newcomer, "new") == "new"
    assert len(crowd) == 4
    crowd.remove(newcomer, "new")
    assert len(crowd) == 4, "it never got in"


def test_where_everybody_has_one_who_has_none_gets_in_and_who_has_one_does_not() -> None:
    crowd = crowd_of(3, "a", "b", "c")
    assert crowd.add("d", "d4") in {"a1", "b2", "c3"}
    assert crowd.add("d", "d5") == "d5"


def test_who_came_in_numbers_ends_with_as_many_as_the_others() -> None:
    crowd = crowd_of(100, *("greedy" for _ in range(100)))
    gone = [crowd.add(owner, f"{owner}{number}") for number in range(25) for owner in "xyz"]
    assert gone == [f"greedy{number}" for number in range(100, 25, -1)]
    assert crowd.add("greedy", "more") == "more"
    assert crowd.add("x", "more") == "more"


def test_a_crowd_of_nobody_takes_nobody() -> None:
    assert Crowd[str](0).add("a", "a1") == "a1"


def test_who_leaves_makes_room_once() -> None:
    crowd = crowd_of(2, "a", "b")
    for _ in range(3):
        crowd.remove("a", "a1")
    crowd.remove("b", "a1")
    crowd.remove("stranger", "b2")
    assert len(crowd) == 1
    assert crowd.add("c", "c1") is None
    assert crowd.add("c", "c2") == "c2"


class Model(RuleBasedStateMachine):
    """The crowd against lists: each owner's members, oldest first."""

    @initialize(most=st.integers(0, 8))
    def begin(self, most: int) -> None:
        self.most = most
        self.crowd: Crowd[int] = Crowd(most)
        self.owned: dict[str, list[int]] = {owner: [] for owner in "abcd"}
        self.number = 0

    @property
    def size(self) -> int:
        return sum(map(len, self.owned.values()))

    @rule(owner=st.sampled_from("abcd"))
    def come(self, owner: str) -> None:
        self.number += 1
        had, size = len(self.owned[owner]), self.size
        greediest = max(map(len, self.owned.values()))
        gone = self.crowd.add(owner, self.number)
        if size < self.most:
            assert gone is None
        elif had >= greediest:
            assert gone == self.number
        else:
            (victim,) = [one for one, members in self.owned.items() if gone in members]
            assert len(self.owned[victim]) == greediest
            assert self.owned[victim].pop() == gone
        if gone != self.number:
            self.owned[owner].append(self.number)

    @precondition(lambda self: self.size)
    @rule(number=st.integers(0, 100))
    def leave(self, number: int) -> None:
        members = [(owner, member) for owner, members in self.owned.items() for member in members]
        owner, member = members[number % len(members)]
        self.owned[owner].remove(member)
        self.crowd.remove(owner, member)

    @precondition(lambda self: self.number)
    @rule(owner=st.sampled_from("abcd"), number=st.integers(1, 100))
    def leave_though_not_there(self, owner: str, number: int) -> None:
        if number not in self.owned[owner]:
            self.crowd.remove(owner, number)

    @invariant()
    def is_as_large_as_it_says_and_no_larger(self) -> None:
        assert len(self.crowd) == self.size <= self.most

    def teardown(self) -> None:
        for owner, members in self.owned.items():
            for member in members:
                self.crowd.remove(owner, member)
        assert len(self.crowd) == 0
        assert not self.crowd._owned, "it remembers nobody who has left"
        assert self.crowd._ranks == [{}]


TestModel = Model.TestCase
TestModel.settings = settings(deadline=None, max_examples=100, stateful_step_count=50)


class Owner:
    """An owner that counts how often a crowd looks at one."""

    looks = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        Owner.looks += 1
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


def steps(work: Callable[[], None]) -> int:
    """Count lines of the crowd that run, and looks at owners."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != module.__file__:
            return None
        lines += event == "line"
        return trace

    Owner.looks, before = 0, sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines + Owner.looks


def steps_of_adding_to_a_full_one(most: int, owners: int) -> float:
    """Return the steps of adding one to a full crowd, where those of a newcomer push out those of the others."""
    crowd: Crowd[int] = Crowd(most)
    everybody = [Owner(number) for number in range(owners)]
    for number in range(most):
        crowd.add(everybody[number % owners], number)
    newcomer, times = Owner(owners), most // (owners + 1)

    def add() -> None:
        for number in range(times):
            gone = crowd.add(newcomer, -1 - number)
            assert gone is not None
            assert gone >= 0

    return steps(add) / times


def test_adding_to_a_full_crowd_takes_as_many_steps_however_large_it_is() -> None:
    small = steps_of_adding_to_a_full_one(64, 16)
    assert small > 5
    assert steps_of_adding_to_a_full_one(4_096, 16) < 2 * small
    assert steps_of_adding_to_a_full_one(4_096, 1_024) < 2 * small
