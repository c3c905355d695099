"""The commands that are sent to one master at once, and the results of their calls.

A batch has calls for many tags. If a call fails, all later ones of its tag are repeated too, behind it. So a
connection's query always sees its earlier report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

from proxyherd.core.engine import Client
from proxyherd.core.reply import Reply
from proxyherd.engines.redis.commands import ASKING, head_of_erasure, head_of_questions, head_of_reports


class Asked(Reply, gc=False):
    """A reply that waits for the cluster: its key and value as they are sent, and the AT line with which a
    report is answered. A query has neither value nor line. An erasure has, in their place, what stands behind
    its key, and the client's ID; `may_stay`: whether a client that was seen since a moment is to stay.
    `since`: seconds of the loop's clock. `expires`: as it is sent, empty for never.
    """

    key: bytes = b""
    value: bytes = b""
    at: bytes = b""
    since: float = 0.0
    expires: bytes = b""
    may_stay: bool = False


Wish: TypeAlias = "tuple[Client, Asked, bytes]"
"""One command to execute: for which client, what, and its line."""

Call: TypeAlias = "tuple[int, list[Wish]]"
"""One command of a batch: its tag, and what it does. It has only reports, only queries, or one erasure."""

_its_line: Callable[[Wish], bytes] = itemgetter(2)

_RIGHT: Final = frozenset((bytes, list))
"""The type of a reply that is not an error: outcomes of reports, or values."""


class Failed(NamedTuple):
    """What a tag must repeat, and Redis' error for the first wishes of it, none of which was executed."""

    wishes: list[Wish]
    first: int
    error: Exception


class Batch:
    """Calls to one master; add all of them, then `end` it. `lead`: that of the herd, as it is sent."""

    def __init__(self, lead: bytes) -> None:
        self.calls: list[Call] = []
        self.tags: list[int] = []
        self.wishes = 0
        self.size = 0
        """Bytes of the lines of all its wishes."""
        self.probes = False
        """Whether it tests if reports are taken."""
        self._lead = lead
        self._parts: list[bytes] = []
        self._asking: set[int] = set()  # the calls that have ASKING in front

    def add_reports(self, tag: int, wishes: list[Wish]) -> None:
        """Add reports of one tag, as one call."""
        count = len(wishes)
        self.tags.append(tag)
        self.wishes += count
        self.calls.append((tag, wishes))
        if count == 1:
            _, asked, line = wishes[0]
            self.size += len(line)
            self._parts += (
                head_of_reports(1, asked.expires),
                asked.key,
                asked.value,
                asked.expires,
                self._lead,
            )
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
        self._parts.append(self._lead)

    def add(self, tag: int, wishes: list[Wish], *, singly: bool = False, asking: bool = False) -> None:
        """Add the wishes of a tag, in order. `singly`: each is a call of its own, because its keys are being
        moved. `asking`: as they are sent to the node to which they are moved.
        """
        self.tags.append(tag)
        self.wishes += len(wishes)
        self.size += size_of(wishes)
        for kind, run in groupby(wishes, _kind):
            for together in [[wish] for wish in run] if singly or asking or kind == "forget" else [list(run)]:
                if asking:
                    self._asking.add(len(self.calls))
                    self._parts.append(ASKING)
                self.calls.append((tag, together))
                if kind == "whatsat":
                    self._parts.append(head_of_questions(len(together)))
                    self._parts += [asked.key for _, asked, _ in together]
                elif kind == "iamat":
                    self._spell_reports(together)
                else:
                    asked = together[0][1]
                    self._parts += (head_of_erasure(), asked.key, asked.value)

    def end(self, end: bytes, replies: int) -> tuple[bytes, int]:
        """Return all bytes to send, ending with `end`, which has this many replies; and the number of all
        replies.
        """
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
        """Return what must be repeated, by tag."""
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
    """Return the bytes of the lines of these wishes."""
    return sum(map(len, map(_its_line, wishes)))


def _kind(wish: Wish) -> str:
    return wish[1].kind
