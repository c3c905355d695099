"""What the log and the metrics say of clients that make room, and of the index."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import Scenario, Watched, assert_exactly, line

REMEDY = "raise max_clients and max_table_bytes, if there is memory, or lower max_age_seconds"


def evicted(it: Watched) -> None:
    it.observer.table.evicted(0, 100)
    it.observer.table.evicted(5, 100)
    it.observer.table.evicted(7, 99)
    it.observer.table.evicted(7, 99)


def evicted_up_to_its_end(it: Watched) -> None:
    evicted(it)
    it.observer.end()
    it.observer.end()


SCENARIOS: dict[str, Scenario] = {
    "clients make room": Scenario(
        evicted,
        [line("clients_evicted", "warning", evicted=5, clients=100, remedy=REMEDY)],
        {"proxyherd_clients_evicted_total": 7},
    ),
    "clients make room until the server stops": Scenario(
        evicted_up_to_its_end,
        [
            line("clients_evicted", "warning", evicted=5, clients=100, remedy=REMEDY),
            line("clients_evicted", "warning", evicted=2, clients=99, remedy=REMEDY),
        ],
        {"proxyherd_clients_evicted_total": 7},
    ),
    "an index is kept": Scenario(
        lambda it: it.observer.table.index(1_000, 3),
        [],
        {"proxyherd_index_clients": 1_000, "proxyherd_area_searches": 3},
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_logged_and_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)
