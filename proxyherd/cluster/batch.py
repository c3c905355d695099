"""What goes to one master at once, and what its replies say of each call.

A batch has calls of many tags. What fails of a tag takes everything behind it of the same tag with it: it is done again
behind what failed, so that one connection's report is seen by its question whatever happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from proxyherd.cluster.commands import ADVANCE, ASKING, spell_questions, spell_reports
from proxyherd.reply import Reply

_HELD: Final = ord("1")


class Asked(Reply, gc=False):
    """A reply that waits for the cluster. `value` is what a report wants stored, and `at` its AT line; a question has
    neither. `since`: seconds of the loop's clock.
    """

    client: bytes = b""
    value: bytes = b""
    at: bytes = b""
    since: float = 0.0
    expires: bytes = b""


class Wish(NamedTuple):
    """One thing to be done, for whom, and the line that asked for it."""

    client: object
    asked: Asked
    line: bytes


class Call(NamedTuple):
    """One command of a batch: what it does for one tag; where `asking`, another one stands before it."""

    tag: int
    wishes: Sequence[Wish]
    reports: bool
    asking: bool


class Failed(NamedTuple):
    """What a tag has to do again, and what Redis said of the first so many."""

    wishes: list[Wish]
    first: int
    error: Exception


class Batch:
    """Calls to one master; add all, then `end` it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.size = 0
        self._parts: list[bytes] = []
        self._replies = 0

    def add(self, tag: int, wishes: Sequence[Wish], *, singly: bool = False, asking: bool = False) -> None:
        """Add what a tag wants, in its order; `singly`: while its keys move, each is a call of its own."""
        self.size += len(wishes)
        for reports, run in groupby(wishes, _is_report):
            several = list(run)
            for one in [[wish] for wish in several] if singly or asking else [several]:
                self._add(Call(tag, one, reports, asking))

    def _add(self, call: Call) -> None:
        if call.asking:
            self._parts.append(ASKING)
        clients = [asked.client for _, asked, _ in call.wishes]
        if call.reports:
            values = [asked.value for _, asked, _ in call.wishes]
            expiries = [asked.expires for _, asked, _ in call.wishes] if call.wishes[0].asked.expires else ()
            self._parts.append(spell_reports(ADVANCE, call.tag, clients, values, expiries))
        else:
            self._parts.append(spell_questions(call.tag, clients))
        self._replies += 1 + call.asking
        self.calls.append(call)

    def end(self, end: bytes, replies: int) -> tuple[bytes, int]:
        """Return all that is to be sent, `end` last, to which there are so many replies, and how many to all."""
        return b"".join([*self._parts, end]), self._replies + replies

    def answers(self, replies: Iterable[object]) -> list[object]:
        """Return the reply to each call, without those to ASKING."""
        left = iter(replies)
        answers = []
        for call in self.calls:
            if call.asking:
                next(left)
            answers.append(next(left))
        return answers

    def failed(self, answers: Sequence[object]) -> dict[int, Failed]:
        """Return what is to be done again, by tag."""
        failed: dict[int, Failed] = {}
        for call, answer in zip(self.calls, answers, strict=True):
            if call.tag in failed:
                failed[call.tag].wishes.extend(call.wishes)
            elif isinstance(answer, Exception):
                failed[call.tag] = Failed(list(call.wishes), len(call.wishes), answer)
        return failed


def settle_reports(wishes: Sequence[Wish], outcomes: bytes) -> None:
    """Give reports their answers, by what the function has said of each."""
    for (_, asked, _), outcome in zip(wishes, outcomes, strict=True):
        asked.outcome = "stored" if outcome == _HELD else "stale"
        asked.answer = asked.at


def _is_report(wish: Wish) -> bool:
    return wish[1].value != b""
