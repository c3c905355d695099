"""A client for asyncio: many calls at once over one connection, and over another one when that breaks (`calls`).

Questions about areas have a connection of their own, in JSON, and so has each follow.
"""

# ruff: noqa: ASYNC109 - the error of a call whose time is over says what was seen, which asyncio.timeout cannot

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from time import time_ns
from typing import TYPE_CHECKING, Any, Self, TypeVar

from proxyherd.client.calls import Calls
from proxyherd.client.endpoints import Endpoint, endpoints_of_file, parse_endpoints
from proxyherd.client.follows import followed_changes
from proxyherd.client.links import (
    JSON_SUBPROTOCOL,
    LINES_SUBPROTOCOL,
    MOST_MESSAGE_BYTES,
    ServerLink,
    Socket,
    dial,
    open_websocket,
)
from proxyherd.client.rules.areas import NearbyClients, near_command, within_command
from proxyherd.client.rules.commands import (
    ClientCommand,
    NearbyPlaces,
    TakenReport,
    ask_command,
    locate_command,
    raw_command,
    report_command,
)
from proxyherd.client.rules.errors import ClientClosed, InvalidCommand, NotAllowed, ReportRefused
from proxyherd.client.rules.fields import Moment, Number
from proxyherd.client.rules.follows import FollowedChange, FollowState, follow_message
from proxyherd.client.rules.pipeline import MOST_KEPT_BYTES, Pipeline
from proxyherd.client.rules.settings import count_setting, seconds_setting
from proxyherd.client.sockets import CALL_SECONDS, SERVER_SECONDS, check_tls
from proxyherd.client.tokens import end_of, may_report

if TYPE_CHECKING:
    import ssl

A = TypeVar("A")

_SECOND = 1_000_000_000
"""In nanoseconds."""

_OUTSTANDING = 256
"""As many answers as a server lets one connection wait for by default."""

_AREAS_OUTSTANDING = 16
"""Questions about areas at once. A server takes 64 of one address."""

_CLOCK_SECONDS = 30
"""By so much the clocks of a server and of this machine may differ."""

_NEEDS_WEB = "needs WebSockets: name web ports, as ws://host:port"


