"""The masters of the cluster: which they are, batches to them, and what is written.

The rule is the same as for servers: a write or read that a replica has not acknowledged within the time of a batch
does not count, and is repeated. Writes and reads (`passes`) have separate connections, with one batch under way on
each.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from msgspec import Struct

from proxyherd.bridge.outbox import Outbox
from proxyherd.config.address import Address
from proxyherd.config.herd_file import Herd
from proxyherd.config.schema import RedisSettings
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.commands import (
    ADMIT,
    head_of_erasure,
    spell_erasure,
    spell_key,
    spell_reports,
)
from proxyherd.engines.redis.lookout import Lookout
from proxyherd.engines.redis.opening import Opener
from proxyherd.engines.redis.sealing import Sealing
from proxyherd.engines.redis.shard import MasterConnection, new_pauses
from proxyherd.telemetry.observer import Observer

_WRITES: Final = 200
"""Clients in one batch. The master also serves others, and such a batch keeps it busy for about ten milliseconds."""

_AGAIN_SECONDS: Final = 0.05
_MILLISECONDS: Final = 1_000
FIX: Final = "where nothing moves them any more, run redis-cli --cluster fix"


class Unbelieved(Exception):  # noqa: N818 - a fact about the cluster
    """A master's answer must not be believed; the text says why."""


class TagWrites(Struct, frozen=True):
    """What to write for clients of one tag; `expiries` is empty if they never expire. `erased`: clients that are erased, and
    up to which moment, in nanoseconds of POSIX time.
    """

    clients: list[bytes]
    values: list[bytes]
    expiries: list[bytes]
    erased: list[tuple[bytes, int]]


