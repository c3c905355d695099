"""What an observer has logged and counted, read back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

Figures = dict[str, float]


class Clock:
    """Seconds that only a test turns."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def metrics_of_a_server() -> Metrics:
    """Return the metrics of a server to which nothing has happened."""
    metrics, file = Metrics(), LogFile(Path(os.devnull))
    Observer(make_logger(file, server="", level="info", max_field_bytes=1), file, metrics, ())
    file.close()
    return metrics


def figures(metrics: Metrics) -> Figures:
    """Return all figures of ours but buckets, as `name label label`; histograms as their count and sum."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name.startswith("proxyherd_") and not sample.name.endswith(("_bucket", "_build_info"))
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log without their times and the server's name."""
    events = list(map(json.loads, path.read_text().splitlines()))
    for event in events:
        del event["timestamp"], event["server"]
    return events


def lines_in(pipe: int) -> list[bytes]:
    """Read all that waits in a pipe."""
    data = b""
    while chunk := _read_now(pipe):
        data += chunk
    return data.splitlines()


def _read_now(pipe: int) -> bytes:
    try:
        return os.read(pipe, 1 << 20)
    except BlockingIOError:
        return b""
