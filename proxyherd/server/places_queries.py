"""Queries for places. Each turn begins a few of them, none for clients that are gone. Each query gets an answer, even if
it fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container
from functools import partial
from typing import Generic, Protocol, TypeVar

from proxyherd.core.early_queries import Asker
from proxyherd.core.messages import metres, position
from proxyherd.core.reply import Reply, leave
from proxyherd.core.rules import find
from proxyherd.core.sizes import SIZES
from proxyherd.core.table import Table
from proxyherd.places import STATUSES, Answer, Places, Query, no_results
from proxyherd.telemetry.observer import Observer


class PlacesAsker(Asker, Protocol):
    """A client's connection."""

    @property
    def payer(self) -> str:
        """Who pays for its queries of places."""

    def may_ask_places(self, now: float) -> bool:
        """Return whether a query of places may begin, and count it then."""


Who = TypeVar("Who", bound=PlacesAsker)


class AsyncPlacesQueries(Generic[Who]):
    """The `PlacesQueries` of one server: those that need time are tasks of the event loop.

    `places` can be awaited more than once. Queries wait until it has a result. `table`: that of all clients, if this
    server has it. A client that is erased while its query waits is unknown.
    """

    def __init__(
        self,
        places: Awaitable[Places],
        observer: Observer,
        loop: asyncio.AbstractEventLoop,
        table: Table | None = None,
    ) -> None:
        self._places = places
        self._table = table
        self._observer = observer
        self._loop = loop
        self._opened: Places | None = None
        self._unasked: deque[tuple[Who, str, Reply]] = deque()
        self._queries: dict[Who, set[asyncio.Task[None]]] = {}

    def __bool__(self) -> bool:
        """Whether something is left for another turn."""
        return bool(self._unasked)

    def admit(self, client: Who, reply: Reply) -> bool:
        """Return whether a client may ask now. If it asks too fast, its query is answered."""
        if client.may_ask_places(self._loop.time()):
            return True
        began = time.monotonic()
        self._observer.places.count_spared("rate")
        self._answer(reply, no_results("OVER_QUERY_LIMIT", "you ask for places too fast; try again later"))
        if self._opened is not None:
            self._count(self._opened, reply.status, began)
        return False

    def add(self, client: Who, reply: Reply) -> None:
        """Add a query that is to begin in this turn or a later one."""
        if client.gone:  # nobody needs its answer; the commands after it are still logged
            leave(reply)
        else:
            self._unasked.append((client, client.payer, reply))

    def drop(self, gone: Container[Who]) -> None:
        """Forget the queries of disconnected clients that have not begun."""
        self._unasked = deque(waiting for waiting in self._unasked if waiting[0] not in gone)

    def cancel(self, client: Who) -> None:
        """Cancel the queries of a client that have begun: nobody needs their answers any more."""
        for query in tuple(self._queries.get(client, ())):
            query.cancel()

    def ask_some(self, answered: Callable[[Who], None]) -> None:
        """Begin as many queries as delay nobody; the others wait for the next turn. Call `answered` with a client when
        one of its replies has its answer.
        """
        left, seconds = SIZES.turn_queries, SIZES.search_seconds
        while self._unasked and left > 0 and seconds > 0:
            client, asker, reply = self._unasked.popleft()
            left -= 1
            if client.gone:
                leave(reply)
                answered(client)
                continue
            seconds -= self.answer_at_once(reply)
            if reply.answer is not None:
                answered(client)
            else:
                tried = self._opened is not None
                query = self._loop.create_task(self._ask(client, asker, reply, answered, tried=tried))
                self._queries.setdefault(client, set()).add(query)
                query.add_done_callback(partial(self._asked, client, reply, answered))

    def answer_at_once(self, reply: Reply) -> float:
        """Answer a query if that needs no wait. Return the seconds that it took, answered or not."""
        if self._opened is None:
            return 0.0
        began = time.monotonic()
        try:
            answer = self._opened.answer_at_once(_query(reply))
        except Exception as error:  # noqa: BLE001 - the client gets this answer and those after it
            self._fail(reply, error)
        else:
            if answer is not None:
                self._settle(reply, self._opened, answer, began)
        return time.monotonic() - began

    def _asked(
        self, client: Who, reply: Reply, answered: Callable[[Who], None], query: asyncio.Task[None]
    ) -> None:
        queries = self._queries[client]
        queries.discard(query)
        if not queries:
            del self._queries[client]
        if reply.answer is None:  # cancelled before its first step
            leave(reply)
            answered(client)

    async def _ask(
        self, client: Who, asker: str, reply: Reply, answered: Callable[[Who], None], *, tried: bool
    ) -> None:
        """Ask, and wait for the answer. `tried`: whether it is known that there is none at once."""
        began = time.monotonic()  # the loop's own clock counts milliseconds
        try:
            query = _query(reply)
            self._opened = places = await asyncio.shield(self._places)
            answer = await (places.wait(query, asker) if tried else places.nearby(query, asker))
        except asyncio.CancelledError:
            leave(reply)
            answered(client)  # the commands after it are logged
            return
        except Exception as error:  # noqa: BLE001 - the client gets this answer and those after it
            self._fail(reply, error)
        else:
            self._settle(reply, places, answer, began)
        answered(client)

    def _settle(self, reply: Reply, places: Places, answer: Answer, began: float) -> None:
        """Answer a query, and note its outcome."""
        self._answer(reply, answer)
        self._count(places, answer.status, began)

    def _count(self, places: Places, status: str, began: float) -> None:
        outcome = status if status in STATUSES else "OTHER"
        try:
            self._observer.places.asked(places.name, status, outcome, time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - the client has its answer
            self._fault("a query for places cannot be counted", error)

    def _answer(self, reply: Reply, answer: Answer) -> None:
        assert reply.entry is not None
        table, asked = self._table, reply.whatsat
        if table is not None and table.gone and asked and table.is_erased(asked.client, reply.entry.line):
            reply.entry = table.get(asked.client)
            if reply.entry is None:
                find(reply, reply.line, None)
                return
            answer = no_results("UNKNOWN_ERROR", "the client was erased, and has reported again; ask again")
        reply.outcome, reply.status, reply.results = "answered", answer.status, answer.results
        reply.answer = reply.entry.line + b"\n" + answer.body + b"\n"

    def _fail(self, reply: Reply, error: Exception) -> None:
        """Answer a query that Places fail to answer, because of a fault of the program."""
        self._answer(reply, no_results("UNKNOWN_ERROR", "this server cannot ask Places; its log says why"))
        self._fault("Places cannot be asked", error)

    def _fault(self, what: str, error: Exception) -> None:
        with contextlib.suppress(Exception):  # it may be the log that fails
            self._observer.fault(what, error)


def _query(reply: Reply) -> Query:
    assert reply.whatsat is not None
    assert reply.entry is not None
    latitude, longitude = position(reply.entry.line)
    return Query(latitude, longitude, metres(reply.whatsat.radius), reply.whatsat.most)
