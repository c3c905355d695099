"""Attacks on a client port, each a function that goes on until it is told to stop; run in a process of its own.

    python tests/support/attacks.py NAME PORT [ADDRESS]...        until its standard input closes

ADDRESS: loopback addresses from which it comes in turns; without any, the one that the system chooses.

What they send is bounded by what one process can send over loopback; none of them is clever.
"""

from __future__ import annotations

import itertools
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable

Stop = threading.Event

SOURCES: list[tuple[str, int]] = []
"""From where the attack comes in turns, if that was said."""

TOKEN_VARIABLE = "ATTACK_TOKEN"


def connect(port: int) -> socket.socket:
    """Connect, or retry for as long as it takes."""
    while True:
        try:
            source = SOURCES[0] if SOURCES else None
            SOURCES[:] = SOURCES[1:] + SOURCES[:1]
            return socket.create_connection(("127.0.0.1", port), timeout=120, source_address=source)
        except OSError:
            time.sleep(0.01)


def pour(
    port: int, stop: Stop, chunks: Callable[[], bytes], *, connections: int = 4, read: bool = True
) -> None:
    """Send as fast as the server takes it; read and drop the answers, or leave them."""
    with selectors.DefaultSelector() as selector:

        def join() -> None:
            sock = connect(port)
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ * read | selectors.EVENT_WRITE, bytearray())

        for _ in range(connections):
            join()
        while not stop.is_set():
            for key, events in selector.select(0.1):
                sock, left = key.fileobj, key.data
                assert isinstance(sock, socket.socket)
                try:
                    if events & selectors.EVENT_READ and not sock.recv(1 << 18):
                        raise ConnectionError
                    if events & selectors.EVENT_WRITE:
                        if not left:
                            left += chunks()
                        del left[: sock.send(left)]
                except BlockingIOError:
                    pass
                except OSError:
                    selector.unregister(sock)
                    sock.close()
                    join()


def slow_loris(port: int, stop: Stop) -> None:
    """Hold connections open with a byte now and then, never a whole command."""
    held: list[socket.socket] = []
    while not stop.is_set():
        while len(held) < 500:
            held.append(connect(port))
        for sock in tuple(held):
            try:
                sock.send(b"x")
            except OSError:
                held.remove(sock)
                sock.close()
        stop.wait(0.2)


def connection_flood(port: int, stop: Stop) -> None:
    """Open as many connections as there may be, and more."""
    held: list[socket.socket] = []
    while not stop.is_set():
        held.append(connect(port))
        if len(held) > 1_500:
            held.pop(0).close()


def churn(port: int, stop: Stop) -> None:
    """Connect, ask, and break the connection, over and over."""
    while not stop.is_set():
        sock = connect(port)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.send(b"FOO\nIAMAT")
        sock.close()


def never_reads(port: int, stop: Stop) -> None:
    """Send commands and never read an answer."""
    pour(port, stop, lambda: b"WHATSAT nobody 10 5\n" * 1_000, connections=20, read=False)


def endless_line(port: int, stop: Stop) -> None:
    """Send a line that never ends."""
    pour(port, stop, lambda: b"x" * (1 << 18))


def invalid_lines(port: int, stop: Stop) -> None:
    """Send what is no command."""
    pour(port, stop, lambda: b"FOO\n" * 1_000)


def blank_lines(port: int, stop: Stop) -> None:
    """Send the shortest line there is."""
    pour(port, stop, lambda: b"\n" * 65_536)


def one_connection(port: int, stop: Stop) -> None:
    """Send invalid lines over one connection."""
    pour(port, stop, lambda: b"FOO\n" * 1_000, connections=1)


def web_report(client: str, token: str) -> bytes:
    """Return a request to the web port that reports a client."""
    head = f"PUT /v1/clients/{client} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    return head.encode() + b'Content-Type: application/json\r\nContent-Length: 17\r\n\r\n{"lat":1,"lon":2}'


def one_token(port: int, stop: Stop) -> None:
    """Report over several connections to the web port, all with the token of the environment."""
    report = web_report("eve", os.environ[TOKEN_VARIABLE])
    pour(port, stop, lambda: report * 100, connections=6)


def reports_for_jane(port: int, stop: Stop) -> None:
    """Report another client to the web port, with the token of the environment."""
    report = web_report("jane", os.environ[TOKEN_VARIABLE])
    pour(port, stop, lambda: report * 100)


def forged_tokens(port: int, stop: Stop) -> None:
    """Report another client, each time with another signature behind what the token of the environment says."""
    said, numbers = os.environ[TOKEN_VARIABLE].rpartition(".")[0], itertools.count()
    pour(port, stop, lambda: web_report("jane", f"{said}.{next(numbers):08}{'A' * 78}"))


def asks_for_jane(port: int, stop: Stop) -> None:
    """Ask the web port for another client, with the token of the environment."""
    head = f"GET /v1/clients/jane HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {os.environ[TOKEN_VARIABLE]}\r\n\r\n"
    pour(port, stop, lambda: head.encode() * 100)


def new_clients(port: int, stop: Stop) -> None:
    """Report client after client that nobody has heard of."""
    numbers = itertools.count()
    pour(port, stop, lambda: b"".join(b"IAMAT flood%d +1+1 1\n" % next(numbers) for _ in range(500)))


ATTACKS: dict[str, Callable[[int, Stop], None]] = {
    one.__name__: one
    for one in (
        slow_loris,
        connection_flood,
        churn,
        never_reads,
        endless_line,
        invalid_lines,
        blank_lines,
        new_clients,
    )
}


def all_places(port: int, stop: Stop) -> None:
    """Ask over one connection what is near the client `known`, each time within another radius."""
    numbers = itertools.count()

    def queries() -> bytes:
        return b"".join(b"WHATSAT known 5.%06d 5\n" % (next(numbers) % 10**6) for _ in range(100))

    pour(port, stop, queries, connections=1)


def long_ids(port: int, stop: Stop) -> None:
    """Report client after client over one connection, each with an ID as long as may be."""
    numbers = itertools.count()

    def reports() -> bytes:
        seconds = time.time_ns() // 10**9
        return b"".join(b"IAMAT %0512d +1+1 %d\n" % (next(numbers), seconds) for _ in range(100))

    pour(port, stop, reports, connections=1)


def victim_of_the_future(port: int, stop: Stop) -> None:
    """Report the client `victim` with the latest time there is, over one connection."""
    pour(port, stop, lambda: b"IAMAT victim +0+0 999999999999\n" * 100, connections=1)


OF_ONE: dict[str, Callable[[int, Stop], None]] = {
    one.__name__: one
    for one in (
        one_connection,
        one_token,
        reports_for_jane,
        forged_tokens,
        asks_for_jane,
        all_places,
        long_ids,
        victim_of_the_future,
    )
}
"""Attacks that only some limits hold back."""


def main() -> None:
    stop = Stop()

    def wait() -> None:
        sys.stdin.read()
        stop.set()

    SOURCES.extend((address, 0) for address in sys.argv[3:])
    threading.Thread(target=wait, daemon=True).start()
    (ATTACKS | OF_ONE)[sys.argv[1]](int(sys.argv[2]), stop)


if __name__ == "__main__":
    main()
