"""What the metrics say of follows."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import Scenario, Watched, assert_exactly


def follows(it: Watched) -> None:
    it.observer.follows.state(5, 2, 1, {"enter": 3, "move": 10})
    it.observer.follows.state(4, 1, 2, {"move": 5, "leave": 2, "gone": 1})


SCENARIOS: dict[str, Scenario] = {
    "some follow": Scenario(
        follows,
        [],
        {
            "proxyherd_followers": 4,
            "proxyherd_followed clients": 1,
            "proxyherd_followed areas": 2,
            "proxyherd_follow_events_total enter": 3,
            "proxyherd_follow_events_total move": 15,
            "proxyherd_follow_events_total leave": 2,
            "proxyherd_follow_events_total gone": 1,
        },
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)
