"""What a server needs follows from its limits, and what supervisors bound it to is what it needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from proxyherd.config.needs import UNIT_NEIGHBOURS, needs_of_server
from proxyherd.config.rates import RateSettings
from proxyherd.config.schema import Limits, PlacesSettings

ROOT = Path(__file__).parents[2]
LIMITS, RATES, PLACES = Limits(), RateSettings(), PlacesSettings()
NEEDS = needs_of_server(LIMITS, RATES, PLACES, UNIT_NEIGHBOURS)


def unit(key: str) -> str:
    """Return the value of a key in the unit of a server."""
    text = (ROOT / "systemd/proxyherd@.service").read_text()
    [value] = re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
    return str(value)


def test_the_unit_bounds_a_server_to_what_it_needs_at_the_defaults() -> None:
    assert unit("MemoryMax") == f"{NEEDS.memory_gib}G"
    assert unit("TasksMax") == str(NEEDS.tasks)
    assert unit("CPUQuota") == f"{100 * NEEDS.cores}%"
    assert NEEDS.descriptors <= int(unit("LimitNOFILE")) <= 4 * NEEDS.descriptors


def test_the_pages_have_the_figures_of_the_unit() -> None:
    operations = (ROOT / "docs/operations.md").read_text()
    for key in ("MemoryMax", "TasksMax", "CPUQuota", "LimitNOFILE"):
        assert f"`{key}={unit(key)}`" in operations
    example = replace(LIMITS, max_connections=1_000, max_table_bytes=100_000_000, max_clients=500_000)
    small = needs_of_server(example, RATES, PLACES, 4).memory_gib
    assert f"need {small} GiB" in operations
    assert f"\nMemoryMax={small}G\n" in operations
    assert f"--memory {NEEDS.memory_gib}g --pids-limit {NEEDS.tasks} --cpus {NEEDS.cores}" in operations


@pytest.mark.parametrize(
    ("key", "value", "gib"),
    [
        ("max_connections", 2 * LIMITS.max_connections, 12),
        ("write_buffer_bytes", 2 * LIMITS.write_buffer_bytes, 4),
        ("max_table_bytes", 2 * LIMITS.max_table_bytes, 2),
        ("max_clients", 4 * LIMITS.max_clients, 5),
        ("peer_queue_bytes", 8 * LIMITS.peer_queue_bytes, 1),
    ],
)
def test_a_higher_limit_needs_more_memory(key: str, value: int, gib: int) -> None:
    more = needs_of_server(replace(LIMITS, **{key: value}), RATES, PLACES, UNIT_NEIGHBOURS)
    assert gib <= more.memory_gib - NEEDS.memory_gib <= 1.5 * gib + 1


def test_a_small_herd_needs_little() -> None:
    small = replace(
        LIMITS, max_connections=100, max_table_bytes=20_000_000, max_clients=50_000, max_tombstones=1_000
    )
    needs = needs_of_server(small, RATES, PLACES, 2)
    assert needs.memory_gib == 1
    assert needs.descriptors == 100 + 64 + 256 + 256
