"""What the log and the metrics say of a Redis Cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import Scenario, Watched, assert_exactly, line, values_of


def room(it: Watched) -> None:
    it.observer.cluster.master_full("m:1", full=True)
    it.observer.cluster.master_full("m:1", full=False)


def masters(it: Watched) -> None:
    for trouble in ("late", "late", "", "late"):
        it.observer.cluster.master("m:1", trouble)


SCENARIOS: dict[str, Scenario] = {
    "a batch": Scenario(
        lambda it: it.observer.cluster.batch(7, 0.25),
        [],
        {
            "proxyherd_batch_commands_count": 1,
            "proxyherd_batch_commands_sum": 7,
            "proxyherd_batch_seconds_count": 1,
            "proxyherd_batch_seconds_sum": 0.25,
        },
    ),
    "a master goes and comes": Scenario(
        masters,
        [
            line("master_down", "warning", master="m:1", reason="late", left_out=0),
            line("master_up", master="m:1"),
            line("master_down", "warning", master="m:1", reason="late", left_out=0),
        ],
        {},
    ),
    "who is master": Scenario(
        lambda it: it.observer.cluster.masters({"m:1": 512}), [line("masters", parts={"m:1": 512})], {}
    ),
    "a node says nothing": Scenario(
        lambda it: it.observer.cluster.node_failed("n:1", "late"),
        [line("node_failed", "warning", node="n:1", reason="late", left_out=0)],
        {},
    ),
    "a master is unsafe": Scenario(
        lambda it: it.observer.cluster.master_unsafe("m:1", "no file"),
        [line("master_unsafe", "warning", master="m:1", reason="no file", left_out=0)],
        {},
    ),
    "a master is full, and has room again": Scenario(
        room,
        [
            line(
                "master_full",
                "warning",
                master="m:1",
                reason="its memory is full: raise maxmemory there, or add a shard",
            ),
            line("master_has_room", master="m:1"),
        ],
        {},
    ),
    **{
        f"retried {why}": Scenario(
            lambda it, why=why: it.observer.cluster.retried(why, 3),  # type: ignore[misc]
            [],
            {f"proxyherd_retried_total {why}": 3},
        )
        for why in values_of("proxyherd_retried_total", "why")
    },
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_logged_and_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)
