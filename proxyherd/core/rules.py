"""The rules about clients' lines: what a line is, and what its answer is. All engines use them.

Each line is judged once, when it arrives. Some lines are answered then: overlong and invalid lines, and all
reports at a time when none are taken. Other lines are for the engine, which stores reports and looks up
queries, at once or later. The answers to these are also decided here, by what the engine has stored of the
client:

- A report is stored if it is later than the present one. The time that counts decides: see `parse_at` in
  `core/messages.py`. Otherwise it is stale, and still gets an AT line. If there is no room for it, it is
  refused, and answered like an invalid command. The engine compares the times when it stores: see
  `Table.advance` in `core/table.py`, and `advance` in `engines/redis/function.lua`.
- An entry that is too old counts as none, even if it is still stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, count, repeat
from typing import Any, Final, TypeAlias

from proxyherd.config.schema import Limits
from proxyherd.core.area_queries import AreaQuery
from proxyherd.core.framing import Denied, Line, Overlong, WebCommand, spell_line
from proxyherd.core.messages import (
    ANY_LENGTH,
    NANOSECONDS,
    CommandForms,
    Entry,
    Forget,
    Report,
    Whatsat,
    command_forms,
    invalid,
    latest_receipt,
    parse_question,
    parse_report,
    received,
    word,
    word_of,
)
from proxyherd.core.reply import Refusal, Reply

_NO_PLACES: Final = b"""
{
   "html_attributions": [],
   "results": [],
   "status": "ZERO_RESULTS"
}
"""
"""The text after the AT line, if a query asks for no places, in Google's layout."""

Judged: TypeAlias = Report | Whatsat | WebCommand | Reply
"""A report to store, a query to look up, a command that no line can say, or a reply that does not depend on
what is stored.
"""

_LINES: Final = {bytes}
"""The types of what most clients say."""


class Rules:
    """The rules of one server. Times are nanoseconds of POSIX time, ages are nanoseconds."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.clock = 0
        """The present time: by it, entries are too old, and lines of neighbours are from the future."""
        self.age = int(limits.max_age_seconds * NANOSECONDS)
        """The age at which a location is forgotten; 0: never."""
        # For `map`, which is given the same for each line.
        self._names = repeat(name.encode())
        self.lead = limits.clock_lead
        """By how much a client's clock may be ahead of the server's: a later time does not count."""
        self._skew = int(limits.max_clock_skew_seconds * NANOSECONDS)
        self._leads = repeat(self.lead)
        self._forms = repeat(command_forms(limits.max_client_bytes))
        self._takes_reports = True

    def begin(self, clock: int, *, takes_reports: bool) -> None:
        """Note the present time, and whether reports can be stored."""
        self.clock, self._takes_reports = clock, takes_reports

    def refuse_reports(self) -> None:
        """Take no more reports until the next `begin`."""
        self._takes_reports = False

    def judge(self, lines: Sequence[Line], at: int) -> tuple[list[Report], list[Judged]]:
        """Judge a client's lines without LF, received `at` this time, each a nanosecond after the one before
        it: so reports of a client whose clock is ahead are in order too. Return the reports with which the
        lines begin, and the judgements of all later lines.
        """
        takes_reports = self._takes_reports
        are_plain = {*map(type, lines)} <= _LINES
        whole: Any = lines if are_plain else map(_whole, lines)
        reports: list[Any] = [*map(parse_report, whole, self._names, count(at), self._forms, self._leads)]
        if takes_reports and None not in reports:
            return reports, []
        judge: Any = _judge_line if are_plain else _judge
        judged: list[Any] = [*map(judge, lines, reports, repeat(takes_reports), self._forms)]
        first = next((at for at, one in enumerate(judged) if type(one) is not Report), len(judged))
        return judged[:first], judged[first:]

    def judge_each(
        self, taken: Sequence[list[Line]], at: int
    ) -> tuple[Iterable[Sequence[Report]], Iterable[Sequence[Judged]]]:
        """Judge the lines of several clients, and return what `judge` does, for each of them. If each has one line, as is
        usual, all are parsed in one step.
        """
        lines = [*chain.from_iterable(taken)]
        if len(lines) == len(taken) and all(taken) and {*map(type, lines)} <= _LINES:
            whole: Any = lines
            reports: list[Any] = [
                *map(parse_report, whole, self._names, repeat(at), self._forms, self._leads)
            ]
            if self._takes_reports and None not in reports:
                return zip(reports), repeat(())
            each = [*map(_judge_line, whole, reports, repeat(self._takes_reports), self._forms)]
            return (
                [[one] if type(one) is Report else [] for one in each],
                [[one] if type(one) is not Report else [] for one in each],
            )
        judged = [self.judge(own, at) for own in taken]
        return [own for own, _ in judged], [others for _, others in judged]

    def latest_receipt(self) -> int:
        """Return the latest time at which another server may have received a report."""
        return latest_receipt(self.clock, self._skew)

    def is_too_old(self, receipt: int) -> bool:
        """Whether a line received at this time is forgotten."""
        return self.age != 0 and receipt + self.age < self.clock

    def is_forgotten(self, entry: Entry) -> bool:
        """Whether an entry is too old."""
        return self.age != 0 and received(entry.line) + self.age < self.clock

    def remembered(self, held: Entry | None) -> Entry | None:
        """Return a client's entry, or None if it is too old."""
        return None if held is None or (self.age and self.is_forgotten(held)) else held


