"""Latitude and longitude keep their digits, and are within exact bounds."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxyherd.core.messages import parse_report, position
from proxyherd.web.locations import latitude, location, longitude
from proxyherd.web.problems import DEGREES, Problem


@pytest.mark.parametrize(
    ("lat", "lon", "expected"),
    [
        ("34.06893", "-118.445127", "+34.06893-118.445127"),
        ("34.0689300000000000001", "0", "+34.0689300000000000001+0"),
        ("-0", "-0.0", "-0-0.0"),
        ("+5.50", "006", "+5.50+006"),
        ("05", "-007.25", "+05-007.25"),
        ("90", "180", "+90+180"),
        ("-90.000", "-180.000", "-90.000-180.000"),
    ],
)
def test_digits_stay_and_get_signs(lat: str, lon: str, expected: str) -> None:
    assert location(lat.encode(), lon.encode()) == expected.encode()


NO_DEGREES = [
    "",
    "+",
    "-",
    ".",
    "1.",
    ".5",
    "1e1",
    "1E-5",
    "NaN",
    "inf",
    "--1",
    "+-1",
    "1 ",
    " 1",
    "1\n",
    "1,5",
    "0x1",
    "1_0",
    "\u0661",
]


@pytest.mark.parametrize(
    "lat", [*NO_DEGREES, "90.00000000000000001", "91", "-90.1", "005", "1e3", "1+1", "+1+1"]
)
def test_what_is_no_latitude_is_a_problem_of_its_field(lat: str) -> None:
    with pytest.raises(Problem) as raised:
        location(lat.encode(), b"1")
    assert (raised.value.kind, raised.value.field) == (DEGREES, "lat")


@pytest.mark.parametrize("lon", [*NO_DEGREES, "180.00000000000000001", "181", "-180.1", "0005", "1+1", "999"])
def test_what_is_no_longitude_is_a_problem_of_its_field(lon: str) -> None:
    with pytest.raises(Problem) as raised:
        location(b"1", lon.encode())
    assert (raised.value.kind, raised.value.field) == (DEGREES, "lon")


numbers = st.from_regex(r"[+-]?[0-9]{1,4}(\.[0-9]{1,20})?", fullmatch=True) | st.text(
    "+-.0123456789eE ", max_size=8
)


@given(numbers, numbers)
@example("1", "+1")
def test_a_place_is_what_a_line_may_have_and_says_the_same_numbers(lat: str, lon: str) -> None:
    found = latitude(lat.encode()), longitude(lon.encode())
    if None not in found:
        spelled = location(lat.encode(), lon.encode())
        report = parse_report(b"IAMAT a %b 1" % spelled, b"Clark", 1)
        assert report is not None
        assert [Decimal(one) for one in position(report.line)] == [Decimal(lat), Decimal(lon)]
        assert [one.lstrip("+") for one in position(report.line)] == [lat.lstrip("+"), lon.lstrip("+")]
    else:
        with pytest.raises(Problem):
            location(lat.encode(), lon.encode())
        assert not (_is_in(lat, 90, 2) and _is_in(lon, 180, 3))


def _is_in(text: str, most: int, digits: int) -> bool:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return False
    whole, point, fraction = text.lstrip("+-").partition(".")
    plain = text.strip() == text and "e" not in text.lower() and 0 < len(whole) <= digits
    return plain and bool(fraction) == bool(point) and abs(number) <= most
