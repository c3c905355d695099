"""WebSocket frames (RFC 6455), as a server reads and writes them: bytes become messages, and messages bytes.

- Clients mask their frames, and servers don't. There are no extensions, so no reserved bits.
- A message may be cut into fragments, with control frames between them.
- A message has at most `MESSAGE_BYTES`. A frame that would exceed this is refused as soon as its header is there.
- Text is UTF-8.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from proxyherd.web.ops import MESSAGE_BYTES

_CONTROL_BYTES: Final = 125
_FIN, _RESERVED, _OPCODE, _MASKED, _SIZE = 0x80, 0x70, 0x0F, 0x80, 0x7F
_SHORTEST: Final = 6
"""Bytes of a masked frame without payload."""

_USUAL, _USUAL_BINARY = (0x81, 0x82), 0x82
"""The first bytes of a whole message."""

_TEXT: Final = 1
"""For frequent steps: before Python 3.12, it takes ten times as long to read it from its class."""

_head = struct.Struct("<BBI").unpack_from
"""The beginning of a short frame, with its mask."""

_USUAL_BYTES: Final = _SHORTEST + _CONTROL_BYTES
"""Bytes of a short frame, at most."""

_ONES: Final = tuple(sum(1 << at for at in range(0, 8 * size, 32)) for size in range(_CONTROL_BYTES + 1))
"""By bytes: the number that repeats a mask so often when multiplied with it."""


class Opcode(enum.IntEnum):
    """What a frame is."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Code(enum.IntEnum):
    """Why a WebSocket closes."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    NO_CODE = 1005
    NOT_UTF8 = 1007
    RULE_BROKEN = 1008
    TOO_LARGE = 1009
    RESTART = 1012
    TRY_LATER = 1013
    TOKEN = 4401
    TOO_SLOW = 4408
    OVER_RATE = 4429


_SENT_CODES: Final = frozenset([*range(1000, 1004), *range(1007, 1015)])
"""What a close frame may have below 3000."""


class Message(NamedTuple):
    """A whole message, or a control frame."""

    opcode: int
    data: bytes


class WebSocketError(Exception):
    """A client has broken the protocol; the connection closes with this code."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FrameReader:
    """Puts messages together from what a client sends."""

    __slots__ = ("_at", "_data", "_opcode", "_partial", "fragments")

    def __init__(self) -> None:
        self.fragments = 0  # that were read, and end no message; whoever reads sets it to 0
        self._data: bytes | bytearray = b""
        self._at = 0  # of the data, what has been read
        self._opcode = 0  # of the message that has begun; 0: none has
        self._partial = bytearray()  # what has come of it

    @property
    def waiting(self) -> int:
        """How many bytes have been received and not read yet."""
        return len(self._data) - self._at

    def receive(self, data: bytes) -> int:
        """Put aside what arrived; return how many bytes wait now."""
        if self._at == len(self._data):
            self._data, self._at = data, 0
            return len(data)
        if not isinstance(self._data, bytearray):  # a copy, to which more can be added
            self._data = bytearray(self._data)
        del self._data[: self._at]
        self._at = 0
        self._data += data
        return len(self._data)

    def read_usual(self, most: int) -> tuple[int, list[bytes]]:
        """Read up to `most` messages of one kind that are as nearly all are: short, and whole, in text of plain ASCII or
        binary. Return their opcode, and what is in them. `read` reads what this does not, and costs more.
        """
        data, at, payloads = self._data, self._at, list[bytes]()
        if self._opcode or len(data) - at < _SHORTEST or data[at] not in _USUAL:
            return 0, payloads
        data = bytes(data[at : at + most * _USUAL_BYTES])
        at, end, first, from_bytes = 0, len(data), data[0], int.from_bytes
        for _ in range(most):
            begin = at + _SHORTEST
            if begin > end:
                break
            opening, second, mask = _head(data, at)
            size = second - _MASKED
            if opening != first or not 0 <= size <= _CONTROL_BYTES or begin + size > end:
                break
            at, words = begin + size, size + 3 & ~3  # those behind the payload are cut off again
            masked = from_bytes(data[begin : begin + words], "little")
            payloads.append((masked ^ mask * _ONES[size]).to_bytes(words, "little")[:size])
        if first != _USUAL_BINARY and not b"".join(payloads).isascii():
            return 0, []
        self._at += at
        self._forget_all_that_is_read()
        return first & _OPCODE, payloads

    def read(self, most: int) -> tuple[list[Message], bool, WebSocketError | None]:
        """Read up to `most` frames, and few bytes. Return the messages and control frames that are complete, whether
        there may be more, and the error behind them, if there is one.
        """
        data, messages = self._data, list[Message]()
        at, end = self._at, len(self._data)
        enough = at + MESSAGE_BYTES
        try:
            for _ in range(most):
                if end - at < _SHORTEST:
                    self._forget_all_that_is_read()
                    self._check_begun(data, at)
                    return messages, False, None
                size, begin = self._header(data, at)
                if end < begin + size:
                    return messages, False, None
                first, at = data[at], begin + size
                payload = _unmasked(data[begin:at], data[begin - 4 : begin])
                self._at = at
                self._put(first, payload, messages)
                if at > enough:
                    break
        except WebSocketError as error:
            return messages, False, error
        return messages, True, None

    def _forget_all_that_is_read(self) -> None:
        """Keep nothing of large messages while the client is silent."""
        if self._at == len(self._data):
            self._data, self._at = b"", 0

    def _check_begun(self, data: bytes | bytearray, at: int) -> None:
        """Check a frame of which only the beginning is there. Raises WebSocketError."""
        if len(data) - at >= 2:
            self._header(data, at)

    def _header(self, data: bytes | bytearray, at: int) -> tuple[int, int]:
        """Return the size of the frame that begins there, and where its payload begins. Raises WebSocketError."""
        size, begin = data[at + 1] & _SIZE, at + 2
        if size > _CONTROL_BYTES:
            short = size == _CONTROL_BYTES + 1
            begin += 2 if short else 8
            if len(data) >= begin:
                size = int.from_bytes(data[at + 2 : begin], "big")
                if size <= (_CONTROL_BYTES if short else 0xFFFF):
                    raise WebSocketError(Code.PROTOCOL_ERROR, "a frame's length is not in its shortest form")
        self._check(data[at], data[at + 1], size)
        return size, begin + 4

    def _check(self, first: int, second: int, size: int) -> None:
        """Check the header of a frame. Raises WebSocketError."""
        opcode = first & _OPCODE
        if not second & _MASKED:
            raise WebSocketError(Code.PROTOCOL_ERROR, "a client's frame is not masked")
        if first & _RESERVED:
            raise WebSocketError(Code.PROTOCOL_ERROR, "a reserved bit is set")
        if opcode >= Opcode.CLOSE:
            if opcode > Opcode.PONG or not first & _FIN or size > _CONTROL_BYTES:
                raise WebSocketError(Code.PROTOCOL_ERROR, "a control frame is unknown, cut, or too large")
            return
        if opcode > Opcode.BINARY or (opcode == Opcode.CONTINUATION) is not bool(self._opcode):
            raise WebSocketError(Code.PROTOCOL_ERROR, "a frame does not continue what has begun")
        if size + len(self._partial) > MESSAGE_BYTES:
            raise WebSocketError(Code.TOO_LARGE, f"a message has at most {MESSAGE_BYTES:,} bytes")

    def _put(self, first: int, payload: bytes, messages: list[Message]) -> None:
        """Add a frame, and the message or the control frame that it ends. Raises WebSocketError."""
        opcode = first & _OPCODE
        if opcode >= Opcode.CLOSE:
            if opcode == Opcode.CLOSE:
                _check_close(payload)
            messages.append(Message(opcode, payload))
            return
        if not first & _FIN:
            self._opcode = self._opcode or opcode
            self._partial += payload
            self.fragments += 1
            return
        if self._opcode:
            self._partial += payload
            opcode, payload = self._opcode, bytes(self._partial)
            self._opcode = 0
            self._partial.clear()
        if opcode == Opcode.TEXT:
            _check_utf8(payload)
        messages.append(Message(opcode, payload))


