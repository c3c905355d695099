"""Scenarios: what happens to an observer, and exactly what it logs and counts of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from observed import Clock, Figures, figures, metrics_of_a_server, read

from proxyherd.telemetry.frequent import label
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

CLIENT = "10.0.0.1:5"
VIA = "websocket"
LABEL = label(CLIENT, VIA)


class Watched:
    """A real observer with a real log and real metrics, on a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.path = folder / "log"
        self.file = LogFile(self.path)
        self.metrics = Metrics()
        log = make_logger(self.file, server="Bob", level="info", max_field_bytes=1024)
        self.observer = Observer(log, self.file, self.metrics, ["Ann"], self.clock)
        self._before = figures(self.metrics)

    def end(self) -> tuple[list[dict[str, Any]], Figures]:
        """Return what was logged, and the figures that have changed; asked for twice, which must change nothing."""
        self.observer.end_turn()
        self.observer.settle()
        first = figures(self.metrics)
        self.observer.settle()
        assert figures(self.metrics) == first, "what is asked for twice is counted twice"
        self.file.close()
        assert first.pop("proxyherd_log_bytes_total") == self.path.stat().st_size
        changed = {name: value for name, value in first.items() if value != self._before.get(name, 0.0)}
        return read(self.path), changed


class Scenario(NamedTuple):
    """What happens, what is logged of it, and which figures have which values then."""

    act: Callable[[Watched], object]
    events: list[dict[str, Any]]
    figures: Figures


def line(event: str, level: str = "info", /, **fields: Any) -> dict[str, Any]:
    return {"level": level, "event": event, **fields}


def noted(note: Any, events: list[dict[str, Any]], changed: Figures) -> Scenario:
    return Scenario(lambda it: it.observer.note([note]), events, changed)


LABELS = metrics_of_a_server().labels


def values_of(metric: str, label: str) -> list[str]:
    return next([*values] for one, name, values in LABELS if (one, name) == (metric, label))


def assert_exactly(scenario: Scenario, folder: Path) -> None:
    """Let it happen; nothing else may be logged or changed."""
    watched = Watched(folder)
    scenario.act(watched)
    events, changed = watched.end()
    for event in events:
        if "exception" in event:
            event["exception"] = event["exception"].splitlines()[-1]
    assert events == scenario.events
    assert changed == pytest.approx(scenario.figures)
