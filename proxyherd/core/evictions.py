"""A table that makes room when it is full: the clients whose times that count are the earliest leave it.

So a client whose clock is slow leaves first, however lately it was heard. Times of receipt would be fairer, but each line
replaces another by the time that counts, and two orders would let servers end with different clients.

The table is divided into groups of leaves, and each group has an equal part of the limits. A group keeps its latest
clients, by the total order of lines: the time that counts, then the bytes. If a line exceeds the limits, the clients with
the least lines leave. If that is the new line itself, it is refused, and nobody leaves.

So servers that learn the same lines end with the same clients, whatever the order. For each line that is stored makes its
group greater in lexicographical order (its lines sorted, the greatest first), so catching up comes to an end. And then
two groups can't differ: the greatest line that only one of them has would fit into the other one too, since everything
above it is the same. Groups are what makes that cheap: nobody searches the whole table for the client to leave.

A group fills up before others do, because IDs are spread by a hash. With a thousand clients in each, the first one is
full when the table has reached nine tenths of its limits.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Callable
from heapq import nsmallest
from typing import Final, Literal, TypeAlias

from proxyherd.core.messages import Entry
from proxyherd.core.sizes import SIZES
from proxyherd.core.table import Evicted, Room, Table

_GROUP_CLIENTS: Final = 1_024
_GROUP_BYTES: Final = 131_072
"""What a group may hold at least. In smaller ones, chance would leave much more room in some than in others."""

_LOWEST: Final = 64
"""The lowest clients of a full group that are remembered: so it is searched once for so many that leave."""

_Ranked: TypeAlias = tuple[int, bytes, bytes]
"""The rank of a client, which is the time that counts and the line; and the client."""

_UNLIMITED: Final = Room(1 << 62, 1 << 62)


class EvictingTable(Table):
    """A table with these limits, whatever limits its methods are given."""

    def __init__(self, key: bytes, room: Room, depth: int = SIZES.depth) -> None:
        super().__init__(key, depth)
        groups = 1
        while (
            2 * groups <= self.leaf_count
            and room.clients >= 2 * groups * _GROUP_CLIENTS
            and room.bytes >= 2 * groups * _GROUP_BYTES
        ):
            groups *= 2
        self._leaves_each: int = self.leaf_count // groups
        self._most = Room(room.clients // groups, room.bytes // groups)
        self._clients_in = array("Q", bytes(8 * groups))
        self._bytes_in = array("Q", bytes(8 * groups))
        # The lowest clients of groups that were full, in order, and others that have changed since: every client of the
        # group that is not higher than the last of them is among them.
        self._lowest: dict[int, list[_Ranked]] = {}

    def put(self, client: bytes, entry: Entry, leaf: int) -> None:
        """Store this entry, whatever was stored before, and whether there is room for it or not."""
        before = self.get(client, leaf)
        super().put(client, entry, leaf)
        self._count(client, entry, leaf, before)

    def remove(self, client: bytes, leaf: int) -> None:
        """Remove the entry of this client."""
        entry = self.get(client, leaf)
        if entry is not None:
            super().remove(client, leaf)
            group = leaf // self._leaves_each
            self._clients_in[group] -= 1
            self._bytes_in[group] -= len(client) + len(entry.line)

    def advance(
        self,
        client: bytes,
        entry: Entry,
        room: Room,  # noqa: ARG002 - it has limits of its own
        too_old: Callable[[Entry], bool] | None = None,
    ) -> Entry | Evicted | Literal[False] | None:
        """Do as a table that is never full; then let the lowest clients of the group leave if that is too much. If any
        have left, return these too.
        """
        held = super().advance(client, entry, _UNLIMITED, too_old)
        if held is False or isinstance(held, Evicted):
            return held
        leaf = self.leaf(client)
        if held is not None:  # `put` has counted a new one
            self._count(client, entry, leaf, held)
        return self._make_room(client, leaf, held)

    def admit(
        self,
        client: bytes,
        entry: Entry,
        room: Room,  # noqa: ARG002 - likewise
        too_old: Callable[[Entry], bool] | None = None,
    ) -> bool | None:
        """Do likewise; a line for which there is no room is no news."""
        leaf = self.leaf(client)
        held = self.get(client, leaf)
        if not super().admit(client, entry, _UNLIMITED, too_old):
            return False
        return self._make_room(client, leaf, held) is not False

    def _count(self, client: bytes, entry: Entry, leaf: int, before: Entry | None) -> None:
        """Count an entry that was stored, and one that it replaced."""
        group = leaf // self._leaves_each
        if before is None:
            self._clients_in[group] += 1
            self._bytes_in[group] += len(client) + len(entry.line)
        else:
            self._bytes_in[group] += len(entry.line)
            self._bytes_in[group] -= len(before.line)
        lowest = self._lowest.get(group)
        if lowest:
            ranked = (entry.nanoseconds, entry.line, client)
            if ranked < lowest[-1]:
                insort(lowest, ranked)
                del lowest[2 * _LOWEST :]

    def _make_room(
        self, client: bytes, leaf: int, held: Entry | None
    ) -> Entry | Evicted | Literal[False] | None:
        """Let clients leave until the group of this one, which was just stored, is within its limits. If it would have to
        leave itself, restore what it has replaced, and return False. Otherwise return that, and who has left.
        """
        group, most, left = leaf // self._leaves_each, self._most, list[tuple[bytes, Entry]]()
        while self._clients_in[group] > most.clients or self._bytes_in[group] > most.bytes:
            lowest, entry = self._take_lowest(group)
            if lowest == client:
                self.remove(client, leaf)
                if held is not None:
                    self.put(client, held, leaf)
                for other, its_entry in left:
                    self.put(other, its_entry, self.leaf(other))
                return False
            self.remove(lowest, self.leaf(lowest))
            left.append((lowest, entry))
        if not left:
            return held
        self.evicted += len(left)
        return Evicted(held, tuple(left))

    def _take_lowest(self, group: int) -> tuple[bytes, Entry]:
        """Return the client with the lowest line of a group, and its entry."""
        while True:
            lowest = self._lowest.get(group)
            if not lowest:
                lowest = self._lowest[group] = self._search(group)
            _, line, client = lowest.pop(0)
            entry = self.get(client)
            if entry is not None and entry.line is line:
                return client, entry

    def _search(self, group: int) -> list[_Ranked]:
        """Return the lowest clients of a group, in order."""
        first = group * self._leaves_each
        entries = self.entries(first, first + self._leaves_each)
        return nsmallest(_LOWEST, [(entry.nanoseconds, entry.line, client) for client, entry in entries])
