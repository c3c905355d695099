"""Followers on WebSockets, as a load: they count what they are told, and how late. Written by hand, on uvloop: a thousand of
them read 20,000 frames a second in one process.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Final, cast

from reporters import PATIENCE

_AT_ONCE: Final = 50
"""Connections that are opened at a time."""


def handshake(path: str, protocol: str = "") -> bytes:
    """Return a request for a WebSocket."""
    chosen = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{chosen}\r\n"
    ).encode()


def frame(message: bytes, *, text: bool = True) -> bytes:
    """Return a client's frame. Its mask is zero, so that the message stays as it is."""
    opcode, size = 0x81 if text else 0x82, len(message)
    head = bytes((opcode, 0x80 | size)) if size < 126 else bytes((opcode, 0xFE)) + size.to_bytes(2, "big")
    return head + bytes(4) + message


class Socket(asyncio.Protocol):
    """A WebSocket that counts how often a mark comes. `ready` is set once `welcome` has come."""

    transport: asyncio.Transport

    def __init__(
        self,
        opening: bytes,
        said: Sequence[bytes],
        welcome: bytes,
        mark: bytes,
        counted: Callable[[Socket, int], None],
    ) -> None:
        self.ready = asyncio.get_running_loop().create_future()
        self.count = 0
        self.lost = False
        self._opening, self._said, self._welcome, self._mark = opening, said, welcome, mark
        self._counted = counted
        self._rest = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._opening)

    def data_received(self, data: bytes) -> None:
        if self.ready.done():
            whole = self._rest + data
            found = whole.count(self._mark)
            self._rest = whole[1 - len(self._mark) :]  # a mark may come in two parts
            if found:
                self.count += found
                self._counted(self, found)
            return
        self._rest += data
        if not self._is_open and b"\r\n\r\n" in self._rest:
            if not self._rest.startswith(b"HTTP/1.1 101"):
                raise RuntimeError(self._rest.decode(errors="replace"))
            self._is_open = True
            self._rest = self._rest.partition(b"\r\n\r\n")[2]
            self.transport.writelines(self._said)
        if self._is_open and self._welcome in self._rest:
            self._rest = b""
            self.ready.set_result(None)

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(f"closed early: {self._rest[:200]!r}"))


class Crowd:
    """Followers that are all told the same, and when they are told it. `open` it before it is told anything."""

    def __init__(self, port: int, opening: bytes, said: Sequence[bytes], welcome: bytes, mark: bytes) -> None:
        self.sockets: list[Socket] = []
        self.seconds = array("d")  # from each sending to each frame
        self.sent: list[float] = []  # when; to be added to before sending
        self._port = port
        self._make = lambda: Socket(opening, said, welcome, mark, self._counted)

    async def open(self, followers: int) -> None:
        """Open their connections, and wait until all follow."""
        loop = asyncio.get_running_loop()
        for first in range(0, followers, _AT_ONCE):
            some = [
                loop.create_connection(self._make, "127.0.0.1", self._port)
                for _ in range(min(_AT_ONCE, followers - first))
            ]
            made = [socket for _, socket in await asyncio.gather(*some)]
            await asyncio.wait_for(asyncio.gather(*(socket.ready for socket in made)), PATIENCE)
            self.sockets += made

    async def all_told(self) -> bool:
        """Wait until each has been told all that was sent. Return whether that is so: who is told less never will be."""
        deadline = time.perf_counter() + PATIENCE
        while any(socket.count < len(self.sent) for socket in self.sockets):
            if time.perf_counter() > deadline:
                return False
            await asyncio.sleep(0.02)
        return all(socket.count == len(self.sent) and not socket.lost for socket in self.sockets)

    def close(self) -> None:
        """Close all connections."""
        for socket in self.sockets:
            socket.transport.abort()

    def _counted(self, socket: Socket, found: int) -> None:
        now = time.perf_counter()
        self.seconds.extend(now - sent for sent in self.sent[socket.count - found : socket.count])
