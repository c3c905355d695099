"""One exchange with a server that is just being met: what was sent on a connection of its own, and what came."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from proxyherd.grading.answers import AtLine, parse_at_line
from proxyherd.grading.connections import Connection
from proxyherd.grading.dialect import CRLF, LF
from proxyherd.grading.faults import Fault, shown
from proxyherd.grading.servers import clock

FIRST_SECONDS: Final = 2.0
"""How long to wait for an answer before something else is tried. No server is accused for that: it is asked again, and
then has all the time that an answer may take."""

PAUSES: Final = 3
"""A multiple of the time that a first answer took: how long a second one may take behind it, if that is more than
FIRST_SECONDS."""

GAP_SECONDS: Final = 0.1
"""The pause within a line that comes in two packets."""


class Exchange(Struct, frozen=True):
    """What was sent on a connection, and what came of it."""

    pieces: tuple[bytes, ...]
    half_close: bool
    """Whether the sending half was closed behind them."""
    data: bytes = b""
    has_ended: bool = False
    seconds: float = 0.0
    end: str = ""
    """How the server itself has ended instead of an answer; "" if it has not."""

    @property
    def sent(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def got(self) -> str:
        if self.data:
            return shown(self.data)
        if self.end:
            return self.end
        return "the end of the connection" if self.has_ended else "nothing"

    @property
    def at_lines(self) -> list[AtLine]:
        found = (parse_at_line(line) for line in re.split(rb"[\r\n]+", self.data))
        return [one for one in found if one is not None]


def spoken_among(tried: list[tuple[bytes, bool, Exchange]]) -> list[tuple[bytes, bool, Exchange]]:
    """Return the ways of reporting that were answered, with AT lines if there are some."""
    return [one for one in tried if one[2].at_lines] or [one for one in tried if one[2].data]


def has_lines(count: int) -> Callable[[bytes], bool]:
    """Return a test whether so many lines have come, the last one with its end."""
    return lambda data: data.endswith(LF) and data.strip(CRLF).count(LF) >= count - 1


async def converse(
    connection: Connection,
    pieces: tuple[bytes, ...],
    half_close: bool,
    seconds: float,
    is_whole: Callable[[bytes], bool],
    reports: int,
) -> Exchange:
    """Send pieces with pauses, and return what comes. Where several reports are to be answered, a slow server may pause
    between the answers.
    """
    began, data = clock(), b""
    try:
        for number, piece in enumerate(pieces):
            await asyncio.sleep(GAP_SECONDS if number else 0)
            await connection.send(piece)
        if half_close:
            connection.half_close()
        data = await connection.whatever(seconds, is_whole)
        pause = min(max(FIRST_SECONDS, PAUSES * (clock() - began)), seconds)
        while data.count(b"AT ") < reports > 1 and (more := await connection.whatever(pause)):
            data += more
        has_ended = connection.has_ended
    except Fault as fault:
        has_ended = fault.cut
    return Exchange(pieces, half_close, data, has_ended, clock() - began)
