"""How commands are spelled to a contender, and what a right answer is: lines, also in WebSocket frames; requests of HTTP;
an echo of lines; or Redis' RESP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from contenders import redis_store
from contenders.rules import PLACES
from plan import Report

LINE_FEED: Final = b"\n"
BLANK_LINE: Final = b"\n\n"
BRACE: Final = b"}"
"""The end of an object in JSON."""

_AT: Final = re.compile(rb"AT [A-Za-z]+ [+-][0-9]+\.[0-9]{9} ")
_QUESTION_ENDS: Final = b"\n" + PLACES + b"\n\n"


class Carrier(NamedTuple):
    """How reports travel in another protocol than lines. `carry` spells what carries some at once: one, or with `is_batch`
    as many as are outstanding. `handshake`: a request by which a connection begins.
    """

    carry: Callable[[Sequence[Report]], bytes]
    is_batch: bool = False
    handshake: bytes = b""
    is_framed: bool = False
    """Whether answers come in WebSocket frames, which count for nothing."""

    def carried(self, reports: Sequence[Report], outstanding: int) -> list[bytes]:
        """Return what is sent for each report: nothing, until those are there that travel with it."""
        size = outstanding if self.is_batch else 1
        carried = [b""] * len(reports)
        for first in range(0, len(reports), size):
            group = reports[first : first + size]
            carried[first + len(group) - 1] = self.carry(group)
        return carried


class Wire(NamedTuple):
    """One spelling. `*_marks`: the marks in an answer, by which answers are counted; a mark is a line feed, or two of them
    where answers differ in length, or a byte that occurs once.
    """

    report: Callable[[Report], bytes]
    report_marks: int
    question: Callable[[Report], bytes]
    question_marks: int
    is_right: Callable[[bytes, bytes], bool]
    """Whether an answer, the second argument, is one to the command, the first."""
    mark: bytes = LINE_FEED
    carrier: Carrier | None = None


def spell_iamat(report: Report) -> bytes:
    """Return the line that reports."""
    return b"IAMAT %b %b %b\n" % report


def spell_whatsat(report: Report) -> bytes:
    """Return the line that asks about a client, so that nobody has to be asked for places."""
    return b"WHATSAT %b 0 0\n" % report.client


def is_at_answer(command: bytes, answer: bytes) -> bool:
    """Return whether an answer is the AT line of that report, or of that client with no places."""
    at = _AT.match(answer)
    if at is None:
        return False
    if command.startswith(b"IAMAT "):
        return answer[at.end() :] == command[6:]
    client = command.split()[1]
    return answer.startswith(client + b" ", at.end()) and answer.endswith(_QUESTION_ENDS)


def instant(answer: bytes) -> tuple[bytes, int]:
    """Return which server took the report of an AT line, and when, in nanoseconds: its clock less the client's, and that."""
    _, server, difference, _, _, sent = answer.split()
    return server, int(difference.replace(b".", b"")) + int(sent.replace(b".", b""))


def spell_invalid(report: Report) -> bytes:
    """Return a line that is no command: by turns its word is unknown, its time missing, its latitude out of bounds."""
    return _INVALID[report.location[-1] % len(_INVALID)] % report.client


_INVALID: Final = (
    b"WHEREIS %b +34.068930-118.445127 1621464827.959498503\n",
    b"IAMAT %b +34.068930-118.445127\n",
    b"IAMAT %b +94.068930-118.445127 1621464827.959498503\n",
)


def is_invalid_answer(command: bytes, answer: bytes) -> bool:
    """Return whether an answer repeats the line."""
    return answer == b"? " + command


def spell_places(report: Report) -> bytes:
    """Return the line that asks for five places within ten kilometres of a client."""
    return b"WHATSAT %b 10 5\n" % report.client


def is_places_answer(command: bytes, answer: bytes) -> bool:
    """Return whether an answer is the AT line of that client and five places."""
    at_line, _, places = answer.partition(b"\n")
    return (
        _AT.match(at_line) is not None
        and at_line.split()[3] == command.split()[1]
        and len(json.loads(places)["results"]) == 5
    )


# The web. ----------------------------------------------------------------------------------------------------

