"""What apps on phones send becomes reports, or is consumed and counted; each app gets the answer that it needs."""

from __future__ import annotations

from collections import Counter

import pytest
from tracker_payloads import PAYLOADS, Payload

from proxyherd.core.messages import parse_report
from proxyherd.web.lines import LineWriter
from proxyherd.web.trackers.apps import APPS
from proxyherd.web.trackers.points import TrackerRequest, TrackPoints

CLOCK = 1_750_000_000_123_456_789
BY_NAME = {app.name: app for app in APPS}


def test_every_app_has_many_payloads_and_every_one_is_of_an_app() -> None:
    counts = Counter(payload.app for payload in PAYLOADS)
    assert counts.keys() == BY_NAME.keys()
    assert min(counts.values()) >= 10
    assert len({payload.name for payload in PAYLOADS}) == len(PAYLOADS)


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: str(payload.name))
def test_a_payload_becomes_these_lines_and_the_rest_is_counted(payload: Payload) -> None:
    app, points = BY_NAME[payload.app], TrackPoints(LineWriter(8_192), CLOCK, 1_000.0)
    request = TrackerRequest(payload.body.encode(), payload.query, payload.headers, payload.user)
    app.read(request, points)
    assert [line.decode().replace("1750000000.123456789", "{now}") for line in points.lines] == payload.lines
    assert points.consumed == payload.consumed
    assert app.answer.decode() == payload.answer
    assert payload.method in app.methods
    assert all(parse_report(line, b"Clark", CLOCK) for line in points.lines)
