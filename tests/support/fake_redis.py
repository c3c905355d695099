"""A Redis Cluster that is a few dicts, for laws about the engine: its masters execute what servers send them, in the
library's place, and fail as they are told.

The rule: what a master has executed is lost with it unless replicas have acknowledged it, and it is replaced by one that
has what they had. A master that was replaced goes on, knowing nothing of it, with a table of its own.

`Clockwork` is an event loop whose clock jumps to what is next, so that nothing has to be waited for.
"""

from __future__ import annotations

import asyncio
import hashlib
import selectors
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

from proxyherd.config.address import Address
from proxyherd.core.messages import received
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.commands import LIBRARY
from proxyherd.engines.redis.shard import Library
from proxyherd.engines.redis.views import View, parse_view

TIME = 21
"""Bytes of a value that are its time."""

SLOTS_A_TAG = layout.SLOTS // layout.TAGS


class RefusedError(Exception):
    """An error that Redis replies."""


class ElsewhereError(RefusedError):
    """An error that names another node."""

    def __init__(self, node: Address) -> None:
        super().__init__(f"at {node}")
        self.node_addr = node.host, node.port


class AskError(ElsewhereError):
    """ASK."""


class MovedError(AskError):
    """MOVED; it is a kind of ASK, as in the library."""


class TryAgainError(RefusedError):
    """TRYAGAIN."""


class FullError(RefusedError):
    """OOM."""


Fault = Callable[["Master", bytes, "list[bytes]"], Exception | None]
"""Says with what a command that has keys is refused, if at all."""


def words(commands: bytes) -> Iterator[list[bytes]]:
    """Read what servers send: the commands, in words."""
    at = 0

    def number(kind: bytes) -> int:
        nonlocal at
        end = commands.index(b"\r\n", at)
        assert commands[at : at + 1] == kind, commands[at:end]
        found, at = int(commands[at + 1 : end]), end + 2
        return found

    while at < len(commands):
        found = []
        for _ in range(number(b"*")):
            size = number(b"$")
            found.append(commands[at : at + size])
            assert commands[at + size : at + size + 2] == b"\r\n"
            at += size + 2
        yield found


def tag_of(key: bytes) -> int:
    """Return the tag of any key, a seal too."""
    return layout.PREFIXES.index(key[: key.index(b"}") + 1])


class Master:
    """One node, and what it has executed since replicas have last acknowledged."""

    def __init__(self, world: World, address: Address) -> None:
        self.world = world
        self.address = address
        self.data = world.data
        self.unacknowledged: list[tuple[bytes, bytes]] = []
        self.replicas = 2
        self.pace = 0.001  # seconds that a batch takes
        self.is_down = False
        self.exchanges = 0  # under way
        self.served: list[list[list[bytes]]] = []  # batches, call by call

    def get(self, key: bytes) -> bytes | None:
        if key in self.data and self.world.expiries.get(key, self.world.clock + 1) <= self.world.clock:
            del self.data[key], self.world.expiries[key]
        return self.data.get(key)

    def set(self, key: bytes, value: bytes, expires: bytes = b"") -> None:
        self.data[key] = value
        self.world.expiries.pop(key, None)
        if expires:
            self.world.expiries[key] = int(expires)
        self.unacknowledged.append((key, value))

    def drop(self, key: bytes) -> None:
        """Remove a key; with replicas that follow, it is gone there too."""
        del self.data[key]
        self.world.kept.pop(key, None)
        self.unacknowledged = [one for one in self.unacknowledged if one[0] != key]

    def acknowledge(self) -> int:
        """Let replicas have all there is, where they can be reached."""
        if self.replicas:
            for key, value in self.unacknowledged:
                self.world.kept[key] = max(value, self.world.kept.get(key, b""))
                self.data[key] = max(value, self.data.get(key, b""))
            self.unacknowledged.clear()
        return self.replicas


