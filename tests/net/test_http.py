"""The little HTTP of admin ports: what is taken for an answer."""

from __future__ import annotations

import pytest

from proxyherd.net.http import accepts, parse_answer, request


def test_a_request_asks_for_plain_bytes_until_the_end() -> None:
    line, *headers = request("/state?commands=no").split(b"\r\n")
    assert line == b"GET /state?commands=no HTTP/1.0"
    assert headers[-2:] == [b"", b""]
    assert {b"Host: localhost", b"Accept-Encoding: identity"} == {*headers[:-2]}


@pytest.mark.parametrize("body", [b"", b"ready\n", b"a\r\n\r\nb", b"\xff\x00"])
@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK", b"HTTP/1.1 503", b"HTTP/1.0 404 Not Found\r\nServer: x"]
)
def test_an_answer_is_a_status_and_whatever_is_behind_the_head(head: bytes, body: bytes) -> None:
    assert parse_answer(head + b"\r\n\r\n" + body) == (int(head[9:12]), body)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"? GET / HTTP/1.0\r\n\r\n",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.0 200 OK\r\nServer: x\r\n",
        b"HTTP/1.0 20\r\n\r\n",
        b"HTTP/1.0 2000\r\n\r\n",
        b"HTTP/1.0 two\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b" HTTP/1.0 200 OK\r\n\r\n",
        b"\r\n\r\nHTTP/1.0 200 OK\r\n\r\n",
    ],
)
def test_anything_else_is_none(answer: bytes) -> None:
    assert parse_answer(answer) is None


@pytest.mark.parametrize(
    ("host", "is_accepted"),
    [
        *((host, True) for host in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]", "10.0.0.3", "[FD00::3]")),
        *((host, True) for host in ("one.example.com", "two:10200", "localhost:1", "[::1]:65535")),
        *((host, True) for host in ("localhost.", "localhost.:1", "one.example.com.:80", "two.:10200")),
        *((host, False) for host in (".", "localhost..", ".localhost", "evil.example.", "localhost.:")),
        *(
            (host, False)
            for host in ("", "127.0.0.2", "::1", "two", "two:10201", "evil.example", "[fd00::4]")
        ),
        *((host, False) for host in ("localhost:", "localhost:1:2", "localhost:123456", "x[::1]", "[::1]x")),
    ],
)
def test_an_admin_port_accepts_loopbacks_hosts_and_configured_ones(host: str, is_accepted: bool) -> None:
    assert accepts(host, ["10.0.0.3", "[fd00::3]", "One.example.com", "two:10200"]) == is_accepted
