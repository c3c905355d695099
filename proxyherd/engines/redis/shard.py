"""One master of the cluster: at most one batch is under way to it, while the next one gathers.

After a batch is cancelled, its connection is never used again, because late replies could be taken for those of
another batch. If a batch is late or interrupted, the connection is closed, and everything in it is repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol

from msgspec import Struct

from proxyherd.base.backoff import backoff
from proxyherd.config.address import Address
from proxyherd.engines.redis.batch import Batch

FIRST_RETRY_SECONDS: Final = 0.05
LONGEST_RETRY_SECONDS: Final = 1.0
"""The pauses between failing connections: back-off from the first pause to the longest."""

_IDLE_SHARE: Final = 0.5
"""The part of a batch's time after which an idle master gets an empty batch: with 1.2 s, the server hears of it within
1.8 s."""


class MasterConnection(Protocol):
    """What a shard needs of a connection of the client library."""

    async def exchange(self, commands: bytes, count: int) -> list[object]:
        """Send bytes as they are; return the replies to so many commands, including errors of Redis."""

    async def disconnect(self, nowait: bool) -> None:
        """Close it."""


class Library(Struct, frozen=True):
    """What a shard needs of the client library. `connect` opens and checks a connection to a master; it and the
    connection raise `errors` when they fail. Among Redis' replies, `moved` and `asked` name another node as
    `node_addr`; `later` means try again, and `full` means no memory.
    """

    connect: Callable[[Address], Awaitable[MasterConnection]]
    errors: tuple[type[Exception], ...]
    moved: type[Exception]
    asked: type[Exception]
    later: type[Exception]
    full: type[Exception]


class Desk(Protocol):
    """The owner of a shard: it gives work and takes outcomes."""

    def gather(self, shard: Shard) -> tuple[Batch, bytes, int]:
        """Return a batch for this master, its bytes, and the number of its replies. The bytes are empty if there is
        nothing to do, not even a check whether the master still is one.
        """

    def settle(self, shard: Shard, batch: Batch, replies: list[object], seconds: float) -> str:
        """Handle the replies; return why they must not be believed, or "" if they are good."""

    def give_back(self, batch: Batch, why: str) -> None:
        """Take back a batch whose outcome is unknown."""

    def changed(self, shard: Shard) -> None:
        """Note that a master has become available, or is no longer."""

    def fault(self, what: str, error: Exception) -> None:
        """Note a bug in the program."""


class Shard:
    """One master, and all work for it."""

    def __init__(
        self, address: Address, desk: Desk, library: Library, *, seconds: float, gathers: float
    ) -> None:
        self.address = address
        self.trouble = "not connected yet"
        """Why it is not available; empty if it is."""
        self.full = False
        """Whether it refuses reports because its memory is full; it still answers queries."""
        self.probe_at = 0.0
        """When to test next whether it takes reports, by the loop's clock."""
        self.wanted: deque[int] = deque()
        """Tags that have work for it."""
        self.sent = 0.0
        """When the batch that is under way was sent, by the loop's clock; 0: there is none."""
        self.seal: int | None = None
        """The tag whose seal ends its batches."""
        self._desk = desk
        self._library = library
        self._seconds = seconds  # for a batch
        self._gathers = gathers  # seconds, before one
        self._work = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._parting = False
        self._in_flight = False
        self._heard = 0.0  # when it has last answered, by the loop's clock
        self._pauses = new_pauses()
        self.task = self._loop.create_task(self._serve())

    def want(self, tag: int) -> None:
        """Include a tag in the next batch."""
        if not self.wanted:
            self._work.set()
        self.wanted.append(tag)

    def part(self) -> None:
        """Close, as soon as no batch is under way."""
        self._parting = True
        self._work.set()  # or it would wait for more
        if not self._in_flight:
            self.task.cancel()

    async def _serve(self) -> None:
        while not self._parting:
            try:
                async with asyncio.timeout(self._seconds):
                    connection = await self._library.connect(self.address)
                await self._use(connection)
            except self._library.errors as error:
                self._tell(error_text(error))
            except Exception as error:  # noqa: BLE001 - a fault of ours must not leave a shard without anybody
                self._tell(error_text(error))
                self._desk.fault(f"{self.address} cannot be served", error)
            await asyncio.sleep(next(self._pauses))

    async def _use(self, connection: MasterConnection) -> None:
        """Exchange batches until the connection fails, or the master is in doubt."""
        self.probe_at = 0.0
        self._heard = self._loop.time()
        try:
            while not self._parting:
                if doubt := await self._exchange(connection):
                    self._tell(doubt)
                    return
                if self.trouble:
                    self._pauses = new_pauses()
                    self._tell("")
                await self._wait_for_work()
        finally:
            await connection.disconnect(nowait=True)

    async def _wait_for_work(self) -> None:
        """Wait for work, but not long: an empty batch checks whether the master still is one."""
        if not self._work.is_set():
            try:
                async with asyncio.timeout(self._seconds * _IDLE_SHARE):
                    await self._work.wait()
            except TimeoutError:
                return
        self._work.clear()
        if self._gathers:
            await asyncio.sleep(self._gathers)

    async def _exchange(self, connection: MasterConnection) -> str:
        batch, data, count = self._desk.gather(self)
        if self.wanted:  # more than goes at once
            self._work.set()
        if not data:
            self._heard = self._loop.time()  # without slots, nobody replaces it
            return ""
        self._in_flight = True
        self.sent = self._loop.time()
        began = self._loop.time()
        try:
            async with asyncio.timeout(self._seconds):
                replies = await connection.exchange(data, count)
            self._see_that_time_went_on()
        except BaseException as error:
            self._desk.give_back(batch, "late" if isinstance(error, TimeoutError) else "lost")
            raise
        finally:
            self._in_flight = False
            self.sent = 0.0
        try:
            return self._desk.settle(self, batch, replies, self._loop.time() - began)
        except Exception:
            self._desk.give_back(batch, "lost")  # a bug of ours must leave nobody waiting
            raise

    def _see_that_time_went_on(self) -> None:
        """Raise TimeoutError if the master may have been suspended, perhaps together with this server, like virtual
        machines on one host. A new connection finds out whether the master is being replaced.
        """
        before, self._heard = self._heard, self._loop.time()
        if self._heard - before > self._seconds * (1 + _IDLE_SHARE) + self._gathers:
            raise TimeoutError

    def _tell(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._desk.changed(self)


def new_pauses() -> Iterator[float]:
    """Yield the seconds between failing connections to one master."""
    rng = random.Random()  # noqa: S311 - no secret
    return backoff(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, rng)


def error_text(error: BaseException) -> str:
    """Return the text of an error for a log line, or its type if it has none."""
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
