"""Connections of asyncio to one server, over which lines are sent: over TCP, or over a WebSocket.

A WebSocket's messages hold whole lines and whole answers, in the subprotocol `proxyherd.lines.v1`. In `proxyherd.json.v1`
each message is a line, and each answer is made one.
"""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from socket import SOCK_STREAM, AddressFamily
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

from proxyherd.base.escapes import escaped
from proxyherd.client.rules.errors import MOST_SHOWN, NotAllowed, Unreachable
from proxyherd.client.sockets import MUTE, reason_of
from proxyherd.net.dialling import address_and_host, hosts_among, shares
from proxyherd.net.resolving import looked_up

if TYPE_CHECKING:
    import ssl

    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult

    from proxyherd.client.endpoints import Endpoint
    from proxyherd.config.address import Address

Socket: TypeAlias = "tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]"
"""A WebSocket, and the session that is to be closed with it."""

LINES_SUBPROTOCOL: Final = "proxyherd.lines.v1"
JSON_SUBPROTOCOL: Final = "proxyherd.json.v1"
_CLOSE_SECONDS: Final = 0.1
"""How long a server has to confirm that a WebSocket is closed; then the connection is closed without that."""

MOST_MESSAGE_BYTES: Final = 1 << 16
"""Bytes of a message that a server takes."""
_READ_BYTES: Final = 1 << 16
_CLOSED: Final = "closed the connection"
_DATA: Final = (1, 2)
"""The opcodes of messages, text and binary."""

_TOKEN_CODE: Final = 4401
"""The close code of a WebSocket whose token is not good any more."""


class ServerLink(Protocol):
    """A connection to a server."""

    called: str
    """The server's address, for errors."""
    ending: str
    """Why the connection has ended, once `receive` has said so."""

    async def send(self, lines: list[bytes]) -> None:
        """Send lines, each with its LF. Raises OSError."""

    async def receive(self) -> bytes:
        """Return some bytes of answers; nothing at the end. Raises OSError, NotAllowed."""

    async def close(self) -> None:
        """Close the connection, whatever the server does."""


