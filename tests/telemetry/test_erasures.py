"""What is counted of erasures, and what is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from observed import figures
from scenarios import Scenario, Watched, assert_exactly, noted

from proxyherd.core.notes import LinkDown, OtherClock, Removed
from proxyherd.telemetry.recent import MOST_KEPT

SCENARIOS = {
    "a neighbour's clock is ahead": noted(
        OtherClock("Ann", 2_500_000_000), [], {"proxyherd_peer_clock_seconds Ann": 2.5}
    ),
    "a neighbour's clock is behind": noted(
        OtherClock("Ann", -1), [], {"proxyherd_peer_clock_seconds Ann": -1e-9}
    ),
    "a client is erased": noted(Removed(b"kiwi"), [], {}),
    "tombstones are held": Scenario(
        lambda it: (it.observer.erasures.state(3, 2), it.observer.erasures.state(1, 2)),  # type: ignore[func-returns-value]
        [],
        {"proxyherd_tombstones": 1, "proxyherd_erased_lines_total": 2},
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)


def test_the_clock_of_a_neighbour_whose_link_has_ended_is_forgotten(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    erasures = watched.observer.erasures
    watched.observer.note([OtherClock("Ann", 2_500_000_000), OtherClock("Clark", 1)])
    for _ in range(2):
        watched.observer.note([LinkDown("Ann", "silent")])
        assert erasures.clocks == {"Clark": 1e-9}
        clocks = [
            name for name in figures(watched.metrics) if name.startswith("proxyherd_peer_clock_seconds")
        ]
        assert clocks == ["proxyherd_peer_clock_seconds Clark"]
    watched.observer.note([OtherClock("Ann", -2_000_000_000)])
    assert erasures.clocks["Ann"] == -2.0
    watched.file.close()


def test_the_latest_commands_are_looked_through_once_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, erased = Watched(tmp_path), list[set[bytes]]()
    monkeypatch.setattr(watched.observer.recent, "erase", lambda clients: erased.append({*clients}))
    for turn in ([b"kiwi", b"plum"], [], [b"fig"]):
        watched.observer.note([Removed(client) for client in turn])
    assert erased == [{b"kiwi", b"plum"}, {b"fig"}]
    watched.file.close()


def test_who_is_erased_is_no_longer_among_the_latest_commands(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    recent = watched.observer.recent
    recent.wanted = True
    recent.reports([b"IAMAT kiwi +1+1 1"] * 2, [b"AT Ann +0.0 kiwi +1+1 1", b"AT Ann +0.0 plum +1+1 1"])
    recent.heard([b"kiwi", b"plum"])
    watched.observer.note([Removed(b"kiwi")])
    assert recent.commands(0, MOST_KEPT) == []
    assert recent.take_clients() == [b"plum"]
    assert watched.observer.erasures.clocks == {}
    watched.end()
