"""A stream gives the same lines however it is cut, and never a part of an overlong one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyherd.core.framing import LineFramer, Overlong
from proxyherd.core.messages import COPIED_BYTES, is_http_request, parse_question, parse_report

LIMIT = 1_100
ALL = 1_000_000

Lines = list[bytes | Overlong]


def expected(stream: bytes, limit: int) -> Lines:
    """What a stream holds, read in one go with all the memory in the world."""
    *whole, last = stream.split(b"\n")
    if last:
        whole.append(last)
    return [line if len(line) <= limit else Overlong(line[:COPIED_BYTES]) for line in whole]


def framed(pieces: Iterable[bytes], limit: int = LIMIT, most: int = ALL) -> Lines:
    framer = LineFramer(limit)
    found: Lines = []
    for piece in pieces:
        framer.receive(piece)
        while lines := framer.lines(most):
            assert len(lines) <= most
            found += lines
        assert framer.waiting <= limit
    return found + framer.end()


def cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


STREAMS = [
    b"",
    b"\n",
    b"\n\n\n",
    b"one\n",
    b"no line end",
    b"one\ntwo\r\n\nthree\x00\xff\n four",
    b"a" * LIMIT + b"\n",
    b"a" * LIMIT,
    b"a" * (LIMIT + 1) + b"\n",
    b"a" * (LIMIT + 1),
    b"b\n" + b"a" * (LIMIT + 1) + b"\nIAMAT",
    b"a" * LIMIT + b"\n" + b"a" * (LIMIT + 1) + b"\n\n" + b"c" * (LIMIT + 1) + b"\n" + b"d" * LIMIT,
    (b"a" * (LIMIT + 1) + b"\n") * 3 + b"b",
]


@pytest.mark.parametrize("stream", STREAMS, ids=range(len(STREAMS)))
@pytest.mark.parametrize("most", [1, 2, ALL])
def test_lines_are_the_same_whole_byte_by_byte_and_cut_in_two_anywhere(stream: bytes, most: int) -> None:
    lines = expected(stream, LIMIT)
    assert framed([stream], most=most) == lines
    assert framed(cut(stream, 1), most=most) == lines
    for at in range(len(stream)):
        assert framed([stream[:at], stream[at:]], most=most) == lines


@pytest.mark.parametrize("stream", STREAMS, ids=range(len(STREAMS)))
def test_data_behind_does_not_change_the_lines_before_it(stream: bytes) -> None:
    closed = stream if stream.endswith(b"\n") else stream + b"\n"
    behind = b"behind\nit"
    assert framed([closed + behind]) == [*expected(closed, LIMIT), b"behind", b"it"]
    assert framed([closed, behind]) == [*expected(closed, LIMIT), b"behind", b"it"]


def test_the_limit_itself_is_no_overlong_line() -> None:
    framer = LineFramer(LIMIT)
    framer.receive(b"a" * LIMIT)
    assert framer.lines(ALL) == []
    framer.receive(b"\n")
    assert framer.lines(ALL) == [b"a" * LIMIT]


def test_an_overlong_line_is_told_as_soon_as_the_limit_is_passed_and_only_once() -> None:
    framer = LineFramer(LIMIT)
    framer.receive(b"a" * LIMIT)
    assert framer.lines(ALL) == []
    framer.receive(b"b")
    assert framer.lines(ALL) == [Overlong(b"a" * COPIED_BYTES)]
    for piece in (b"IAMAT kiwi +1+1 1", b"c" * 100_000, b"", b"tail"):
        framer.receive(piece)
        assert framer.lines(ALL) == []
        assert framer.waiting == 0
    framer.receive(b"still the same line\nnext\n")
    assert framer.lines(ALL) == [b"next"]


def test_an_overlong_line_that_ends_with_the_stream_is_told_once() -> None:
    framer = LineFramer(LIMIT)
    framer.receive(b"a" * (LIMIT + 1))
    assert framer.lines(ALL) == [Overlong(b"a" * COPIED_BYTES)]
    framer.receive(b"rest")
    assert framer.lines(ALL) == []
    assert framer.end() == []


def test_the_end_of_a_stream_hands_out_no_part_of_an_overlong_line_that_was_not_asked_for() -> None:
    framer = LineFramer(LIMIT)
    framer.receive(b"a" * (LIMIT + 1))
    framer.lines(ALL)
    framer.receive(b"IAMAT kiwi +1+1 1")
    assert framer.end() == []


def test_what_stands_before_the_end_of_the_stream_is_a_line_and_what_does_not_is_none() -> None:
    framer = LineFramer(LIMIT)
    framer.receive(b"one\nlast")
    assert framer.lines(ALL) == [b"one"]
    assert framer.end() == [b"last"]
    assert framer.end() == []
    assert framed([b"one\n"]) == [b"one"]


def test_a_line_of_any_length_is_dropped_in_bounded_memory() -> None:
    framer = LineFramer(LIMIT)
    told: Lines = []
    for _ in range(2_000):
        framer.receive(b"x" * 4_096)
        told += framer.lines(ALL)
        assert framer.waiting <= LIMIT
    assert told == [Overlong(b"x" * COPIED_BYTES)]


def test_lines_are_handed_out_only_as_many_as_asked_for_and_the_rest_waits() -> None:
    framer = LineFramer(LIMIT)
    framer.receive(b"1\n2\n3\n4")
    assert framer.lines(0) == []
    assert framer.waiting == 7
    assert framer.lines(2) == [b"1", b"2"]
    assert framer.waiting == 3
    assert framer.lines(2) == [b"3"]
    assert framer.lines(2) == []
    framer.receive(b"\n")
    assert framer.lines(2) == [b"4"]


def test_an_overlong_line_counts_among_the_lines_asked_for() -> None:
    framer = LineFramer(LIMIT)
    framer.receive(b"1\n" + b"a" * (LIMIT + 1))
    assert framer.lines(1) == [b"1"]
    assert framer.lines(1) == [Overlong(b"a" * COPIED_BYTES)]
    framer.receive(b"\n2\n")
    assert framer.lines(1) == [b"2"]


def test_a_raised_limit_holds_for_what_waits_already() -> None:
    framer = LineFramer(LIMIT)
    framer.receive(b"proof\n" + b"a" * (LIMIT + 50))
    assert framer.lines(1) == [b"proof"]
    framer.limit = 2 * LIMIT
    assert framer.lines(ALL) == []
    framer.receive(b"\n")
    assert framer.lines(ALL) == [b"a" * (LIMIT + 50)]


# A client's stream ends at an HTTP request. ----------------------------------------------------------------------

REQUESTS = [
    b"GET / HTTP/1.1\r",
    b"POST /?x=1 HTTP/1.0",
    b"get / HTTP/1.1",
    b"iamat /+1+1 HTTP/1.9",
    b"M-SEARCH * HTTP/1.1",
    b"OPTIONS http://clark:10003/x HTTP/1.1\r",
    b" \tGET\t/\xff\x00 \fHTTP/1.1 ",
    b"M" * 32 + b" / HTTP/1.1",
    b"GET /" + b"x" * LIMIT + b" HTTP/1.1\r",
    b"GET " + b" " * 3 * LIMIT + b"/ HTTP/1.1\r",
    b"GET / HTTP/1.1" + b" " * 3 * LIMIT,
]
NO_REQUESTS = [
    b"GET / HTTP/2.0\r",
    b"GET / http/1.1",
    b"GET / HTTP/1.",
    b"GET / HTTP/1.10",
    b"GET HTTP/1.1",
    b"GET /a b HTTP/1.1",
    b"GET / HTTP/1.1 x",
    b"\xe9 / HTTP/1.1",
    b"(a) / HTTP/1.1",
    b"M" * 33 + b" / HTTP/1.1",
    b"HTTP/1.1 200 OK",
    b"IAMAT HTTP/1.1 +1+1 5",
    b"WHATSAT HTTP/1.1 10 5",
    b"WHATSAT / HTTP/1.1 10",
    b"GET /" + b"x" * LIMIT + b" HTTP/1.1x",
    b"GET / HTTP/1.1" + b" " * 3 * LIMIT + b"x",
    b"GET / HTTP/1.1" + b" " * 3 * LIMIT + b"x y",
    b"GET /" + b"x" * LIMIT + b" y HTTP/1.1",
    b"M" * 3 * LIMIT + b" / HTTP/1.1",
    b"GET" + b" x" * LIMIT + b" HTTP/1.1",
    b"GET" + b" " * 3 * LIMIT + b"HTTP/1.1",
]
BEHIND = b"IAMAT kiwi +1+1 5\nGET / HTTP/1.1\n"


def heard(stream: bytes, size: int, *, most: int = ALL, limit: int = LIMIT) -> tuple[Lines, bool]:
    """Return what a client's framer hands out of a stream in pieces of that size, and whether it has ended."""
    framer = LineFramer(limit, ends_at_http=True)
    found: Lines = []
    for piece in cut(stream, size):
        framer.receive(piece)
        while lines := framer.lines(most):
            found += lines
    found += framer.end()
    assert framer.waiting == 0
    return found, framer.ended


