"""Questions about a client are those of the line protocol, and so are the answers."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.core.messages import Entry, parse_question
from proxyherd.core.reply import Reply
from proxyherd.core.rules import find
from proxyherd.web.lines import LineWriter
from proxyherd.web.problems import CLIENT, NOT_TAKEN, QUERY, UNKNOWN, Problem
from proxyherd.web.queries import header_value, locate_answer, places_answer, read_parameters, split_query

AT = b"AT Clark +0.263873386 my%20phone +34.068930-118.445127 1621464827.959498503"


def located(line: bytes | None) -> Reply:
    """Return the reply of a server that holds this line."""
    asked = LineWriter(8_192).locate(b"kiwi")
    question = parse_question(asked)
    reply = Reply("whatsat", "", whatsat=question)
    find(reply, asked, None if line is None else Entry(line, 0))
    return reply


def test_a_known_client_is_located() -> None:
    assert json.loads(locate_answer(located(AT)), parse_float=Decimal) == {
        "client": "my phone",
        "lat": Decimal("34.068930"),
        "lon": Decimal("-118.445127"),
        "time": "1621464827.959498503",
        "server": "Clark",
        "received": "1621464828.223371889",
        "at": AT.decode(),
    }
    assert b'"lat":34.068930,"lon":-118.445127,' in locate_answer(located(AT))


def test_a_name_that_the_judge_has_found_too_long_is_no_name() -> None:
    reply = Reply("whatsat", "refused", b"? WHATSAT", refusal="long_id")
    for answer in (locate_answer, places_answer):
        with pytest.raises(Problem) as raised:
            answer(reply)
        assert (raised.value.kind, raised.value.field) == (CLIENT, "client")


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        *(("+05.50-006", ("5.50", "-6")), ("+00.0-000", ("0.0", "-0")), ("-0+180.0", ("-0", "180.0"))),
        *(("+0.5-00.5", ("0.5", "-0.5")), ("+34.0689300000000000001+1", ("34.0689300000000000001", "1"))),
    ],
)
def test_degrees_are_numbers_of_json_with_the_same_digits(place: str, expected: tuple[str, str]) -> None:
    answer = locate_answer(located(f"AT Clark +0.000000001 a {place} 5".encode()))
    lat, lon = expected
    assert f'"lat":{lat},"lon":{lon},"time":"5"'.encode() in answer
    json.loads(answer)


@given(st.binary(min_size=1).map(lambda data: b"".join(data.split())).filter(bool))
def test_any_client_is_located_and_fits_into_a_header(client: bytes) -> None:
    line = b"AT Clark +0.000000001 %b +1+1 5" % client
    json.loads(locate_answer(located(line)))
    value = header_value(line)
    assert value.isascii()
    assert value.isprintable()
    if all(0x21 <= byte < 0x7F for byte in client):
        assert value == line.decode()


def test_an_unknown_client_is_not_found() -> None:
    for answer in (locate_answer, places_answer):
        with pytest.raises(Problem) as raised:
            answer(located(None))
        assert (raised.value.kind, raised.value.field) == (UNKNOWN, "client")


@pytest.mark.parametrize(
    "reply",
    [Reply("whatsat", "refused", b"? x"), Reply("whatsat", "unanswered"), Reply("whatsat", "left", b"")],
)
def test_a_question_that_is_not_answered_may_be_asked_again(reply: Reply) -> None:
    for answer in (locate_answer, places_answer):
        with pytest.raises(Problem) as raised:
            answer(reply)
        assert raised.value.kind is NOT_TAKEN


def test_places_are_those_of_the_line_protocol_byte_for_byte() -> None:
    google = b'{\n   "html_attributions" : [],\n   "results" : []\n}'
    reply = Reply("whatsat", "answered", AT + b"\n" + google + b"\n", entry=Entry(AT, 0))
    assert places_answer(reply) == (AT, google + b"\n")
    assert json.loads(places_answer(located(AT))[1])["status"] == "ZERO_RESULTS"


def test_parameters_are_read() -> None:
    allowed = ("radius_km", "limit")
    assert read_parameters("", allowed) == {}
    assert read_parameters("limit=5&radius_km=1%2E5", allowed) == {"limit": "5", "radius_km": "1.5"}
    assert read_parameters("limit=", allowed) == {"limit": ""}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(
            ("limit=1&limit=1", "limit"),
            ("limit=1&x=2&y=3", ""),
            ("Limit=1", ""),
            ("limit=1&radius_km=2&radius_km=2&limit=1", "radius_km"),
            ("%3Cscript%3E=1", ""),
        ),
        *(("&".join(["limit=1"] * 65), ""), ("x" * 99 + "=1", ""), ("\u00e4=1", "")),
    ],
)
def test_unknown_and_repeated_parameters_are_problems(query: str, field: str) -> None:
    with pytest.raises(Problem) as raised:
        read_parameters(query, ("radius_km", "limit"))
    assert (raised.value.kind, raised.value.field) == (QUERY, field)


def test_a_query_keeps_what_is_not_utf8() -> None:
    assert split_query("id=%FF&id=a+b&c") == [("id", "\udcff"), ("id", "a b"), ("c", "")]
