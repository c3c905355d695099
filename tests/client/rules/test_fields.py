"""Arguments become operands that every server reads as the same numbers; others are refused before anything is sent."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyherd.client.rules import fields
from proxyherd.core.messages import parse_question, parse_report, position

NANOSECOND = Decimal("1e-9")

SECONDS = st.one_of(
    st.integers(0, 10**12 - 1).map(Decimal),
    st.integers(0, 10**21 - 1).map(lambda ns: Decimal(ns).scaleb(-9)),
    st.floats(0, 4e9),
)


def degrees(most: int) -> st.SearchStrategy[Any]:
    """Return numbers of degrees, as programs have them."""
    numbers = st.one_of(st.floats(-most, most), st.integers(-most, most), st.decimals(-most, most, places=6))
    return numbers | numbers.map(str)


@settings(max_examples=50)
@given(degrees(90), degrees(180), SECONDS)
def test_a_report_means_to_a_server_what_it_means_to_the_program(lat: Any, lon: Any, time: Any) -> None:
    location, when = fields.location_field(lat, lon), fields.time_field(time)
    report = parse_report(b"IAMAT kiwi %b %b" % (location, when), b"Ann", 10**21)
    assert report is not None
    assert [*map(Decimal, position(report.line))] == [Decimal(str(lat)), Decimal(str(lon))]
    difference = abs(Decimal(when.decode()) - Decimal(str(time)))
    assert difference <= (NANOSECOND / 2 if isinstance(time, float) else 0)


@given(st.decimals(0, 50, places=3) | st.floats(0, 50, width=16), st.integers(0, 20))
def test_a_question_is_one_that_a_server_understands(radius: Any, limit: int) -> None:
    question = parse_question(
        b"WHATSAT kiwi %b %b" % (fields.radius_field(radius), fields.limit_field(limit))
    )
    assert question is not None
    assert question.most == limit
    assert abs(Decimal(question.radius.decode()) - Decimal(str(radius))) <= NANOSECOND / 2


@pytest.mark.parametrize(
    ("spelled", "digits"),
    [("34.0689300", b"+34.0689300"), (Decimal("-0.10"), b"-0.10"), (1e-7, b"+0.0000001"), (90, b"+90")],
    ids=["text", "decimal", "float", "int"],
)
def test_digits_stay_as_they_are(spelled: Any, digits: bytes) -> None:
    assert fields.location_field(spelled, 0) == digits + b"+0"


@pytest.mark.parametrize(
    "lat",
    [90.1, -91, "north", "", math.nan, math.inf, None, "1e999999999", "1e-999999999", "0." + "1" * 1_001],
)
def test_what_is_no_latitude_is_refused(lat: Any) -> None:
    with pytest.raises(ValueError, match="latitude"):
        fields.location_field(lat, 0)


def test_the_context_of_the_program_rounds_nothing() -> None:
    moment = datetime(2021, 5, 19, 22, 53, 47, 959_498, UTC)
    with localcontext() as context:
        context.prec = 6
        assert fields.time_field(moment) == b"1621464827.959498"
        assert fields.time_field(1621464827.5) == b"1621464827.500000000"
        assert fields.location_field(34.0689312, "-118.44512711") == b"+34.0689312-118.44512711"
        assert fields.radius_field(1.23456789) == b"1.23456789"


def test_a_moment_with_a_time_zone_is_a_time() -> None:
    moment = datetime(2021, 5, 19, 22, 53, 47, 959_498, UTC)
    assert fields.time_field(moment) == fields.time_field(moment.astimezone(timezone(timedelta(hours=-7))))
    assert fields.time_field(moment) == b"1621464827.959498"
    with pytest.raises(ValueError, match="has no time zone"):
        fields.time_field(moment.replace(tzinfo=None))


@pytest.mark.parametrize(
    "time", [-1, -0.0, 10**12, "5.0000000001", "1700000000." + "0" * 25 + "1", math.nan, "now", float(10**12)]
)
def test_what_is_no_time_is_refused(time: Any) -> None:
    with pytest.raises(ValueError, match=r"no time|not a time"):
        fields.time_field(time)


def test_a_float_is_rounded_to_nanoseconds() -> None:
    assert fields.time_field(0.1 + 1e-12) == b"0.100000000"


@pytest.mark.parametrize("radius", [-1, 50.1, "-0", "1." + "0" * 20, "ten"])
def test_what_is_no_radius_is_refused(radius: Any) -> None:
    with pytest.raises(ValueError, match="radius"):
        fields.radius_field(radius)


@pytest.mark.parametrize("limit", [-1, 21, 1.0, "5"])
def test_what_is_no_limit_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="limit"):
        fields.limit_field(limit)


@pytest.mark.parametrize("client", ["", "two words", "kiwi\n", b"a\x0bb", b""])
def test_an_id_is_one_word(client: str | bytes) -> None:
    with pytest.raises(ValueError, match="one word"):
        fields.client_field(client)


@given(st.binary(min_size=1).filter(lambda word: word.split() == [word]))
def test_the_id_that_an_answer_shows_is_the_same_client(word: bytes) -> None:
    assert fields.client_field(word.decode("utf-8", "surrogateescape")) == word == fields.client_field(word)
