"""Calls of many tasks over one connection, and over another one when that breaks.

They wait in a `Pipeline`. One task connects, sends and reads, until all is closed; a server is given up when it keeps the
next answer back for `patience`. What every connection decides is in `rules`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from random import Random
from typing import Any, TypeVar

from proxyherd.client.endpoints import Endpoint
from proxyherd.client.links import ServerLink
from proxyherd.client.rules.choice import ServerChoice
from proxyherd.client.rules.commands import ClientCommand
from proxyherd.client.rules.errors import (
    ClientClosed,
    ForeignAnswer,
    HerdError,
    NoAnswer,
    NotAllowed,
    Postponed,
    Unreachable,
)
from proxyherd.client.rules.pipeline import Pipeline, Waiting
from proxyherd.client.sockets import reason_of

A = TypeVar("A")


class Calls:
    """The calls of a program to some servers, each with its answer.

    `connect` opens a connection. `patience`: seconds that a server has for each next answer. Without `retry`, a call fails
    as soon as its connection breaks, or when each server was tried once. With `renews`, a token that ends while it is used
    is no error: `connect` has the next one.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        connect: Callable[[Endpoint], Awaitable[ServerLink]],
        pipeline: Pipeline[asyncio.Future[Any]],
        patience: float,
        rng: Random,
        *,
        retry: bool,
        renews: bool,
    ) -> None:
        self._endpoints, self._connect, self.pipeline = endpoints, connect, pipeline
        self._patience, self._retry, self._renews = patience, retry, renews
        self.token = ""
        """Of the latest connection, if it has one: who connects says so."""
        self.choice = ServerChoice(len(endpoints), rng)
        self._tried = set[int]()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._doing = "the event loop was busy"

    async def call(self, command: ClientCommand[A], seconds: float, until: float) -> A:
        """Return what the answer to a command means, or raise the error that it means. Raises NoAnswer at the moment `until`
        of the event loop's clock, when the `seconds` are over that its caller has given; Unreachable, NotAllowed,
        ClientClosed.
        """
        answered = asyncio.get_running_loop().create_future()
        waiting = self.pipeline.add(command, answered)
        self._news.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve())
        try:
            async with asyncio.timeout_at(until):
                meant: Any = await answered
        except TimeoutError:
            raise NoAnswer(seconds, self.choice.reasons or [self._doing]) from None
        finally:
            self.pipeline.give_up(waiting)
        if isinstance(meant, Exception):
            raise meant
        answer: A = meant
        return answer

    async def close(self) -> None:
        """Close the connection. Whoever waits for an answer gets ClientClosed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._fail(self.pipeline.take_all(), _closed())  # if the task had not begun

    # The task. ------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Bring the answers that are wanted, until the client is closed."""
        why: Exception = _closed()
        try:
            while True:
                if not self.pipeline.is_wanted:
                    self._news.clear()
                    await self._news.wait()
                elif (server := await self._next_server()) is not None:
                    await self._use(server)
        except Exception as error:  # a bug of ours: nobody waits for ever
            why = error
            raise
        finally:
            self._fail(self.pipeline.take_all(), why)

    async def _next_server(self) -> int | None:
        """Return which server to ask, when its pause is over; None if nobody wants an answer any more."""
        now = asyncio.get_running_loop().time()
        server, pause = self.choice.next(now, () if self._retry else self._tried)
        if self._retry and pause > 0:
            await asyncio.sleep(pause)
        return server if self.pipeline.is_wanted else None

    async def _use(self, server: int) -> None:
        """Ask a server, until its connection ends; then say what becomes of what it has not answered."""
        lost: list[Waiting[asyncio.Future[Any]]] = []
        reason, wait = "", 0.0
        self._tried.add(server)
        endpoint = self._endpoints[server]
        self._doing = f"{endpoint}: not connected yet"
        try:
            link = await self._connect(endpoint)
            self._doing = f"{link.called}: has not answered yet"
            try:
                reason = await self._talk(server, link)
            finally:
                lost = self.pipeline.connection_lost()
                await link.close()
        except NotAllowed as error:
            self.choice.failed(server, asyncio.get_running_loop().time(), str(error))
            self._fail(self.pipeline.take_all(), error)
            return
        except Unreachable as error:
            reason, wait = str(error), error.wait
        if not reason:
            return
        self.choice.failed(server, asyncio.get_running_loop().time(), reason, wait)
        if self._retry:
            return
        self._fail(lost, Unreachable(reason))
        if len(self._tried) == len(self._endpoints):
            self._tried.clear()
            self._fail(self.pipeline.take_all(), Unreachable(*self.choice.reasons))

    async def _talk(self, server: int, link: ServerLink) -> str:
        """Send and receive, until the connection ends. Return why that is a failure; "" if nothing was owed any more.
        Raises NotAllowed.
        """
        sender: asyncio.Task[None] | None = None
        limit, has_answered = asyncio.timeout(None), False
        try:
            async with limit:
                sender = asyncio.create_task(self._send(link, limit))
                while data := await link.receive():
                    has_answered |= self._receive(server, data, limit)
            ending = link.ending
        except NotAllowed as error:
            if not (self._renews and has_answered):
                raise
            ending = str(error)  # the token was good before
        except (ForeignAnswer, Postponed) as error:
            return f"{link.called}: {error}"
        except OSError as error:
            kept = f"has kept an answer back for {self._patience:g} s"
            return f"{link.called}: {kept if limit.expired() else reason_of(error)}"
        finally:
            if sender is not None:
                sender.cancel()
                await asyncio.wait([sender])
        return f"{link.called}: {ending}" if self.pipeline.is_wanted else ""

    async def _send(self, link: ServerLink, limit: asyncio.Timeout) -> None:
        """Send what is to be sent, whenever there is something. If that fails, whoever receives learns it too."""
        with contextlib.suppress(OSError):
            while True:
                if lines := self.pipeline.data_to_send():
                    if limit.when() is None:
                        self._limit(limit)
                    await link.send(lines)
                else:
                    self._news.clear()
                    await self._news.wait()

    def _receive(self, server: int, data: bytes, limit: asyncio.Timeout) -> bool:
        """Hand out answers; return whether there was one. Raises ForeignAnswer, Postponed."""
        before = self.pipeline.owed
        for answered, meant in self.pipeline.receive_data(data):
            if not answered.done():
                answered.set_result(meant)
        if self.pipeline.owed == before:
            return False
        if self.pipeline.postponed is None:
            self.choice.answered(server)
            self._tried.clear()
        self._limit(limit)
        if self.pipeline.has_more:
            self._news.set()
        return True

    def _limit(self, limit: asyncio.Timeout) -> None:
        """Give the server time for the next answer that it owes."""
        now = asyncio.get_running_loop().time()
        limit.reschedule(now + self._patience if self.pipeline.owed else None)

    def _fail(self, those: list[Waiting[asyncio.Future[Any]]], why: Exception) -> None:
        for one in those:
            self.pipeline.give_up(one)
            if not one.owner.done():
                # each has a traceback of its own; a stranger's exception may not be one that can be copied
                one.owner.set_result(copy(why) if isinstance(why, HerdError) else why)


def _closed() -> ClientClosed:
    return ClientClosed("this client was closed before the answer came")
