"""A gate: so many calls at once, and those who wait come in by turns of their askers.

The rule: one asker waits as long as any other. Whoever sends a thousand queries in one go waits behind everybody who
sent one; first come, first served holds among the queries of one asker. A query that several want waits in the lines of
all of them, and comes in by the first turn that any of them has. And nobody else is held up by a crowd that
comes in: a few at a time do, and between them the event loop serves whatever is ready.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final

from msgspec import Struct

IN_ONE_GO: Final = 4
"""How many come in before the event loop goes round: a call to Google takes some 300 microseconds in all, most of them
when it is made."""


class _Standing(Struct):
    """One that waits, and whose lines it stands in."""

    waiting: asyncio.Future[None]
    askers: list[object]


class Gate:
    """Lets `at_once` in. One event loop uses it. Nobody waits while there is room and this round's number is not out."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._left = IN_ONE_GO
        self._standing: dict[Hashable, _Standing] = {}
        self._lines: OrderedDict[object, OrderedDict[asyncio.Future[None], None]] = OrderedDict()  # by turns

    @asynccontextmanager
    async def turn(self, asker: object, query: Hashable = None) -> AsyncIterator[None]:
        """Wait for a turn of `asker`, and hold it; others may `join` in `query`. Raises what `turn_away` is given."""
        if self._free and self._left:
            self._enter()
        else:
            await self._wait(asker, query)
        try:
            yield
        finally:
            self._free += 1
            self._let_in()

    def join(self, asker: object, query: Hashable) -> None:
        """Let a query that waits, if it does, come in by a turn of this asker too."""
        standing = self._standing.get(query)
        if standing is not None and asker not in standing.askers:
            standing.askers.append(asker)
            self._lines.setdefault(asker, OrderedDict())[standing.waiting] = None

    def turn_away(self, error: Exception) -> None:
        """Let all who wait have this error instead of a turn."""
        lines, self._lines = self._lines, OrderedDict()
        for line in lines.values():
            for waiting in line:
                if not waiting.done():
                    waiting.set_exception(error)

    async def _wait(self, asker: object, query: Hashable) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        standing = _Standing(waiting, [asker])
        self._lines.setdefault(asker, OrderedDict())[waiting] = None
        key = waiting if query is None else query
        self._standing[key] = standing
        try:
            await waiting
        except asyncio.CancelledError:
            if not waiting.cancelled() and waiting.exception() is None:
                self._free += 1  # the turn came in the same moment: it is the next one's
                self._let_in()
            raise
        finally:
            if self._standing.get(key) is standing:  # else an equal one has come since this was given up
                del self._standing[key]
            self._leave_lines(standing)

    def _leave_lines(self, standing: _Standing) -> None:
        for asker in standing.askers:
            line = self._lines.get(asker)
            if line is not None:
                line.pop(standing.waiting, None)
                if not line:
                    del self._lines[asker]

    def _enter(self) -> None:
        self._free -= 1
        if self._left == IN_ONE_GO:
            asyncio.get_running_loop().call_soon(self._next_round)
        self._left -= 1

    def _next_round(self) -> None:
        self._left = IN_ONE_GO
        self._let_in()

    def _let_in(self) -> None:
        while self._free and self._left and self._lines:
            asker, line = self._lines.popitem(last=False)
            waiting, _ = line.popitem(last=False)
            if line:
                self._lines[asker] = line  # its next turn comes after everybody else's
            if not waiting.done():
                self._enter()
                waiting.set_result(None)
