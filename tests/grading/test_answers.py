"""How answers of a stranger's server are read."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.grading import answers
from proxyherd.grading.dialect import Dialect


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"AT Ann +1.500000000 k +1+1 5.5",
            (b"+1.500000000", 1_500_000_000, b"+", 9),
        ),
        (b"AT Ann -0.000000001 k +1+1 5.5", (b"-0.000000001", -1, b"-", 9)),
        (b"AT Ann +1.5 k +1+1 5.5", (b"+1.5", 1_500_000_000, b"+", 1)),
        (b"AT Ann 1.500000000 k +1+1 5.5", (b"1.500000000", 1_500_000_000, b"", 9)),
        (b"AT Ann +-1.25 k +1+1 5.5", (b"+-1.25", -1_250_000_000, b"+-", 2)),
        (b"AT Ann 5.1e-05 k +1+1 5.5", (b"5.1e-05", 51_000, b"", -1)),
        (b"AT Ann +7 k +1+1 5.5", (b"+7", 7_000_000_000, b"+", 0)),
        (
            b"AT Ann +0.00012302398681640625 k +1+1 5.5",
            (b"+0.00012302398681640625", 123_024, b"+", 20),
        ),
    ],
)
def test_a_difference_is_read_however_it_is_spelled(
    line: bytes, expected: tuple[bytes, int, bytes, int]
) -> None:
    at = answers.parse_at_line(line)
    assert at is not None
    assert (at.spelling, at.difference, at.sign, at.decimals) == expected
    assert (at.server, at.operands, at.time) == (b"Ann", b"k +1+1 5.5", 5_500_000_000)
    assert at.has_one_sign == (at.sign in (b"+", b"-"))
    assert at.received == at.time + at.difference


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"? IAMAT",
        b"AT Ann +1.500000000 k +1+1 5.5\n",
        b"AT Ann +1.500000000 k +1+1 5.5 more",
        b"AT Ann +-+1.5 k +1+1 5.5",
        b"AT Ann +1e999 k +1+1 5.5",
        b"AT Ann nan k +1+1 5.5",
        b"AT Ann +" + b"9" * 5_000 + b".500000000 k +1+1 5.5",
        b"AT Ann +1.5 k +1+1 " + b"9" * 5_000,
        b"AT Ann +1.5 k +1+1",
    ],
)
def test_what_is_no_at_line_is_none(line: bytes) -> None:
    assert answers.parse_at_line(line) is None


@given(st.integers(-(10**18), 10**18), st.integers(0, 12))
def test_a_difference_with_at_least_nine_decimals_is_exact(nanoseconds: int, more: int) -> None:
    sign, size = "-" if nanoseconds < 0 else "+", abs(nanoseconds)
    spelling = f"{sign}{size // 10**9}.{size % 10**9:09d}{'0' * more}"
    at = answers.parse_at_line(f"AT Ann {spelling} k +1+1 5.5".encode())
    assert at is not None
    assert (at.difference, at.decimals) == (nanoseconds, 9 + more)


@given(st.floats(-1e15, 1e15))
def test_a_difference_that_a_float_was_printed_as_is_read_to_the_nanosecond(seconds: float) -> None:
    at = answers.parse_at_line(f"AT Ann {seconds} k +1+1 5.5".encode())
    assert at is not None
    assert at.difference == round(Fraction(repr(seconds)) * 10**9)


def test_where_an_answer_without_an_end_is_whole() -> None:
    line, answer = b"IAMAT k  +1+1 5.5", b"AT Ann +1.5 k +1+1 5.5"
    assert [n for n in range(len(answer) + 1) if answers.looks_whole(line, answer[:n])] == [len(answer)]
    invalid = b"HELLO there"
    echo = b"? " + invalid
    assert [n for n in range(len(echo) + 1) if answers.looks_whole(invalid, echo[:n])] == [len(echo)]


@pytest.mark.parametrize(
    ("operands", "exactly", "as_floats"),
    [
        (b"k +1+1 1621464827.959498503", True, True),
        (b"k +1+1 1621464827.9594984", False, True),
        (b"k +1+1 1621464827.959499", False, False),
        (b"k +1+1 1621464827", False, False),
        (b"k +1.0+1.0 1621464827.959498503", False, False),
        (b"K +1+1 1621464827.9594984", False, False),
    ],
)
def test_only_a_server_that_keeps_times_as_floats_may_spell_the_time_otherwise(
    operands: bytes, exactly: bool, as_floats: bool
) -> None:
    sent = b"k +1+1 1621464827.959498503"
    assert Dialect().repeats(sent, operands) == exactly
    assert Dialect(float_times=True).repeats(sent, operands) == as_floats


TEXT = st.text(max_size=9)  # each beginning of the JSON is read, so that long texts would cost seconds


@given(st.recursive(TEXT, lambda one: st.lists(one) | st.dictionaries(TEXT, one), max_leaves=9))
def test_json_ends_behind_its_last_brace_and_nowhere_before(value: object) -> None:
    text = json.dumps({"results": value}).encode()
    line = b"AT Ann +1.5 k +1+1 5.5\n"
    assert answers.end_of_json(line + text) == len(line + text)
    assert answers.end_of_json(line + text + b"\n\n") == len(line + text)
    assert all(answers.end_of_json(line + text[:n]) is None for n in range(len(text)))


@pytest.mark.parametrize("data", [b"", b"AT x", b"}", b"{" * 100_000 + b"}", b"[1]", b"{]}"])
def test_what_is_no_json_object_has_no_end(data: bytes) -> None:
    assert answers.end_of_json(data) is None


def test_a_difference_from_a_float_is_told_from_an_exact_one() -> None:
    received, sent = 1_795_524_309_232_123_571, 1_000_000_000_000_000_078
    floats = [float(f"{received + n}e-9") - float(f"{sent}e-9") for n in range(50)]
    from_floats = [int(f"{one:.9f}".replace(".", "")) for one in floats]
    assert all(map(answers.is_from_a_float, from_floats))
    exact = [received - sent + n for n in range(0, 50_000, 997)]
    assert sum(map(answers.is_from_a_float, exact)) < len(exact) / 4


GOOD = {"html_attributions": [], "results": [{"name": "a"}], "status": "OK"}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (json.dumps(GOOD), None),
        (json.dumps({**GOOD, "results": []}), None),
        (json.dumps({**GOOD, "results": [], "status": "REQUEST_DENIED", "error_message": "no key"}), None),
        (json.dumps({**GOOD, "results": [{}, {}]}), "2 results, more than the 1 asked for"),
        (json.dumps({"results": {}}), "JSON without html_attributions, status"),
        (json.dumps({**GOOD, "status": "FINE"}), 'the status "FINE", which Google has not'),
        (json.dumps({**GOOD, "status": ["OK"]}), "the status \"['OK']\", which Google has not"),
        (
            json.dumps({**GOOD, "status": "UNKNOWN_ERROR"}),
            "results that are no objects, or that stand beside",
        ),
        (json.dumps({**GOOD, "results": [1]}), "results that are no objects"),
        (json.dumps({**GOOD, "results": {}}), "that is no list"),
        (json.dumps({"results": []}), "JSON without html_attributions, status"),
        ("[]", "JSON that is no object"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("9" * 100_000, "no JSON"),
        ("\xff", "no JSON"),
        (json.dumps(GOOD) + "\n", "an empty line"),
        (json.dumps(GOOD).replace(" ", "\n\n", 1), "an empty line"),
    ],
)
def test_places_are_faulted_for_what_is_wrong_with_them(body: str, complaint: str | None) -> None:
    data = body.encode("latin-1")
    found = answers.json_complaint(data) or answers.fields_complaint(data) or answers.bound_complaint(data, 1)
    assert found is None if complaint is None else complaint in (found or "")


def test_an_empty_line_in_json_is_no_complaint_where_it_has_been_marked() -> None:
    body = json.dumps(GOOD).replace(" ", "\n\n", 1).encode()
    assert answers.json_complaint(body, squeezed=False) is None


def test_each_complaint_about_places_is_about_one_thing() -> None:
    many = json.dumps({**GOOD, "results": [{}, {}]}).encode()
    odd = b'{"results": [{}]}'
    assert answers.json_complaint(many) is answers.fields_complaint(many) is None
    assert answers.json_complaint(odd) is answers.bound_complaint(odd, 1) is None
    assert answers.bound_complaint(b'{"results": 5}', 1) is None
