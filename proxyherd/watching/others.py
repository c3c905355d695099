"""Asks the other servers of the herd for their state, once a second each, while somebody looks.

Whoever cannot be asked is unknown, and not down: it may well serve clients. Each has a task and a deadline of its own,
so one that hangs delays no other. What comes is untrusted: bounded in size, checked in shape, from whom it was asked of;
whatever is wrong with it, the server is unknown, and says why.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from typing import Final

import aiohttp
from msgspec import Struct
from yarl import URL

from proxyherd.config import Address, Herd
from proxyherd.recent import MOST, Command
from proxyherd.watching.rates import History
from proxyherd.watching.state import MAX_BYTES, State, read

DEADLINE_SECONDS: Final = 1.0
"""For one server to answer in, at the address that is tried."""

_EVERY_SECONDS: Final = 1.0
_FRESH_SECONDS: Final = 2.5
"""How old an answer may be: the next one may take its whole deadline."""

_AT_ONCE: Final = 64
"""Servers that are asked at once."""

# An admin port always serves loopback's, and what it guards against are browsers.
_HEADERS: Final = {"Host": "localhost", "Accept-Encoding": "identity"}
_HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what such an address is reached at


class UnusableError(Exception):
    """A server has given no state; the text says what it did."""


class Other(Struct, eq=False):
    """What is known of another server."""

    name: str
    addresses: tuple[Address, ...]
    history: History
    problem: str = "not asked yet"
    at: float = 0.0  # of the loop's clock, when it last answered
    cursor: int = 0
    commands: list[Command] = []  # that nobody has taken yet
    missed: int = 0  # commands that came too fast to be told


class Others:
    """All other servers of a herd."""

    def __init__(self, herd: Herd, server: str) -> None:
        self._others = [
            Other(one.name, one.admin, History()) for one in herd.servers.values() if one.name != server
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def __iter__(self) -> Iterator[Other]:
        return iter(self._others)

    def start(self) -> None:
        """Begin to ask."""
        loop = asyncio.get_running_loop()
        session = self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_AT_ONCE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            headers=_HEADERS,
            skip_auto_headers=("User-Agent", "Accept"),
        )
        for other in self._others:
            other.history, other.problem, other.at = History(), "not asked yet", 0.0
            other.cursor, other.commands, other.missed = 0, [], 0
        self._tasks = [loop.create_task(_keep_asking(session, other)) for other in self._others]

    async def stop(self) -> None:
        """Ask no more."""
        tasks, self._tasks = self._tasks, []
        session, self._session = self._session, None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if session is not None:
            await session.close()


def known(other: Other, now: float) -> State | None:
    """Return the latest state of a server, unless it is too old to be believed."""
    return other.history.last if other.at and now - other.at < _FRESH_SECONDS else None


async def _keep_asking(session: aiohttp.ClientSession, other: Other) -> None:
    loop = asyncio.get_running_loop()
    pause = random.uniform(0.5, 1.0) * _EVERY_SECONDS  # noqa: S311 - so that not all are asked in one turn
    while True:
        began = loop.time()
        try:
            state = await _ask(session, other)
        except UnusableError as error:
            other.problem = str(error)
        else:
            _learn(other, state)
            other.problem, other.at = "", loop.time()
        await asyncio.sleep(max(0.0, began + pause - loop.time()))
        pause = _EVERY_SECONDS


def _learn(other: Other, state: State) -> None:
    last, commands = other.history.last, state.commands or []
    if last is not None and last.life == state.life and other.cursor:
        other.missed += max(0, state.cursor - other.cursor - len(commands))
    other.commands = [*other.commands, *commands][-MOST:]
    other.cursor = state.cursor
    other.history.add(state)


async def _ask(session: aiohttp.ClientSession, other: Other) -> State:
    """Return what a server says, asked at the first of its addresses that answers; one that is silent is tried last
    the next time. Raises UnusableError.
    """
    problems = []
    for address in other.addresses:
        problem = ""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await _get(session, address, other)
        except UnusableError as error:
            problem = str(error)
        except TimeoutError:
            other.addresses = (*(one for one in other.addresses if one != address), address)
            raise UnusableError(f"{address}: no answer within {DEADLINE_SECONDS:g} s") from None
        except aiohttp.ClientConnectorError as error:
            number = error.os_error.errno
            problem = os.strerror(number) if number and number > 0 else "no connection"
        except Exception as error:  # noqa: BLE001 - whatever an answer brings about, the server is unknown
            problem = f"no answer that is one ({type(error).__name__})"
        problems.append(f"{address}: {problem}")
    raise UnusableError("; ".join(problems))


async def _get(session: aiohttp.ClientSession, address: Address, other: Other) -> State:
    host = _HERE.get(address.host, address.host)
    last = other.history.last
    url = URL.build(
        scheme="http",
        host=host,
        port=address.port,
        path="/state",
        query={"life": last.life if last is not None else "", "after": str(other.cursor)},
    )
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise UnusableError(f"answers {response.status}")
        data = bytearray()
        while some := await response.content.read(MAX_BYTES):
            data += some
            if len(data) > MAX_BYTES:
                response.close()
                raise UnusableError(f"answers with more than {MAX_BYTES} bytes")
    state = read(bytes(data))
    if state is None:
        raise UnusableError("what it answers is no server's state")
    if state.server != other.name:
        raise UnusableError("another server answers there")
    return state
