"""Writes docs/metrics.md from the files of proxyherd/telemetry, where every metric is described.

.venv/bin/python docs/make_metrics.py           writes it
.venv/bin/python docs/make_metrics.py --check   exit 1 if it is not current

The section "What to ask" exists only in the page: all from that heading on is left as it is.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from prometheus_client.metrics import Gauge, Histogram, MetricWrapperBase

from proxyherd.telemetry.commands import COMMANDS
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

PAGE = Path(__file__).with_name("metrics.md")
BY_HAND = "## What to ask"

INTRODUCTION = """\
# Metrics

*All above "What to ask" is written by docs/make_metrics.py from the files of proxyherd/telemetry; change it there.*

Each server serves its metrics on its admin port, as Prometheus' text format or as OpenMetrics:
`curl http://127.0.0.1:10203/metrics`. Units are seconds and bytes. All counters start at 0 when the server starts.
Labels have few values, and never a client ID. Prometheus adds the label `instance`, which identifies the server.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
"""

VALUES = """
There are also the metrics `process_*`, `python_info` and `python_gc_*` of Prometheus' Python client: memory, CPU,
file descriptors, start time.

## Buckets

Each histogram has the series `_bucket`, `_sum` and `_count`. These are the upper bounds of its buckets, besides
`+Inf`. They are in seconds, except those of `proxyherd_batch_commands`:

| histogram | bounds |
| --- | --- |
"""

LOGGED = {"`outcome` of `proxyherd_places_calls_total`": "[`places_call`](logs.md#places_call)"}
"""Labels whose values docs/logs.md explains, because the log has them too."""


def metrics() -> Metrics:
    """Return the metrics of a server."""
    made, file = Metrics(), LogFile(Path(os.devnull))
    Observer(make_logger(file, server="", level="info", max_field_bytes=1), file, made, ())
    file.close()
    return made


METRICS = metrics()


def coded(text: str) -> str:
    """Return a help text in which keys, paths and values are marked as code."""
    return re.sub(r"(?<![\w`])(?:/\w+|\w*_\w+)", r"`\g<0>`", text)


def rows(*cells: Iterable[str]) -> Iterator[str]:
    """Return rows of a table."""
    return (f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in cells)


def described(metric: MetricWrapperBase) -> tuple[str, str, str, str]:
    """Return name, type, labels and meaning of a metric."""
    [family] = metric.describe()
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - nothing else tells
    meaning = family.documentation
    return f"`{name}`", family.type, labels, coded(meaning[0].lower() + meaning[1:])


def build() -> tuple[str, str, str, str]:
    """Return the row of the one metric that never changes."""
    [family] = [one for one in METRICS.registry.collect() if one.name == "proxyherd_build"]
    labels = ", ".join(f"`{label}`" for label in family.samples[0].labels)
    return f"`{family.samples[0].name}`", "gauge", labels, coded(family.documentation.lower())


def buckets() -> Iterator[tuple[str, str]]:
    """Return name and bounds of each histogram."""
    for metric in METRICS.all:
        if isinstance(metric, Histogram):
            bounds = metric._kwargs["buckets"]  # noqa: SLF001 - nothing else tells
            yield described(metric)[0], ", ".join(f"{bound:g}" for bound in bounds)


def commands() -> Iterator[tuple[str, str, str]]:
    """Return command, outcome and meaning; only the first row of a command names it."""
    for command, outcomes in groupby(COMMANDS, key=lambda row: row[0]):
        for number, (_, outcome, meaning) in enumerate(outcomes):
            yield "" if number else f"`{command}`", f"`{outcome}`", coded(meaning)


def labels() -> Iterator[tuple[str, str]]:
    """Return each label with its metric, and its values; labels of gauges come last."""
    gauges = [described(one)[0].strip("`") for one in METRICS.all if isinstance(one, Gauge)]
    for metric, label, values in sorted(METRICS.labels, key=lambda row: row[0] in gauges):
        whose = f"`{label}` of `{metric}`"
        told = "; ".join(f"`{value}`" + (f" ({coded(why)})" if why else "") for value, why in values.items())
        told = told if any(values.values()) else told.replace(";", ",")
        yield whose, told + (f": see {LOGGED[whose]}" if whose in LOGGED else "")


def page(by_hand: str) -> str:
    """Return the whole page."""
    head = "\n## Values of labels\n\n| `command` | `outcome` | meaning |\n| --- | --- | --- |\n"
    other = "\n| label | values |\n| --- | --- |\n"
    table = rows(build(), *map(described, METRICS.all))
    parts = INTRODUCTION, *table, VALUES, *rows(*buckets()), head, *rows(*commands()), other, *rows(*labels())
    return "".join(parts) + "\n" + by_hand


def main() -> None:
    """Write the page, or check it."""
    there = PAGE.read_text()
    _, heading, rest = there.partition(BY_HAND)
    current = page(heading + rest)
    if "--check" not in sys.argv:
        PAGE.write_text(current)
    elif there != current:
        sys.exit("docs/metrics.md is not current: run docs/make_metrics.py")


if __name__ == "__main__":
    main()
