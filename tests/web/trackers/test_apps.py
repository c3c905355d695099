"""What apps on phones send becomes reports, or is consumed and counted; each app gets the answer that it needs."""

from __future__ import annotations

from collections import Counter

import pytest
from tracker_payloads import PAYLOADS, Payload

from proxyherd.core.messages import parse_report
from proxyherd.web.lines import LineWriter
from proxyherd.web.trackers.apps import APPS
from proxyherd.web.trackers.owntracks import MOST_MESSAGES
from proxyherd.web.trackers.parameters import FORM_BYTES
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


def test_a_payload_that_no_app_sends_is_not_read_to_its_end() -> None:
    def consumed(name: str, body: bytes) -> dict[str, int]:
        points = TrackPoints(LineWriter(8_192), CLOCK, 1_000.0)
        BY_NAME[name].read(TrackerRequest(body), points)
        assert points.lines == []
        return {str(reason): count for reason, count in points.consumed.items()}

    assert consumed("owntracks", b"[%b]" % b",".join([b"{}"] * MOST_MESSAGES)) == {
        "other_kind": MOST_MESSAGES
    }
    assert consumed("owntracks", b"[%b]" % b",".join([b"{}"] * (MOST_MESSAGES + 1))) == {"unreadable": 1}
    assert consumed("osmand", b"a=" + b"1" * (FORM_BYTES - 2)) == {"no_location": 1}
    assert consumed("osmand", b"a=" + b"1" * (FORM_BYTES - 1)) == {"unreadable": 1}
