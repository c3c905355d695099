"""A client for asyncio: many calls at once over one connection, and over another one when that breaks.

Calls wait in a `Pipeline`. One task connects, sends and reads, as long as the client is open; a server is given up when
it keeps the next answer back for `patience`. What every connection decides is in `rules`.
"""

# ruff: noqa: ASYNC109 - the error of a call whose time is over says what was seen, which asyncio.timeout cannot

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from copy import copy
from pathlib import Path
from random import Random
from time import time_ns
from typing import TYPE_CHECKING, Any, Self, TypeVar

from proxyherd.client.endpoints import Endpoint, endpoints_of_file, parse_endpoints
from proxyherd.client.follows import JSON_SUBPROTOCOL, followed_changes
from proxyherd.client.links import ServerLink, Socket, dial, open_websocket
from proxyherd.client.rules.choice import ServerChoice
from proxyherd.client.rules.commands import (
    ClientCommand,
    NearbyPlaces,
    TakenReport,
    ask_command,
    locate_command,
    raw_command,
    report_command,
)
from proxyherd.client.rules.errors import (
    ClientClosed,
    ForeignAnswer,
    HerdError,
    NoAnswer,
    NotAllowed,
    Unreachable,
)
from proxyherd.client.rules.fields import Moment, Number
from proxyherd.client.rules.follows import FollowedChange, FollowState, follow_message
from proxyherd.client.rules.pipeline import MOST_KEPT_BYTES, Pipeline, Waiting
from proxyherd.client.sockets import CALL_SECONDS, SERVER_SECONDS, reason_of

if TYPE_CHECKING:
    import ssl

A = TypeVar("A")

_OUTSTANDING = 256
"""As many answers as a server lets one connection wait for by default."""