class NoFrameReader(FrameReader):
    """Drops what a client sends that has broken the protocol: where its next frame begins is not known."""

    def receive(self, _: bytes) -> int:
        """Put nothing aside."""
        return 0


def frame(opcode: int, data: bytes) -> bytes:
    """Return a server's frame: a whole message, or a control frame."""
    size = len(data)
    if size <= _CONTROL_BYTES:
        return b"%c%c%b" % (_FIN | opcode, size, data)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (_FIN | opcode, size.to_bytes(2, "big"), data)
    return b"%c\x7f%b%b" % (_FIN | opcode, size.to_bytes(8, "big"), data)


def message(opcode: int, data: bytes) -> bytes:
    """Return the frame of an answer to a message of this kind. What is not UTF-8 cannot be text, and leaves as binary."""
    if opcode == _TEXT and not data.isascii() and not _is_utf8(data):
        opcode = Opcode.BINARY
    size = len(data)
    return b"%c%c%b" % (_FIN | opcode, size, data) if size <= _CONTROL_BYTES else frame(opcode, data)


def close_frame(code: int, reason: str = "") -> bytes:
    """Return the frame that closes a WebSocket."""
    if code == Code.NO_CODE:
        return frame(Opcode.CLOSE, b"")
    return frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason.encode()[: _CONTROL_BYTES - 2])


def code_of(payload: bytes) -> int:
    """Return the code of a client's close frame."""
    return int.from_bytes(payload[:2], "big") if payload else Code.NO_CODE


def _check_close(payload: bytes) -> None:
    code = code_of(payload)
    if payload and (len(payload) < 2 or not (code in _SENT_CODES or 3000 <= code < 5000)):
        raise WebSocketError(Code.PROTOCOL_ERROR, "a close frame has a code that nobody may send")
    _check_utf8(payload[2:])


def _check_utf8(data: bytes) -> None:
    if not _is_utf8(data):
        raise WebSocketError(Code.NOT_UTF8, "text is not UTF-8")


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unmasked(data: bytes | bytearray, mask: bytes | bytearray) -> bytes:
    size = len(data)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(data, "little") ^ key).to_bytes(size, "little")
