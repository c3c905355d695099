"""What goes to one master at once, and what its replies say of each call.

A batch has calls of many tags. What fails of a tag takes everything behind it of the same tag with it: it is done again
behind what failed, so that one connection's report is seen by its question whatever happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final, NamedTuple, TypeAlias

from proxyherd.core.engine import Client
from proxyherd.core.reply import Reply
from proxyherd.engines.redis.commands import ASKING, head_of_questions, head_of_reports


class Asked(Reply, gc=False):
    """A reply that waits for the cluster: its key and value, as they are sent, and the AT line that a report is
    answered with; a question has neither value nor line. `since`: seconds of the loop's clock. `expires`: as it is
    sent, empty for never.
    """

    key: bytes = b""
    value: bytes = b""
    at: bytes = b""
    since: float = 0.0
    expires: bytes = b""


Wish: TypeAlias = "tuple[Client, Asked, bytes]"
"""One thing to be done: for whom, what, and the line that asked for it."""

Call: TypeAlias = "tuple[int, list[Wish]]"
"""One command of a batch: for which tag, and what it does; all reports, or all questions."""

_RIGHT: Final = frozenset((bytes, list))
"""Of what type a reply is that is no error: outcomes of reports, or values."""


class Failed(NamedTuple):
    """What a tag has to do again, and what Redis said of the first so many, none of which was done."""

    wishes: list[Wish]
    first: int
    error: Exception


class Batch:
    """Calls to one master; add all, then `end` it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.tags: list[int] = []
        self.wishes = 0
        self.size = 0
        """Bytes of the lines that asked for all of it."""
        self.probes = False
        """Whether it asks whether reports are taken."""
        self._parts: list[bytes] = []
        self._asking: set[int] = set()  # the calls before which ASKING stands

    def add_reports(self, tag: int, wishes: list[Wish]) -> None:
        """Add reports of one tag, as one call."""
        count = len(wishes)
        self.tags.append(tag)
        self.wishes += count
        self.calls.append((tag, wishes))
        if count == 1:
            _, asked, line = wishes[0]
            self.size += len(line)
            self._parts += (head_of_reports(1, asked.expires), asked.key, asked.value, asked.expires)
        else:
            self.size += size_of(wishes)
            self._spell_reports(wishes)

    def _spell_reports(self, wishes: list[Wish]) -> None:
        expiry = wishes[0][1].expires
        self._parts.append(head_of_reports(len(wishes), expiry))
        self._parts += [asked.key for _, asked, _ in wishes]
        self._parts += [asked.value for _, asked, _ in wishes]
        if expiry:
            self._parts += [asked.expires for _, asked, _ in wishes]

    def add(self, tag: int, wishes: list[Wish], *, singly: bool = False, asking: bool = False) -> None:
        """Add whatever a tag wants, in its order; `singly`: while its keys move, each is a call of its own, and
        `asking` is how they are sent where they move to.
        """
        self.tags.append(tag)
        self.wishes += len(wishes)
        self.size += size_of(wishes)
        for reports, run in groupby(wishes, _is_report):
            for together in [[wish] for wish in run] if singly or asking else [list(run)]:
                if asking:
                    self._asking.add(len(self.calls))
                    self._parts.append(ASKING)
                self.calls.append((tag, together))
                if reports:
                    self._spell_reports(together)
                else:
                    self._parts.append(head_of_questions(len(together)))
                    self._parts += [asked.key for _, asked, _ in together]

    def end(self, end: bytes, replies: int) -> tuple[bytes, int]:
        """Return all that is to be sent, `end` last, to which there are so many replies, and how many to all."""
        self._parts.append(end)
        return b"".join(self._parts), len(self.calls) + len(self._asking) + replies

    def answers(self, replies: Sequence[object]) -> list[object]:
        """Return the reply to each call, without those to ASKING."""
        if not self._asking:
            return list(replies[: len(self.calls)])
        left = iter(replies)
        answers = []
        for number in range(len(self.calls)):
            if number in self._asking:
                next(left)
            answers.append(next(left))
        return answers

    def failed(self, answers: Sequence[object]) -> dict[int, Failed]:
        """Return what is to be done again, by tag."""
        failed: dict[int, Failed] = {}
        if _RIGHT.issuperset(map(type, answers)):
            return failed
        for (tag, wishes), answer in zip(self.calls, answers, strict=True):
            before = failed.get(tag)
            if before is not None:
                together = before.first == len(before.wishes) and type(answer) is type(before.error)
                before.wishes.extend(wishes)
                if together:
                    failed[tag] = before._replace(first=len(before.wishes))
            elif isinstance(answer, Exception):
                failed[tag] = Failed(list(wishes), len(wishes), answer)
        return failed


def size_of(wishes: Sequence[Wish]) -> int:
    """Return the bytes of the lines that asked for these."""
    return sum([len(line) for _, _, line in wishes])


def _is_report(wish: Wish) -> bool:
    return wish[1].value != b""
