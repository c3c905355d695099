"""What the log and the metrics say of the process: its faults, and its log."""

from __future__ import annotations

from pathlib import Path

import pytest
from observed import figures
from scenarios import CLIENT, Scenario, Watched, assert_exactly, line

from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer


def many_faults(it: Watched) -> None:
    for _ in range(103):
        it.observer.fault("it failed", ValueError("why"))
    it.clock.now += 1.0
    it.observer.fault("it failed", ValueError("why"))


def fault(it: Watched) -> None:
    it.observer.fault("it failed", ValueError("why"))


SCENARIOS: dict[str, Scenario] = {
    "faults in numbers": Scenario(
        many_faults,
        [line("internal_error", "error", reason="it failed", exception="ValueError: why")] * 100
        + [line("internal_error", "error", reason="it failed", left_out=3, exception="ValueError: why")],
        {},
    ),
    "a fault": Scenario(
        fault, [line("internal_error", "error", reason="it failed", exception="ValueError: why")], {}
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_logged_and_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)


def test_a_disk_that_is_full_is_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    file = LogFile(Path("/dev/full"))
    log = make_logger(file, server="Bob", level="info", max_field_bytes=1024)
    observer = Observer(log, file, metrics, [])
    for _ in range(3):
        observer.connections.opened(CLIENT, "lines", 1)
    observer.settle()
    observer.settle()
    file.close()
    found = figures(metrics)
    assert found["proxyherd_log_lines_lost_total"] == found["proxyherd_log_failures_total"] == 3
    assert found["proxyherd_log_bytes_total"] == 0
