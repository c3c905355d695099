"""What an answer means; and that what no server says is never taken for one."""

from __future__ import annotations

import contextlib
import pickle
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.client.rules.commands import (
    ask_command,
    locate_command,
    raw_command,
    report_command,
)
from proxyherd.client.rules.errors import (
    ForeignAnswer,
    HerdError,
    NoAnswer,
    NotAllowed,
    ReportRefused,
    UnknownClient,
    Unreachable,
)
from proxyherd.core.messages import parse_report

REPORT = report_command("kiwi", "34.068930", "-118.445127", "1621464827.959498503", 0)
AT = b"AT Clark +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503"
PLACES = b'{\n  "results": [{"name": "Vienna"}],\n  "status": "OK"\n}'


def test_a_report_is_read_with_its_digits() -> None:
    taken = REPORT.read(AT + b"\n")
    assert (taken.line, taken.server, taken.client) == (AT, "Clark", "kiwi")
    assert [str(number) for number in (taken.difference, taken.lat, taken.lon, taken.time)] == [
        *("0.263873386", "34.068930", "-118.445127", "1621464827.959498503")
    ]
    assert taken.received == Decimal("1621464828.223371889")


@given(st.integers(0, 10**20), st.integers(0, 10**20))
def test_what_a_server_makes_of_a_report_is_read_back(now: int, received: int) -> None:
    command = report_command(b"k\xffwi", 1, -2, None, now)
    made = parse_report(command.line, b"Ann", received)
    assert made is not None
    taken = command.read(made.line + b"\n")
    assert (taken.time, taken.received) == (Decimal(now).scaleb(-9), Decimal(received).scaleb(-9))
    assert taken.client.encode("utf-8", "surrogateescape") == b"k\xffwi"


def test_the_time_is_fixed_when_the_command_is_made() -> None:
    assert report_command("kiwi", 1, 2, None, 5_000_000_007).line == b"IAMAT kiwi +1+2 5.000000007"


def test_places_are_read_and_kept_as_they_came() -> None:
    nearby = ask_command("kiwi", 10, 5).read(AT + b"\n" + PLACES + b"\n\n")
    assert (nearby.report.line, nearby.status, nearby.error, nearby.json) == (AT, "OK", "", PLACES)
    assert nearby.results == [{"name": "Vienna"}]


def test_places_that_failed_are_told_and_are_no_error() -> None:
    failed = b'{"results":[],"status":"UNKNOWN_ERROR","error_message":"no answer within 5 s"}'
    nearby = ask_command("kiwi", 10, 5).read(AT + b"\n" + failed + b"\n\n")
    assert (nearby.status, nearby.error) == ("UNKNOWN_ERROR", "no answer within 5 s")


def test_to_locate_asks_nothing_of_places() -> None:
    command = locate_command("kiwi")
    assert command.line == b"WHATSAT kiwi 0 0"
    assert command.read(AT + b'\n{"status":"ZERO_RESULTS"}\n\n').line == AT


def test_the_question_mark_says_why_as_far_as_that_is_known() -> None:
    with pytest.raises(ReportRefused, match=r"does not take this report now.*IAMAT kiwi") as refused:
        REPORT.read(b"? " + REPORT.line + b"\n")
    assert refused.value.line == REPORT.line
    with pytest.raises(UnknownClient, match=r"has no report of this client: WHATSAT ki\\x1bwi 10 5"):
        ask_command("ki\x1bwi", 10, 5).read(b"? WHATSAT ki\x1bwi 10 5\n")


def test_a_line_that_is_too_long_is_refused_too() -> None:
    """A server copies its first 1,024 bytes."""
    long = "x" * 10_000
    with pytest.raises(ReportRefused):
        report_command(long, 1, 2, 3, 0).read(b"? IAMAT " + b"x" * 1_018 + b"\n")
    with pytest.raises(ForeignAnswer):
        report_command(long, 1, 2, 3, 0).read(b"? IAMAT " + b"x" * 1_017 + b"\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"AT Clark +0.263873386 plum +34.068930-118.445127 1621464827.959498503\n",
        b"AT Clark +0.263873386 kiwi +34.068930-118.445127 1621464827.959498504\n",
        b"AT Clark 0.263873386 kiwi +34.068930-118.445127 1621464827.959498503\n",
        b"? IAMAT plum +1+1 5\n",
        b"HTTP/1.1 400 Bad Request\n",
        b"\n",
    ],
    ids=["another client", "another time", "no sign", "another line", "a web server", "nothing"],
)
def test_the_answer_to_something_else_is_foreign(answer: bytes) -> None:
    with pytest.raises(ForeignAnswer, match="no answer of a herd's server"):
        REPORT.read(answer)


@pytest.mark.parametrize(
    "places", [b"", b"[]", b"{}", b'{"status":5}', b'{"status":"OK","results":[1]}', b"[" * 10_000]
)
def test_places_that_are_no_nearby_search_are_foreign(places: bytes) -> None:
    with pytest.raises(ForeignAnswer):
        ask_command("kiwi", 10, 5).read(AT + b"\n" + places + b"\n\n")


@given(st.binary())
def test_whatever_comes_is_an_answer_or_an_error_of_ours(data: bytes) -> None:
    for command in (REPORT, ask_command("kiwi", 10, 5), raw_command(b"FOO")):
        for answer in (data, AT + b"\n" + data, b"? " + data, b"AT " + data):
            with contextlib.suppress(HerdError):
                command.read(answer)


def test_a_raw_line_is_one_line_and_its_answer_is_all_that_comes() -> None:
    assert raw_command(b"FOO").read(b"? FOO\n") == b"? FOO\n"
    with pytest.raises(ValueError, match="one line"):
        raw_command(b"FOO\nBAR")


@pytest.mark.parametrize(
    ("line", "has"), [(b"WHATSAT x 1 1", True), (b"\t WHATSAT", True), (b"IAMAT x", False), (b"", False)]
)
def test_only_a_whatsat_has_places(line: bytes, has: bool) -> None:
    assert raw_command(line).has_places is has


@pytest.mark.parametrize(
    "error",
    [
        UnknownClient(b"WHATSAT kiwi 0 0", "nobody knows it"),
        ReportRefused(b"IAMAT kiwi +1+2 3", "not now"),
        Unreachable("one: refused", "two: timed out"),
        NoAnswer(0.5, ["one: refused"]),
        NotAllowed("the token is too old"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_another_process_raises_is_the_same_error(error: HerdError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.args, vars(again)) == (
        type(error),
        str(error),
        error.args,
        vars(error),
    )
