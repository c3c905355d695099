"""Nobody fills the log with what costs nothing: bounds on any history, and no command that is neither logged nor counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.core import limiters
from proxyherd.core.framing import Overlong
from proxyherd.core.limiters import ADDRESS_BURST, COMMANDS_BURST, CommandLimiter, Limiter
from proxyherd.core.reply import Reply
from proxyherd.telemetry.commands import COMMANDS
from proxyherd.telemetry.frequent import label
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

CHANGING = {"stored", "erased", "stayed", "answered", "unanswered", "following"}

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["10.0.0.1:5", "10.0.0.1:6", "[fe80::1]:5", "10.0.0.2:5"]), st.integers(1, 40)
        ),
        st.floats(0.01, 30),
    ),
    max_size=40,
)


@given(steps=STEPS)
def test_in_any_history_no_more_is_logged_than_may_be_and_the_rest_is_counted(
    steps: list[tuple[str, int] | float],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limiters, "COMMANDS_BURST", 50)
        patch.setattr(limiters, "ADDRESS_BURST", 20)
        limiter, seconds, sent = CommandLimiter(), 0.0, 0
        logged, counted = Counter[str](), Counter[str]()
        for step in steps:
            if isinstance(step, float):
                limiter.refill(step)
                seconds += step
                outcomes, addresses = limiter.take_left_out()
                counted.update(addresses)
                assert sum(outcomes.values()) == sum(addresses.values())
                continue
            client, lines = step
            sent += lines
            logged[client.rpartition(":")[0]] += sum(
                limiter.passes(client, "other", "invalid") for _ in range(lines)
            )
            assert sum(logged.values()) <= 50 + seconds
            assert all(one <= 20 + seconds + 1e-6 for one in logged.values())
        counted.update(limiter.take_left_out()[1])
        assert sum(logged.values()) + sum(counted.values()) == sent


def test_one_flooder_leaves_lines_for_others_and_gets_one_a_second_back() -> None:
    limiter = CommandLimiter()
    assert (
        sum(limiter.passes(f"10.0.0.1:{port}", "other", "invalid") for port in range(9_999)) == ADDRESS_BURST
    )
    others = sum(limiter.passes("10.0.0.2:5", "iamat", "stale") for _ in range(9_999))
    assert others == COMMANDS_BURST - ADDRESS_BURST
    assert not limiter.passes("10.0.0.3:5", "other", "invalid")
    limiter.refill(5.0)
    assert sum(limiter.passes("10.0.0.1:5", "other", "invalid") for _ in range(99)) == 5


def test_a_calm_that_is_long_enough_gives_everything_back_and_no_more() -> None:
    limiter = CommandLimiter()
    for _ in range(3):
        logged = [
            sum(limiter.passes(f"{address}:1", "other", "invalid") for _ in range(1_500)) for address in "abc"
        ]
        assert logged == [ADDRESS_BURST, COMMANDS_BURST - ADDRESS_BURST, 0]
        limiter.refill(100_000.0)


def test_what_is_kept_of_addresses_is_bounded() -> None:
    limiter = CommandLimiter()
    for number in range(5_000):
        limiter.passes(f"2001:db8::{number:x}:5", "other", "invalid")
    assert len(limiter._logged) <= COMMANDS_BURST
    assert len(limiter._addresses) <= 1_025
    outcomes, addresses = limiter.take_left_out()
    assert outcomes == {"other invalid": 5_000 - COMMANDS_BURST}
    assert len(addresses) == limiters.SHOWN_ADDRESSES == 10
    assert addresses["others"] == 5_000 - COMMANDS_BURST - 1_024
    limiter.refill(1.0)
    assert not limiter._logged


def test_events_of_one_kind_a_burst_then_one_in_so_many_seconds_and_a_repetition_more_seldom() -> None:
    limiter = Limiter(burst=3, refill=2.0, repeat=10.0)
    said = [limiter.pass_on(f"reason {number}", 0.0) for number in range(5)]
    assert said == [0, 0, 0, None, None]
    assert limiter.pass_on("later", 2.0) == 2
    assert limiter.pass_on("later", 4.0) is None, "it says the same as the last"
    assert limiter.pass_on("later", 12.0) == 1
    first = Limiter()
    assert first.pass_on("", 0.0) == 0


def test_failures_of_one_kind_are_limited_as_the_page_of_logs_says() -> None:
    """Ten at once, then one in six seconds, and one that says the same as the last once a minute."""
    limiter = Limiter()
    assert [limiter.pass_on(f"reason {number}", 0.0) for number in range(12)] == [*[0] * 10, None, None]
    assert limiter.pass_on("late", 5.9) is None
    assert limiter.pass_on("late", 6.0) == 3
    assert limiter.pass_on("late", 65.9) is None
    assert limiter.pass_on("late", 66.0) == 1


def test_commands_that_change_nothing_are_limited_as_the_page_of_logs_says() -> None:
    assert (ADDRESS_BURST, COMMANDS_BURST) == (1_000, 2_000)


def test_a_repetition_costs_nothing_and_what_was_let_through_counts_from_its_own_time() -> None:
    limiter = Limiter(burst=2, refill=100.0, repeat=10.0)
    assert limiter.pass_on("a", 0.0) == 0
    assert [limiter.pass_on("a", float(now)) for now in range(1, 9)] == [None] * 8
    assert limiter.pass_on("b", 9.0) == 8
    assert limiter.pass_on("a", 9.5) is None, "none is left"


def test_what_one_address_gets_back_it_may_use_and_no_fraction_is_enough() -> None:
    limiter = CommandLimiter()
    assert sum(limiter.passes("a:1", "other", "invalid") for _ in range(9_999)) == ADDRESS_BURST
    for seconds, back in ((0.5, 0), (0.5, 1), (0.25, 0), (1.75, 2)):
        limiter.refill(seconds)
        assert sum(limiter.passes("a:1", "other", "invalid") for _ in range(9)) == back


def test_what_all_get_back_is_one_a_second_too() -> None:
    limiter = CommandLimiter()
    for number in range(9_999):
        limiter.passes(f"{number}:1", "other", "invalid")
    for seconds, back in ((0.5, 0), (0.5, 1), (2.0, 2)):
        limiter.refill(seconds)
        assert sum(limiter.passes(f"new{number}:1", "other", "invalid") for number in range(9)) == back


def test_what_was_left_out_is_told_once_by_outcome_and_address_those_who_sent_most_first() -> None:
    limiter = CommandLimiter()
    for number in range(COMMANDS_BURST):
        limiter.passes(f"{number}:1", "other", "invalid")
    for number in range(1, 13):
        for at in range(number):
            assert not limiter.passes(f"[::{number}]:{at}", "iamat", "stale")
    limiter.passes("[::12]:9", "other", "overlong")
    outcomes, addresses = limiter.take_left_out()
    assert outcomes == {"iamat stale": 78, "other overlong": 1}
    assert list(addresses.items()) == [("[::12]", 13)] + [(f"[::{n}]", n) for n in range(11, 2, -1)]
    assert limiter.take_left_out() == ({}, {})


# In the observer. ----------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.long
@pytest.mark.parametrize(("kind", "outcome"), [(kind, outcome) for kind, outcome, _ in COMMANDS])
def test_what_changed_nothing_is_logged_or_counted_and_what_may_have_changed_something_is_logged(
    tmp_path: Path, kind: str, outcome: str
) -> None:
    """7,000 commands of every outcome: 183 bytes of log for one LF rotated every file of a server away."""
    metrics, clock = Metrics(), Clock()
    file = LogFile(tmp_path / "log")
    file.gather(lambda _: None)
    log = make_logger(file, server="Bob", level="info", max_field_bytes=1024)
    observer = Observer(log, file, metrics, [], clock)
    for _ in range(7):
        for _ in range(1_000):
            if outcome == "stored":
                observer.commands.reports([b"10.0.0.1:5"], [b"x"], [b"y"])
            else:
                line = Overlong(b"x") if outcome == "overlong" else b""
                observer.commands.alike(label("10.0.0.1:5", "lines"), [line], [Reply(kind, outcome, b"? ")])
        clock.now += 2.5
        observer.end_turn()
        observer.commands.tick()
    observer.commands.tell_left_out()
    observer.settle()
    file.close()
    events = list(map(json.loads, (tmp_path / "log").read_text().splitlines()))
    one_by_one = [event for event in events if event["event"] == "command"]
    counts = [event for event in events if event["event"] == "commands_left_out"]
    assert len(one_by_one) + len(counts) == len(events)
    assert len(one_by_one) + sum(event["commands"] for event in counts) == 7_000
    labels = {"command": kind, "outcome": outcome}
    assert metrics.registry.get_sample_value("proxyherd_commands_total", labels) == 7_000
    if outcome in CHANGING:
        assert len(one_by_one) == 7_000
        return
    assert len(one_by_one) == ADDRESS_BURST + 15, "15 s have passed before the last thousand"
    assert len(counts) == 2, "one after ten seconds, and one at the end"
    for event in counts:
        assert event["level"] == "warning"
        assert event["outcomes"] == {f"{kind} {outcome}": event["commands"]}
        assert event["addresses"] == {"10.0.0.1": event["commands"]}
