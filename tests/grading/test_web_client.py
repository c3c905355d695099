"""Whatever a web port sends is an answer or a fault."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import StreamReader
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.grading.faults import Fault
from proxyherd.grading.web_client import HttpAnswer, WebPort

BEGINNINGS = (
    b"",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 101 S\r\n",
)


class Deaf:
    """A writer of which nobody reads what is written."""

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


def port_that_sends(data: bytes, *, ends: bool = True) -> WebPort:
    async def dial(_host: str, _port: int) -> tuple[StreamReader, Any]:
        reader = StreamReader()
        reader.feed_data(data)
        if ends:
            reader.feed_eof()
        return reader, Deaf()

    return WebPort("Ann", "127.0.0.1", 1, seconds=0.01, dial=dial)


def answer_to(data: bytes, *, ends: bool = True) -> HttpAnswer:
    return asyncio.run(port_that_sends(data, ends=ends).ask("GET", "/"))


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=100))
def test_whatever_comes_is_an_answer_or_a_fault(beginning: bytes, rest: bytes) -> None:
    async def converse() -> None:
        port = port_that_sends(beginning + rest)
        with contextlib.suppress(Fault):
            port.content(await port.ask("PUT", "/", {"lat": 1}))
        with pytest.raises(Fault):
            async with port.websocket("a"):
                pass

    asyncio.run(converse())


@pytest.mark.parametrize(
    ("data", "ends", "got"),
    [
        (b"", False, "nothing whole within 0.01 s"),
        (b"", True, 'the end, behind ""'),
        (b"SSH-2.0-OpenSSH\r\n\r\n", True, "no answer of HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", True, 'the end, behind "short"'),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", True, 'a body of "-1" bytes'),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n", True, 'a body of "9999999" bytes'),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1_000, True, "the end"),
        (b"HTTP/1.1 200 OK\r\n" + b"%d: b\r\n" * 101 % (*range(101),), True, "more than 100 headers"),
        (b"HTTP/1.1 200 " + b"x" * 200_000, True, "a line that is too long"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (1 << 23), True, "a body of more than 4194304 bytes"),
    ],
    ids=range(10),
)
def test_what_is_no_answer_is_told(data: bytes, ends: bool, got: str) -> None:
    with pytest.raises(Fault) as fault:
        answer_to(data, ends=ends)
    assert fault.value.got.startswith(got)


def test_an_answer_is_read_to_its_length_or_to_its_end() -> None:
    assert answer_to(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcd").body == b"ab"
    answer = answer_to(b"HTTP/1.0 404 No\r\nX-A:  b \r\n\r\nabcd")
    assert (answer.status, answer.headers, answer.body) == (404, {"x-a": "b"}, b"abcd")


def test_digits_stay_as_they_were_spelled() -> None:
    port = port_that_sends(b"")
    answer = HttpAnswer(
        b"", 200, {"content-type": "application/json; charset=utf-8"}, b'{"lat":1.50,"lon":2}'
    )
    assert port.content(answer) == {"lat": "1.50", "lon": 2}
    for kind, body in (("text/html", b"{}"), ("application/json", b"{"), ("application/json", b"\xff")):
        with pytest.raises(Fault):
            port.content(answer._replace(headers={"content-type": kind}, body=body))
