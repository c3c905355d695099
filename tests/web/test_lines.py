"""What is written as a line is always a line of the right form, and not too long."""

from __future__ import annotations

from functools import partial

import pytest

from proxyherd.core.messages import Whatsat, parse_question, parse_report
from proxyherd.web.lines import LineWriter
from proxyherd.web.problems import CLIENT, QUERY, Problem

WRITER = LineWriter(8_192)


def test_a_report_is_a_line_as_over_tcp() -> None:
    line = WRITER.report(b"my%20phone", b"+34.06893-118.445127", b"5.5")
    assert line == b"IAMAT my%20phone +34.06893-118.445127 5.5"
    report = parse_report(line, b"Clark", 6_000_000_000)
    assert report is not None
    assert report.line == b"AT Clark +0.500000000 my%20phone +34.06893-118.445127 5.5"


def test_a_client_is_located_without_asking_for_places() -> None:
    question = parse_question(WRITER.locate(b"kiwi"))
    assert question is not None
    assert question.client == b"kiwi"
    assert not question.asks_places


@pytest.mark.parametrize(("radius", "limit"), [(b"0", b"0"), (b"10.50", b"5"), (b"050", b"020")])
def test_places_are_asked_for_as_over_tcp(radius: bytes, limit: bytes) -> None:
    assert parse_question(WRITER.places(b"kiwi", radius, limit)) == Whatsat(b"kiwi", radius, int(limit))


@pytest.mark.parametrize(
    ("radius", "limit", "field"),
    [
        *(
            (b"", b"1", "radius_km"),
            (b"50.1", b"1", "radius_km"),
            (b"1e1", b"1", "radius_km"),
            (b"-1", b"1", "radius_km"),
        ),
        *(
            (b" 1", b"1", "radius_km"),
            (b"1\n", b"1", "radius_km"),
            (b"1 1", b"1", "radius_km"),
            (b"0" * 21, b"1", "radius_km"),
        ),
        *((b"1", b"", "limit"), (b"1", b"21", "limit"), (b"1", b"1.0", "limit"), (b"1", b"-1", "limit")),
        *(
            (b"1", b"1 ", "limit"),
            (b"1", b"1 1", "limit"),
            (b"1", b"1\r", "limit"),
            (b"1", b"0" * 21, "limit"),
        ),
    ],
)
def test_what_is_no_radius_or_limit_is_a_problem_of_its_field(
    radius: bytes, limit: bytes, field: str
) -> None:
    with pytest.raises(Problem) as raised:
        WRITER.places(b"kiwi", radius, limit)
    assert (raised.value.kind, raised.value.field) == (QUERY, field)


def test_a_line_is_at_most_as_long_as_over_tcp() -> None:
    fits = b"x" * (8_192 - len("IAMAT  +1+1 1"))
    assert len(WRITER.report(fits, b"+1+1", b"1")) == 8_192
    with pytest.raises(Problem) as raised:
        WRITER.report(fits + b"x", b"+1+1", b"1")
    assert (raised.value.kind, raised.value.field) == (CLIENT, "client")
    assert len(WRITER.locate(b"x" * 8_180)) == 8_192
    for long in (partial(WRITER.locate, b"x" * 8_181), partial(WRITER.places, b"x" * 8_181, b"0", b"0")):
        with pytest.raises(Problem):
            long()
