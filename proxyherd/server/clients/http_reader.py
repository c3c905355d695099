"""Requests of HTTP/1.1, split by aiohttp's parser, one at a time, within limits."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, HttpVersion10, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import StreamReader

from proxyherd.web import problems
from proxyherd.web.bodies import BODY_BYTES
from proxyherd.web.problems import Problem
from proxyherd.web.requests import ReadRequest
from proxyherd.web.transfers import check_transfer

_HEADER_BYTES: Final = 16_384
"""Bytes of the request line, and of a header: room for an ID of 5,000 bytes, percent-encoded."""

_MOST_HEADERS: Final = 64

_HEAD_BYTES: Final = 65_536
"""Bytes of a request line with all headers; or of the trailers, behind chunks. The parser keeps them twice, for as long as a
client likes to send them."""

_BODY_PIECE_BYTES: Final = 65_536
"""Bytes of a body without chunks that the parser gets at once."""

_PIECE_BYTES: Final = 4_096
"""All others. The parser keeps, and copies with each request, what it has not read of them. And chunks of one byte take a
hundred times as long as a body without chunks: half a millisecond for these."""

_PIECE_LINES: Final = 64
"""Lines that take as much work as a piece of chunks."""

ALL_BODY_BYTES: Final = 64 << 20
"""Bytes of large bodies that are on their way, over all connections of a server. Each alone may have `BODY_BYTES`."""

SMALL_BODY_BYTES: Final = 65_536
"""Bytes of each body that do not count there: whoever sends little is not refused because others send much."""

_SHARES: Final = 4
"""A divisor: this part of it is the most that one address, or one subject of tokens, may have of it."""

_TOO_LARGE: Final = Problem(problems.LARGE, f"A body has at most {BODY_BYTES:,} bytes.")


_LARGE_HEAD: Final = Problem(
    problems.REQUEST, f"The request line and all headers have at most {_HEAD_BYTES:,} bytes."
)

_NO_ROOM: Final = Problem(problems.NOT_TAKEN, "Too many large bodies are on their way to this server.")


class BodyRoom:
    """The room of one server for large bodies that are on their way. `left`: bytes. `taken`: bytes of each payer; a body of
    nobody in particular, whose payer is "", only counts for all.
    """

    __slots__ = ("_share", "left", "taken")

    def __init__(self, left: int = ALL_BODY_BYTES) -> None:
        self.left = left
        self.taken: dict[str, int] = {}
        self._share = left // _SHARES

    def take(self, size: int, payer: str) -> bool:
        """Take so many bytes, or none at all if that is too much. Return whether they were taken."""
        taken = self.taken.get(payer, 0) + size
        if size > self.left or (payer and taken > self._share):
            return False
        self.left -= size
        if payer and size:
            self.taken[payer] = taken
        return True

    def give_back(self, size: int, payer: str) -> None:
        """Give back so many bytes that were taken."""
        self.left += size
        if payer in self.taken:
            self.taken[payer] -= size
            if not self.taken[payer]:
                del self.taken[payer]


class HttpReader:
    """Splits what one client sends into requests. Call `close` at the end."""

    __slots__ = (
        "_body",
        "_continues",
        "_data",
        "_head",
        "_head_bytes",
        "_parser",
        "_payer",
        "_payload",
        "_problem",
        "_rest",
        "_room",
        "_taken",
        "_told",
        "spent",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, room: BodyRoom) -> None:
        self._room = room
        self._taken = 0  # of this room
        self._payer = ""  # who has it
        self.spent = 0
        self._data = bytearray()  # received and not read yet
        self._parser = HttpRequestParser(
            cast("BaseProtocol", self),
            loop,
            2 * BODY_BYTES,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
            max_headers=_MOST_HEADERS,
            auto_decompress=False,
            max_msg_queue_size=1,
        )
        self._head: RawRequestMessage | None = None  # of the next request
        self._head_bytes = 0  # since it, or a piece of its body, has come
        self._told = False  # without its body
        self._payload: StreamReader | None = None  # its body, as far as the parser has it
        self._body = bytearray()  # likewise, taken out of there
        self._problem: Problem | None = None  # behind the next request, or without it
        self._continues = False
        self._rest = b""  # behind a request that asks for another protocol

    @property
    def waiting(self) -> int:
        """How many bytes have been received and not read yet."""
        return len(self._data)

    @property
    def more(self) -> bool:
        """Whether there may be another request."""
        return bool(self._data) or self._problem is not None or (self.begun and self._is_whole())

    @property
    def begun(self) -> bool:
        """Whether the headers of a request are there."""
        return self._head is not None

    def head(self) -> ReadRequest | None:
        """Return the request whose body is on its way, without the body, once; None if there is none."""
        told, self._told = self._told, self._head is not None
        return None if told or self._head is None else _request(self._head, b"")

    def charge(self, payer: str) -> None:
        """Let the body that is on its way count for its sender; "": for nobody in particular."""
        self._room.give_back(self._taken, self._payer)
        self._payer = payer
        if not self._room.take(self._taken, payer):
            self._taken, self._problem = 0, _NO_ROOM

    def receive(self, data: bytes) -> None:
        """Put aside what arrived."""
        self._data += data

    def read(self, most: int) -> ReadRequest | None:
        """Return the next request, None if it is not there yet, or if `most` is spent. Raises Problem if this is no
        request; then the connection cannot go on.
        """
        while not self._is_whole():
            if self._problem is not None:
                raise self._problem
            if not self._data or self.spent >= most:
                return None
            size = _PIECE_BYTES
            if self._head is not None:
                if self._head.chunked:
                    self.spent += _PIECE_LINES
                else:
                    size = _BODY_PIECE_BYTES
            data = bytes(self._data[:size])
            del self._data[:size]
            if size == _PIECE_BYTES:
                self._head_bytes += len(data)
            self._feed(data)
            if self._head_bytes > _HEAD_BYTES:
                self._problem = _LARGE_HEAD
        head, body = self._head, bytes(self._body)
        assert head is not None
        self.close()
        self._parser.message_consumed()
        self._feed(b"")  # then it is known whether there is another
        return _request(head, body)

    def continues(self) -> bool:
        """Return whether the client waits to be told to send the body, once."""
        continues, self._continues = self._continues, False
        return continues

    def rest(self) -> bytes:
        """Return what is behind a request that asks for another protocol."""
        rest = self._rest + self._data
        self._data.clear()
        return rest

    def close(self) -> None:
        """Forget the request that is on its way."""
        if self._taken:
            self._room.give_back(self._taken, self._payer)
        self._taken, self._payer, self._told = 0, "", False
        self._head, self._payload, self._body = None, None, bytearray()

    # Calls from the parser, which would pause for bodies beyond its limit: they are refused before. -----------

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self, *, resume_parser: bool = True) -> None:
        """Do nothing."""

    # -----------------------------------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        try:
            messages, _, rest = self._parser.feed_data(data)
        except HttpProcessingError as error:
            large = isinstance(error, LineTooLong)
            text = (
                "The request line or a header is too long." if large else "This is not a request in HTTP/1.1."
            )
            self._problem = Problem(problems.REQUEST, text)
            return
        if rest:
            self._rest += rest
        if messages:
            self._head_bytes = 0
            head, payload = messages[0]
            try:
                waits = check_transfer(head.method, head.version, head.headers)
            except Problem as problem:
                self._problem = problem
            else:
                self._continues = waits and not payload.is_eof()
                self._head, self._payload = head, payload

    def _is_whole(self) -> bool:
        """Take over the body of the next request, as far as it is there. Return whether it is all there."""
        payload = self._payload
        if payload is None or (self._problem is not None and not payload.is_eof()):
            return False
        if payload.exception() is not None:
            self._problem = Problem(problems.REQUEST, "The body is not in the form of its headers.")
            return False
        data = payload.read_nowait(-1)
        size = len(self._body) + len(data)
        if size > BODY_BYTES:
            self._problem = _TOO_LARGE
            return False
        if (more := size - SMALL_BODY_BYTES - self._taken) > 0:
            if not self._room.take(more, self._payer):
                self._problem = _NO_ROOM
                return False
            self._taken += more
        if data:
            self._body += data
            self._head_bytes = 0
        return bool(payload.is_eof())


def _request(head: RawRequestMessage, body: bytes) -> ReadRequest:
    is_old = head.version == HttpVersion10
    # The parser takes the last trailer behind chunks for a header of the next request, so there is none.
    closes = head.should_close or head.chunked
    return ReadRequest(
        head.method, head.path, head.headers, body, is_old=is_old, closes=closes, upgrades=head.upgrade
    )
