"""The table of a server, which notices what it must not do: go back in the order, or hold what was erased."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from proxyherd.core.link import Link
from proxyherd.core.messages import Entry, received
from proxyherd.core.table import Erasure, Evicted, Room, Table
from proxyherd.core.tombstones import Tombstone
from simulation.laws import KEY, NOTHING, Order

if TYPE_CHECKING:
    from simulation.network import End
    from simulation.servers import Server


class WatchedTable(Table):
    """The real table, which also notices if it does not grow in the order, and whence each line came."""

    def __init__(self, server: Server) -> None:
        super().__init__(KEY, server.world.plan.depth)
        self.server = server
        self.source: Link | None = None
        self.doubting = False  # lines are set aside after a long absence
        self.undoing = False  # reports that could not be kept: nobody has seen them
        self.forgets = False  # a client is erased by a command
        self.came_from: dict[bytes, str | None] = {}
        self.own: dict[
            bytes, list[End]
        ] = {}  # what clients of this life brought, and the live links when it came
        self.stored = Counter[bytes]()  # how often each line became the greatest
        self.greatest: dict[bytes, Order] = {}
        self.gone_until: dict[bytes, int] = {}  # by client, until when it is erased
        self.just_erased: dict[bytes, Order] = {}  # in this turn
        self._erasing = False

    def covers(self, client: bytes, line: bytes) -> bool:
        """Whether this server knows that the line was erased."""
        return client in self.gone_until and received(line) <= self.gone_until[client]

    def advance(
        self, client: bytes, entry: Entry, room: Room, too_old: Callable[[Entry], bool] | None = None
    ) -> Entry | Evicted | Literal[False] | None:
        before = self.greatest.get(client)
        held = super().advance(client, entry, room, too_old)
        if isinstance(held, Entry):  # else `put` has noticed
            self.notice(client, entry)
        is_later = before is None or entry.nanoseconds > before[0]
        is_later = is_later and not self.covers(client, entry.line)
        if is_later is (held is False):
            self.server.world.broken(
                f"{self.server.name} has {before}, and {entry.line!r} is stored: {held is not False}"
            )
        if held is not False:
            self.own[entry.line] = self.server.live_ends
        return held

    def undo(self, undo: Callable[[], None], reported: set[bytes]) -> None:
        """Let these lines be taken back, which could not be kept."""
        for line in reported:
            del self.own[line]
        self.undoing = True
        undo()
        self.undoing = False
        if any(entry.line in reported for _, entry in self) or self.tombstones_held != self.gone_until:
            self.server.world.broken(f"{self.server.name} keeps a report or an erasure that it refuses")

    def remove(self, client: bytes, leaf: int) -> None:
        assert self.undoing or self._erasing or self.doubting
        super().remove(client, leaf)
        del self.greatest[client]

    def put(self, client: bytes, entry: Entry, leaf: int) -> None:
        self.notice(client, entry)
        super().put(client, entry, leaf)

    def notice(self, client: bytes, entry: Entry) -> None:
        server, new = self.server, (entry.nanoseconds, entry.line)
        if self.undoing:
            self.greatest[client] = new
            return
        if new <= self.greatest.get(client, NOTHING):
            server.world.broken(f"{server.name}'s table went back from {self.greatest[client]} to {new}")
        if self.covers(client, entry.line):
            server.world.broken(
                f"{server.name} stores {entry.line!r}, which was erased until {self.gone_until[client]}"
            )
        self.greatest[client] = new
        self.stored[entry.line] += 1
        self.came_from[entry.line] = self.source.peer if self.source else None
        server.laws.held(server, client, new)
        if self.source is not None:
            server.learned(server, client)

    # Erasure. ------------------------------------------------------------------------------------------------

    def erase(self, tombstone: Tombstone) -> Erasure | None:
        server, until = self.server, tombstone.until
        client = server.laws.erasures.client(tombstone.digest)
        held = self.greatest.get(client, NOTHING)
        self._erasing = True
        erasure = super().erase(tombstone)
        self._erasing = False
        if (erasure is not None) is not (until > self.gone_until.get(client, 0)):
            server.world.broken(
                f"{server.name} learns {tombstone.line!r}: {erasure}, and knew {self.gone_until.get(client)}"
            )
        if erasure is None:
            return None
        is_covered = held != NOTHING and received(held[1]) <= until
        if (self.get(client) is None) is not (is_covered or held == NOTHING):
            server.world.broken(
                f"{server.name} learns {tombstone.line!r}, and has {self.get(client)} of {held}"
            )
        self.gone_until[client] = until
        self.came_from[tombstone.line] = self.source.peer if self.source else None
        if self.forgets:
            self.own[tombstone.line] = server.live_ends
        if is_covered:  # also what has lost against it
            self.just_erased[client] = held
            server.voided[client] = max(held, server.voided.get(client, NOTHING))
        promised = server.promised.get(client, NOTHING)
        if promised != NOTHING and (received(promised[1]) <= until or (is_covered and promised <= held)):
            server.voided[client] = max(server.promised.pop(client), server.voided.get(client, NOTHING))
        server.laws.erasures.held(server, client, tombstone)
        return erasure

    def restore(self, tombstone: Tombstone, erasure: Erasure) -> None:
        client = self.server.laws.erasures.client(tombstone.digest)
        if erasure.before:
            self.gone_until[client] = erasure.before
        else:
            del self.gone_until[client]
        super().restore(tombstone, erasure)

    def _put_tombstone(self, digest: bytes, until: int, leaf: int) -> None:
        super()._put_tombstone(digest, until, leaf)
        if not until and not self.undoing:
            server = self.server
            client = server.laws.erasures.client(digest)
            if self.gone_until.pop(client) + server.keep >= server.clock:
                server.world.broken(f"{server.name} forgets too early that {client!r} was erased")

    @property
    def tombstones_held(self) -> dict[bytes, int]:
        """By client, what the real table holds."""
        client = self.server.laws.erasures.client
        return {client(digest): until for held in self.gone.values() for digest, until in held.items()}
