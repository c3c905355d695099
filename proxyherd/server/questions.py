"""Queries of Places that turns begin: a few in each turn, none for who is gone, and each answered whatever becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container
from functools import partial
from typing import Final, Generic, TypeVar

from proxyherd.core.early_queries import Asker
from proxyherd.core.messages import metres, position
from proxyherd.core.reply import Reply, leave
from proxyherd.places import STATUSES, Places, Query, no_results
from proxyherd.telemetry.observer import Observer

_TURN_QUERIES: Final = 32
"""Queries that begin in one turn: each starts two tasks."""

Who = TypeVar("Who", bound=Asker)


class Questions(Generic[Who]):
    """The queries of one server.

    `places` can be awaited as often as needed; until it is there, queries wait for it.
    """

    def __init__(
        self,
        places: Awaitable[Places],
        observer: Observer,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._places = places
        self._observer = observer
        self._loop = loop
        self._unasked: deque[tuple[Who, Reply]] = deque()
        self._queries: dict[Who, set[asyncio.Task[None]]] = {}

    def __bool__(self) -> bool:
        """Whether there is something left for another turn."""
        return bool(self._unasked)

    def add(self, client: Who, reply: Reply) -> None:
        """Let a query be asked in this turn or a later one."""
        if client.gone:  # nobody to ask Places for; what is behind it is logged
            leave(reply)
        else:
            self._unasked.append((client, reply))

    def drop(self, gone: Container[Who]) -> None:
        """Forget what has not been asked of clients that are let go."""
        self._unasked = deque(waiting for waiting in self._unasked if waiting[0] not in gone)

    def cancel(self, client: Who) -> None:
        """Break off what a client has asked: nobody wants it any more."""
        for query in tuple(self._queries.get(client, ())):
            query.cancel()

    def ask_some(self, answered: Callable[[Who], None]) -> None:
        """Begin queries, as many as hold nobody up; the rest is for the next turn. `answered` is called with a client one
        of whose replies has its answer now.
        """
        for _ in range(min(len(self._unasked), _TURN_QUERIES)):
            client, reply = self._unasked.popleft()
            if client.gone:
                leave(reply)
                answered(client)
                continue
            query = self._loop.create_task(self._ask(client, reply, answered))
            self._queries.setdefault(client, set()).add(query)
            query.add_done_callback(partial(self._asked, client, reply, answered))

    def _asked(
        self, client: Who, reply: Reply, answered: Callable[[Who], None], query: asyncio.Task[None]
    ) -> None:
        queries = self._queries[client]
        queries.discard(query)
        if not queries:
            del self._queries[client]
        if reply.answer is None:  # broken off before its first step
            leave(reply)
            answered(client)

    async def _ask(self, client: Who, reply: Reply, answered: Callable[[Who], None]) -> None:
        assert reply.whatsat is not None
        assert reply.entry is not None
        began = time.monotonic()  # the loop's own clock counts milliseconds
        try:
            latitude, longitude = position(reply.entry.line)
            query = Query(latitude, longitude, metres(reply.whatsat.radius), reply.whatsat.most)
            places = await asyncio.shield(self._places)
            answer = await places.nearby(query, client)
        except asyncio.CancelledError:
            leave(reply)
            answered(client)  # what is behind it is logged
            return
        except Exception as error:  # noqa: BLE001 - the client gets an answer, as those who wait behind it
            self._observer.fault("Places cannot be asked", error)
            answer = no_results("UNKNOWN_ERROR", "this server cannot ask Places; its log says why")
        else:
            outcome = answer.status if answer.status in STATUSES else "OTHER"
            self._observer.places.asked(places.name, answer.status, outcome, time.monotonic() - began)
        reply.outcome, reply.status, reply.results = "answered", answer.status, answer.results
        reply.answer = reply.entry.line + b"\n" + answer.body + b"\n"
        answered(client)
