"""How commands are spelled to a contender, and what a right answer is: lines, an echo of lines, or Redis' RESP."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from contenders import redis_store
from contenders.rules import PLACES
from plan import Report

_AT: Final = re.compile(rb"AT [A-Za-z]+ [+-][0-9]+\.[0-9]{9} ")
_QUESTION_ENDS: Final = b"\n" + PLACES + b"\n\n"


class Wire(NamedTuple):
    """One spelling. `*_lines`: the line feeds in an answer, by which answers are counted."""

    report: Callable[[Report], bytes]
    report_lines: int
    question: Callable[[Report], bytes]
    question_lines: int
    is_right: Callable[[bytes, bytes], bool]
    """Whether an answer, the second argument, is one to the command, the first."""


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


WIRES: Final = {
    "lines": Wire(spell_iamat, 1, spell_whatsat, PLACES.count(b"\n") + 3, is_at_answer),
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
