"""Asks the other servers of the herd for their state, once a second each, while somebody looks.

Whoever cannot be asked is unknown, and not down: it may well serve clients. Each has a task and a deadline of its own,
so one that hangs delays no other. What comes is untrusted: bounded in size, checked in shape, from whom it was asked of;
whatever is wrong with it, the server is unknown, and says why.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from proxyherd.admin.status_page.rates import History
from proxyherd.admin.status_page.state import MAX_BYTES, AnswerError, ServerState, state_of
from proxyherd.config.herd_file import Address, Herd
from proxyherd.net import http
from proxyherd.net.dialling import hosts_of, shares
from proxyherd.telemetry.recent import MOST_KEPT, Command

STATE_SECONDS: Final = 1.2
"""For one server to answer in, at the address that is tried. Linux sends a lost SYN again after 1 s."""

_EVERY_SECONDS: Final = 1.0
_FRESH_SECONDS: Final = 2.5
"""How old an answer may be: the next one may take its whole deadline."""

_AT_ONCE: Final = 64
"""Servers that are asked at once."""

_HEAD_BYTES: Final = 8_192
_READ_BYTES: Final = 65_536

_HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what such an address is reached at


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

    def forget_commands(self) -> None:
        """Keep no commands, and ask for whatever there is the next time."""
        self.cursor, self.commands, self.missed = 0, [], 0


class Others:
    """All other servers of a herd. `wants_commands` is asked whether anybody looks who may see commands: else the others
    are not asked for any, and so keep none.
    """

    def __init__(self, herd: Herd, server: str, wants_commands: Callable[[], bool]) -> None:
        self._servers = [one for one in herd.servers.values() if one.name != server]
        self._wants_commands = wants_commands
        self._tasks: list[asyncio.Task[None]] = []
        self._forget()

    def _forget(self) -> None:
        self._others = [Other(one.name, one.admin, History()) for one in self._servers]

    def __iter__(self) -> Iterator[Other]:
        return iter(self._others)

    def start(self) -> None:
        """Begin to ask."""
        loop = asyncio.get_running_loop()
        gate = asyncio.Semaphore(_AT_ONCE)
        self._tasks = [loop.create_task(self._keep_asking(other, gate)) for other in self._others]

    async def stop(self) -> None:
        """Ask no more, and keep nothing of what was said."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._forget()

    async def _keep_asking(self, other: Other, gate: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        pause = random.uniform(0.5, 1.0) * _EVERY_SECONDS  # noqa: S311 - so that not all are asked in one turn
        while True:
            began = loop.time()
            try:
                async with gate:
                    state = await self._ask(other)
            except AnswerError as error:
                other.problem = str(error)
            else:
                self._learn(other, state)
                other.problem, other.at = "", loop.time()
            await asyncio.sleep(max(0.0, began + pause - loop.time()))
            pause = _EVERY_SECONDS

    def _learn(self, other: Other, state: ServerState) -> None:
        last, commands = other.history.last, state.commands
        other.history.add(replace(state, commands=None))
        if commands is None or not self._wants_commands():
            other.forget_commands()
            return
        if last is not None and last.life == state.life and other.cursor:
            other.missed += max(0, state.cursor - other.cursor - len(commands))
        other.commands = [*other.commands, *commands][-MOST_KEPT:]
        other.cursor = state.cursor

    async def _ask(self, other: Other) -> ServerState:
        """Return what a server says, asked at the first of its addresses that answers; one that is silent is tried last
        the next time. Raises AnswerError.
        """
        query = "commands=no"
        if self._wants_commands():
            last = other.history.last
            query = f"life={quote(last.life, safe='') if last is not None else ''}&after={other.cursor}"
        else:
            other.forget_commands()
        problems = []
        for address in other.addresses:
            try:
                async with asyncio.timeout(STATE_SECONDS):
                    return state_of(other.name, await _fetch(address, f"/state?{query}"))
            except AnswerError as error:
                problem = str(error)
            except TimeoutError:
                other.addresses = (*(one for one in other.addresses if one != address), address)
                raise AnswerError(f"{address}: no answer within {STATE_SECONDS:g} s") from None
            except OSError as error:
                problem = _explained(error)
            except Exception as error:  # noqa: BLE001 - whatever an answer brings about, the server is unknown
                problem = f"no answer that is one ({type(error).__name__})"
            problems.append(f"{address}: {problem}")
        raise AnswerError("; ".join(problems))


def known(other: Other, now: float) -> ServerState | None:
    """Return the latest state of a server, unless it is too old to be believed."""
    return other.history.last if other.at and now - other.at < _FRESH_SECONDS else None


async def _fetch(address: Address, path: str) -> bytes:
    """Ask at each address that a name stands for, until one answers."""
    loop, failure = asyncio.get_running_loop(), OSError()
    deadline, name = loop.time() + STATE_SECONDS, _HERE.get(address.host, address.host)
    for host, until in shares(await hosts_of(loop, name, address.port), deadline, loop.time):
        try:
            async with asyncio.timeout_at(until):
                return await _read_from(host, address.port, path)
        except OSError as error:  # TimeoutError is one
            failure = error
    raise failure


async def _read_from(host: str, port: int, path: str) -> bytes:
    """Return the answer to a request for a path at an address. Raises OSError, and AnswerError where it is too long."""
    data = bytearray()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(http.request(path))
        while some := await reader.read(_READ_BYTES):
            data += some
            if len(data) > _HEAD_BYTES + MAX_BYTES:
                raise AnswerError(f"answers with more than {MAX_BYTES} bytes")
    finally:
        writer.transport.abort()  # there is nothing more to say, and none of the rest is wanted
    return bytes(data)


def _explained(error: OSError) -> str:
    """Return what the system says, without whom it says it of."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or "no connection"