def not_stored(report: Report, line: bytes, held: Entry | None) -> Reply:
    """Decide about a report that was not stored. `held`: its client's entry; None: there is none, or it is
    too old.
    """
    if held is not None and report.nanoseconds <= held.nanoseconds:
        return Reply("iamat", "stale", report.line)
    return Reply("iamat", "refused", invalid(line), refusal="full")


def find(question: Reply, line: bytes, held: Entry | None) -> None:
    """Complete a query with its client's entry; None: there is none, or it is too old. A query for places of
    a known client gets its answer later; each other query has its answer now.
    """
    assert question.whatsat is not None
    if held is None:
        question.outcome, question.answer = "unknown", invalid(line)
    elif question.whatsat.asks_places:
        question.outcome, question.entry, question.line = "found", held, line
    else:
        question.outcome, question.status, question.entry = "answered", "ZERO_RESULTS", held
        question.answer = held.line + _NO_PLACES


def refuse(reply: Reply, line: bytes, why: Refusal = "full") -> None:
    """Answer a report or a query that is not stored or looked up; usually because there is no room for it."""
    reply.outcome, reply.answer, reply.refusal = "refused", invalid(line), why


def refuse_to_erase(why: Refusal) -> Reply:
    """Return the reply to an erasure that is not carried out."""
    return Reply("forget", "refused", invalid(b""), refusal=why)


def _whole(line: Line) -> bytes:
    return line if isinstance(line, bytes) else b""


def _judge_other(line: Overlong | Denied | WebCommand, takes_reports: bool) -> Judged:
    if isinstance(line, Overlong):
        return Reply("other", "overlong", invalid(line.start))
    if isinstance(line, Denied):
        return Reply(_kind(line.command), "denied", invalid(spell_line(line)))
    return refuse_to_erase("journal") if isinstance(line, Forget) and not takes_reports else line


def _kind(command: bytes | WebCommand) -> str:
    if isinstance(command, bytes):
        return word(command)
    return command.kind if isinstance(command, AreaQuery) else type(command).__name__.lower()


def _judge(line: Line, report: Report | None, takes_reports: bool, forms: CommandForms) -> Judged:
    if isinstance(line, bytes):
        return _judge_line(line, report, takes_reports, forms)
    return _judge_other(line, takes_reports)


def _judge_line(line: bytes, report: Report | None, takes_reports: bool, forms: CommandForms) -> Judged:
    """Judge a line; `report` is its report, if it is one."""
    if report is not None:
        return report if takes_reports else Reply("iamat", "refused", invalid(line), refusal="journal")
    if (question := parse_question(line, forms)) is not None:
        return question
    if (tried := forms.tried(line)) is None:
        return Reply("other", "invalid", invalid(line))
    is_too_long = tried[2] is not None and (
        parse_report(line, b"", 0, ANY_LENGTH) or parse_question(line, ANY_LENGTH)
    )
    if is_too_long:  # that is the only fault of its ID, and of the line
        return Reply(word_of(tried), "refused", invalid(line), refusal="long_id")
    return Reply(word_of(tried), "invalid", invalid(line))