class World:
    """The cluster: masters by address, and whose each tag is."""

    def __init__(self, masters: int = 3) -> None:
        self.data: dict[bytes, bytes] = {}
        self.kept: dict[bytes, bytes] = {}
        self.several_at_once = False
        """Whether several batches may be in flight to one master, as those of the bridge are that reads and writes."""
        self.clock = 0
        """POSIX milliseconds."""
        self.expiries: dict[bytes, int] = {}
        """When keys expire, in POSIX milliseconds."""
        self.fault: Fault = lambda *_: None
        self.elsewhere: Callable[[Address], Exception] = MovedError
        """How a master says that a tag is another's."""
        self.mishap: Callable[[Master], str] = lambda _: ""
        """What happens to an exchange: `broken` before or `torn` behind some of its commands, `late` when all are done."""
        self.moving: dict[int, Address] = {}
        """Tags that are on their way, and whither: keys that `gone` names have arrived."""
        self.gone: set[bytes] = set()
        self.connections: list[FakeConnection] = []
        self._ports = count(7_001)
        self.masters: dict[Address, Master] = {}
        names = [self.add().address for _ in range(masters)]
        self.owners: list[Address | None] = [
            names[tag * masters // layout.TAGS] for tag in range(layout.TAGS)
        ]

    @property
    def library(self) -> Library:
        return Library(
            connect=self.connect,
            errors=(OSError, RefusedError),
            moved=MovedError,
            asked=AskError,
            later=TryAgainError,
            full=FullError,
        )

    def nodes(self, myself: Master) -> str:
        """Return what CLUSTER NODES says at a master."""
        lines = []
        for master in self.masters:
            tags = [tag for tag, owner in enumerate(self.owners) if owner == master]
            slots = [f" {tag * SLOTS_A_TAG}-{(tag + 1) * SLOTS_A_TAG - 1}" for tag in tags]
            flags = "myself,master" if master == myself.address else "master"
            node = f"id{master.port} {master}@{master.port + 10_000} {flags} - 0 0 1 connected"
            lines.append(node + "".join(slots))
        return "\n".join(lines) + "\n"

    async def ask_view(self, address: Address) -> View:
        """Return who is who, as a node says."""
        return parse_view(self.nodes(self.masters[address]), address, by_name=False)

    def add(self) -> Master:
        address = Address("127.0.0.1", next(self._ports))
        self.masters[address] = Master(self, address)
        return self.masters[address]

    def of(self, client: bytes) -> Master:
        """Return the master of a client."""
        owner = self.owners[layout.tag_of(client)]
        assert owner is not None
        return self.masters[owner]

    async def connect(self, address: Address) -> FakeConnection:
        await asyncio.sleep(0.001)
        master = self.masters[address]
        if master.is_down:
            raise ConnectionRefusedError(f"{address} refuses")
        self.connections.append(FakeConnection(master))
        return self.connections[-1]

    def replace(self, old: Master, *, goes_on: bool) -> Master:
        """Let a replica take the place of a master, which `goes_on` cut off, or is gone."""
        new = self.add()
        old.data = dict(self.data)
        old.replicas, old.is_down = 0, not goes_on
        for key, _ in old.unacknowledged:
            self.data.pop(key, None)
            if key in self.kept:
                self.data[key] = self.kept[key]
        self.owners = [new.address if owner == old.address else owner for owner in self.owners]
        self.moving = {tag: new.address if to == old.address else to for tag, to in self.moving.items()}
        return new


class FakeConnection:
    """A connection to a master, in the library's place."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self.is_open = True
        self._asking = False
        self._has_written = False

    async def exchange(self, commands: bytes, count: int) -> list[object]:
        master = self.master
        assert self.is_open
        assert master.world.several_at_once or not any(
            other.is_busy for other in master.world.connections if other.master is master and other.is_open
        ), "two batches are in flight to one master"
        self.is_busy = True
        try:
            return await self._exchange(list(words(commands)), count)
        finally:
            self.is_busy = False

    is_busy = False

    async def _exchange(self, calls: list[list[bytes]], count: int) -> list[object]:
        master = self.master
        assert len(calls) == count
        mishap = master.world.mishap(master)
        if mishap == "broken" or master.is_down:
            raise ConnectionResetError("broken off")
        if mishap == "torn":
            self.execute(calls[: len(calls) // 2])
            raise ConnectionResetError("broken off")
        await asyncio.sleep(master.pace)
        replies = self.execute(calls)
        if mishap == "late":
            await asyncio.sleep(3_600)
        return replies

    def execute(self, calls: Sequence[list[bytes]]) -> list[object]:
        self.master.served.append([*calls])
        return [self._execute(*call) for call in calls]

    async def disconnect(self, nowait: bool) -> None:
        assert nowait, "a master that hangs is waited for"
        self.is_open = False

    def _execute(self, name: bytes, *rest: bytes) -> object:
        if name == b"ASKING":
            self._asking = True
            return b"OK"
        if name in (b"DBSIZE", b"SCAN", b"CLUSTER"):
            return self._tell(name, *rest)
        if name == b"WAIT":
            return self.master.acknowledge() if self._has_written else 2
        asking, self._asking = self._asking, False
        function, keys, more = b"", list(rest), list[bytes]()
        if name == b"FCALL":
            function, size = rest[0].removeprefix(LIBRARY + b"_"), int(rest[1])
            keys, more = list(rest[2 : 2 + size]), list(rest[2 + size :])
        if (error := self._refuse(function, keys, asking=asking)) is not None:
            return error
        if not function:
            return [self.master.get(key) for key in keys]
        self._has_written = True
        if function == b"seal":
            self.master.set(keys[0], b"")
            return b"OK"
        if function == b"erase":
            return self._erase(keys[0], *more)
        self._lead = int(more.pop())
        if function == b"admit":
            return b"".join(map(self._admit, keys, more))
        assert function == b"advance"
        values, expiries = more[: len(keys)], more[len(keys) :] or [b""] * len(keys)
        return b"".join(map(self._advance, keys, values, expiries))

    def _tell(self, name: bytes, *rest: bytes) -> object:
        """Tell of all keys of the master, a few at a time, or of its slots."""
        master, world = self.master, self.master.world
        if name == b"CLUSTER":
            return world.nodes(master).encode()
        ours = sorted(key for key in master.data if world.owners[tag_of(key)] == master.address)
        if name == b"DBSIZE":
            return len(ours)
        first, size = int(rest[0]), int(rest[2])
        following = first + size if first + size < len(ours) else 0
        return [b"%d" % following, ours[first : first + size]]

    def _tombstone_key(self, key: bytes, salt: bytes) -> bytes:
        """Return the key of the tombstone of a client's key."""
        tag, end, client = key.partition(b"}")
        return b"%b%b gone %b" % (tag, end, hashlib.sha1(salt + client).hexdigest()[:32].encode())

    def _is_erased(self, key: bytes, value: bytes) -> bool:
        mark = self.master.get(key[: key.index(b"}") + 1] + b" gone")
        gone = self.master.get(self._tombstone_key(key, mark[:32])) if mark is not None else None
        return gone is not None and received(value[TIME + 1 :]) <= int(gone)

    def _erase(self, key: bytes, until: bytes, seen: bytes, kept: bytes, salt: bytes) -> list[bytes]:
        mark = self.master.get(key[: key.index(b"}") + 1] + b" gone")
        tombstone = self._tombstone_key(key, mark[:32] if mark is not None else salt)
        held, gone = self.master.get(key), self.master.get(tombstone)
        last = b"%022d" % received(held[TIME + 1 :]) if held is not None else b""
        if seen == b">":
            until = max(until, last)
        elif seen < last <= until:
            return [b"GONE %b %d" % (tombstone[-32:], int(seen)), b"stayed"]
        if gone is None or until > gone:
            expires = int(until) // 1_000_000 + int(kept)
            before = int(mark[33:]) if mark is not None else 0
            end = b"%d" % max(expires, before)
            self.master.set(
                key[: key.index(b"}") + 1] + b" gone", b"%b %b" % (mark[:32] if mark else salt, end), end
            )
            self.master.set(tombstone, until, b"%d" % expires)
            gone = until
        if last and last <= gone:
            self.master.drop(key)
        return [b"GONE %b %d" % (tombstone[-32:], int(gone)), *[b"stayed"][: last > gone]]

    def _admit(self, key: bytes, value: bytes) -> bytes:
        if self._is_erased(key, value):
            return b"0"
        held = self._ordered(key)
        if held is None or held < value:
            self.master.set(key, value)
        return b"1" if held is None or held <= value else b"0"

    def _ordered(self, key: bytes) -> bytes | None:
        """Return a value with the time that counts, whichever version has written it."""
        value = self.master.get(key)
        entry = layout.entry(value, self._lead) if value is not None else None
        return layout.VALUE % (entry.nanoseconds, entry.line) if entry else value

    def _refuse(self, function: bytes, keys: list[bytes], *, asking: bool) -> Exception | None:
        """Return what is wrong with where a command has come, as Redis does, or what it is told to say."""
        master, world = self.master, self.master.world
        tags = {tag_of(key) for key in keys}
        assert len(tags) == 1, "the keys of a call are in several slots"
        (tag,) = tags
        owner, to = world.owners[tag], world.moving.get(tag)
        is_cut_off = master.data is not world.data
        if not is_cut_off and master.address != owner and not (asking and master.address == to):
            return (
                world.elsewhere(owner)
                if owner is not None
                else RefusedError("CLUSTERDOWN Hash slot not served")
            )
        if not is_cut_off and to is not None:
            there = [key in world.gone or key not in world.data for key in keys]
            if master.address == owner and any(there):
                return AskError(to) if all(there) else TryAgainError("TRYAGAIN")
            if master.address == owner and function in (b"advance", b"admit", b"erase"):
                return TryAgainError("TRYAGAIN")  # the function cannot tell where tombstones are
            assert master.address == owner or function in (b"", b"seal"), (
                "a tombstone may be at the other node"
            )
            if master.address != owner and len(keys) > 1 and not all(key in world.gone for key in keys):
                return TryAgainError("TRYAGAIN")
            if master.address != owner:
                world.gone.update(keys)
        return world.fault(master, function, keys)

    def _advance(self, key: bytes, value: bytes, expires: bytes) -> bytes:
        if value and self._is_erased(key, value):
            return b"0"
        held = self._ordered(key)
        if held is None or held[:TIME] < value[:TIME]:
            self.master.set(key, value, expires)
            return b"1"
        return b"1" if held == value else b"0"


class _Jumping(selectors.PollSelector):  # select() knows 1,024 descriptors only
    """Waits for nothing: lets the time pass."""

    now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("nothing can happen any more")
        self.now += max(0.0, timeout)
        return super().select(0)


class Clockwork(asyncio.SelectorEventLoop):
    """An event loop that never waits."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def stand_still(self, seconds: float) -> None:
        """Let time pass without anything being done."""
        self._jumping.now += seconds


def run(body: Any) -> Any:
    """Run a coroutine to its end, on a clock that jumps."""
    with asyncio.Runner(loop_factory=Clockwork) as runner:
        return runner.run(body)


class Silent:
    """An observer of a cluster that notes what is done again and why, what each master's trouble is, and who has which parts."""

    def __init__(self) -> None:
        self.cluster = self
        self.again: list[str] = []
        self.troubles: list[tuple[str, str]] = []
        self.faults: list[BaseException | None] = []
        self.sizes: list[int] = []
        self.full: list[tuple[str, bool]] = []
        self.parts: list[dict[str, int]] = []
        self.waited: list[tuple[str, int]] = []
        """Why so many wishes were done again."""

    def batch(self, commands: int, _: float) -> None:
        self.sizes.append(commands)

    def retried(self, why: str, count: int) -> None:
        self.again.append(why)
        self.waited.append((why, count))

    def master(self, master: str, trouble: str) -> None:
        self.troubles.append((master, trouble))

    def master_full(self, master: str, *, full: bool) -> None:
        self.full.append((master, full))

    def masters(self, parts: dict[str, int]) -> None:
        assert sum(parts.values()) <= layout.TAGS
        self.parts.append(parts)

    def state(self, masters: int, *, up: int, full: int, waiting: int) -> None:
        self.figures = [masters, up, full, waiting]

    def node_failed(self, _: str, __: str) -> None:
        """Tests of the lookout note it."""

    def fault(self, _: str, error: BaseException | None) -> None:
        self.faults.append(error)
