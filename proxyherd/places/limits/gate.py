"""A gate: it limits the calls at once; askers that wait take turns.

The rule: all askers wait equally long. An asker that sends a thousand queries at once waits behind everybody who has
sent one. Among the queries of one asker, first come, first served. A query that several askers want waits in the
queues of all of them, and takes the first turn that any of them gets. Only a few queries begin at a time, and between
them the event loop serves other work.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final

from msgspec import Struct

IN_ONE_GO: Final = 4
"""How many queries begin in one round of the event loop: a call to Google takes about 300 microseconds in all, most of it
at its beginning."""


class _Standing(Struct):
    """A query that waits, and the queues in which it is."""

    waiting: asyncio.Future[None]
    askers: list[object]


class Gate:
    """Admits `at_once` calls. It belongs to one event loop. Nobody waits while there is room and this round's number is
    not used up.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._left = IN_ONE_GO
        self._standing: dict[Hashable, _Standing] = {}
        self._lines: OrderedDict[object, OrderedDict[asyncio.Future[None], None]] = OrderedDict()  # by turns

    @asynccontextmanager
    async def turn(self, asker: object, query: Hashable = None) -> AsyncIterator[None]:
        """Wait for a turn of `asker`, and hold it; others may `join` in `query`. Raises the error given to
        `turn_away`.
        """
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
        """Let a waiting query also take a turn of this asker."""
        standing = self._standing.get(query)
        if standing is not None and asker not in standing.askers:
            standing.askers.append(asker)
            self._lines.setdefault(asker, OrderedDict())[standing.waiting] = None

    def turn_away(self, error: Exception) -> None:
        """Raise this error for all that wait, instead of giving them a turn."""
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
                self._free += 1  # the turn came at the same moment: give it to the next one
                self._let_in()
            raise
        finally:
            if self._standing.get(key) is standing:  # otherwise an equal one has come since
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
