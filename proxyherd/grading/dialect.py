"""How a server wants to be spoken to, and how it answers. Pure.

A `Dialect` is found out when a server is met (meeting.py). Its departures from the protocol are faults of form, one for
each form; everything else that is judged talks in the server's dialect.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from msgspec import Struct

from proxyherd.grading.answers import equal_as_floats

LF: Final = b"\n"
CRLF: Final = b"\r\n"


class Echo(Enum):
    """What comes back for an invalid line."""

    EXACT = "`? ` and the line as sent"
    STRIPPED = "`? ` and the words of the line"
    OTHER = "something else"
    SILENCE = "nothing"


class Dialect(Struct, frozen=True):
    """How to talk with a server. The default is what the protocol demands."""

    line_end: bytes = LF
    """What stands behind a command."""
    half_close: bool = False
    """Whether it answers only when its client has closed its sending half."""
    packets: bool = False
    """Whether it takes each packet for one command."""
    closes: bool = False
    """Whether it takes one command a connection."""
    answer_end: bytes = LF
    """What stands behind an answer: LF or CR LF, or nothing that can be relied on: b""."""
    ends: bool = True
    """Whether it closes, and sends no more, when its client has closed its sending half and has its answers."""
    float_times: bool = False
    """Whether the client's time in AT is the one that was sent only as a float."""
    takes_reports: bool = True
    """Whether it answers IAMAT with AT."""
    echo: Echo = Echo.EXACT
    blank_lines: bool = True
    """Whether it answers blank lines."""
    questions: bool = True
    """Whether it answers a question about a known client with that client's AT line."""
    json_end: bool = True
    """Whether two LFs stand behind the JSON, and not before its end."""

    @property
    def takes_many(self) -> bool:
        """Whether several lines may be sent ahead on one connection."""
        return not (self.half_close or self.packets or self.closes or not self.answer_end)

    def repeats(self, sent: bytes, operands: bytes) -> bool:
        """Whether these are the operands of a report in the server's AT line, if the first ones were sent."""
        return operands == sent or (self.float_times and equal_as_floats(sent, operands))

    def rejected(self, line: bytes, answer: bytes) -> bool:
        """Whether this answer, without its end, is the server's answer to an invalid line; b"": it said nothing."""
        match self.echo:
            case Echo.EXACT:
                return answer == b"? " + line
            case Echo.STRIPPED:
                return _is_echo(line, answer)
            case Echo.OTHER:
                return bool(answer) and not answer.startswith(b"AT ")
            case (
                Echo.SILENCE
            ):  # which was found with an unknown word; invalid commands may be echoed all the same
                return not answer or _is_echo(line, answer)


def _is_echo(line: bytes, answer: bytes) -> bool:
    """Whether this is `? ` and the line, white space apart."""
    return answer.startswith(b"?") and answer[1:].split() == line.split()
