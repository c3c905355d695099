"""How commands are spelled to a contender, and what a right answer is: lines, an echo of lines, or Redis' RESP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from contenders import redis_store
from contenders.rules import PLACES
from plan import Report

LINE_FEED: Final = b"\n"
BLANK_LINE: Final = b"\n\n"

_AT: Final = re.compile(rb"AT [A-Za-z]+ [+-][0-9]+\.[0-9]{9} ")
_QUESTION_ENDS: Final = b"\n" + PLACES + b"\n\n"


class Wire(NamedTuple):
    """One spelling. `*_marks`: the marks in an answer, by which answers are counted; a mark is a line feed, or two of them
    where answers differ in length.
    """

    report: Callable[[Report], bytes]
    report_marks: int
    question: Callable[[Report], bytes]
    question_marks: int
    is_right: Callable[[bytes, bytes], bool]
    """Whether an answer, the second argument, is one to the command, the first."""
    mark: bytes = LINE_FEED


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


WIRES: Final = {
    "lines": Wire(spell_iamat, 1, spell_whatsat, PLACES.count(b"\n") + 3, is_at_answer),
    "invalid": Wire(spell_iamat, 1, spell_invalid, 1, is_invalid_answer),
    "places": Wire(spell_iamat, 0, spell_places, 1, is_places_answer, BLANK_LINE),
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
