"""Which subjects of tokens were revoked, as the cluster knows it.

A server in front of Redis has no tombstones. So it asks for those of the subjects that use it: when it hears of a subject,
and then again and again. Until there is an answer, nobody knows. Asking reads two keys, and writes none: see
`function.lua`. Each master has a connection for this, so that nobody waits for a master that hangs.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from math import inf
from typing import Final

from msgspec import Struct

from proxyherd.config.address import Address
from proxyherd.engines.redis.commands import spell_questions
from proxyherd.engines.redis.layout import SALT_DIGITS, TAGS, hash_of, moment_of, tag_of
from proxyherd.engines.redis.shard import Library, MasterConnection

ASK_SECONDS: Final = 4.0
"""How often a subject is asked for. With the time for the answer, a revocation takes five seconds at most."""

BELIEVED_SECONDS: Final = 30.0
"""How long an answer is believed if there is no later one."""

KEPT_SECONDS: Final = 3_600.0
"""How long a subject is asked for after it was used, so that who reports from time to time need not wait for an answer."""

MOST_SUBJECTS: Final = 65_536
"""Subjects that are asked for. Those that were used long ago make room; when they come again, they wait for an answer."""

_ASKED_AT_ONCE: Final = 512
_TAGS_AT_ONCE: Final = 8
"""How many subjects are asked for in one exchange, and how many tags are looked through in one step of the loop."""

_PAUSE_SECONDS: Final = 1.0
"""The pause after a master could not be asked."""

_SALT: Final = b" gone"


class _Known(Struct):
    """What is known of one subject. Times are seconds of the loop's clock."""

    until: int = 0
    answered: float = -inf
    used: float = 0.0


class Revocations:
    """The subjects that use one server. `owner` names the master of a tag, None if there is none; a master has `seconds`
    to answer; `fault` is told of bugs in the program.
    """

    def __init__(
        self,
        library: Library,
        owner: Callable[[int], Address | None],
        seconds: float,
        fault: Callable[[str, Exception], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._library = library
        self._owner = owner
        self._seconds = seconds
        self._fault = fault
        self._known: OrderedDict[bytes, _Known] = OrderedDict()  # used last: at the end
        self._tags: list[set[bytes]] = [set() for _ in range(TAGS)]
        self._masters: dict[Address, _Master] = {}
        self._is_used = asyncio.Event()

    def erased_until(self, name: bytes) -> int | None:
        """Return up to which moment an ID was erased, in nanoseconds of POSIX time; 0: never; None: it is not known yet."""
        now, known = self._loop.time(), self._known.get(name)
        if known is None:
            known = self._known[name] = _Known()
            self._tags[tag_of(name)].add(name)
            self._is_used.set()
            if len(self._known) > MOST_SUBJECTS:
                self._forget(next(iter(self._known)))
        else:
            self._known.move_to_end(name)
        known.used = now
        if now - known.answered <= BELIEVED_SECONDS:
            return known.until
        self._ask(name)
        return None

    def _forget(self, name: bytes) -> None:
        del self._known[name]
        self._tags[tag_of(name)].discard(name)
        for master in self._masters.values():
            master.wanted.pop(name, None)

    def _ask(self, name: bytes) -> None:
        address = self._owner(tag_of(name))
        if address is None:
            return
        master = self._masters.get(address)
        if master is None:
            master = self._masters[address] = _Master(
                address, self._library, self._seconds, self._learn, self._fault
            )
        master.want(name)

    def _learn(self, name: bytes, until: int, asked: float) -> None:
        if (known := self._known.get(name)) is not None:
            known.until, known.answered = until, asked

    async def run(self) -> None:
        """Ask for all subjects again and again, for ever, a few tags at a time."""
        try:
            await self._is_used.wait()
            for first in cycle(range(0, TAGS, _TAGS_AT_ONCE)):
                await asyncio.sleep(ASK_SECONDS * _TAGS_AT_ONCE / TAGS)
                for tag in range(first, first + _TAGS_AT_ONCE):
                    self._look_through(tag)
                if not first:
                    self._part()
        finally:
            await self._close([*self._masters.values()])

    def _look_through(self, tag: int) -> None:
        """Forget the subjects of a tag that are used no more, and ask for the others."""
        limit = self._loop.time() - KEPT_SECONDS
        for name in [*self._tags[tag]]:
            if self._known[name].used < limit:
                self._forget(name)
            else:
                self._ask(name)

    def _part(self) -> None:
        """Close the connections to masters that have no part of the table any more."""
        used = {self._owner(tag) for tag in range(TAGS)}
        for address in [address for address in self._masters if address not in used]:
            self._masters.pop(address).task.cancel()

    async def _close(self, masters: Sequence[_Master]) -> None:
        for master in masters:
            master.task.cancel()
        await asyncio.gather(*(master.task for master in masters), return_exceptions=True)


class _Master:
    """A master that is asked. `learn` gets each answer, with when it was asked for; `wanted`: for whom to ask, in order."""

    def __init__(
        self,
        address: Address,
        library: Library,
        seconds: float,
        learn: Callable[[bytes, int, float], None],
        fault: Callable[[str, Exception], None],
    ) -> None:
        self.wanted: dict[bytes, None] = {}
        self._address = address
        self._library = library
        self._seconds = seconds
        self._learn = learn
        self._fault = fault
        self._work = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.task = self._loop.create_task(self._serve())

    def want(self, name: bytes) -> None:
        """Ask for this one too."""
        self.wanted[name] = None
        self._work.set()

    async def _serve(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    connection = await self._library.connect(self._address)
                try:
                    while True:
                        await self._work.wait()
                        async with asyncio.timeout(self._seconds):
                            await self._ask(connection)
                finally:
                    await connection.disconnect(nowait=True)
            except self._library.errors:
                pass  # the engine tells of it, and what is wanted is asked for later
            except Exception as error:  # noqa: BLE001 - a fault of ours must not be the last question
                self._fault(f"{self._address} cannot be asked for revocations", error)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask(self, connection: MasterConnection) -> None:
        """Ask for some of those that are wanted. A tag whose keys are being moved has no answer: it is asked for again."""
        asked, names = self._loop.time(), [*islice(self.wanted, _ASKED_AT_ONCE)]
        tags: dict[int, list[bytes]] = {}
        for name in names:
            tags.setdefault(tag_of(name), []).append(name)
        salts = await _exchange(connection, {tag: [_SALT] for tag in tags})
        hashes = {
            tag: [_SALT + b" " + hash_of(salt[:SALT_DIGITS], name) for name in tags[tag]]
            for tag, (salt,) in salts.items()
            if salt is not None
        }
        found = await _exchange(connection, hashes) if hashes else {}
        for tag in salts:
            moments = found.get(tag) if tag in hashes else [None] * len(tags[tag])
            if moments is not None:
                for name, moment in zip(tags[tag], moments, strict=True):
                    self._learn(name, moment_of(moment), asked)
        for name in names:
            self.wanted.pop(name, None)
        if not self.wanted:
            self._work.clear()


async def _exchange(
    connection: MasterConnection, keys: dict[int, list[bytes]]
) -> dict[int, list[bytes | None]]:
    """Return the values of these keys of tags, without those of tags that the master refuses to tell."""
    commands = b"".join(spell_questions(tag, names) for tag, names in keys.items())
    replies = await connection.exchange(commands, len(keys))
    return {tag: reply for tag, reply in zip(keys, replies, strict=True) if isinstance(reply, list)}