_MASK: Final = b"\x5a\xa5\x3c\xc3"
_HANDSHAKE: Final = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: proxyherd.lines.v1\r\n\r\n"
)


class Unframer:
    """Keeps what a server's frames carry, and drops their headers."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0  # bytes of the frame that has begun

    def payload(self, data: bytes) -> bytes:
        """Return what the frames carry in this part of them."""
        parts = []
        while data:
            if self._left:
                parts.append(data[: self._left])
                data, self._left = data[self._left :], self._left - len(parts[-1])
                continue
            self._header, data = self._header + data[:1], data[1:]
            size = self._header[1] if len(self._header) > 1 else 127
            more = {126: 2, 127: 8}.get(size, 0)
            if len(self._header) == 2 + more:
                self._left = int.from_bytes(self._header[2:], "big") if more else size
                self._header = b""
        return b"".join(parts)


def frame(reports: Sequence[Report]) -> bytes:
    """Return the frame of a client that reports once."""
    [report] = reports
    line = spell_iamat(report)
    size = bytes([0x80 | len(line)]) if len(line) < 126 else b"\xfe" + len(line).to_bytes(2, "big")
    return b"\x81" + size + _MASK + bytes(byte ^ _MASK[at % 4] for at, byte in enumerate(line))


def _position(report: Report) -> bytes:
    """Return the keys and values of a location and its time, in JSON."""
    lat, lon = report.location[1:].split(b"-")
    return b'"lat":%b,"lon":-%b,"time":%b' % (lat, lon, report.time)


def _request(method: bytes, target: bytes, body: bytes) -> bytes:
    return (
        b"%b %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (method, target, len(body), body)
    )


def spell_put(reports: Sequence[Report]) -> bytes:
    """Return the request that reports once."""
    [report] = reports
    return _request(b"PUT", b"/v1/clients/" + report.client, b"{%b}" % _position(report))


def spell_batch(reports: Sequence[Report]) -> bytes:
    """Return the request that reports a batch."""
    objects = [b'{"client":"%b",%b}' % (report.client, _position(report)) for report in reports]
    return _request(b"POST", b"/v1/reports", b"[%b]" % b",".join(objects))


def is_web_answer(command: bytes, answer: bytes) -> bool:
    """Return whether an answer is that to a report by HTTP, or the part of one to a batch. Behind the last part of a batch is
    a bracket.
    """
    if not command:
        return answer == b"]"
    head, _, _ = answer.rpartition(b"{")
    if head.removeprefix(b"]").startswith(b"HTTP/"):
        if not head.removeprefix(b"]").startswith(b"HTTP/1.1 200 "):
            return False
    elif head.strip() != b",":
        return False
    said = json.loads(answer[len(head) :])
    return said["outcome"] == "stored" and is_at_answer(command, said["at"].encode() + LINE_FEED)


WIRES: Final = {
    "lines": Wire(spell_iamat, 1, spell_whatsat, PLACES.count(b"\n") + 3, is_at_answer),
    "invalid": Wire(spell_iamat, 1, spell_invalid, 1, is_invalid_answer),
    "places": Wire(spell_iamat, 0, spell_places, 1, is_places_answer, BLANK_LINE),
    "websocket": Wire(
        spell_iamat,
        1,
        spell_whatsat,
        1,
        is_at_answer,
        carrier=Carrier(frame, handshake=_HANDSHAKE, is_framed=True),
    ),
    "put": Wire(spell_iamat, 1, spell_whatsat, 1, is_web_answer, BRACE, Carrier(spell_put)),
    "batch": Wire(
        spell_iamat, 1, spell_whatsat, 1, is_web_answer, BRACE, Carrier(spell_batch, is_batch=True)
    ),
    "echo": Wire(spell_iamat, 1, spell_whatsat, 1, bytes.__eq__),
    "resp": Wire(
        lambda report: redis_store.spell_report(*report),
        redis_store.REPLY_LINES,
        lambda report: redis_store.spell_question(report.client),
        redis_store.REPLY_LINES,
        redis_store.is_right,
    ),
    "resp-position": Wire(
        lambda report: redis_store.spell_position(report.client, report.location),
        1,
        lambda report: redis_store.ask_position(report.client),
        redis_store.POSITION_LINES,
        redis_store.is_position,
    ),
}
