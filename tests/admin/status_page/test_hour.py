"""The samples of the last hour."""

from __future__ import annotations

import asyncio
import json

import pytest
from admin_port import until, watching
from states import a_state

from proxyherd.admin.status_page.hour import MOST_SAMPLES, SAMPLE_SECONDS, Hour, Sample
from proxyherd.admin.status_page.state import Histogram

BOUNDS = [0.1, 0.2, 0.4]


def test_a_sample_is_what_happened_since_the_one_before() -> None:
    hour = Hour()
    assert hour.add(a_state(uptime=1.0, answered=10, floods_in=5), 100.0) is None
    places = Histogram(BOUNDS, [100, 100, 100, 100])
    now = a_state(uptime=11.0, answered=30, floods_in=5, floods_out=5, clients=7, places=places)
    assert hour.add(now, 110.04) == Sample(110.0, 2.0, 0.0, 0.5, 0.05, 0.099, None, 7)
    later = a_state(uptime=21.0, answered=30, floods_in=5, floods_out=5, clients=7, places=places, lag=places)
    assert hour.add(later, 120.0) == Sample(120.0, 0.0, 0.0, 0.0, None, None, 0.099, 7)
    assert hour.add(later, 121.0) is None, "a state that is kept for a moment"
    assert [one.at for one in hour.samples] == [110.0, 120.0]


def test_an_hour_of_samples_is_kept() -> None:
    assert MOST_SAMPLES * SAMPLE_SECONDS == 3_600
    hour = Hour()
    for number in range(1_000):
        hour.add(a_state(uptime=1.0 + number), float(number))
    assert [one.at for one in hour.samples] == [*map(float, range(1_000 - MOST_SAMPLES, 1_000))]


def test_samples_are_taken_whether_somebody_looks_or_not_and_each_viewer_gets_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxyherd.admin.status_page.herd.SAMPLE_SECONDS", 0.3)

    async def scenario() -> None:
        async with watching() as (_, watch, _):
            assert watch._sampling is not None
            await until(lambda: len(watch._hour.samples) >= 2)
            viewer = await watch.open(personal=False)
            assert viewer is not None
            kept = [one.at for one in watch._hour.samples]
            told = b""
            while told.count(b"event: hour") < 2:
                told += await viewer.next()
        lines = told.split(b"\n")
        samples = [json.loads(lines[at + 1][6:]) for at, line in enumerate(lines) if line == b"event: hour"]
        assert [one[0] for one in samples[0]] == kept
        assert len(samples[1]) == 1
        assert samples[1][0][0] > kept[-1]
        assert watch._sampling.done()

    asyncio.run(scenario())