class Masters:
    """The masters of one cluster, to which `opener` connects. `find` says what to write for clients."""

    def __init__(
        self,
        to: Herd,
        opener: Opener,
        observer: Observer,
        find: Callable[[list[bytes]], TagWrites],
    ) -> None:
        assert to.redis is not None
        self.outbox = Outbox(self._wake)
        self.written = 0
        self._settings: RedisSettings = to.redis
        self._lead = to.limits.clock_lead
        self._observer = observer
        self._find = find
        self._sealing = Sealing(to.redis)
        self._kept = int(to.erasure.tombstone_seconds * _MILLISECONDS)
        self._library = opener.library
        self.failures: tuple[type[Exception], ...] = (*self._library.errors, Unbelieved)
        """The exceptions of `connect` and `exchange`."""
        self.owners: list[Address | None] = [None] * layout.TAGS
        self._writers: dict[Address, _Writer] = {}
        self._lookout = Lookout(
            to.redis_nodes,
            opener,
            to.redis.timeout_seconds,
            observer,
            self._take,
            lambda: self.trouble,
        )
        self._looking = asyncio.create_task(self._lookout.run())

    def _wake(self, tag: int) -> None:
        owner = self.owners[tag]
        if owner is not None:
            self._writers[owner].work.set()

    @property
    def trouble(self) -> str:
        """What cannot be written now, and why; empty if everything can."""
        lost = self.owners.count(None)
        troubles = [f"{one.address}: {one.trouble}" for one in self._writers.values() if one.trouble]
        if lost:
            why = f" ({self._lookout.silence})" if self._lookout.silence else ""
            troubles.append(f"no master is known of {lost} of {layout.TAGS} parts of the table{why}")
        return "; ".join(troubles)

    def doubt(self) -> None:
        """Look for the masters again."""
        self._lookout.doubt()

    @property
    def found(self) -> bool:
        """Whether the whole table has masters."""
        return None not in self.owners

    def _take(self, owners: list[Address | None]) -> None:
        self.owners = owners
        masters = {owner for owner in owners if owner is not None}
        for address in self._writers.keys() - masters:
            self._writers.pop(address).task.cancel()
        for address in masters - self._writers.keys():
            writer = self._writers[address] = _Writer(address)
            writer.task = asyncio.create_task(self._keep_writing(writer))
        for writer in self._writers.values():
            writer.work.set()

    def _tags(self, address: Address) -> list[int]:
        return [tag for tag, owner in enumerate(self.owners) if owner == address]

    async def connect(self, address: Address) -> MasterConnection:
        """Open a connection to a master. Raises one of `failures`."""
        async with asyncio.timeout(self._settings.timeout_seconds):
            return await self._library.connect(address)

    async def exchange(
        self, connection: MasterConnection, address: Address, parts: Sequence[bytes]
    ) -> list[Any]:
        """Send commands with a seal; return the replies, including errors. Raises one of `failures`."""
        tags = self._tags(address)
        if not tags:
            raise Unbelieved("it has no part of the table any more")
        end, more = self._sealing.spell(tags[0], address)
        async with asyncio.timeout(self._settings.timeout_seconds):
            replies = await connection.exchange(b"".join([*parts, end]), len(parts) + more)
        *answers, sealed, count = replies
        if doubt := self._sealing.doubt(sealed, count):
            raise Unbelieved(doubt)
        return answers

    # Writing. ------------------------------------------------------------------------------------------------

    async def _keep_writing(self, writer: _Writer) -> None:
        """Write what waits for one master, forever."""
        pauses = new_pauses()
        while True:
            try:
                connection = await self.connect(writer.address)
                try:
                    writer.tell("", self._observer)
                    pauses = new_pauses()
                    while True:
                        await self._write(writer, connection)
                finally:
                    await connection.disconnect(nowait=True)
            except self.failures as error:
                writer.tell(str(error) or "no answer in time", self._observer)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not leave a master without anybody
                writer.tell(repr(error), self._observer)
                self._observer.fault(f"{writer.address} cannot be written to", error)
            self.doubt()
            await asyncio.sleep(next(pauses))

    async def _write(self, writer: _Writer, connection: MasterConnection) -> None:
        """Wait for something to write, and write it."""
        load = self.outbox.take(self._tags(writer.address), _WRITES)
        if load is None:
            writer.work.clear()
            await writer.work.wait()
            return
        try:
            found = [(tag, self._find(clients)) for tag, clients in load.clients.items()]
            parts = [(tag, part) for tag, one in found for part in self._spell(tag, one)]
            answers = await self.exchange(connection, writer.address, [part for _, part in parts])
        except BaseException:
            self.outbox.lost(load)
            raise
        failed = {
            tag: answer
            for (tag, _), answer in zip(parts, answers, strict=True)
            if isinstance(answer, Exception)
        }
        self.outbox.done(load, tuple(failed))
        self.written += sum(len(one.clients) for tag, one in found if tag not in failed)
        writer.tell(self._explain(next(iter(failed.values()), None)), self._observer)
        if failed:  # a slot is being moved, or there is no memory
            self.doubt()
            await asyncio.sleep(_AGAIN_SECONDS)

    def _spell(self, tag: int, writes: TagWrites) -> Iterator[bytes]:
        """Yield the calls for clients of one tag: first the tombstones."""
        for client, until in writes.erased:
            salt = secrets.token_hex(layout.SALT_DIGITS // 2).encode()
            yield head_of_erasure() + spell_key(tag, client) + spell_erasure(until, until, self._kept, salt)
        if writes.clients:
            yield spell_reports(ADMIT, tag, writes.clients, writes.values, writes.expiries, lead=self._lead)

    def _explain(self, refusal: object) -> str:
        """Return why a master has not executed a batch, and what to do; "" if it has."""
        library = self._library
        if isinstance(refusal, (library.moved, library.asked, library.later)):
            return f"slots move, and clients in them wait; {FIX}"
        if isinstance(refusal, library.full):
            return f"its memory is full, raise maxmemory: {refusal}"
        return str(refusal or "")

    async def close(self) -> None:
        """Close the connections to the masters."""
        tasks = [self._looking, *(writer.task for writer in self._writers.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Writer:
    """One master, for writing."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.work = asyncio.Event()
        self.trouble = "not connected yet"
        self.task: asyncio.Task[None]

    def tell(self, trouble: str, observer: Observer) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            observer.cluster.master(str(self.address), trouble)
