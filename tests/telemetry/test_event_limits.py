"""How often an event may be logged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from scenarios import CLIENT, VIA, Watched

from proxyherd.core.notes import LinkUp
from proxyherd.telemetry.observer import Observer

OFTEN: dict[str, tuple[int, float, Callable[[Observer], None]]] = {
    "client_opened": (20_000, 0.1, lambda it: it.connections.opened(CLIENT, VIA, 1)),
    "peer_opened": (100, 1.0, lambda it: it.note([LinkUp("Ann", dialled=True)])),
    "internal_error": (100, 1.0, lambda it: it.fault("odd", None)),
    "master_up": (100, 1.0, lambda it: it.cluster.master("127.0.0.1:7001", "")),
}
"""How many at once, and in how many seconds one more: docs/logs.md."""


@pytest.mark.parametrize("event", OFTEN)
def test_what_happens_often_is_logged_so_often_and_the_next_line_counts_the_others(
    tmp_path: Path, event: str
) -> None:
    burst, seconds, act = OFTEN[event]
    watched = Watched(tmp_path)
    watched.file.gather(lambda _: None)  # all in few writes
    for _ in range(burst + 3):
        act(watched.observer)
    for _ in range(2):
        watched.clock.now += 0.55 * seconds
        act(watched.observer)
    events, _ = watched.end()
    assert [one["event"] for one in events] == [event] * (burst + 1)
    assert [one["left_out"] for one in events if "left_out" in one] == [4]
