"""One master of the cluster: at most one batch is in flight to it, and the next gathers meanwhile.

A batch is never cancelled and its connection used again: late replies would be taken for others'. Where one is late or
broken off, the connection goes, and everything in it is to be done again.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol

from msgspec import Struct

from proxyherd.base.backoff import backoff
from proxyherd.config.herd_file import Address
from proxyherd.engines.redis.batch import Batch

FIRST_RETRY_SECONDS: Final = 0.05
LONGEST_RETRY_SECONDS: Final = 1.0
"""Between connections that fail: back-off from the first pause to the longest."""

_IDLE_SHARE: Final = 0.5
"""Of a batch's time, how long a master is left alone: at 1.2 s, it is heard of within 1.8 s."""


class MasterConnection(Protocol):
    """What is wanted of a connection of the client library."""

    async def exchange(self, commands: bytes, count: int) -> list[object]:
        """Send bytes as they are; return the replies to so many commands, errors of Redis among them."""

    async def disconnect(self, nowait: bool) -> None:
        """Close it."""


class Library(Struct, frozen=True):
    """What is wanted of the client library. `connect` opens a connection to a master and checks it; it and the
    connection raise `errors` when they fail. Of what Redis replies, `moved` and `asked` name another node, as
    `node_addr`; `later` asks for patience, and `full` has no room.
    """

    connect: Callable[[Address], Awaitable[MasterConnection]]
    errors: tuple[type[Exception], ...]
    moved: type[Exception]
    asked: type[Exception]
    later: type[Exception]
    full: type[Exception]


class Desk(Protocol):
    """Who has the work and takes the outcomes."""

    def gather(self, shard: Shard) -> tuple[Batch, bytes, int]:
        """Return a batch for this master, how it is spelled, and how many replies it will have; nothing is spelled
        where there is nothing to do, and nothing by which to see whether the master still is one.
        """

    def settle(self, shard: Shard, batch: Batch, replies: list[object], seconds: float) -> str:
        """Take the replies; return why they are not to be believed, empty where they are."""

    def give_back(self, batch: Batch, why: str) -> None:
        """Take back a batch whose outcome is not known."""

    def changed(self, shard: Shard) -> None:
        """Note that a master can be had, or no longer."""

    def fault(self, what: str, error: Exception) -> None:
        """Note a fault of the program."""


class Shard:
    """One master, and whatever is wanted of it."""

    def __init__(
        self, address: Address, desk: Desk, library: Library, *, seconds: float, gathers: float
    ) -> None:
        self.address = address
        self.trouble = "not connected yet"
        """Why it cannot be had; empty when it can."""
        self.full = False
        """Whether it refuses reports for want of memory; it still answers questions."""
        self.probe_at = 0.0
        """When it is to be asked next whether it takes reports, by the loop's clock."""
        self.wanted: deque[int] = deque()
        """Tags that have something for it."""
        self.sent = 0.0
        """When the batch was sent that is in flight, by the loop's clock; 0: there is none."""
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
        """Let a tag have its turn, in the next batch."""
        if not self.wanted:
            self._work.set()
        self.wanted.append(tag)

    def part(self) -> None:
        """Go, as soon as no batch is in flight."""
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
        """Wait for work, but not for long: an empty batch tells whether the master still is one."""
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
            self._desk.give_back(batch, "lost")  # a fault of ours must not leave anybody waiting
            raise

    def _see_that_time_went_on(self) -> None:
        """Raise TimeoutError if the master may have stood still, and this server with it, as virtual machines of one host
        do: a new connection finds out whether it is being replaced.
        """
        before, self._heard = self._heard, self._loop.time()
        if self._heard - before > self._seconds * (1 + _IDLE_SHARE) + self._gathers:
            raise TimeoutError

    def _tell(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._desk.changed(self)


def new_pauses() -> Iterator[float]:
    """Yield the seconds between connections to one master that fail."""
    rng = random.Random()  # noqa: S311 - no secret
    return backoff(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, rng)


def error_text(error: BaseException) -> str:
    """Return what an error says, or is where it says nothing, for a log line."""
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
