"""Asks the other servers of the herd for their state, once a second each, while somebody views the page.

A server that cannot be asked is unknown, not down: it may still serve clients. Each server has its own task and
deadline, so one that hangs does not delay others. Answers are untrusted: their size is limited, and their form and the
server's name are checked. A server with a wrong answer is unknown, with the reason.
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
from proxyherd.config.address import Address
from proxyherd.config.herd_file import Herd
from proxyherd.net import http
from proxyherd.net.dialling import hosts_of, shares
from proxyherd.telemetry.recent import MOST_KEPT, Command

STATE_SECONDS: Final = 1.2
"""How long one server may take to answer, at the address that is tried. Linux repeats a lost SYN after 1 s."""

_EVERY_SECONDS: Final = 1.0
_FRESH_SECONDS: Final = 2.5
"""How old an answer may be: the next one may take its whole deadline."""

_AT_ONCE: Final = 64
"""Servers that are asked at once."""

_HEAD_BYTES: Final = 8_192
_READ_BYTES: Final = 65_536

_HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what such an address is reached at


class Other(Struct, eq=False):
    """The known state of another server."""

    name: str
    addresses: tuple[Address, ...]
    history: History
    problem: str = "not asked yet"
    asked: bool = False  # whether it has answered, or failed to
    silent: bool = True  # whether it gives no answer at all, rather than a wrong one
    at: float = 0.0  # when it last answered, by the loop's clock
    cursor: int = 0
    commands: list[Command] = []  # that nobody has taken yet
    missed: int = 0  # commands that were left out because there were too many

    def forget_commands(self) -> None:
        """Forget its commands, and ask for all available ones the next time."""
        self.cursor, self.commands, self.missed = 0, [], 0


class Others:
    """All other servers of a herd. `wants_commands` says whether a viewer may see commands. If not, the others are not
    asked for any, and so keep none.
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
        """Begin to ask the others."""
        loop = asyncio.get_running_loop()
        gate = asyncio.Semaphore(_AT_ONCE)
        self._tasks = [loop.create_task(self._keep_asking(other, gate)) for other in self._others]

    async def stop(self) -> None:
        """Stop asking, and forget all answers."""
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
                other.problem, other.silent = str(error), error.silent
            else:
                self._learn(other, state)
                other.problem, other.at = "", loop.time()
            other.asked = True
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
        """Return a server's state from the first of its addresses that answers; a silent address is tried last the next
        time. Raises AnswerError.
        """
        query = "commands=no"
        if self._wants_commands():
            last = other.history.last
            query = f"life={quote(last.life, safe='') if last is not None else ''}&after={other.cursor}"
        else:
            other.forget_commands()
        problems, silent = [], True
        for address in other.addresses:
            try:
                async with asyncio.timeout(STATE_SECONDS):
                    return state_of(other.name, await _fetch(address, f"/state?{query}"))
            except AnswerError as error:
                problem, silent = str(error), False
            except TimeoutError:
                other.addresses = (*(one for one in other.addresses if one != address), address)
                raise AnswerError(f"{address}: no answer within {STATE_SECONDS:g} s", silent=silent) from None
            except OSError as error:
                problem = _explained(error)
            except Exception as error:  # noqa: BLE001 - whatever an answer brings about, the server is unknown
                problem, silent = f"no answer that is one ({type(error).__name__})", False
            problems.append(f"{address}: {problem}")
        raise AnswerError("; ".join(problems), silent=silent)


def known(other: Other, now: float) -> ServerState | None:
    """Return the latest state of a server, unless it is too old."""
    return other.history.last if other.at and now - other.at < _FRESH_SECONDS else None


async def _fetch(address: Address, path: str) -> bytes:
    """Ask at each address of a name, until one answers."""
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
    """Return the answer to a request for a path at an address. Raises OSError, or AnswerError if it is too long."""
    data = bytearray()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(http.request(path))
        while some := await reader.read(_READ_BYTES):
            data += some
            if len(data) > _HEAD_BYTES + MAX_BYTES:
                raise AnswerError(f"answers with more than {MAX_BYTES} bytes")
    finally:
        writer.transport.abort()  # nothing more is to be sent, and the rest is not wanted
    return bytes(data)


def _explained(error: OSError) -> str:
    """Return the system's error text, without the address."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or "no connection"
