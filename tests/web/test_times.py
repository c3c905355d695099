"""Times: seconds with up to nine decimals, or dates; what apps send is spelled in more ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.core.messages import parse_report
from proxyherd.web.times import of_app, posix_or_rfc3339, spelled_time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(
            ("0", "0"),
            ("000", "000"),
            ("1621464827.959498503", "1621464827.959498503"),
            ("999999999999.9", None),
        ),
        *(("2025-06-15T13:45:12.862Z", "1749995112.862"), ("2025-06-15t13:45:12z", "1749995112")),
        *(
            ("2025-06-15 15:45:12+02:00", "1749995112"),
            ("2025-06-15T08:15:12.000000001-05:30", "1749995112.000000001"),
        ),
        *(
            ("1970-01-01T00:00:00Z", "0"),
            ("1970-01-01T00:00:00.5+00:00", "0.5"),
            ("2016-12-31T23:59:60Z", "1483228800"),
        ),
        *(("2024-02-29T00:00:00-00:00", "1709164800"), ("9999-12-31T23:59:59Z", "253402300799")),
    ],
)
def test_a_time_becomes_posix_seconds(text: str, expected: str | None) -> None:
    assert posix_or_rfc3339(text.encode()) == (expected or text).encode()


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "-1",
            "-0",
            "+1",
            "1e9",
            "1.",
            ".5",
            "1.0000000000",
            "1000000000000",
            "nan",
            "0x1",
            "1_0",
            " 1",
            "1\n",
        ),
        *(
            "2025-06-15",
            "2025-06-15T13:45Z",
            "2025-06-15T13:45:12",
            "2025-06-15T13:45:12.Z",
            "2025-06-15T13:45:12 Z",
        ),
        *(
            "2025-06-15T13:45:12+0200",
            "2025-06-15T13:45:12+02",
            "2025-06-15T13:45:12 02:00",
            "25-06-15T13:45:12Z",
        ),
        *("2025-02-29T00:00:00Z", "2025-13-01T00:00:00Z", "2025-00-01T00:00:00Z", "0000-01-01T00:00:00Z"),
        *(
            "2025-06-15T24:00:00Z",
            "2025-06-15T13:60:00Z",
            "2025-06-15T13:45:61Z",
            "2025-06-15T13:45:12.0000000001Z",
        ),
        *(
            "2025-06-15T13:45:12+24:00",
            "2025-06-15T13:45:12+02:60",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
        ),
        *(
            "2025-06-15T13:45:12Z\n",
            "\u0662025-06-15T13:45:12Z",
            "20250615T134512Z",
            "2025-06-15T13:45:12,5Z",
        ),
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert posix_or_rfc3339(text.encode()) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(
            ("1497476456", "1497476456"),
            ("1497476456.25", "1497476456.25"),
            ("0", "0"),
            ("2147483647", "2147483647"),
        ),
        *(
            ("2147483648", "2147483.648"),
            ("1749995112862", "1749995112.862"),
            ("1749995112062", "1749995112.062"),
        ),
        *(("2015-10-01T08:00:00-0700", "1443711600"), ("2015-10-01T08:00:00-07", "1443711600")),
        *(("2015-10-01T15:00:00Z", "1443711600"), ("2015-10-01T15:00:00.5", "1443711600.5")),
        *(("2015-10-01 15:00:00", "1443711600"), ("2015-10-01T17:30:00 02:30", "1443711600")),
        *(
            ("-1", None),
            ("1e9", None),
            ("", None),
            ("9999999999999999", None),
            ("yesterday", None),
            ("1749995112862.5", None),
        ),
        *(("2015-10-01", None), ("2015-10-01T15:00", None), ("2015-02-30T15:00:00", None)),
    ],
)
def test_apps_send_seconds_milliseconds_or_dates(text: str, expected: str | None) -> None:
    assert of_app(text.encode()) == (expected if expected is None else expected.encode())


zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1970, 1, 3), datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001 - bounds have none


@given(moments)
def test_a_date_is_what_the_standard_library_says(moment: datetime) -> None:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = posix_or_rfc3339(moment.isoformat().encode())
    assert seconds == of_app(moment.isoformat().encode())
    assert seconds is not None
    whole, _, fraction = seconds.partition(b".")
    assert (int(whole), int(fraction or b"0")) == (since.days * 86_400 + since.seconds, since.microseconds)


@given(st.integers(0, 10**21 - 1))
def test_the_clock_is_spelled_exactly(clock: int) -> None:
    report = parse_report(b"IAMAT a +1+1 " + spelled_time(clock), b"Clark", clock)
    assert report is not None
    assert report.nanoseconds == clock
    assert report.line.startswith(b"AT Clark +0.000000000 ")
