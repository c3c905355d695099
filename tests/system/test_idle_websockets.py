"""What a WebSocket costs that says nothing, and a stream of events in which nothing happens: a web page or an app may stay
connected all day.

PROXYHERD_IDLE_SOCKETS=10000 pytest tests/system/test_idle_websockets.py
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Callable, Iterator

from herd_process import (
    PATIENCE_SECONDS,
    ServerProcess,
    raise_descriptor_limit,
    running_server,
    wait_until,
)

SOCKETS = int(os.environ.get("PROXYHERD_IDLE_SOCKETS", "1000"))
STREAMS = SOCKETS // 2
MOST_BYTES = 16 << 10
FIRST = 100
"""Those that come first bring memory that is not theirs alone: what is loaded late, and room in advance."""

FROM_AN_ADDRESS = 20_000
"""The system has some 28,000 ports for the connections from one address to one port."""

HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: proxyherd.%b.v1\r\n\r\n"
)
STREAM = b"GET /v1/events?client=phone-%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
QUESTIONS = {b"lines": b"FOO", b"json": b'{"op":"locate","id":7,"client":"nobody"}'}
ANSWERS = {b"lines": b"? FOO\n", b"json": b'{"id":7,"problem":'}


@contextlib.contextmanager
def many_descriptors(wanted: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit(wanted)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(server: ServerProcess, numbers: range) -> list[socket.socket]:
    """Open WebSockets, of both subprotocols by turns; return them when their handshakes are done."""
    return opened(server, [(number, HANDSHAKE % protocol(number)) for number in numbers], b"\r\n\r\n", b"101")


def follow(server: ServerProcess, numbers: range) -> list[socket.socket]:
    """Open streams, each of another client; return them when their snapshots are told."""
    return opened(server, [(number, STREAM % number) for number in numbers], b'"clients":0}\n\n', b"200")


def opened(
    server: ServerProcess, requests: list[tuple[int, bytes]], end: bytes, status: bytes
) -> list[socket.socket]:
    sockets = []
    for number, request in requests:
        source = f"127.0.0.{2 + number // FROM_AN_ADDRESS}"
        one = socket.create_connection(("127.0.0.1", server.web_port), PATIENCE_SECONDS, (source, 0))
        one.sendall(request)
        sockets.append(one)
    for one in sockets:
        answer = b""
        while not answer.endswith(end):
            answer += (more := one.recv(4_096))
            assert more
        assert answer.startswith(b"HTTP/1.1 %b " % status)
    return sockets


def memory_of_each(
    server: ServerProcess,
    connect: Callable[[ServerProcess, range], list[socket.socket]],
    stack: contextlib.ExitStack,
    numbers: range,
) -> tuple[list[socket.socket], float]:
    """Open connections that stay open until the stack closes; return them, and the bytes that one takes."""
    sockets = connect(server, numbers[:FIRST])
    before = server.memory()
    sockets += connect(server, numbers[FIRST:])
    for one in sockets:
        stack.callback(one.close)
    return sockets, (server.memory() - before) / len(numbers[FIRST:])


def protocol(number: int) -> bytes:
    return b"json" if number % 2 else b"lines"


def ask(number: int, one: socket.socket) -> None:
    """Ask something over a WebSocket, and check the answer."""
    question, answer = QUESTIONS[protocol(number)], ANSWERS[protocol(number)]
    one.sendall(b"\x81%c\0\0\0\0%b" % (0x80 | len(question), question))  # masked with zeros
    received = b""
    while answer not in received:
        received += (more := one.recv(4_096))
        assert more


def test_an_idle_connection_costs_at_most_16_kib_and_a_websocket_is_answered_when_it_asks() -> None:
    more = f"[web]\n[limits]\nmax_connections = {SOCKETS + STREAMS + 1_000}\n"
    with (
        many_descriptors(SOCKETS + STREAMS + 2_000),
        running_server(more=more) as server,
        contextlib.ExitStack() as stack,
    ):
        server.wait_for_web()
        sockets, each = memory_of_each(server, connect, stack, range(SOCKETS))
        _, each_stream = memory_of_each(server, follow, stack, range(SOCKETS, SOCKETS + STREAMS))
        print(
            f"{SOCKETS} idle WebSockets take {each / 1_024:.1f} KiB each, {STREAMS} streams {each_stream / 1_024:.1f} KiB"
        )
        assert each <= MOST_BYTES
        assert each_stream <= MOST_BYTES
        for number in (0, 1, SOCKETS - 2, SOCKETS - 1):
            ask(number, sockets[number])
        assert server.metrics()["proxyherd_client_connections"] == SOCKETS + STREAMS
        stack.close()
        wait_until(
            lambda: server.metrics()["proxyherd_client_connections"] == 0,
            "the server has let go of all of them",
        )
