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
    "1E5",
    "1e+1",
    "1e-0",
    "1e-",
    "e-5",
    "1e-5.0",
    "10e-5",
    ".1e-5",
    "1.e-5",
    "1e-005",
    "1e-41",
    "5e-324",
    "1.%se-1" % ("1" * 40),
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
    assert "from -90 to 90" in raised.value.detail


@pytest.mark.parametrize("lon", [*NO_DEGREES, "180.00000000000000001", "181", "-180.1", "0005", "1+1", "999"])
def test_what_is_no_longitude_is_a_problem_of_its_field(lon: str) -> None:
    with pytest.raises(Problem) as raised:
        location(b"1", lon.encode())
    assert (raised.value.kind, raised.value.field) == (DEGREES, "lon")
    assert "from -180 to 180" in raised.value.detail


@pytest.mark.parametrize(
    ("spelled", "plain"),
    [
        *(("1e-7", "0.0000001"), ("1.5E-05", "0.000015"), ("-9.99e-1", "-0.999"), ("+1e-7", "0.0000001")),
        *(("1.1102230246251565e-16", "0.00000000000000011102230246251565"), ("0e-7", "0.0000000")),
        *(("1e-40", "0.%s1" % ("0" * 39)), ("1.0E-4", "0.00010")),
    ],
)
def test_a_small_number_loses_its_exponent_and_nothing_else(spelled: str, plain: str) -> None:
    signed = plain if plain.startswith("-") else f"+{plain}"
    assert location(spelled.encode(), spelled.encode()) == 2 * signed.encode()
    assert location(b"1", spelled.encode()) == b"+1" + signed.encode()
    assert latitude(spelled.encode()) == longitude(spelled.encode()) == signed.encode()


@given(st.floats(-1e-5, 1e-5).filter(lambda number: number == 0 or abs(number) > 1e-22))
def test_what_javascript_writes_for_a_small_number_is_the_same_number(number: float) -> None:
    """Python writes the same digits as JSON.stringify, and an exponent from 0.0001 on."""
    spelled = repr(number)
    found = latitude(spelled.encode())
    assert found is not None
    assert Decimal(found.decode()) == Decimal(spelled)


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
        if "e" not in (lat + lon).lower():
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
