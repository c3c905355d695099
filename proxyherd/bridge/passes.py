"""Passes over everything that a cluster holds, in steps that delay nobody.

A pass counts only if no slots have moved. Before and after, each master says which slots are its own, under the same
seal as everything that is read. So no key can have moved from a place that was not read yet to a place that was read
already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from proxyherd.bridge.masters import FIX, Masters, Unbelieved
from proxyherd.config.address import Address
from proxyherd.core.messages import At, received
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.commands import encode, spell_questions
from proxyherd.engines.redis.shard import MasterConnection

_READS: Final = 1_000
"""The approximate number of keys in one step. The master also serves others, and a step keeps it busy for some
milliseconds."""

_UNSEALED_READS: Final = 20
"""How often a step is repeated before its pass begins again."""

_AGAIN_SECONDS: Final = 0.05


class Unfit(Exception):  # noqa: N818 - a fact about the cluster
    """A pass cannot be made, or does not count; the text says why."""


class Passes:
    """`learn` gets what was read, and `room` is awaited before more is read. `lead`: see `messages.parse_at`."""

    def __init__(
        self,
        masters: Masters,
        learn: Callable[[list[At]], None],
        room: Callable[[], Awaitable[None]],
        lead: int,
    ) -> None:
        self.read = 0
        """Clients read in this pass, out of about `held`."""
        self.held = 0
        self.foreign = 0
        """Keys in this pass that no server has written."""
        self.tombstones = layout.SaltedTombstones()
        """The tombstones that this pass has read."""
        self.masters = masters
        self.learn = learn
        self.room = room
        self.lead = lead

    async def read_all(self) -> None:
        """Make one pass. At its end, everything that the cluster had at its beginning is learned. Raises Unfit."""
        owners = set(self.masters.owners)
        if None in owners:
            raise Unfit(self.masters.trouble or "not all of the table has a master")
        self.read = self.held = self.foreign = 0
        self.tombstones = layout.SaltedTombstones()
        readers = [_Reader(self, owner) for owner in owners if owner is not None]
        try:
            before = await _all(one.open() for one in readers)
            _check_slots(before)
            await _all(one.scan() for one in readers)
            after = await _all(one.look() for one in readers)
        except self.masters.failures as error:
            self.masters.doubt()
            raise Unfit(str(error) or "no answer in time") from error
        finally:
            await asyncio.gather(*(one.close() for one in readers))
        if before != after:
            self.masters.doubt()
            raise Unfit("slots have moved meanwhile")


class _Reader:
    """One master, in one pass. A cursor is only valid on this connection: another connection may reach
    another process.
    """

    def __init__(self, passes: Passes, address: Address) -> None:
        self._passes = passes
        self._address = address
        self._connection: MasterConnection | None = None

    async def open(self) -> tuple[str, ...]:
        """Connect; return the result of `look`."""
        self._connection = await self._passes.masters.connect(self._address)
        [size] = await self._ask([encode(b"DBSIZE")])
        self._passes.held += size if isinstance(size, int) else 0
        return await self.look()

    async def look(self) -> tuple[str, ...]:
        """Return the epoch, and the slots that the master considers its own."""
        [text] = await self._ask([encode(b"CLUSTER", b"NODES")])
        if isinstance(text, bytes):
            for line in text.decode().splitlines():
                fields = line.split(" ")
                if "myself" in fields[2].split(","):
                    return (fields[6], *fields[8:])
        raise Unfit(f"{self._address}: its CLUSTER NODES does not tell its own slots")

    async def scan(self) -> None:
        """Learn all its keys. Each step reads the values of the keys that the previous step has found."""
        cursor: bytes | None = b"0"
        keys: dict[int, list[bytes]] = {}
        while cursor is not None or keys:
            await self._passes.room()
            parts = [spell_questions(tag, clients) for tag, clients in keys.items()]
            if cursor is not None:
                parts.append(encode(b"SCAN", cursor, b"COUNT", b"%d" % _READS))
            answers = await self._ask(parts)
            following: dict[int, list[bytes]] = {}
            if cursor is not None:
                cursor, following = self._found(answers.pop())
            for (tag, clients), values in zip(keys.items(), answers, strict=True):
                if _failed(values):
                    raise Unfit(f"{self._address}: {values}")
                self._take(tag, clients, values)
            keys = following

    def _found(self, answer: Any) -> tuple[bytes | None, dict[int, list[bytes]]]:
        """Return where to continue, None at the end, and the clients and tombstones found, by tag."""
        if _failed(answer):
            raise Unfit(f"{self._address}: {answer}")
        cursor, keys = answer
        found: dict[int, list[bytes]] = {}
        for key in dict.fromkeys(keys):
            if (client := layout.client_of(key)) is not None:
                found.setdefault(layout.tag_of(client), []).append(client)
            elif (part := layout.tombstone_part(key)) is not None:
                tag, rest = part
                found.setdefault(tag, []).append(rest)
            elif b"} seal " not in key:
                self._passes.foreign += 1
        return (cursor if cursor != b"0" else None), found

    def _take(self, tag: int, clients: list[bytes], values: list[bytes | None]) -> None:
        passes = self._passes
        passes.read += len(clients)
        ats = []
        for client, value in zip(clients, values, strict=True):
            if value is None:
                continue  # it has expired since
            if client.startswith(b" "):
                passes.tombstones.add(tag, client, value)
                continue
            entry = layout.entry(value, passes.lead)
            if entry is not None and entry.line.split(b" ", 4)[3] == client:
                ats.append(At(client, entry, received(entry.line)))
            else:
                passes.foreign += 1
        passes.learn(ats)

    async def _ask(self, parts: list[bytes]) -> list[Any]:
        assert self._connection is not None
        for _ in range(_UNSEALED_READS):
            try:
                return await self._passes.masters.exchange(self._connection, self._address, parts)
            except Unbelieved as error:
                doubt = error
            await asyncio.sleep(_AGAIN_SECONDS)
        raise Unfit(f"{self._address}: {doubt}")

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)


def _failed(answer: object) -> bool:
    return isinstance(answer, Exception)


async def _all(work: Iterable[Awaitable[Any]]) -> list[Any]:
    """Wait for all, even if one has failed; then raise its error."""
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def _check_slots(told: list[tuple[str, ...]]) -> None:
    """Check that the masters have all slots, and that none is being moved. Raises Unfit."""
    slots = [slot for _, *own in told for slot in own]
    moving = [slot for slot in slots if slot.startswith("[")]
    if moving:
        numbers = ", ".join(sorted({slot.strip("[]").partition("-")[0] for slot in moving}))
        raise Unfit(f"slots {numbers} are on their way; {FIX}")
    count = sum(int(last or first) - int(first) + 1 for first, _, last in (s.partition("-") for s in slots))
    if count != layout.SLOTS:
        raise Unfit(f"masters have {count} of {layout.SLOTS} slots")
