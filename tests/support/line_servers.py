"""Servers of this process that speak the line protocol, or what a test makes of it: for clients of a herd.

with line_server() as ann, line_server(lambda line: HANG_UP) as bob:
    SyncHerdClient(bob.address, ann.address).report("kiwi", 1, 2)
assert ann.told == bob.told
"""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Callable, Iterator

HANG_UP = b""
"""The answer of a server that closes the connection instead."""

Answer = Callable[[bytes], bytes | None]
"""What a server says to a line, which comes with its LF; None: nothing."""


def as_a_server_does(line: bytes) -> bytes:
    """Answer as a server does that knows every client but nobody."""
    words = line.split()
    if words[:1] == [b"IAMAT"]:
        return b"AT Ann +0.100000000 %b\n" % b" ".join(words[1:])
    if words[:1] == [b"WHATSAT"] and words[1] != b"nobody":
        return (
            b'AT Ann +0.100000000 %b +1+1 5\n{\n   "results": [],\n   "status": "ZERO_RESULTS"\n}\n\n'
            % words[1]
        )
    return b"? " + line


class LineServer(socketserver.ThreadingTCPServer):
    """Answers lines, and keeps them."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.told: list[bytes] = []
        self.connections = self.closed = 0
        self.ending = threading.Event()
        super().__init__(("127.0.0.1", 0), _Connection)

    @property
    def address(self) -> str:
        return "{}:{}".format(*self.server_address)


class _Connection(socketserver.StreamRequestHandler):
    server: LineServer

    def handle(self) -> None:
        self.server.connections += 1
        self.request.settimeout(0.05)
        with contextlib.suppress(ConnectionError):
            while (line := self._line()) is not None:
                self.server.told.append(line)
                answer = self.server.answer(line)
                if answer == HANG_UP:
                    return
                self.wfile.write(answer or b"")

    def finish(self) -> None:
        super().finish()
        self.server.closed += 1

    def _line(self) -> bytes | None:
        line = bytearray()
        while not line.endswith(b"\n"):
            if self.server.ending.is_set():
                return None
            try:
                some = self.request.recv(1)
            except TimeoutError:
                continue
            if not some:
                return None
            line += some
        return bytes(line)


@contextlib.contextmanager
def line_server(answer: Answer = as_a_server_does) -> Iterator[LineServer]:
    """Run a server on a port of loopback until the body ends."""
    with LineServer(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.ending.set()
            server.shutdown()
            thread.join()