class HerdClient:
    """A client of a herd, for one event loop. Any number of tasks may call it at once.

    `servers`: those that may be asked, as "host:port", or "ws://host:port" for a WebSocket. `timeout`: seconds for a call
    with all its attempts. `patience`: seconds that a server has to accept the connection, and for each next answer; then
    another one is asked. `outstanding`: how many commands are under way at once; others wait. Without `retry`, a call
    fails as soon as its connection breaks, or when each server was tried once. `tls`: for servers that speak TLS. `token`:
    who asks, for WebSockets; a function is called for each connection. `most_bytes`: of one answer. Raises ValueError for
    what is no server.

    Calls raise what `proxyherd.client` names: above all Unreachable, with NoAnswer where the time was over, and
    InvalidCommand, with UnknownClient and ReportRefused. Wrong arguments are ValueError. A call may be cancelled.
    """

    def __init__(
        self,
        *servers: str | Endpoint,
        timeout: float = CALL_SECONDS,
        patience: float = SERVER_SECONDS,
        outstanding: int = _OUTSTANDING,
        retry: bool = True,
        tls: ssl.SSLContext | None = None,
        token: str | Callable[[], str] = "",
        most_bytes: int = MOST_KEPT_BYTES,
        rng: Random | None = None,
    ) -> None:
        self._endpoints = parse_endpoints(servers)
        if token and not any(one.url for one in self._endpoints):
            raise ValueError("a token is sent over WebSockets only: name web ports, as ws://host:port")
        self._timeout, self._patience, self._retry, self._tls = timeout, patience, retry, tls
        self._token = token if callable(token) else lambda: token
        self._most_bytes = most_bytes
        self._rng = rng or Random()  # noqa: S311 - no secret depends on it
        self._choice = ServerChoice(len(self._endpoints), self._rng)
        self._pipeline = Pipeline[asyncio.Future[Any]](outstanding, most_bytes)
        self._tried = set[int]()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._doing = "the event loop was busy"

    @classmethod
    def of_herd_file(cls, file: str | Path, *, websocket: bool = False, **options: Any) -> Self:
        """Return a client of the servers in a herd's file: of their client ports, or of their web ports. `options`: as
        above. Raises ValueError.
        """
        found = endpoints_of_file(file, websocket=websocket, has_tls=bool(options.get("tls")))
        return cls(*found, **options)

    async def report(
        self,
        client: str | bytes,
        lat: Number,
        lon: Number,
        time: Moment | None = None,
        *,
        timeout: float | None = None,
    ) -> TakenReport:
        """Report where a client is. `lat`, `lon`: decimal degrees. `time`: POSIX seconds or a datetime; by default now.
        Return the report as a server has taken it. A report that is not later than the herd's changes nothing, and is no
        error. Raises ReportRefused, Unreachable.
        """
        return await self._call(report_command(client, lat, lon, time, time_ns()), timeout)

    async def ask(
        self, client: str | bytes, radius_km: Number = 10, limit: int = 20, *, timeout: float | None = None
    ) -> NearbyPlaces:
        """Ask what is near a client: within a radius of 0 to 50 km, and at most so many places, 0 to 20. Later answers of
        this client wait for it. Raises UnknownClient, Unreachable.
        """
        return await self._call(ask_command(client, radius_km, limit), timeout)

    async def locate(self, client: str | bytes, *, timeout: float | None = None) -> TakenReport:
        """Ask for the last report of a client. Raises UnknownClient, Unreachable."""
        return await self._call(locate_command(client), timeout)

    async def command(self, line: str | bytes, *, timeout: float | None = None) -> bytes:
        """Send any line, without LF; return its whole answer with its LFs, which may be `? ` and the line. It may be sent
        twice, if a connection breaks. Raises Unreachable.
        """
        return await self._call(raw_command(line), timeout)

    async def follow(
        self,
        *clients: str,
        near: tuple[Number, Number, Number] | None = None,
        within: tuple[Number, Number, Number, Number] | None = None,
        buffer_m: float = 0,
    ) -> AsyncGenerator[FollowedChange, None]:
        """Yield who is there, and then each change, for ever: of clients by their names; or of the circle `near` (latitude,
        longitude, kilometres) or the box `within` (west, south, east, north). A client leaves an area when it is `buffer_m`
        metres outside. After a disconnection it goes on at another server. It has a connection of its own, and needs
        servers that are WebSockets. The last state of each client comes; states before it may be left out. Raises
        FollowRefused, NotAllowed; ValueError for wrong arguments, or if no server is a WebSocket.
        """
        urls = [one.url for one in self._endpoints if one.url]
        if not urls:
            raise ValueError("to follow needs WebSockets: name web ports, as ws://host:port")
        message = follow_message(clients, near, within, buffer_m)

        def connect(url: str) -> Awaitable[Socket]:
            return open_websocket(
                url,
                JSON_SUBPROTOCOL,
                self._patience,
                self._tls,
                self._token(),
                self._most_bytes,
                has_pings=True,
            )

        state = FollowState(is_area=not clients)
        found = followed_changes(urls, message, state, connect, self._patience, self._rng)
        async with contextlib.aclosing(found) as changes:
            async for change in changes:
                yield change

    async def close(self) -> None:
        """Close the connection. Whoever waits for an answer gets ClientClosed, and so do later calls."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._fail(self._pipeline.take_all(), _closed())  # if the task had not begun

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, command: ClientCommand[A], timeout: float | None) -> A:
        if self._closed:
            raise ClientClosed("this client is closed")
        seconds = self._timeout if timeout is None else timeout
        answered = asyncio.get_running_loop().create_future()
        waiting = self._pipeline.add(command, answered)
        self._news.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve())
        try:
            async with asyncio.timeout(seconds):
                meant: Any = await answered
        except TimeoutError:
            raise NoAnswer(seconds, self._choice.reasons or [self._doing]) from None
        finally:
            self._pipeline.give_up(waiting)
        if isinstance(meant, Exception):
            raise meant
        answer: A = meant
        return answer

    # The task. ------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Bring the answers that are wanted, until the client is closed."""
        why: Exception = _closed()
        try:
            while True:
                if not self._pipeline.is_wanted:
                    self._news.clear()
                    await self._news.wait()
                elif (server := await self._next_server()) is not None:
                    await self._use(server)
        except Exception as error:  # a bug of ours: nobody waits for ever
            why = error
            raise
        finally:
            self._fail(self._pipeline.take_all(), why)

    async def _next_server(self) -> int | None:
        """Return which server to ask, when its pause is over; None if nobody wants an answer any more."""
        now = asyncio.get_running_loop().time()
        server, pause = self._choice.next(now, () if self._retry else self._tried)
        if self._retry and pause > 0:
            await asyncio.sleep(pause)
        return server if self._pipeline.is_wanted else None

    async def _use(self, server: int) -> None:
        """Ask a server, until its connection ends; then say what becomes of what it has not answered."""
        lost: list[Waiting[asyncio.Future[Any]]] = []
        reason = ""
        self._tried.add(server)
        endpoint = self._endpoints[server]
        self._doing = f"{endpoint}: not connected yet"
        try:
            link = await dial(endpoint, self._patience, self._tls, self._token, self._most_bytes)
            self._doing = f"{link.called}: has not answered yet"
            try:
                reason = await self._talk(server, link)
            finally:
                lost = self._pipeline.connection_lost()
                await link.close()
        except NotAllowed as error:
            self._choice.failed(server, asyncio.get_running_loop().time(), str(error))
            self._fail(self._pipeline.take_all(), error)
            return
        except Unreachable as error:
            reason = str(error)
        if not reason:
            return
        self._choice.failed(server, asyncio.get_running_loop().time(), reason)
        if self._retry:
            return
        self._fail(lost, Unreachable(reason))
        if len(self._tried) == len(self._endpoints):
            self._tried.clear()
            self._fail(self._pipeline.take_all(), Unreachable(*self._choice.reasons))

    async def _talk(self, server: int, link: ServerLink) -> str:
        """Send and receive, until the connection ends. Return why that is a failure; "" if nothing was owed any more.
        Raises NotAllowed.
        """
        sender: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(None) as limit:
                sender = asyncio.create_task(self._send(link, limit))
                while data := await link.receive():
                    self._receive(server, data, limit)
        except TimeoutError:
            return f"{link.called}: has kept an answer back for {self._patience:g} s"
        except ForeignAnswer as error:
            return f"{link.called}: {error}"
        except OSError as error:
            return f"{link.called}: {reason_of(error)}"
        finally:
            if sender is not None:
                sender.cancel()
                await asyncio.wait([sender])
        return f"{link.called}: {link.ending}" if self._pipeline.is_wanted else ""

    async def _send(self, link: ServerLink, limit: asyncio.Timeout) -> None:
        """Send what is to be sent, whenever there is something. If that fails, whoever receives learns it too."""
        with contextlib.suppress(OSError):
            while True:
                if lines := self._pipeline.data_to_send():
                    if limit.when() is None:
                        self._limit(limit)
                    await link.send(lines)
                else:
                    self._news.clear()
                    await self._news.wait()

    def _receive(self, server: int, data: bytes, limit: asyncio.Timeout) -> None:
        """Hand out answers. Raises ForeignAnswer."""
        before = self._pipeline.owed
        for answered, meant in self._pipeline.receive_data(data):
            if not answered.done():
                answered.set_result(meant)
        if self._pipeline.owed == before:
            return
        self._choice.answered(server)
        self._tried.clear()
        self._limit(limit)
        if self._pipeline.has_more:
            self._news.set()

    def _limit(self, limit: asyncio.Timeout) -> None:
        """Give the server time for the next answer that it owes."""
        now = asyncio.get_running_loop().time()
        limit.reschedule(now + self._patience if self._pipeline.owed else None)

    def _fail(self, those: list[Waiting[asyncio.Future[Any]]], why: Exception) -> None:
        for one in those:
            self._pipeline.give_up(one)
            if not one.owner.done():
                # each has a traceback of its own; a stranger's exception may not be one that can be copied
                one.owner.set_result(copy(why) if isinstance(why, HerdError) else why)


def _closed() -> ClientClosed:
    return ClientClosed("this client was closed before the answer came")
