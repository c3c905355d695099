"""The example: fifty phones move through Los Angeles as people do, and what was not running before is stopped at the end."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import fence
import journeys

FENCE = (34.0655, -118.4465)
FENCE_METRES = 1_500.0

HOUR = range(1_700_000_000, 1_700_003_600, 5)
"""Moments, in steps of five seconds."""


def test_fifty_people_have_names_of_their_own_and_are_in_the_city() -> None:
    people = journeys.journeys()
    assert len({one.name for one in people}) == len(people) == 50
    for one in people:
        latitude, longitude = one.at(HOUR[0])
        assert 33.6 < latitude < 34.4
        assert -119 < longitude < -117.7


def test_nobody_jumps_and_each_is_as_fast_as_people_on_foot_by_bike_and_by_car_are() -> None:
    manners = {one.words: one for one in (journeys.WALK, journeys.CYCLE, journeys.DRIVE, journeys.SPEED)}
    for one in journeys.journeys():
        manner = manners[one.name.partition(" ")[2]]
        places = [one.at(moment) for moment in HOUR]
        steps = [journeys.distance(*pair) / HOUR.step for pair in pairwise(places)]
        assert max(steps) <= manner.fastest + 1e-6, one.name
        assert sorted(steps)[len(steps) // 2] > 0.5 * manner.slowest, one.name


def test_a_journey_ends_where_it_begins_and_the_same_people_take_the_same_ways() -> None:
    for one, again in zip(journeys.journeys(), journeys.journeys(), strict=True):
        assert one.at(HOUR[0]) == again.at(HOUR[0])
        back = journeys.distance(one.at(HOUR[0]), one.at(HOUR[0] + one.seconds))
        assert back < 1, one.name


def test_the_fence_of_the_page_is_crossed_every_ten_seconds_by_several() -> None:
    crossed, crossings = set(), 0
    for one in journeys.journeys():
        inside = [journeys.distance(FENCE, one.at(moment)) < FENCE_METRES for moment in HOUR]
        count = sum(here != there for here, there in pairwise(inside))
        crossings += count
        crossed |= {one.name} if count else set()
    assert crossings > len(HOUR) * HOUR.step / 10
    assert len(crossed) > 12


def test_the_page_draws_the_fence_there() -> None:
    script = (ROOT / "proxyherd/web/page/fence.js").read_text()
    latitude, longitude = map(float, re.findall(r"HOME = \{ lat: ([\d.]+), lon: (-[\d.]+) \}", script)[0])
    assert (latitude, longitude) == FENCE
    assert f"RADIUS_M = {FENCE_METRES:.0f};" in script


class Script:
    """Stands for the script that starts and stops the default herd."""

    def __init__(self, *, up: bool, starts: bool = True) -> None:
        self.said: list[str] = []
        self._up, self._starts = up, starts

    def __call__(self, command: str) -> int:
        self.said.append(command)
        return int(not self._up) if command == "is-up" else int(not self._starts) if command == "up" else 0


@pytest.mark.parametrize(
    ("up", "said"), [(True, ["is-up", "up"]), (False, ["is-up", "up", "down"])], ids=["up", "down"]
)
def test_only_a_herd_that_did_not_run_before_is_stopped(
    monkeypatch: pytest.MonkeyPatch, up: bool, said: list[str]
) -> None:
    script = Script(up=up)
    monkeypatch.setattr(fence, "local_herd", script)

    def interrupted() -> None:
        with fence.running_herd(None) as servers:
            assert servers == [f"127.0.0.1:{port}" for port in range(10300, 10305)]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert script.said == said


def test_a_herd_that_cannot_be_started_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "local_herd", Script(up=False, starts=False))

    def begun() -> None:
        with fence.running_herd(None):
            raise AssertionError

    with pytest.raises(SystemExit) as ended:
        begun()
    assert ended.value.code == 1


def test_a_herd_that_is_named_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(up=False)
    monkeypatch.setattr(fence, "local_herd", script)
    with fence.running_herd("a:1,b:2") as servers:
        assert (servers, script.said) == (["a:1", "b:2"], [])
