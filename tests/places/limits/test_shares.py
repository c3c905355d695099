"""Shares of a window: nobody can leave others nothing, whoever comes and however often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.places.limits.shares import SLOTS_OF_A_WINDOW, Shares

MINUTE, DAY = 60, 86_400
NOON = 1_600_000_020  # a minute begins here


def spends(shares: Shares, asker: str, now: int, left: int) -> bool:
    """Make a call if it is allowed."""
    allowed = shares.allows(asker, now, left)
    if allowed:
        shares.spend(asker, now)
    return allowed


def spend_in_turns(shares: Shares, askers: list[str], most: int, now: int = NOON) -> dict[str, int]:
    """Let askers ask in turns until none gets another call of so many; return how many each got."""
    got, left, goes_on = dict.fromkeys(askers, 0), most, True
    while goes_on:
        goes_on = False
        for asker in askers:
            if left and spends(shares, asker, now, left):
                got[asker] += 1
                left -= 1
                goes_on = True
    return got


@pytest.mark.parametrize(
    ("share", "askers", "each"),
    [
        (0.5, 1, 300),
        (0.5, 2, 200),
        (0.5, 3, 150),
        (0.5, 5, 100),
        (0.25, 1, 150),
        (0.75, 1, 450),
        (1.0, 1, 600),
    ],
)
def test_each_of_so_many_greedy_askers_gets_as_much_and_something_is_left(
    share: float, askers: int, each: int
) -> None:
    got = spend_in_turns(Shares(MINUTE, share), [f"asker {number}" for number in range(askers)], 600)
    assert all(abs(one - each) <= 1 for one in got.values())
    assert sum(got.values()) < 600 or share == 1


@given(
    most=st.integers(2, 500),
    share=st.floats(0.05, 0.5),
    asked=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20)), max_size=200),
)
def test_the_last_call_is_for_one_who_has_had_none_and_such_a_one_gets_it(
    most: int, share: float, asked: list[tuple[int, int]]
) -> None:
    shares, left = Shares(MINUTE, share), most
    for number, times in asked:
        for _ in range(times):
            own = shares.spent(f"asker {number}", NOON)
            allowed = left > 0 and spends(shares, f"asker {number}", NOON, left)
            assert allowed or own or not left
            assert not (allowed and own and left == 1)
            left -= allowed


def test_one_who_was_alone_gives_way_to_others_without_being_told() -> None:
    shares = Shares(MINUTE, 0.5)
    assert spend_in_turns(shares, ["first"], 600) == {"first": 300}
    assert spend_in_turns(shares, ["second", "first"], 300) == {"second": 150, "first": 0}


@pytest.mark.parametrize("window", [MINUTE, DAY])
def test_a_call_counts_for_its_window_and_a_slot_longer_at_most(window: int) -> None:
    shares = Shares(window, 0.5)
    shares.spend("ann", NOON)
    assert shares.spent("ann", NOON + window - 1) == shares.spent("ann", NOON + window) == 1
    assert shares.spent("ann", NOON + window + window // SLOTS_OF_A_WINDOW) == 0
    assert len(shares) == 0, "who has nothing in the window is forgotten"


def test_after_the_clock_was_set_back_no_call_counts_for_ever() -> None:
    shares = Shares(MINUTE, 0.5)
    shares.spend("ann", NOON + 10**6)
    assert shares.spent("ann", NOON) == 0
    assert spend_in_turns(shares, ["ann"], 10) == {"ann": 5}


def test_a_call_that_is_given_back_was_not_made_and_none_is_given_back_twice() -> None:
    shares = Shares(MINUTE, 0.5)
    shares.spend("ann", NOON)
    for _ in range(2):
        shares.give_back("ann", NOON)
        assert shares.spent("ann", NOON) == 0
    shares.give_back("bob", NOON)
    assert shares.spent("bob", NOON) == 0


def test_of_a_million_askers_the_latest_are_remembered() -> None:
    shares = Shares(DAY, 0.5, most_askers=100)
    shares.spend("regular", NOON)
    for number in range(10_000):
        shares.spend(f"asker {number}", NOON)
        if number % 50 == 0:
            shares.spend("regular", NOON)
    assert len(shares) == 100
    assert shares.spent("regular", NOON) == 201
    assert (shares.spent("asker 9999", NOON), shares.spent("asker 1", NOON)) == (1, 0)
