"""Which subjects of tokens were revoked, as the cluster knows it.

A server in front of Redis has no tombstones. So it asks for those of the subjects that use it: when it hears of a
subject, and then every few seconds while its tokens are used. Until the first answer, a subject counts as not revoked.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from proxyherd.core.engine import Engine, Said
from proxyherd.core.framing import Line
from proxyherd.core.messages import Forget
from proxyherd.core.reply import Reply
from proxyherd.core.tombstones import parse_gone

ASK_SECONDS: Final = 5.0
"""How often a subject that is used is asked for: so long a revocation takes at most, while the cluster answers."""

MOST_SUBJECTS: Final = 4_096
"""Subjects that are remembered: as many as good tokens."""


class Revocations:
    """To the engine it is a client, whose commands erase nothing: they only tell what is erased already."""

    label = b""
    besides = 0
    gone = False
    payer = ""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self.queued = False
        self.owed: Sequence[object] = ()
        self._engine = engine
        self._loop = loop
        self._until: OrderedDict[bytes, int] = OrderedDict()
        self._used: dict[bytes, None] = {}
        self._asked: list[tuple[bytes, Reply]] = []
        self._is_due = False

    def erased_until(self, name: bytes) -> int:
        """Return up to which moment an ID was erased, as far as is known; 0: never."""
        if len(self._used) < MOST_SUBJECTS:
            self._used[name] = None
        until = self._until.get(name)
        if until is None and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self.ask)
        return until or 0

    def ask(self) -> None:
        """Ask for all that were used since the last time, if those have been answered."""
        self._is_due = False
        if not self._used or self._asked:
            return
        names = [*self._used]
        self._used.clear()
        said = Said(self, [b""] * len(names), [], [Forget(name, 0) for name in names])
        self._engine.begin(self._loop.time(), time.time_ns(), 0)
        self._engine.decide([said])
        self._asked = [*zip(names, said.replies, strict=True)]

    async def run(self) -> None:
        """Ask again and again, for ever."""
        while True:
            await asyncio.sleep(ASK_SECONDS)
            self.ask()

    # What a turn wants of a client. --------------------------------------------------------------------------

    def may_ask_places(self, _: float) -> bool:
        """Return False: it asks for none."""
        return False

    def take(self, _: int, __: float) -> list[Line]:
        """Return nothing: it says nothing by itself."""
        return []

    def answer(self, _: list[bytes]) -> None:
        """Do nothing."""

    def owe(self, _: Iterable[tuple[Line, Reply]]) -> None:
        """Do nothing."""

    def release(self) -> list[tuple[Line, Reply]]:
        """Note the answers that are there."""
        for name, reply in self._asked:
            if reply.answer is not None:
                gone = parse_gone(reply.answer)
                self._until[name] = gone.until if gone is not None else 0
                self._until.move_to_end(name)
                if len(self._until) > MOST_SUBJECTS:
                    self._until.popitem(last=False)
        self._asked = [one for one in self._asked if one[1].answer is None]
        return []

    def give_up(self, _: str) -> list[tuple[Line, Reply]]:
        """Forget what was asked: nobody answers now. What is known stays."""
        self._asked.clear()
        return []

    def fail(self) -> None:
        """Forget what was asked."""
        self._asked.clear()