@pytest.mark.parametrize("most", [1, ALL])
@pytest.mark.parametrize("size", [1, 7, LIMIT, 1 << 20])
@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
def test_nothing_behind_an_http_request_is_handed_out(request_: bytes, size: int, most: int) -> None:
    before = b"FOO\nIAMAT kiwi +1+1 4\n"
    stream = before + request_ + b"\n" + BEHIND
    assert heard(stream, size, most=most) == (expected(before + request_ + b"\n", LIMIT), True)
    assert heard(before + request_, size, most=most)[0] == expected(before + request_, LIMIT)


@pytest.mark.parametrize("size", [1, 7, LIMIT, 1 << 20])
@pytest.mark.parametrize("line", NO_REQUESTS, ids=range(len(NO_REQUESTS)))
def test_what_only_resembles_a_request_ends_nothing(line: bytes, size: int) -> None:
    stream = line + b"\nIAMAT kiwi +1+1 5\n"
    assert heard(stream, size) == (expected(stream, LIMIT), False)


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1", b"GET /" + b"x" * LIMIT + b" HTTP/1.1"])
def test_of_a_stream_that_has_ended_nothing_waits(request_: bytes) -> None:
    framer = LineFramer(LIMIT, ends_at_http=True)
    assert framer.receive(request_[:-1]) == len(request_) - 1
    framer.lines(ALL)
    framer.receive(request_[-1:] + b"\n" + BEHIND)
    framer.lines(ALL)
    assert framer.ended
    assert framer.waiting == framer.receive(BEHIND) == framer.waiting == 0
    assert framer.lines(ALL) == framer.end() == []


