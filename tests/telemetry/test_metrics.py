"""docs/metrics.md says of every metric what a server shows: name, type, labels, their values, and bounds of buckets."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from observed import metrics_of_a_server
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from proxyherd.telemetry.metrics import PlainHistogram

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_a_server_shows() -> None:
    """tests/project/test_docs.py says so of the script; here it is this process's own metrics that are held to the page."""
    script = runpy.run_path(str(DOCS / "make_metrics.py"))
    there = (DOCS / "metrics.md").read_text()
    assert script["page"](there[there.index("## What to ask") :]) == there


def test_a_server_shows_what_the_client_of_prometheus_knows_of_its_process() -> None:
    """As the page says besides the table."""
    text = generate_latest(metrics_of_a_server().registry).decode()
    for metric in ("process_resident_memory_bytes ", "python_info{", "python_gc_collections_total{"):
        assert f"\n{metric}" in text


@pytest.mark.parametrize("write", [generate_latest, openmetrics.generate_latest])
@given(amounts=st.lists(st.floats(-1, 20) | st.sampled_from([0, 0.5, 1, 2.5, 10, 1e9])))
def test_a_histogram_in_plain_numbers_shows_what_the_librarys_does(
    write: Callable[[CollectorRegistry], bytes], amounts: list[float]
) -> None:
    plain, other, buckets = CollectorRegistry(), CollectorRegistry(), (0.5, 1, 2.5, 10.0)
    mine = PlainHistogram("some_seconds", 'What "it" took', plain, buckets)
    theirs = Histogram("some_seconds", 'What "it" took', registry=other, buckets=buckets)
    assert write(plain) == write(other)
    for amount in amounts:
        mine.observe(amount)
        theirs.observe(amount)
    assert write(plain) == write(other) == write(plain)


def test_what_is_alerted_on_is_there_before_it_happens() -> None:
    metrics = metrics_of_a_server()
    text = generate_latest(metrics.registry).decode()
    for metric, label, values in metrics.labels:
        if metric in {"proxyherd_client_connections_closed_total", "proxyherd_places_spared_total"}:
            for value in values:
                assert f'{metric}{{{label}="{value}"}} 0.0\n' in text
    assert 'proxyherd_commands_total{command="iamat",outcome="refused"} 0.0\n' in text
    assert "_created" not in text, "a series more for each counter, which nobody asks for"
