"""Moments at which time passes: common to all that is done again and again, never late for what is due."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.core.ticks import TICKS, seconds_ahead, seconds_to_moment, seconds_to_tick, step

HEARTBEATS = st.sampled_from([0.01, 0.3, 0.5, 1.0, 1.1, 1.5, 2.0, 3.0, 7.0, 60.0])
TIMES = st.floats(0, 1e6)
ROUNDED = 0.02
"""The part of an interval by which a moment may be missed: clocks are rounded."""


@given(TIMES, st.sampled_from([0.125, 0.5, 1.0, 5.0]))
def test_the_next_moment_is_a_whole_multiple_of_the_interval_and_no_more_than_one_away(
    now: float, interval: float
) -> None:
    seconds = seconds_to_moment(now, interval)
    assert ((now + seconds) / interval) % 1 == pytest.approx(0, abs=1e-6) or (
        (now + seconds) / interval
    ) % 1 == pytest.approx(1, abs=1e-6)
    assert 0 < seconds <= interval * (1 + ROUNDED)


def test_a_timer_that_is_a_little_early_does_not_bring_the_same_moment_twice() -> None:
    assert seconds_to_moment(6.999, 1.0) == pytest.approx(1.001)
    assert seconds_to_moment(6.98, 1.0) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("now", "heartbeat", "due", "seconds"),
    [
        (8.0, 0.5, -math.inf, 0.125),
        (8.0, 0.5, 8.01, 0.125),
        (8.0, 0.5, 8.26, 0.25),
        (8.0, 0.5, math.inf, 0.5),
        (8.0, 0.5, 8.5, 0.5),
        (8.1, 0.5, math.inf, 0.4),
        (8.1, 0.5, 8.6, 0.4),
        (8.1, 0.5, 8.1, 0.025),
        (8.0, 1.0, math.inf, 1.0),
        (8.25, 1.5, math.inf, 0.75),
        (8.0, 2.0, math.inf, 1.0),
        (9.0, 3.0, math.inf, 0.75),
        (8.0, 2.0, -math.inf, 0.5),
        (9.0, 4.5, math.inf, 0.9),
        (60.0, 60.0, math.inf, 1.0),
        (60.0, 60.0, -math.inf, 1.0),
        (60.2, 60.0, 60.9, 0.8),
    ],
)
def test_ticks_come_with_the_heartbeats_and_before_what_is_due_but_no_oftener_than_needed(
    now: float, heartbeat: float, due: float, seconds: float
) -> None:
    assert seconds_to_tick(now, due, heartbeat) == pytest.approx(seconds)


@given(TIMES, HEARTBEATS, st.floats(0, 100))
def test_a_tick_is_not_later_than_what_is_due_unless_the_next_moment_is(
    now: float, heartbeat: float, wait: float
) -> None:
    seconds = seconds_to_tick(now, now + wait, heartbeat)
    moment = step(heartbeat) * (1 + ROUNDED)
    assert 0 < seconds <= max(wait + step(heartbeat) * ROUNDED, moment)


@given(TIMES, HEARTBEATS)
def test_a_tick_comes_at_each_multiple_of_a_heartbeat_though_nothing_is_due(
    began: float, heartbeat: float
) -> None:
    now, found = began, list[int]()
    while now < began + 5 * heartbeat:
        now += seconds_to_tick(now, math.inf, heartbeat)
        nearest = round(now / heartbeat)
        if now / heartbeat == pytest.approx(nearest, abs=ROUNDED / TICKS):
            found.append(nearest)
    assert found == [*range(found[0], found[0] + len(found))]
    assert len(found) >= 5


@given(TIMES, HEARTBEATS, st.sampled_from([-math.inf, 0.0, 7.0, math.inf]))
def test_a_second_brings_a_tick_whatever_the_heartbeat_is(now: float, heartbeat: float, wait: float) -> None:
    """systemd ends a server that is silent for ten, and strangers have less time than a heartbeat for their handshake."""
    assert seconds_to_tick(now, now + wait, heartbeat) <= 1.0 + ROUNDED


def test_time_passes_up_to_four_times_a_heartbeat() -> None:
    """So a link that is silent is cut within 3.25 heartbeats."""
    assert TICKS == 4
    assert step(2.0) == 0.5
    assert step(4.1) == pytest.approx(0.82)
    assert step(60.0) == 1.0


@given(TIMES, HEARTBEATS, st.floats(0, 1), st.floats(0, 0.2))
def test_a_link_that_says_nothing_says_so_within_each_heartbeat_and_soon_when_all_others_do(
    spoke: float, heartbeat: float, busy: float, late: float
) -> None:
    """Whatever other ticks there are, and though each tick may come late by a part of a step."""
    now, beats = spoke, list[float]()
    while len(beats) < 8:
        due = spoke + heartbeat
        now += seconds_to_tick(now, -math.inf if busy > 0.5 else due, heartbeat)
        at = now + late * step(heartbeat)
        if at - spoke >= heartbeat - seconds_ahead(at, heartbeat):
            beats.append((at - spoke) / heartbeat)
            spoke = at
        now = at
    assert max(beats) <= 1 + late / TICKS + ROUNDED
    assert beats[4:] == pytest.approx([1.0] * 4, abs=ROUNDED), "one for each heartbeat"
    assert (spoke / heartbeat + ROUNDED) % 1 < late / TICKS + 2 * ROUNDED, "when all others do"
