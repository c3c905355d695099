"""A client of a server's web port: a request a connection, and WebSockets.

The rule: what comes is untrusted. Each wait has a deadline, each answer a limit, and what is no answer is a fault.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple

from proxyherd.grading.connections import reason
from proxyherd.grading.faults import Fault, shown

_MOST_BYTES: Final = 1 << 22
"""Bytes of a body or a message that are read."""

_MOST_HEADERS: Final = 100
_ACCEPT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_WITHOUT_BODY: Final = frozenset([204, 304])
_TEXT: Final = 1
_CLOSE: Final = 8


class _NoAnswerError(Exception):
    """What has come is no answer; the text says what it is."""


class HttpAnswer(NamedTuple):
    """An answer to a request; headers by their names in small letters."""

    request: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"{self.status} with {shown(self.body)}"


class WebPort:
    """The web port of one server. `dial` opens a connection, as asyncio.open_connection does."""

    def __init__(
        self, name: str, host: str, port: int, *, seconds: float = 5.0, dial: Any = asyncio.open_connection
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self._host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._seconds = seconds
        self._dial = dial

    async def listens(self) -> bool:
        """Return whether anything accepts a connection there."""
        try:
            async with self._open(b""):
                return True
        except Fault:
            return False

    async def ask(self, method: str, path: str, body: object = None, *headers: str) -> HttpAnswer:
        """Send a request on its own connection, with a body that is spelled as JSON unless it is bytes. Raises Fault."""
        data = _request(method, path, self._host, body, *headers)
        async with self._open(data) as (reader, writer):
            writer.write(data)
            async with self.reading(data):
                return await _read_answer(reader, data)

    async def expect(
        self, status: int, method: str, path: str, body: object = None, *headers: str
    ) -> HttpAnswer:
        """Do so, and check the status of the answer. Raises Fault."""
        answer = await self.ask(method, path, body, *headers)
        if answer.status != status:
            raise self.fault(answer, f"status {status}")
        return answer

    def fault(self, answer: HttpAnswer, expected: str) -> Fault:
        """Return the fault of an answer."""
        return Fault(self.name, answer.request, expected, str(answer))

    def content(self, answer: HttpAnswer, content_type: str = "application/json") -> Any:
        """Return the JSON of an answer. Raises Fault if it has none, or another type."""
        if answer.headers.get("content-type", "").partition(";")[0] != content_type:
            raise self.fault(answer, f"the type {content_type}")
        try:
            return json.loads(answer.body, parse_float=str)
        except (ValueError, RecursionError):
            raise self.fault(answer, "JSON") from None

    @contextlib.asynccontextmanager
    async def websocket(self, protocol: str) -> AsyncIterator[WebSocketClient]:
        """Lend a WebSocket that speaks this protocol. Raises Fault."""
        key = base64.b64encode(secrets.token_bytes(16))
        wanted = base64.b64encode(hashlib.sha1(key + _ACCEPT, usedforsecurity=False).digest()).decode()
        data = _request(
            *("GET", "/v1/ws", self._host, None),
            *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
            *(f"Sec-WebSocket-Key: {key.decode()}", f"Sec-WebSocket-Protocol: {protocol}"),
        )
        async with self._open(data) as (reader, writer):
            writer.write(data)
            async with self.reading(data):
                answer = await _read_answer(reader, data)
            headers = answer.headers
            if (answer.status, headers.get("sec-websocket-accept")) != (101, wanted):
                raise self.fault(answer, "status 101, and the Sec-WebSocket-Accept that fits")
            if headers.get("sec-websocket-protocol") != protocol:
                raise self.fault(answer, f"the protocol {protocol}")
            yield WebSocketClient(self, reader, writer)

    @contextlib.asynccontextmanager
    async def _open(self, data: bytes) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
        try:
            async with asyncio.timeout(self._seconds):
                reader, writer = await self._dial(self.host, self.port)
        except TimeoutError as error:
            raise Fault(self.name, data, "a connection", f"nothing within {self._seconds:g} s") from error
        except OSError as error:
            where = f"{reason(error)} at its web port, {self._host}"
            raise Fault(self.name, data, "a connection", where) from error
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def reading(self, data: bytes) -> AsyncIterator[None]:
        """Make a fault of whatever keeps an answer from being read."""
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError as error:
            raise Fault(self.name, data, "an answer", f"nothing whole within {self._seconds:g} s") from error
        except asyncio.IncompleteReadError as error:
            raise Fault(self.name, data, "an answer", f"the end, behind {shown(error.partial)}") from error
        except asyncio.LimitOverrunError as error:
            raise Fault(self.name, data, "an answer", "a line that is too long") from error
        except OSError as error:
            raise Fault(self.name, data, "an answer", reason(error)) from error
        except _NoAnswerError as error:
            raise Fault(self.name, data, "an answer", str(error)) from error


class WebSocketClient:
    """A WebSocket to a server: messages of text."""

    def __init__(self, port: WebPort, reader: StreamReader, writer: StreamWriter) -> None:
        self._port = port
        self._reader = reader
        self._writer = writer

    async def ask(self, message: bytes) -> bytes:
        """Send a message; return the next one that comes. Raises Fault."""
        self._send(message)
        async with self._port.reading(message):
            return await self._hear()

    async def ask_lines(self, *lines: bytes) -> list[bytes]:
        """Send lines in one message; return as many lines of the answer, in however many messages. Raises Fault."""
        message, data = b"\n".join(lines), b""
        self._send(message)
        async with self._port.reading(message):
            while data.count(b"\n") < len(lines):
                data += await self._hear()
        return data.split(b"\n")[:-1]

    def _send(self, message: bytes) -> None:
        mask, size = b"grad", len(message)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(message))
        long = b"" if size < 126 else size.to_bytes(2, "big")
        self._writer.write(bytes([0x80 | _TEXT, 0x80 | (126 if long else size)]) + long + mask + masked)

    async def _hear(self) -> bytes:
        first, size = await self._reader.readexactly(2)
        if size > 125:
            size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
        if size > _MOST_BYTES or first != 0x80 | _TEXT:
            what = "a close frame" if first & 15 == _CLOSE else f"a frame that begins with {first:#04x}"
            raise _NoAnswerError(f"{what} of {size} bytes")
        return await self._reader.readexactly(size)


def _request(method: str, path: str, host: str, body: object, *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1"]
    if not any(header.startswith("Host:") for header in headers):
        lines.append(f"Host: {host}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    if not any(header.startswith("Connection:") for header in headers):
        lines.append("Connection: close")
    return "\r\n".join([*lines, *headers, "", ""]).encode() + data


async def _read_answer(reader: StreamReader, request: bytes) -> HttpAnswer:
    """Read an answer with a Content-Length, or up to its end. Raises _NoAnswerError, and what a reader raises."""
    version, status, *_ = [*(await reader.readuntil(b"\n")).split(), b"", b""]
    if not (version.startswith(b"HTTP/1.") and status.isdigit() and len(status) == 3):
        raise _NoAnswerError("no answer of HTTP")
    headers: dict[str, str] = {}
    while line := (await reader.readuntil(b"\n")).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
        if len(headers) > _MOST_HEADERS:
            raise _NoAnswerError(f"more than {_MOST_HEADERS} headers")
    if int(status) < 200 or int(status) in _WITHOUT_BODY:
        return HttpAnswer(request, int(status), headers, b"")
    if (length := headers.get("content-length")) is not None:
        if not (length.isascii() and length.isdigit() and len(length) < 16 and int(length) <= _MOST_BYTES):
            raise _NoAnswerError(f"a body of {shown(length.encode())} bytes")
        return HttpAnswer(request, int(status), headers, await reader.readexactly(int(length)))
    body = b""
    while some := await reader.read(1 << 16):
        body += some
        if len(body) > _MOST_BYTES:
            raise _NoAnswerError(f"a body of more than {_MOST_BYTES} bytes")
    return HttpAnswer(request, int(status), headers, body)
