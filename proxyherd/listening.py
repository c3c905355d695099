"""Listening sockets whose TLS context can be renewed without missing a connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any


class Listener:
    """Takes connections from any number of bound sockets, and makes a protocol for each.

    `context` is None where connections are plain. Connections that are taken already keep theirs.
    """

    def __init__(
        self,
        make_protocol: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        *,
        backlog: int,
        handshake_seconds: float,
    ) -> None:
        self._make_protocol = make_protocol
        self._context = context
        self._backlog = backlog
        self._handshake_seconds = handshake_seconds
        self._listening: list[tuple[socket.socket, asyncio.Server]] = []

    async def listen(self, sock: socket.socket) -> None:
        """Take connections from a bound socket."""
        self._listening.append((sock, await self._serve(sock)))

    async def renew(self, context: ssl.SSLContext | None) -> None:
        """Take the connections that come from now on with another context."""
        self._context = context
        for at, (sock, server) in enumerate(self._listening):
            # The kernel's queue belongs to the socket, which stays: nobody is turned away in between.
            self._listening[at] = (sock, await self._serve(sock))
            server.close()

    def close(self) -> None:
        """Take no more connections."""
        for sock, server in self._listening:
            server.close()
            sock.close()
        self._listening.clear()

    async def _serve(self, sock: socket.socket) -> asyncio.Server:
        # On a descriptor of its own, since closing a server closes its socket.
        tls: dict[str, Any] = {}
        if self._context is not None:
            tls = {"ssl": self._context, "ssl_handshake_timeout": self._handshake_seconds}
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._make_protocol, sock=sock.dup(), backlog=self._backlog, **tls)