async def dial(
    endpoint: Endpoint,
    seconds: float,
    tls: ssl.SSLContext | None,
    token: str,
    most_bytes: int,
    subprotocol: str = LINES_SUBPROTOCOL,
) -> ServerLink:
    """Connect to a server, within so many seconds. `subprotocol`: of a WebSocket. Raises Unreachable, and NotAllowed if it refuses the token."""
    if endpoint.url:
        socket = await open_websocket(endpoint.url, subprotocol, seconds, tls, token, most_bytes)
        return (_WebSocketLink if subprotocol == LINES_SUBPROTOCOL else _JsonLink)(endpoint.url, *socket)
    loop = asyncio.get_running_loop()
    refusals: list[str] = []
    for address, until in shares(endpoint.addresses, loop.time() + seconds, loop.time):
        try:
            async with asyncio.timeout_at(until):
                found = await looked_up(loop, address.host, address.port, kind=SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            refusals.append(f"{address}: {reason_of(error)}")
            continue
        for host, by in shares(hosts_among(found), until, loop.time):
            try:
                async with asyncio.timeout_at(by):
                    return _StreamLink(address, *await _open_stream(address, host, tls))
            except (OSError, ValueError) as error:
                refusals.append(f"{address_and_host(address, host)}: {reason_of(error)}")
    raise Unreachable(*refusals)


async def _open_stream(
    address: Address, host: str, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if tls is None:
        return await asyncio.open_connection(host, address.port)
    return await asyncio.open_connection(host, address.port, ssl=tls, server_hostname=address.host)


class _StreamLink:
    def __init__(self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.called = str(address)
        has_tls = writer.get_extra_info("ssl_object") is not None
        self.ending = _CLOSED if has_tls else MUTE
        self._reader, self._writer = reader, writer

    async def send(self, lines: list[bytes]) -> None:
        self._writer.write(b"".join(lines))
        await self._writer.drain()

    async def receive(self) -> bytes:
        if data := await self._reader.read(_READ_BYTES):
            self.ending = _CLOSED
        return data

    async def close(self) -> None:
        self._writer.transport.abort()


class _Resolver:
    """Looks names up for aiohttp: at its end, a program does not wait for those that were given up."""

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises OSError."""
        found = await looked_up(asyncio.get_running_loop(), host, port, family, SOCK_STREAM)
        return [
            {
                "hostname": host,
                "host": f"{where[0]}%{where[3]}" if len(where) > 3 and where[3] else where[0],
                "port": where[1],
                "family": kind,
                "proto": proto,
                "flags": 0,
            }
            for kind, _, proto, _, where in found
        ]

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


async def open_websocket(
    url: str,
    subprotocol: str,
    seconds: float,
    tls: ssl.SSLContext | None,
    token: str,
    most_bytes: int,
    *,
    has_pings: bool = False,
) -> Socket:
    """Open a WebSocket, within so many seconds. `token`: "" for none. With `has_pings`, pings and pongs are received like
    other messages, and nobody answers for the caller. Raises Unreachable, NotAllowed.
    """
    import aiohttp  # noqa: PLC0415 - who has no WebSocket does not wait for it

    connector = aiohttp.TCPConnector(resolver=cast("AbstractResolver", _Resolver()))
    session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    options: dict[str, Any] = {} if tls is None else {"ssl": tls}
    try:
        async with asyncio.timeout(seconds):
            socket = await session.ws_connect(
                url,
                protocols=(subprotocol,),
                headers=headers,
                max_msg_size=most_bytes,
                autoping=not has_pings,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
                **options,
            )
    except (aiohttp.ClientError, OSError, ValueError) as error:
        failure = _failure(url, error, has_token=bool(token))
    except BaseException:
        await session.close()
        raise
    else:
        if socket.protocol != subprotocol:
            await close_websocket(session, socket)
            raise Unreachable(f"{url}: does not speak {subprotocol}")
        return session, socket
    await session.close()
    raise failure  # and not from the error: aiohttp's have the request, with the token


def _failure(url: str, error: Exception, *, has_token: bool) -> NotAllowed | Unreachable:
    status = getattr(error, "status", 0)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        wants = "does not allow this" if has_token else "wants a token, or does not allow this host"
        return NotAllowed(f"{url}: the server {wants} ({status})")
    reason = f"{url}: {f'answers {status}' if status else reason_of(error)}"
    return Unreachable(reason, wait=_retry_after(error))


def _retry_after(error: Exception) -> float:
    """Return after how many seconds a server wants to be asked again; 0 if it has not said."""
    said = str((getattr(error, "headers", None) or {}).get("Retry-After", ""))
    return float(said) if said.isascii() and said.isdecimal() and len(said) < 10 else 0.0


async def close_websocket(session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
    """Close a WebSocket and its session, whatever the server does."""
    try:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(2 * _CLOSE_SECONDS):
                await socket.close()
    finally:
        await session.close()


def ending_of(socket: aiohttp.ClientWebSocketResponse, said: object) -> str:
    """Return why a WebSocket has ended. `said`: the reason in its last message. Raises NotAllowed if it was the token."""
    reason = escaped(str(said or ""))[:MOST_SHOWN]
    if socket.close_code == _TOKEN_CODE:
        raise NotAllowed(f"the token is missing, or not good: {reason or _TOKEN_CODE}")
    return f"closed the WebSocket ({socket.close_code}{reason and ': '}{reason})"


class _WebSocketLink:
    def __init__(
        self, url: str, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse
    ) -> None:
        self.called = url
        self.ending = ""
        self._session, self._socket = session, socket

    async def send(self, lines: list[bytes]) -> None:
        message = bytearray()
        for line in lines:
            if len(message) + len(line) > MOST_MESSAGE_BYTES:
                await self._socket.send_bytes(bytes(message))
                message.clear()
            message += line
        await self._socket.send_bytes(bytes(message))

    async def receive(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type not in _DATA:
                self.ending = ending_of(self._socket, message.extra)
                return b""
            if data := message.data:
                return data if isinstance(data, bytes) else str(data).encode()

    async def close(self) -> None:
        await close_websocket(self._session, self._socket)


class _JsonLink(_WebSocketLink):
    async def send(self, lines: list[bytes]) -> None:
        for line in lines:
            await self._socket.send_str(line[:-1].decode())

    async def receive(self) -> bytes:
        said = await super().receive()
        return said and said.replace(b"\n", b" ") + b"\n"