def test_a_request_without_line_feed_ends_the_stream() -> None:
    assert heard(b"GET / HTTP/1.1", 1) == ([b"GET / HTTP/1.1"], True)


@pytest.mark.parametrize("size", [7, 1 << 20])
@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
def test_neighbours_streams_end_at_no_request(request_: bytes, size: int) -> None:
    stream = request_ + b"\n" + BEHIND
    assert framed(cut(stream, size)) == expected(stream, LIMIT)


@given(
    st.sampled_from([b"IAMAT", b"WHATSAT"]),
    st.binary(min_size=1).filter(lambda client: client.split() == [client]) | st.just(b"HTTP/1.1"),
    st.sampled_from([b"+1+1 5", b"+90-180.0 1.5", b"10 5", b"50.0 020"]),
)
def test_no_valid_command_is_a_request(word: bytes, client: bytes, operands: bytes) -> None:
    line = b"%b %b %b" % (word, client, operands)
    command = parse_report(line, b"Clark", 0) or parse_question(line)
    assert not (command is not None and is_http_request(line))


sizes = st.sampled_from([0, 0, 1, 2, 3, COPIED_BYTES - 1, LIMIT - 1, LIMIT, LIMIT + 1, LIMIT + 2, 3 * LIMIT])
contents = st.builds(lambda byte, size: bytes([byte]) * size, st.sampled_from(b"ab \r\x00\xff"), sizes)


@settings(deadline=None)
@given(
    pieces=st.lists(st.one_of(contents, st.just(b"\n"), st.just(b"\n\n")), max_size=12),
    cuts=st.lists(st.integers(0, 5 * LIMIT), max_size=8),
    most=st.sampled_from([1, 2, 3, ALL]),
    limit=st.sampled_from([COPIED_BYTES, LIMIT]),
)
def test_any_stream_in_any_pieces_gives_what_the_oracle_says(
    pieces: list[bytes], cuts: list[int], most: int, limit: int
) -> None:
    stream = b"".join(pieces)
    at = [0, *sorted(min(one, len(stream)) for one in cuts), len(stream)]
    assert framed((stream[a:b] for a, b in pairwise(at)), limit, most) == expected(stream, limit)


@settings(deadline=None)
@given(st.lists(st.tuples(contents | st.just(b"\n"), st.integers(0, 3))))
def test_handing_out_late_changes_nothing_but_when(steps: list[tuple[bytes, int]]) -> None:
    framer = LineFramer(LIMIT)
    found: Lines = []
    for piece, most in steps:
        framer.receive(piece)
        found += framer.lines(most)
    while lines := framer.lines(1):
        found += lines
    assert found + framer.end() == expected(b"".join(piece for piece, _ in steps), LIMIT)
