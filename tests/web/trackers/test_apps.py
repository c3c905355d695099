"""What apps on phones send becomes reports, or is consumed and counted; each app gets the answer that it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from tracker_payloads import PAYLOADS, Payload

from proxyherd.core.messages import parse_report
from proxyherd.web.bodies import BODY_BYTES, VALUES_BYTES
from proxyherd.web.ids import id_of
from proxyherd.web.lines import LineWriter
from proxyherd.web.trackers.apps import APPS
from proxyherd.web.trackers.parameters import FORM_BYTES
from proxyherd.web.trackers.points import MOST_TRACK_POINTS, TrackerRequest, TrackPoints

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


def read(name: str, body: bytes) -> TrackPoints:
    points = TrackPoints(LineWriter(8_192), CLOCK, 1_000.0)
    BY_NAME[name].read(TrackerRequest(body, user="a"), points)
    return points


def test_a_form_that_no_app_sends_is_not_read() -> None:
    assert read("osmand", b"a=" + b"1" * (FORM_BYTES - 2)).consumed == {"no_location": 1}
    assert read("osmand", b"a=" + b"1" * (FORM_BYTES - 1)).consumed == {"unreadable": 1}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        *((f"lat=1&lon=2&valid={no}", "no_fix") for no in ("0", "false", "FALSE", "no")),
        *((f"lat=1&lon=2&valid={yes}", None) for yes in ("1", "true", "yes", "")),
        *(("lat=%FF&lon=2", "no_location"), ("lat=1&lon=2&timestamp=%FF", "no_time")),
        ("lat=1&lon=2&accuracy=%FF", None),
    ],
)
def test_a_parameter_may_be_anything(query: str, reason: str | None) -> None:
    points = TrackPoints(LineWriter(8_192), CLOCK, 1_000.0)
    BY_NAME["osmand"].read(TrackerRequest(query=f"id=a&{query}"), points)
    assert points.consumed == ({reason: 1} if reason else {})
    assert len(points.lines) == (reason is None)


LISTS = {
    "owntracks": (b"[%b]", b'{"_type":"location","lat":1,"lon":2,"tst":%d}'),
    "osmand": (
        b'{"device_id":"a","location":[%b]}',
        b'{"timestamp":%d,"coords":{"latitude":1,"longitude":2}}',
    ),
    "overland": (
        b'{"locations":[%b]}',
        b'{"geometry":{"type":"Point","coordinates":[2,1]},"properties":{"timestamp":%d}}',
    ),
}
"""How an app sends several points."""


def several(name: str, points: Iterable[bytes | int]) -> bytes:
    """Return a body with these points; a number is a good one at that time."""
    whole, one = LISTS[name]
    return whole % b",".join(one % point if isinstance(point, int) else point for point in points)


@pytest.mark.parametrize("name", LISTS)
def test_of_too_many_points_the_last_ones_are_read_and_the_others_not_even_looked_at(name: str) -> None:
    for surplus in (0, 1, 30_000):
        points = read(name, several(name, [b"0"] * surplus + [*range(MOST_TRACK_POINTS)]))
        assert points.lines == [b"IAMAT a +1+2 %d" % time for time in range(MOST_TRACK_POINTS)]
        assert points.consumed == ({"too_much": surplus} if surplus else {})


@pytest.mark.parametrize("name", LISTS)
def test_a_payload_with_more_values_than_are_read_is_consumed(name: str) -> None:
    assert read(name, several(name, [b"0"] * 70_000)).consumed == {"too_much": 1}


def test_the_current_point_of_overland_is_read_besides_a_full_backlog() -> None:
    body = several("overland", range(MOST_TRACK_POINTS))
    points = read("overland", body[:-1] + b',"current":%b}' % (LISTS["overland"][1] % MOST_TRACK_POINTS))
    assert points.lines == [b"IAMAT a +1+2 %d" % time for time in range(MOST_TRACK_POINTS + 1)]
    assert points.consumed == {}


@pytest.mark.parametrize("name", LISTS)
def test_a_point_that_is_not_readable_does_not_spoil_the_others(name: str) -> None:
    points = read(name, several(name, [1, b"[" * 500 + b"]" * 500, 2]))
    assert points.lines == [b"IAMAT a +1+2 1", b"IAMAT a +1+2 2"]
    assert sum(points.consumed.values()) == 1


def test_a_name_that_stands_once_in_a_payload_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile one costs a millisecond, and a thousand points may share it."""
    read_names: list[str] = []

    def counting(name: str) -> bytes:
        read_names.append(name)
        return id_of(name)

    monkeypatch.setattr("proxyherd.web.trackers.points.id_of", counting)
    for name, count in (("a b", 1_000), ("%C3%A4", 0)):
        read_names.clear()
        points = read("osmand", several("osmand", range(1_000)).replace(b'"a"', b'"%b"' % name.encode()))
        assert (len(points.lines), points.consumed["no_client"]) == (count, 1_000 - count)
        assert read_names == [name]


def test_the_lines_of_a_payload_are_no_longer_than_a_body_may_be() -> None:
    points = read("osmand", several("osmand", range(1_000)).replace(b'"a"', b'"%b"' % (b"a" * 8_000)))
    assert BODY_BYTES - 10_000 < sum(map(len, points.lines)) <= BODY_BYTES
    assert points.consumed == {"too_much": 1_000 - len(points.lines)}


def test_of_many_long_names_no_more_than_a_bound_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read_names: list[str] = []

    def counting(name: str) -> bytes:
        read_names.append(name)
        return id_of(name)

    monkeypatch.setattr("proxyherd.web.trackers.points.id_of", counting)
    point = LISTS["overland"][1].replace(b"{%b", b"{") % 1
    named = [
        point.replace(b'"timestamp"', b'"device_id":"%04d%b","timestamp"' % (at, b" " * 1_996))
        for at in range(1_000)
    ]
    points = read("overland", several("overland", named))
    assert len(points.lines) == len(read_names) == VALUES_BYTES // 2_000
    assert points.consumed == {"too_much": 1_000 - len(points.lines)}


@pytest.mark.parametrize("name", ["owntracks", "overland"])
def test_what_is_no_point_raises_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception for each of a thousand takes 2 ms, and packed they are a few bytes."""
    monkeypatch.setattr(
        f"proxyherd.web.trackers.{name}.{'_MESSAGE' if name == 'owntracks' else '_FEATURE'}", None
    )
    assert read(name, several(name, [b"0", b"[]", b'"{"', b"null"])).consumed == {"unreadable": 4}


def test_a_byte_order_mark_is_ignored() -> None:
    for body in (LISTS["owntracks"][1] % 1, several("owntracks", [1])):
        assert read("owntracks", b"\xef\xbb\xbf" + body).lines == [b"IAMAT a +1+2 1"]
