"""A point becomes the line of a report, or is consumed for the first reason that holds."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracker_payloads import PAYLOADS

from proxyherd.core.messages import parse_report, position
from proxyherd.web.lines import LineWriter
from proxyherd.web.trackers.apps import APPS
from proxyherd.web.trackers.points import TrackerRequest, TrackPoints, scalar, text

CLOCK = 1_750_000_000_123_456_789


def points(most: int = 8_192) -> TrackPoints:
    return TrackPoints(LineWriter(most), CLOCK, 1_000.0)


@pytest.mark.parametrize(
    ("lat", "lon", "time", "accuracy", "outcome"),
    [
        *(("1", "2", "5", None, "+1+2 5"), ("1", "2", "5", "1000", "+1+2 5"), ("0", "2", "5", "0", "+0+2 5")),
        *(
            ("1", "2", "5", "about", "+1+2 5"),
            ("1", "2", "5", "nan", "+1+2 5"),
            ("1", "2", "5", "", "+1+2 5"),
        ),
        *(("-1.5E-5", "2", "5", None, "-0.000015+2 5"), ("-1.5e-5", "+2", "5", None, "-0.000015+2 5")),
        *(("1", "2", "5", "1000.1", "inaccurate"), ("1", "2", "5", "inf", "inaccurate")),
        *(
            ("1", "2", "5", "-0.1", "no_fix"),
            ("-0.0", "+000.", "5", None, "no_location"),
            ("-0.0", "+000", "5", None, "no_fix"),
        ),
        *(
            ("1", "2", None, None, "no_time"),
            ("1", "2", "-5", None, "no_time"),
            ("1", "2", "1e9", None, "no_time"),
        ),
        *(
            ("1e3", "2", "5", None, "no_location"),
            ("1.5e1", "2", "5", None, "no_location"),
            ("1E99", "2", "5", None, "no_location"),
            ("1", "1e400", "5", None, "no_location"),
        ),
        *(
            (None, "2", "5", None, "no_location"),
            ("1", None, "5", None, "no_location"),
            ("1 ", "2", "5", None, "no_location"),
        ),
        ("91", "2", "bad", "-1", "no_location"),
    ],
)
def test_a_point_is_a_report_or_is_consumed_for_one_reason(
    lat: str | None, lon: str | None, time: str | None, accuracy: str | None, outcome: str
) -> None:
    found = points()
    found.add("a", *(None if value is None else value.encode() for value in (lat, lon, time, accuracy)))
    assert [*found.lines, *found.consumed] == [f"IAMAT a {outcome}".encode() if " " in outcome else outcome]


def test_an_accuracy_that_is_no_number_is_not_known() -> None:
    found = TrackPoints(LineWriter(8_192), CLOCK, 0.5)
    for accuracy in (b"nan", b"about", b"", None, b"0"):
        found.add("a", b"1", b"2", b"5", accuracy)
    assert (len(found.lines), found.consumed) == (5, {})


@pytest.mark.parametrize("client", ["", "\udcff", "%C3%A4", "x" * 200])
def test_a_point_of_nobody_is_consumed(client: str) -> None:
    found = points(200)
    found.add(client, b"1", b"2", b"5")
    assert (found.lines, found.consumed) == ([], {"no_client": 1})


@pytest.mark.parametrize(
    ("name", "digits", "reason"),
    [(187, 1, None), (188, 1, "no_client"), (187, 2, "no_location"), (1, 187, None), (1, 188, "no_location")],
)
def test_a_line_that_is_too_long_is_so_because_of_its_name_or_of_its_digits(
    name: int, digits: int, reason: str | None
) -> None:
    found = points(200)
    found.add("x" * name, b"1" + b"." * (digits > 1) + b"0" * (digits - 2), b"2", b"5")
    assert (len(found.lines), found.consumed) == ((0, {reason: 1}) if reason else (1, {}))


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_any_float_of_an_app_is_stored_exactly_as_it_is_spelled(lat: float, lon: float) -> None:
    found = points()
    spelled = json.dumps([lat, lon])[1:-1].split(", ")
    found.add("a", spelled[0].encode(), spelled[1].encode(), found.now())
    if not any((lat, lon)):
        assert found.consumed == {"no_fix": 1}
    elif not found.lines:  # less than the size of an atom
        assert min(abs(one) for one in (lat, lon) if one) < 1e-20
    else:
        report = parse_report(found.lines[0], b"Clark", CLOCK)
        assert report is not None
        assert [Decimal(one) for one in position(report.line)] == [Decimal(one) for one in spelled]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(
            ("1.50", "1.50"),
            ("-1E-5", "-1E-5"),
            ('"a\\u0062"', "ab"),
            ('""', None),
            ("", None),
            ("null", None),
        ),
        *(("true", None), ("[1]", None), ('{"a":1}', None), ('"\\ud800"', None)),
    ],
)
def test_a_scalar_is_a_number_or_a_string_that_is_not_empty(value: str, expected: str | None) -> None:
    assert scalar(value.encode()) == (None if expected is None else expected.encode())
    assert text(value.encode()) == (expected or "")


@given(st.sampled_from(PAYLOADS), st.data())
def test_no_payload_makes_an_app_fail_and_every_line_is_a_report(
    payload: object, data: st.DataObject
) -> None:
    """Pieces of real payloads are cut out, doubled, and replaced by other bytes."""
    chosen = next(one for one in PAYLOADS if one is payload)
    body, query = chosen.body.encode(), chosen.query
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
    other = data.draw(
        st.sampled_from([b"", body[start:end] * 2, b"null", b"[", b'"', b"\xff", b"\\ud800", b"1e5"])
    )
    at = data.draw(st.integers(0, len(query)))
    changed = TrackerRequest(
        body[:start] + other + body[end:],
        query[:at] + data.draw(st.text(max_size=3)) + query[at:],
        chosen.headers,
        chosen.user,
    )
    for app in APPS:
        found = points()
        app.read(changed, found)
        assert all(parse_report(line, b"Clark", CLOCK) for line in found.lines)
        assert all(len(line) <= 8_192 and b"\n" not in line for line in found.lines)
        assert isinstance(found.consumed, Counter)


@pytest.mark.parametrize(
    "opening", [b"[", b'{"location":', b'{"locations":[', b'{"_type":"location","lat":[']
)
def test_what_is_nested_deeply_or_has_a_million_values_is_unreadable(opening: bytes) -> None:
    for body in (
        opening * 50_000,
        opening + b"[" * 100_000,
        opening + b"0," * 500_000,
        b"[" + b"[]," * 500_000,
    ):
        for app in APPS:
            found = points()
            app.read(TrackerRequest(body), found)
            assert found.lines == []
            assert sum(found.consumed.values()) == 1
