"""Listening sockets, plain or TLS. They accept connections themselves, because the event loop's own server reports
nothing if the system has no file descriptor for a connection.

A TLS connection reaches its protocol only after its handshake. So unfinished handshakes are limited here, in time and
in number. At the limit the oldest is closed. An honest handshake takes milliseconds, so a flood of unfinished ones
does not keep others out. The context can be renewed at any time; accepted connections keep theirs.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from proxyherd.net.tls import explain

_ACCEPTS: Final = 64
"""Connections that are accepted at once before other work gets its turn."""

_RETRY_SECONDS: Final = 0.1
"""The pause after the system had no file descriptor for a connection."""

AcceptFailure: TypeAlias = Literal["max_connections", "tls", "system"]
"""Why a connection has failed: there were too many, no TLS handshake, or the system has refused something."""


class Listener:
    """Accepts connections from any number of bound sockets, and makes a protocol for each.

    `context` is None for plain connections. With TLS, a connection that is closed here has `shutdown_seconds` to send
    the rest and to get the other side's close_notify. `room` says how many TLS handshakes may be under way at once.
    `refused` is called for each failed connection, with its address, the kind of failure, and the reason. `admits` says
    whether a connection from an address, which is a socket's, is taken at all, before anything is done for it.
    """

    def __init__(
        self,
        make_protocol: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        *,
        backlog: int,
        handshake_seconds: float,
        shutdown_seconds: float,
        room: Callable[[], int],
        refused: Callable[[str, AcceptFailure, str], None],
        admits: Callable[[object], bool] | None = None,
    ) -> None:
        self._make_protocol = make_protocol
        self._context = context
        self._backlog = backlog
        self._handshake_seconds = handshake_seconds
        self._shutdown_seconds = shutdown_seconds
        self._room = room
        self._refused = refused
        self._admits = admits
        self._plain: set[asyncio.Task[None]] = set()
        self._sockets: list[socket.socket] = []
        self._handshakes: dict[asyncio.Task[None], str] = {}  # the oldest first
        self._closed = False

    async def listen(self, sock: socket.socket) -> None:
        """Accept connections from a bound socket."""
        sock.listen(self._backlog)
        self._sockets.append(sock)
        asyncio.get_running_loop().add_reader(sock, self._take, sock)

    def renew(self, context: ssl.SSLContext | None) -> None:
        """Accept future connections with another context. If there was none, there can be none."""
        if self._context is not None and context is not None:
            self._context = context

    def close(self) -> None:
        """Accept no more connections."""
        self._closed = True
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        for handshake in tuple(self._handshakes):
            handshake.cancel()

    def _take(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_ACCEPTS):
            try:
                connection, peer = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._refused("unknown", "system", f"no connection can be taken: {error.strerror}")
                loop.remove_reader(sock)
                loop.call_later(_RETRY_SECONDS, self._take_again, sock)
                return
            if self._admits is not None and not self._admits(peer):
                connection.close()
                continue
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is None:
                task = loop.create_task(self._hand_over(connection, spell_address(peer)))
                self._plain.add(task)
                task.add_done_callback(self._plain.discard)
            else:
                self._greet(connection, spell_address(peer))

    def _take_again(self, sock: socket.socket) -> None:
        if not self._closed:
            asyncio.get_running_loop().add_reader(sock, self._take, sock)

    def _greet(self, connection: socket.socket, name: str) -> None:
        """Begin a handshake; close the oldest one if there is no room for one more."""
        room = self._room()
        while self._handshakes and len(self._handshakes) >= room:
            oldest = next(iter(self._handshakes))
            self._refused(self._handshakes.pop(oldest), "tls", "its TLS handshake was the oldest of too many")
            oldest.cancel()
        if room < 1:
            self._refused(name, "max_connections", "as many connections as there may be are open")
            connection.close()
            return
        handshake = asyncio.get_running_loop().create_task(self._hand_over(connection, name))
        self._handshakes[handshake] = name
        handshake.add_done_callback(lambda done: self._handshakes.pop(done, None))

    async def _hand_over(self, connection: socket.socket, name: str) -> None:
        """Pass a connection to a protocol of its own, after its TLS handshake if there is one."""
        tls: dict[str, Any] = {}
        if self._context is not None:
            tls = {
                "ssl": self._context,
                "ssl_handshake_timeout": self._handshake_seconds,
                "ssl_shutdown_timeout": self._shutdown_seconds,
            }
        loop = asyncio.get_running_loop()
        made: list[asyncio.Protocol] = []

        def make() -> asyncio.Protocol:
            made.append(self._make_protocol())
            return made[0]

        try:
            await loop.connect_accepted_socket(make, connection, **tls)
        except OSError as error:
            connection.close()
            if tls:
                self._refused(name, "tls", f"no TLS handshake: {explain(error)}")
            else:
                self._refused(name, "system", f"broken: {error.strerror}")
        except asyncio.CancelledError:
            for protocol in made:  # uvloop closes its connection, and does not tell it
                protocol.connection_lost(None)
            raise


def host_of(peer: object) -> str:
    """Return the host of a socket's address, "" if it has none."""
    return str(peer[0]) if isinstance(peer, tuple) and len(peer) >= 2 else ""


def spell_address(peer: object) -> str:
    """Return a socket's address for a log."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return "unknown"


def takes_more(transport: asyncio.Transport) -> bool:
    """Whether the system would accept bytes now. Bytes that a TLS transport has passed to the plain one below cannot be
    counted; but while some of them wait there, the socket is full.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True  # it has ended, and its protocol learns this in the same turn
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLOUT)
    return bool(poll.poll(0))
