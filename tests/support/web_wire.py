"""Talks to the web port of a server over raw sockets: requests byte by byte, and the frames of WebSockets.

with WebWire(server) as wire:
    wire.send(request("PUT", "/v1/clients/kiwi", b'{"lat":1,"lon":2}'))
    status, headers, body = wire.answer()
"""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from herd_process import PATIENCE_SECONDS, ServerProcess, now, running_server
from redis_cluster import Cluster

HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
LINES, JSON = "proxyherd.lines.v1", "proxyherd.json.v1"


@contextlib.contextmanager
def running_web_server(
    more: str = "[web]\n", *, cluster: Cluster | None = None, gazetteer: Path | None = None
) -> Iterator[ServerProcess]:
    """Run Clark alone, with a web port, until the body ends; it must stop well, and have nothing to complain of."""
    with running_server(more=more, cluster=cluster, gazetteer=gazetteer) as server:
        server.wait_for_web()
        yield server
        assert server.stop() == 0
        assert server.stderr() == ""


class WebWire:
    """One connection to the web port."""

    def __init__(self, server: ServerProcess) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.web_port), PATIENCE_SECONDS)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Read an answer: status, headers by their names in small letters, body."""
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            assert name.lower() not in headers, f"{name} occurs twice, and browsers refuse that of some"
            headers[name.lower()] = value
        return status, headers, b"" if head else self.file.read(int(headers.get("content-length", 0)))

    def is_closed(self) -> bool:
        return self.file.read() == b""

    def message(self) -> tuple[int, bytes]:
        """Read a frame: opcode and payload."""
        first, size = self.file.read(2)
        if size > 125:
            size = int.from_bytes(self.file.read(2 if size == 126 else 8), "big")
        return first & 15, self.file.read(size)


def request(method: str, target: str, body: bytes = b"", *headers: str, version: str = "1.1") -> bytes:
    named = ["Host: localhost", *headers]
    if body and not any("content-type" in one.lower() for one in headers):
        named.append("Content-Type: application/json")
    if body or method in {"PUT", "POST"}:
        named.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([f"{method} {target} HTTP/{version}", *named, "", ""])
    return head.encode() + body


def ask(server: ServerProcess, *asked: Any) -> tuple[int, dict[str, str], bytes]:
    with WebWire(server) as wire:
        wire.send(request(*asked))
        return wire.answer(head=asked[0] == "HEAD")


def frame(data: bytes, opcode: int = 1) -> bytes:
    size = len(data)
    short = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    mask = b"\x01\x02\x03\x04"
    return bytes([0x80 | opcode]) + short + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


@contextlib.contextmanager
def websocket(server: ServerProcess, protocol: str, *headers: str) -> Iterator[WebWire]:
    with WebWire(server) as wire:
        wire.send(request("GET", "/v1/ws", b"", *HANDSHAKE, f"Sec-WebSocket-Protocol: {protocol}", *headers))
        status, answered, _ = wire.answer()
        assert status == 101
        assert answered["sec-websocket-protocol"] == protocol
        assert answered["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        yield wire


def fresh() -> str:
    return f"c{uuid.uuid4().hex}"


def position() -> bytes:
    return b'{"lat":34.06893,"lon":"-118.445127","time":%b}' % now()
