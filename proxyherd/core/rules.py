"""The judge: what a client's line is, and what it is answered with. Every engine goes by it.

A line is judged once, when it comes. An overlong or invalid one has its answer then, and so has a report from too far
ahead, or one at a time at which no reports are taken. What is left is for the engine: it stores reports and looks up
questions, at once or later. What comes of those is decided here too, by what the engine holds of the client:

- A report is stored if it is later than what is held. Otherwise it is stale, and answered all the same. Where there is
  no room for it, it is refused, which is answered as an invalid command is. The engine compares the times when it
  stores: `Table.advance` in `core/table.py`, and `advance` in `engines/redis/function.lua`.
- What is held and too old is as good as not held, also while it is still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, TypeAlias

from proxyherd.config.schema import Limits
from proxyherd.core.framing import Overlong
from proxyherd.core.messages import (
    MOST_NANOSECONDS,
    NANOSECONDS,
    Entry,
    Report,
    Whatsat,
    invalid,
    latest_receipt,
    parse_question,
    parse_report,
    received,
    word,
)
from proxyherd.core.reply import Reply

Judged: TypeAlias = Report | Whatsat | Reply
"""A report to store, a question to look up, or what the line is answered with, whatever is held."""

_time = attrgetter("nanoseconds")


class Rules:
    """The rules of one server. Times are nanoseconds of POSIX time, ages are nanoseconds."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.clock = 0
        """The time by which what is held is too old, and what neighbours send too new."""
        self.age = int(limits.max_age_seconds * NANOSECONDS)
        """After which a location is forgotten; 0: never."""
        self._name = name.encode()
        self._lead = int(limits.max_clock_lead_seconds * NANOSECONDS) or MOST_NANOSECONDS
        self._skew = int(limits.max_clock_skew_seconds * NANOSECONDS)
        self._takes_reports = True

    def begin(self, clock: int, *, takes_reports: bool) -> None:
        """Note the time, and whether reports can be kept."""
        self.clock, self._takes_reports = clock, takes_reports

    def refuse_reports(self) -> None:
        """Take no more reports until the next `begin`."""
        self._takes_reports = False

    def judge(self, lines: Sequence[bytes | Overlong], at: int) -> tuple[list[Report], list[Judged]]:
        """Judge a client's lines, without LF, that were received `at`; return the reports that they begin with, and what
        stands behind those.
        """
        latest = at + self._lead if self._takes_reports else -1
        whole: Any = map(_whole, lines) if Overlong in map(type, lines) else lines
        reports: list[Any] = [*map(parse_report, whole, repeat(self._name), repeat(at))]
        if None not in reports and (
            latest >= MOST_NANOSECONDS or max(map(_time, reports), default=-1) <= latest
        ):
            return reports, []
        judged: list[Any] = [*map(_judge, lines, reports, repeat(latest))]
        first = next((at for at, one in enumerate(judged) if type(one) is not Report), len(judged))
        return judged[:first], judged[first:]

    def latest_receipt(self) -> int:
        """Return the latest time at which another server may have received a report."""
        return latest_receipt(self.clock, self._skew)

    def is_too_old(self, receipt: int) -> bool:
        """Whether what was received then is forgotten."""
        return self.age != 0 and receipt + self.age < self.clock

    def is_forgotten(self, entry: Entry) -> bool:
        """Whether an entry is too old."""
        return self.age != 0 and received(entry.line) + self.age < self.clock

    def remembered(self, held: Entry | None) -> Entry | None:
        """Return what is held of a client, None where that is too old."""
        return None if held is None or (self.age and self.is_forgotten(held)) else held


def not_stored(report: Report, line: bytes, held: Entry | None) -> Reply:
    """Decide about a report that was not stored where this is remembered of its client."""
    if held is not None and report.nanoseconds <= held.nanoseconds:
        return Reply("iamat", "stale", report.line)
    return Reply("iamat", "refused", invalid(line))


def find(question: Reply, line: bytes, held: Entry | None) -> None:
    """Let a question know what is remembered of its client."""
    if held is None:
        question.outcome, question.answer = "unknown", invalid(line)
    else:
        question.outcome, question.entry = "found", held


def refuse(reply: Reply, line: bytes) -> None:
    """Answer a report or a question for which there is no room."""
    reply.outcome, reply.answer = "refused", invalid(line)


def _whole(line: bytes | Overlong) -> bytes:
    return b"" if isinstance(line, Overlong) else line


def _judge(line: bytes | Overlong, report: Report | None, latest: int) -> Judged:
    """Judge a line, which is this report or none, and the latest time that one may have."""
    if isinstance(line, Overlong):
        return Reply("other", "overlong", invalid(line.start))
    if report is None:
        return parse_question(line) or Reply(word(line), "invalid", invalid(line))
    return report if report.nanoseconds <= latest else Reply("iamat", "refused", invalid(line))
