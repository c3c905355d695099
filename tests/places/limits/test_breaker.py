"""The circuit breaker's laws: when it opens, that one call at a time finds out, and that old calls do no harm."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxyherd.places.limits.breaker import MOST_TIMES, STATES, Breaker, BreakerState

FAILURES = 3
SECONDS = 10.0


def state(breaker: Breaker) -> BreakerState:
    """Return its state; mypy would take it for what it was seen to be before."""
    return breaker.state


def admitted(breaker: Breaker, now: float) -> object:
    call = breaker.admit(now)
    assert call is not None
    return call


def fail(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(admitted(breaker, now), now)


def opened(at: float = 0) -> Breaker:
    breaker = Breaker(FAILURES, SECONDS)
    fail(breaker, at, FAILURES)
    assert state(breaker) == "open"
    return breaker


@pytest.mark.parametrize("failures", [1, 2, 20])
def test_so_many_failures_in_a_row_open_it_and_none_fewer(failures: int) -> None:
    breaker = Breaker(failures, SECONDS)
    fail(breaker, 0, failures - 1)
    assert (state(breaker), breaker.refuses(0)) == ("closed", 0)
    fail(breaker, 0)
    assert (state(breaker), breaker.refuses(0)) == ("open", SECONDS)


def test_a_success_between_failures_begins_the_count_anew() -> None:
    breaker = Breaker(FAILURES, SECONDS)
    for _ in range(5):
        fail(breaker, 0, FAILURES - 1)
        breaker.succeeded(admitted(breaker, 0))
    assert state(breaker) == "closed"


def test_a_call_that_was_given_up_neither_counts_nor_begins_the_count_anew() -> None:
    breaker = Breaker(FAILURES, SECONDS)
    fail(breaker, 0, FAILURES - 1)
    for _ in range(FAILURES):
        breaker.abandoned(admitted(breaker, 0))
    assert state(breaker) == "closed"
    fail(breaker, 0)
    assert state(breaker) == "open"


def test_while_open_nobody_goes_until_the_last_moment_of_the_pause() -> None:
    breaker = opened(at=5)
    for now in (5, 5 + SECONDS / 2, math.nextafter(5 + SECONDS, 0)):
        assert breaker.refuses(now) == 5 + SECONDS - now
        assert breaker.admit(now) is None
    assert breaker.refuses(5 + SECONDS) == 0
    assert state(breaker) == "open", "nobody has asked yet"
    admitted(breaker, 5 + SECONDS)
    assert state(breaker) == "half_open"


def test_of_all_who_come_after_the_pause_one_goes() -> None:
    breaker = opened()
    assert [breaker.admit(SECONDS) is not None for _ in range(100)] == [True] + [False] * 99
    assert breaker.admit(1_000 * SECONDS) is None, "the probe is still under way"
    assert 0 < breaker.refuses(SECONDS) <= SECONDS, "whoever is refused learns that a time will come"


def test_the_probes_success_closes_it_and_the_count_begins_anew() -> None:
    breaker = opened()
    breaker.succeeded(admitted(breaker, SECONDS))
    assert state(breaker) == "closed"
    fail(breaker, SECONDS, FAILURES - 1)
    assert state(breaker) == "closed"
    fail(breaker, SECONDS)
    assert state(breaker) == "open"


def test_the_probes_failure_opens_it_for_twice_the_pause_from_then() -> None:
    breaker = opened()
    probe = admitted(breaker, SECONDS)
    breaker.failed(probe, SECONDS + 3)
    assert state(breaker) == "open"
    assert breaker.refuses(SECONDS + 3) == 2 * SECONDS
    assert breaker.admit(math.nextafter(3 * SECONDS + 3, 0)) is None
    admitted(breaker, 3 * SECONDS + 3)


def test_pauses_grow_up_to_a_bound_and_begin_anew_after_a_success() -> None:
    breaker, now, pauses = opened(), SECONDS, []
    for _ in range(8):
        breaker.failed(admitted(breaker, now), now)
        pauses.append(breaker.refuses(now) / SECONDS)
        now += breaker.refuses(now)
    assert pauses == [2, 4, 8, 16, 16, 16, 16, 16]
    breaker.succeeded(admitted(breaker, now))
    fail(breaker, now, FAILURES)
    assert breaker.refuses(now) == SECONDS


def test_when_the_probe_is_given_up_the_next_is_the_probe_and_again_the_only_one() -> None:
    breaker = opened()
    breaker.abandoned(admitted(breaker, SECONDS))
    assert (state(breaker), breaker.refuses(SECONDS)) == ("half_open", 0)
    probe = admitted(breaker, SECONDS)
    assert breaker.admit(SECONDS) is None
    breaker.failed(probe, SECONDS)
    assert (state(breaker), breaker.refuses(SECONDS)) == ("open", 2 * SECONDS)


def test_a_call_from_before_that_is_given_up_frees_no_second_probe() -> None:
    breaker = Breaker(FAILURES, SECONDS)
    old = admitted(breaker, 0)
    fail(breaker, 0, FAILURES)
    admitted(breaker, SECONDS)
    breaker.abandoned(old)
    assert breaker.admit(SECONDS) is None


def test_failures_of_calls_from_before_it_opened_do_not_extend_the_pause() -> None:
    breaker = Breaker(FAILURES, SECONDS)
    old = [admitted(breaker, 0) for _ in range(3 * FAILURES)]
    fail(breaker, 0, FAILURES)
    for call in old:
        breaker.failed(call, SECONDS - 1)
    assert breaker.refuses(SECONDS - 1) == 1


def test_failures_of_calls_from_before_it_opened_do_not_end_the_probe() -> None:
    breaker = Breaker(FAILURES, SECONDS)
    old = [admitted(breaker, 0) for _ in range(3 * FAILURES)]
    fail(breaker, 0, FAILURES)
    probe = admitted(breaker, SECONDS)
    for call in old:
        breaker.failed(call, SECONDS)
    assert state(breaker) == "half_open"
    assert breaker.admit(SECONDS) is None
    breaker.succeeded(probe)
    assert state(breaker) == "closed"


def test_failures_of_calls_from_before_it_opened_do_not_open_it_once_it_has_closed() -> None:
    breaker = Breaker(FAILURES, SECONDS)
    old = [admitted(breaker, 0) for _ in range(3 * FAILURES)]
    fail(breaker, 0, FAILURES)
    breaker.succeeded(admitted(breaker, SECONDS))
    for call in old:
        breaker.failed(call, SECONDS)
    assert state(breaker) == "closed"
    fail(breaker, SECONDS, FAILURES - 1)
    assert state(breaker) == "closed", "nor do they count"
    fail(breaker, SECONDS)
    assert state(breaker) == "open"


def test_a_late_success_of_a_call_from_before_closes_it() -> None:
    breaker = Breaker(FAILURES, SECONDS)
    old = admitted(breaker, 0)
    fail(breaker, 0, FAILURES)
    breaker.succeeded(old)
    assert (state(breaker), breaker.refuses(0)) == ("closed", 0)


class Interleavings(RuleBasedStateMachine):
    """Calls that begin and end in any order. The model knows when each call began, and in which period of being
    closed; the breaker may know neither better.
    """

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(FAILURES, SECONDS)
        self.now = 0.0
        self.under_way: list[tuple[object, int]] = []
        self.period = 0
        self.in_a_row = 0
        self.pause = SECONDS
        self.open_until: float | None = None
        self.probe: object | None = None

    def pick(self, number: int) -> tuple[object, int]:
        return self.under_way.pop(number % len(self.under_way))

    @rule(seconds=st.sampled_from([0.0, 1.0, SECONDS / 2, SECONDS]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begins(self) -> None:
        may = self.open_until is None or (self.now >= self.open_until and self.probe is None)
        assert (self.breaker.refuses(self.now) == 0) == may
        call = self.breaker.admit(self.now)
        assert (call is not None) == may
        if call is not None:
            self.under_way.append((call, self.period if self.open_until is None else -1))
            if self.open_until is not None:
                self.probe = call

    @precondition(lambda self: self.under_way)
    @rule(number=st.integers(0, 50))
    def succeeds(self, number: int) -> None:
        call, _ = self.pick(number)
        self.breaker.succeeded(call)
        if self.open_until is not None:
            self.period += 1
        self.open_until, self.probe, self.in_a_row, self.pause = None, None, 0, SECONDS

    @precondition(lambda self: self.under_way)
    @rule(number=st.integers(0, 50))
    def fails(self, number: int) -> None:
        call, period = self.pick(number)
        self.breaker.failed(call, self.now)
        if self.open_until is None:
            self.in_a_row += period == self.period
        if call is self.probe:
            self.pause = min(2 * self.pause, MOST_TIMES * SECONDS)
        if (self.open_until is None and self.in_a_row >= FAILURES) or call is self.probe:
            self.open_until, self.probe, self.in_a_row = self.now + self.pause, None, 0

    @precondition(lambda self: self.under_way)
    @rule(number=st.integers(0, 50))
    def is_given_up(self, number: int) -> None:
        call, _ = self.pick(number)
        self.breaker.abandoned(call)
        if call is self.probe:
            self.probe = None

    @invariant()
    def says_its_state(self) -> None:
        assert self.breaker.state in STATES
        assert (self.breaker.state == "closed") == (self.open_until is None)
        if self.probe is not None:
            assert self.breaker.state == "half_open"


TestInterleavings = pytest.mark.long(Interleavings.TestCase)
TestInterleavings.settings = settings(deadline=None, max_examples=150, stateful_step_count=60)


def test_the_states_are_those_that_a_breaker_can_be_in() -> None:
    assert sorted(STATES) == sorted(get_args(BreakerState)) == ["closed", "half_open", "open"]
