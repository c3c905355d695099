"""The front of Places, which a server asks: it has an answer for everything.

The rule: a query always gets an answer in Nearby Search format, in time, whatever the provider does. Identical queries
that are under way share one call. If a provider's answers may be cached, it is not asked twice. The number of queries
is limited; beyond the limit, the asker with the most queries loses its newest one. The first asker pays for a call; if
it has had its share of the budget, the next one does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, MutableMapping
from functools import partial

from msgspec import Struct

from proxyherd.places.answers import Answer, no_results, shorten
from proxyherd.places.failures import FailedError, ShareError
from proxyherd.places.limits.crowd import Crowd
from proxyherd.places.query import Provider, Query
from proxyherd.places.watch import Watch

_KEPT_STATUSES = {"OK", "ZERO_RESULTS"}


_KEPT_LETTERS = 64
"""The maximum length of a location whose answer is cached: a client may write it with thousands of digits."""


class _Call(Struct, eq=False):
    """A query that is under way, who pays for it, its deadline, and the askers that wait for its answer."""

    task: asyncio.Task[Answer]
    payer: str | None
    deadline: asyncio.TimerHandle
    waiting: dict[asyncio.Future[Answer], str | None]


class Places:
    """A provider behind a deadline and a limit. `kept` is the cache of answers."""

    def __init__(
        self,
        provider: Provider,
        watch: Watch,
        *,
        deadline_seconds: float,
        max_in_flight: int,
        kept: MutableMapping[Query, Answer] | None,
    ) -> None:
        self._provider = provider
        self._watch = watch
        self._deadline = deadline_seconds
        self._most = max_in_flight
        self._kept: MutableMapping[Query, Answer] = {} if kept is None else kept
        self._keeps = kept is not None
        self._calls: dict[Query, _Call] = {}
        self._crowd: Crowd[asyncio.Future[Answer]] = Crowd(max_in_flight)

    @property
    def name(self) -> str:
        """The name of the provider."""
        return self._provider.name

    @property
    def in_flight(self) -> int:
        """How many queries wait for an answer."""
        return len(self._crowd)

    def answer_at_once(self, query: Query) -> Answer | None:
        """Answer a query that needs no wait, in a fraction of a millisecond; return None for any other query."""
        asked = self._provider.widened(query)
        answer = self._kept.get(asked)
        if answer is not None:
            self._watch.count_spared("kept")
        else:
            try:
                answer = self._provider.answer_at_once(asked)
            except Exception:  # noqa: BLE001 - it is asked again, and waited for
                return None
            if answer is None:
                return None
            self._keep(asked, answer)
        return shorten(answer, query.most)

    async def nearby(self, query: Query, asker: str | None = None) -> Answer:
        """Answer a query, at once or as `wait` does."""
        return self.answer_at_once(query) or await self.wait(query, asker)

    async def wait(self, query: Query, asker: str | None = None) -> Answer:
        """Answer a query that `answer_at_once` has not answered, before the deadline. Raises nothing but CancelledError, if
        it is cancelled.

        Askers take turns, and share the provider evenly.
        """
        return shorten(await self._wait(self._provider.widened(query), asker), query.most)

    async def close(self) -> None:
        """Release what the provider holds."""
        await self._provider.close()

    async def _wait(self, query: Query, asker: str | None) -> Answer:
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if (shed := self._crowd.add(asker, waiting)) is not None:
            self._shed(shed)
        if shed is not waiting:
            call = self._join(query, asker, waiting)
        try:
            return await waiting
        finally:
            self._crowd.remove(asker, waiting)
            if shed is not waiting:
                self._leave(query, call, waiting)

    def _join(self, query: Query, asker: str | None, waiting: asyncio.Future[Answer]) -> _Call:
        call = self._calls.get(query)
        if call is not None:
            call.waiting[waiting] = asker
            self._provider.join(query, asker)
            self._watch.count_spared("shared")
            return call
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(self._deadline, self._give_up, query)
        call = self._calls[query] = _Call(self._begin(query, asker), asker, deadline, {waiting: asker})
        return call

    def _begin(self, query: Query, payer: str | None) -> asyncio.Task[Answer]:
        task = asyncio.get_running_loop().create_task(self._ask(query, payer))
        task.add_done_callback(partial(self._done, query))
        return task

    def _leave(self, query: Query, call: _Call, waiting: asyncio.Future[Answer]) -> None:
        """Remove an asker, answered or not; a call for which nobody waits any more is given up."""
        call.waiting.pop(waiting, None)
        if not call.waiting and self._end(query, call):
            call.task.cancel()

    async def _ask(self, query: Query, payer: str | None) -> Answer:
        answer = await self._provider.nearby(query, payer)
        self._keep(query, answer)
        return answer

    def _keep(self, query: Query, answer: Answer) -> None:
        short = len(query.latitude) + len(query.longitude) <= _KEPT_LETTERS
        if self._keeps and short and answer.status in _KEPT_STATUSES:
            with contextlib.suppress(ValueError):  # larger than all that may be kept
                self._kept[query] = answer

    def _done(self, query: Query, task: asyncio.Task[Answer]) -> None:
        """Answer the askers that wait. No exception of a provider goes beyond this point."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        call = self._calls.get(query)
        if call is None or call.task is not task:
            return  # it was given up
        answer = task.result() if error is None else _failure(error)
        if isinstance(error, ShareError):
            others = {waiting: asker for waiting, asker in call.waiting.items() if asker != call.payer}
            self._settle(call.waiting.keys() - others.keys(), answer)
            if others:
                call.waiting, call.payer = others, next(iter(others.values()))
                call.task = self._begin(query, call.payer)
                return
        self._end(query, call)
        self._settle(call.waiting, answer)

    def _give_up(self, query: Query) -> None:
        """Answer the askers that wait at the deadline, even if the provider cannot be cancelled."""
        call = self._calls[query]
        self._end(query, call)
        self._settle(
            call.waiting, no_results("UNKNOWN_ERROR", f"Places did not answer within {self._deadline:g} s")
        )
        call.task.cancel()

    def _end(self, query: Query, call: _Call) -> bool:
        """End a call, so that the next identical query makes a new one; return whether it was under way until now."""
        if self._calls.get(query) is not call:
            return False
        del self._calls[query]
        call.deadline.cancel()
        return True

    def _settle(self, askers: Iterable[asyncio.Future[Answer]], answer: Answer) -> None:
        for waiting in askers:
            if not waiting.done():
                waiting.set_result(answer)

    def _shed(self, waiting: asyncio.Future[Answer]) -> None:
        if not waiting.done():  # otherwise it has its answer, and is about to leave
            self._watch.count_spared("shed")
            words = f"{self._most} queries wait for Places already; try again later"
            waiting.set_result(no_results("UNKNOWN_ERROR", words))


def _failure(error: BaseException) -> Answer:
    """Make the answer for a provider's exception."""
    if isinstance(error, FailedError):
        return error.answer
    # Only the type: the text of an aiohttp error may contain the URL, and so the key.
    return no_results("UNKNOWN_ERROR", f"Places failed ({type(error).__name__})")
