"""The admin port: who may ask, and that nobody who asks slowly, greedily or wrongly harms a server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from herd_process import Connection, ServerProcess, now, raise_descriptor_limit, running_server, wait_until

from proxyherd.admin.listener import MAX_CONNECTIONS

PATHS = ("/", "/metrics", "/healthz", "/readyz", "/page.css", "/page.js", "/coast.json")


@pytest.fixture(scope="module")
def clark() -> Iterator[ServerProcess]:
    with running_server(more='[admin]\nhosts = ["Metrics.example"]\n') as clark:
        yield clark


def raw(server: ServerProcess, request: bytes) -> bytes:
    """Return all that the admin port has to say."""
    with Connection(server.admin_port) as connection:
        with contextlib.suppress(ConnectionError):
            connection.send_raw(request)
        try:
            return connection.rest()
        except ConnectionError:
            return b""


def status(answer: bytes) -> int:
    return int(answer.split(None, 2)[1]) if answer.startswith(b"HTTP/") else 0


def ask(server: ServerProcess, *headers: bytes, method: bytes = b"GET", path: bytes = b"/healthz") -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, path), *headers, b"Connection: close", b"", b""]
    return raw(server, b"\r\n".join(lines))


@pytest.mark.parametrize(
    "host",
    [
        *(
            b"localhost",
            b"LOCALHOST",
            b"localhost:10203",
            b"127.0.0.1",
            b"127.0.0.1:1",
            b"[::1]",
            b"[::1]:10203",
        ),
        *(b"metrics.example", b"METRICS.example:443"),
    ],
)
def test_a_host_of_loopback_or_configured_is_served(clark: ServerProcess, host: bytes) -> None:
    assert status(ask(clark, b"Host: " + host)) == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            b"evil.example",
            b"evil.example:10203",
            b"localhost.evil.example",
            b"evil.example:localhost",
            b"::1",
        ),
        *(
            b"localhost:80@evil.example",
            b"localhost:",
            b"localhost:x",
            b"[::1",
            b"[::1]x",
            b"",
            b"127.0.0.1.evil",
        ),
        *(b"0.0.0.0", b"localhost:80:80", b"localhost, evil.example"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_any_other_host_gets_403_and_nothing_else(clark: ServerProcess, host: bytes, path: str) -> None:
    answer = ask(clark, b"Host: " + host, path=path.encode())
    assert status(answer) in {400, 403}
    assert b"proxyherd_" not in answer
    assert b"Clark" not in answer


def test_a_missing_host_and_several_are_refused(clark: ServerProcess) -> None:
    assert status(ask(clark)) in {400, 403}
    assert status(raw(clark, b"GET /metrics HTTP/1.0\r\n\r\n")) in {400, 403}
    for hosts in (
        [b"localhost", b"evil.example"],
        [b"evil.example", b"localhost"],
        [b"localhost", b"localhost"],
    ):
        assert status(ask(clark, *[b"Host: " + host for host in hosts])) in {400, 403}


@pytest.mark.parametrize(
    "method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT", b"FOO"]
)
@pytest.mark.parametrize("path", PATHS)
def test_no_other_method_than_get_and_head_is_served(clark: ServerProcess, method: bytes, path: str) -> None:
    answer = ask(clark, b"Host: localhost", b"Content-Length: 0", method=method, path=path.encode())
    assert status(answer) in {400, 405}
    assert b"proxyherd_" not in answer


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_its_body(clark: ServerProcess, path: str) -> None:
    head, _, body = ask(clark, b"Host: localhost", method=b"HEAD", path=path.encode()).partition(b"\r\n\r\n")
    assert status(head) == 200
    assert body == b""
    for header in (
        b"Cache-Control: no-store",
        b"X-Content-Type-Options: nosniff",
        b"Content-Security-Policy: ",
    ):
        assert header in head


def test_no_client_and_no_location_is_shown_anywhere(clark: ServerProcess) -> None:
    clark.ask(b"IAMAT secretive.client +12.345678-98.765432 " + now())
    clark.ask(b"WHATSAT secretive.client 10 5")
    clark.ask(b"WHATSAT secretive.other 10 5")
    wait_until(lambda: clark.metrics("proxyherd_clients")["proxyherd_clients"] >= 1, "the client is counted")
    for path in (*PATHS, "/secretive.client", "/metrics?name[]=secretive"):
        for accept in (b"text/plain", b"application/openmetrics-text;version=1.0.0", b"text/html"):
            answer = ask(clark, b"Host: localhost", b"Accept: " + accept, path=path.encode())
            for what in (b"12.345", b"98.765") + ((b"secretive",) if path in PATHS else ()):
                assert what not in answer


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_request_is_answered_shortly_and_told_nobody(
    clark: ServerProcess, request_: bytes
) -> None:
    answer = raw(clark, request_ + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert status(answer) in {0, 400, 403, 404}
    assert len(answer) < 1_000
    for word in (b"Traceback", b"aiohttp.", b".py", b"line "):
        assert word not in answer
    assert clark.stderr() == ""
    assert not clark.events("internal_error")


def test_headers_past_the_limits_are_refused(clark: ServerProcess) -> None:
    assert status(ask(clark, b"Host: localhost", b"X: " + b"x" * 20_000)) in {0, 400, 431}
    assert status(ask(clark, b"Host: localhost", path=b"/" + b"x" * 20_000)) in {0, 400, 414}
    assert status(ask(clark, b"Host: localhost", *[b"X%d: x" % number for number in range(200)])) in {
        0,
        400,
        431,
    }
    assert clark.stderr() == ""


def test_headers_and_bodies_without_end_take_no_memory(clark: ServerProcess) -> None:
    before = clark.memory()
    starts = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"GET /",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
    )
    for start in starts:
        with Connection(clark.admin_port) as connection, contextlib.suppress(OSError):
            connection.send_raw(start)
            connection.socket.settimeout(0.5)
            for _ in range(1_000):
                connection.send_raw(b"x" * 65_536)
    # Each sends 64 MiB. What the allocator keeps of reads of a quarter of a MiB comes and goes: 0 to 31 MiB were seen.
    assert clark.memory() - before < 48 << 20
    assert clark.get("/healthz")[0] == 200


def test_a_server_is_asked_how_it_is_whatever_else_is_open_and_its_clients_never_notice(
    clark: ServerProcess,
) -> None:
    raise_descriptor_limit(4_096)
    before = clark.memory()
    with contextlib.ExitStack() as stack, clark.connect() as client:
        silent = [stack.enter_context(Connection(clark.admin_port)) for _ in range(300)]
        assert clark.get("/healthz") == (200, "ok\n")
        assert clark.get("/readyz") == (200, "ready\n")
        assert client.ask(b"FOO") == b"? FOO\n"
        assert all(one.is_ended() for one in silent[: 300 - MAX_CONNECTIONS])
        assert clark.memory() - before < 24 << 20
    assert clark.stderr() == ""
