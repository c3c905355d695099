"""A herd's file of two servers where nobody listens, and listeners in their place: for commands that ask servers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from proxyherd.client.blocking import SyncHerdClient
from proxyherd.client.endpoints import Endpoint
from proxyherd.config import herd_file
from proxyherd.config.address import Address

PAIR = """
edges = [["Ann", "Bob"]]
[servers]
Ann = { clients = "127.0.0.1:%d", peers = "127.0.0.1:%d", admin = "127.0.0.1:%d" }
Bob = { clients = "127.0.0.1:%d", peers = "127.0.0.1:%d", admin = "127.0.0.1:%d" }
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def pair_of_servers(folder: Path) -> herd_file.Herd:
    """Write the herd's file of two servers on ports where nobody listens."""
    file = folder / "herd.toml"
    file.write_text(PAIR % tuple(free_ports(6)))
    return herd_file.load(file)


def ask_once(server: herd_file.Server, line: bytes, seconds: float) -> bytes:
    """Return the answer of a server to a line, as `iamat` and `whatsat` ask for it. Raises Unreachable."""
    endpoint = Endpoint(server.clients)
    with SyncHerdClient(endpoint, timeout=seconds, patience=seconds, retry=False) as client:
        return client.command(line)


@contextlib.contextmanager
def serving(address: Address, answer: Callable[[bytes], list[bytes]]) -> Iterator[list[bytes]]:
    """A server that answers each connection's first line with `answer`'s pieces, and keeps what it was told."""
    told: list[bytes] = []
    with socket.create_server((address.host, address.port)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as lines:
                    told.append(lines.readline())
                    for piece in answer(told[-1]):
                        connection.sendall(piece)
                    connection.settimeout(20)
                    if told[-1]:
                        lines.read()  # the client hangs up first, as with a real server

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield told
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