class HerdClient:
    """A client of a herd, for one event loop. Any number of tasks may call it at once.

    `servers`: those that may be asked, as "host:port", or "ws://host:port" for a WebSocket. `timeout`: seconds for a call
    with all its attempts. `patience`: seconds that a server has to accept the connection, and for each next answer; then
    another one is asked. `outstanding`: how many commands are under way at once; others wait. Without `retry`, a call
    fails as soon as its connection breaks, or when each server was tried once. `tls`: for servers that speak TLS. `token`:
    who asks, for WebSockets; a function is called for each connection. `most_bytes`: of one answer. Raises ValueError and
    TypeError for what cannot be meant.

    Calls raise what `proxyherd.client` names: above all Unreachable, with NoAnswer where the time was over, and
    InvalidCommand, with UnknownClient and ReportRefused. Wrong arguments are ValueError or TypeError. A call may be
    cancelled.
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
        if not (callable(token) or isinstance(token, str)):
            raise TypeError("token is neither a str nor a function that returns one")
        self._timeout = seconds_setting("timeout", timeout)
        self._patience = seconds_setting("patience", patience)
        self._retry, self._tls = retry, check_tls(tls)
        self._token, self._renews = (token, True) if callable(token) else ((lambda: token), False)
        self._most_bytes = count_setting("most_bytes", most_bytes)
        self._rng = rng or Random()  # noqa: S311 - no secret depends on it
        self._lines = self._calls(
            self._endpoints, LINES_SUBPROTOCOL, count_setting("outstanding", outstanding)
        )
        self._areas: Calls | None = None
        self._follows: dict[AsyncGenerator[FollowedChange, None], asyncio.Timeout | None] = {}
        self._closed = False

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
        error. Raises ReportRefused, NotAllowed, Unreachable.
        """
        command = report_command(client, lat, lon, time, time_ns())
        try:
            return await self._call(command, timeout)
        except ReportRefused as error:
            if may_report(self._lines.token, command.line.split(b" ")[1]):
                raise
            raise NotAllowed(f"the token does not allow to report this client: {client!r}") from error

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

    async def near(
        self,
        centre: tuple[Number, Number] | str,
        radius_km: Number = 10,
        limit: int = 100,
        *,
        max_age_s: Number | None = None,
        after: str = "",
        timeout: float | None = None,
    ) -> NearbyClients:
        """Ask which clients are within a radius of 0 to 50 km of a latitude and a longitude, or of a client by its name: the
        nearest, 1 to 1,000 of them. `max_age_s`: leave out whose report is older. `after`: the `next` of an earlier
        answer. Needs servers that are WebSockets. Raises UnknownClient, AreaRefused, NotAllowed, Unreachable.
        """
        return await self._ask_area(near_command(centre, radius_km, limit, max_age_s, after), timeout)

    async def within(
        self,
        west: Number,
        south: Number,
        east: Number,
        north: Number,
        limit: int = 100,
        *,
        max_age_s: Number | None = None,
        after: str = "",
        timeout: float | None = None,
    ) -> NearbyClients:
        """Ask which clients are in a box, which crosses the date line if `west` is greater than `east`. The rest is as in
        `near`.
        """
        return await self._ask_area(
            within_command((west, south, east, north), limit, max_age_s, after), timeout
        )

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
        urls = [one.url for one in self._web_endpoints("to follow")]
        message = follow_message(clients, near, within, buffer_m)
        self._check_open()

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
        found = followed_changes(
            urls, message, state, connect, self._patience, self._rng, renews=self._renews
        )
        try:
            while True:
                self._check_open()
                yield await self._followed(found)
        finally:
            await self._end_follow(found)

    async def _followed(self, found: AsyncGenerator[FollowedChange, None]) -> FollowedChange:
        """Return the next change, unless this client is closed meanwhile."""
        limit = asyncio.timeout(None)
        self._follows[found] = limit
        try:
            async with limit:
                return await anext(found)
        except TimeoutError:
            if not limit.expired():
                raise
            raise ClientClosed("this client was closed while it followed") from None
        finally:
            self._follows[found] = None  # it is not waited for

    async def _end_follow(self, found: AsyncGenerator[FollowedChange, None]) -> None:
        """Close the connection of a follow, unless that is done already."""
        if found in self._follows:
            del self._follows[found]
            await found.aclose()

    async def close(self) -> None:
        """Close all connections. Whoever waits for an answer, or follows, gets ClientClosed, and so do later calls."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._follows.values():
            if limit is not None and limit.when() is None:
                limit.reschedule(now)
        for found in [found for found, limit in self._follows.items() if limit is None]:
            await self._end_follow(found)
        for calls in (self._lines, self._areas):
            if calls is not None:
                await calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, command: ClientCommand[A], timeout: float | None) -> A:
        if len(command.line) >= MOST_MESSAGE_BYTES and any(one.url for one in self._endpoints):
            raise ValueError(f"a line over a WebSocket has less than {MOST_MESSAGE_BYTES:,} bytes")
        return await self._answer(self._lines, command, timeout)

    async def _ask_area(self, question: ClientCommand[NearbyClients], timeout: float | None) -> NearbyClients:
        if len(question.line) >= MOST_MESSAGE_BYTES:
            raise ValueError(f"a question has less than {MOST_MESSAGE_BYTES:,} bytes")
        if self._areas is None:
            endpoints = self._web_endpoints("to ask about areas")
            self._areas = self._calls(endpoints, JSON_SUBPROTOCOL, _AREAS_OUTSTANDING)
        return await self._answer(self._areas, question, timeout)

    async def _answer(self, calls: Calls, command: ClientCommand[A], timeout: float | None) -> A:
        seconds = self._timeout if timeout is None else seconds_setting("timeout", timeout)
        self._check_open()
        until = asyncio.get_running_loop().time() + seconds
        try:
            return await calls.call(command, seconds, until)
        except (InvalidCommand, NotAllowed) as error:
            # At its end a token allows nothing more; only then the server closes the connection.
            left = end_of(calls.token) - time_ns() / _SECOND
            if not self._renews or left > _CLOCK_SECONDS:
                if left <= 0 and isinstance(error, InvalidCommand):
                    raise NotAllowed("the token has expired") from error
                raise
        return await calls.call(command, seconds, until)

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("this client is closed")

    def _calls(self, endpoints: Sequence[Endpoint], subprotocol: str, outstanding: int) -> Calls:
        def connect(endpoint: Endpoint) -> Awaitable[ServerLink]:
            calls.token = self._token() if endpoint.url else ""
            return dial(endpoint, self._patience, self._tls, calls.token, self._most_bytes, subprotocol)

        pipeline = Pipeline[asyncio.Future[Any]](outstanding, self._most_bytes)
        calls = Calls(
            endpoints, connect, pipeline, self._patience, self._rng, retry=self._retry, renews=self._renews
        )
        return calls

    def _web_endpoints(self, what: str) -> list[Endpoint]:
        if found := [one for one in self._endpoints if one.url]:
            return found
        raise ValueError(f"{what} {_NEEDS_WEB}")
