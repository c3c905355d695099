"""Where the clients of a table are, for searches. It is kept up to date when somebody searches, not when a report comes.

While there is an index, the table notes which clients have changed, in whatever way: so what was erased or has expired
leaves the index as what has moved moves. `catch_up` takes that in.

A client has a slot, its number in a packed array of positions in degrees, and in lists of the table's own IDs and leaves.
The slot is in its key, see `keys`. With a dict of the keys, that is some 125 bytes a client.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

from proxyherd.core.changes import ChangeReader
from proxyherd.core.messages import Entry
from proxyherd.core.spatial.keys import (
    COLUMN_BITS,
    COLUMNS,
    MOST_SLOTS,
    PLACE,
    SLOT_BITS,
    STRIPS_OF_A_DEGREE,
    Keys,
    cell_of,
)
from proxyherd.core.table import Table

INDEX_SLICE: Final = 96
"""Clients that are read in one slice of work while the index is made: half a millisecond."""

CHANGES_SLICE: Final = 256
"""Clients that have changed and are looked at in one slice of work: likewise."""

_LEAVES: Final = 1_024
"""Leaves that are read in one slice of work while the index is made, at most."""

_NOWHERE: Final[Mapping[bytes, Entry]] = {}

_DICTS: Final = 128
_WHICH: Final = _DICTS - 1


class SpatialIndex:
    """The index of one table, which has one index at a time. Close it when nobody asks any more."""

    def __init__(self, table: Table) -> None:
        self.keys = Keys()
        self.positions = array("d")  # of the slot 0: latitude, longitude; of the slot 1: ...
        self.clients: list[bytes] = []
        # The keys, by client. One large dict would block the server while it grows.
        self._known: list[dict[bytes, int]] = [{} for _ in range(_DICTS)]
        self._size = 0
        self.homes: list[Mapping[bytes, Entry]] = []  # by slot; so an entry is found without a hash
        self._free: list[int] = []
        self._table = table
        self._read = -3  # how many leaves have been read; before the first, room is made
        self._used = 0  # how many slots have ever been used
        self._changes: deque[dict[bytes, Entry | None]] = deque()  # taken from the table, the oldest first
        self._done = 0  # how many dicts of changes have been taken in
        self._searches: list[set[bytes]] = []
        self._reader = ChangeReader(table)

    def __len__(self) -> int:
        return self._size

    def close(self) -> None:
        """Read no more changes of the table. The index cannot be used any more."""
        self._reader.close()

    @property
    def behind(self) -> int:
        """How many changes are to be taken in."""
        return len(self._reader) + sum(map(len, self._changes))

    def catch_up(self) -> Iterator[None]:
        """Take in all of the table's clients, and all changes until now. Yields after each slice of work."""
        while self._read < self._table.leaf_count:
            self._read_leaves()
            yield
        self._take_changes()
        last = self._done + len(self._changes)
        while self._done < last:  # another search may take in the rest
            self._take_in(self._changes[0])
            if not self._changes[0]:
                self._changes.popleft()
                self._done += 1
            if self._done < last:
                yield

    def entry(self, slot: int) -> Entry | None:
        """Return the present entry of a slot's client, None if there is none any more."""
        return self.homes[slot].get(self.clients[slot])

    def is_behind(self, client: bytes) -> bool:
        """Whether a client has changed since it was looked at."""
        return client in self._reader or any(client in taken for taken in self._changes)

    def catch_up_with(self, client: bytes) -> int | None:
        """Take in the changes of a client before their turn comes. Return its slot, None if it is not in the table."""
        self._take_changes()
        for taken in self._changes:
            taken.pop(client, None)
        self._take_in({client: self._table.get(client)})
        key = self._known[hash(client) & _WHICH].get(client)
        return (key & PLACE) // 2 if key is not None else None

    def begin_search(self) -> set[bytes]:
        """Return a set in which all clients are put whose changes are taken in until `end_search`."""
        clients = set[bytes]()
        self._searches.append(clients)
        return clients

    def end_search(self, touched: set[bytes]) -> None:
        """Put no more clients into this set."""
        self._searches = [clients for clients in self._searches if clients is not touched]

    def _take_changes(self) -> None:
        if changes := self._reader.take():
            self._changes.append(changes)

    def _read_leaves(self) -> None:
        """Read the next leaves of the table for the first time, or make room for what they have."""
        table, left = self._table, INDEX_SLICE
        if self._read < 0:
            self._make_room(len(table))
            self._read += 1
            return
        for leaf in range(self._read, min(self._read + _LEAVES, table.leaf_count)):
            self._read = leaf + 1
            for client, entry in table.entries(leaf, leaf + 1):
                left -= 1
                if client not in self._known[hash(client) & _WHICH]:
                    self._add(client, entry, leaf)
            if left <= 0:
                break

    def _make_room(self, slots: int) -> None:
        """Make room in one of the arrays: each time that they grow, they are copied."""
        if self._read == -3:
            self.homes += [_NOWHERE] * (slots - len(self.homes))
        elif self._read == -2:
            room = array("d", (0.0, 0.0)) * (slots - len(self.positions) // 2)
            self.positions = self.positions + room if self.positions else room
        else:
            self.clients += [b""] * (slots - len(self.clients))

    def _take_in(self, changes: dict[bytes, Entry | None]) -> None:
        """Take in some changes, and remove them from the dict."""
        known, positions, take = self._known, self.positions, changes.popitem
        for clients in self._searches:
            clients.update(changes)
        for _ in range(min(CHANGES_SLICE, len(changes))):
            client, entry = take()
            keys = known[hash(client) & _WHICH]
            key = keys.get(client)
            if key is None or entry is None:
                self._add_or_remove(client, entry)
                continue
            place = complex(entry.line.rsplit(b" ", 2)[1].decode() + "j")  # `degrees`, without the call
            latitude, longitude = place.real, place.imag
            at = key & PLACE
            positions[at], positions[at + 1] = latitude, longitude
            cell = int((latitude + 90.0) * STRIPS_OF_A_DEGREE) << COLUMN_BITS | int(
                (longitude + 180.0) * COLUMNS
            )
            if cell != key >> SLOT_BITS:
                self.keys.remove(key)
                keys[client] = key = cell << SLOT_BITS | at
                self.keys.add(key)

    def _add_or_remove(self, client: bytes, entry: Entry | None) -> None:
        if entry is not None:
            self._add(client, entry, self._table.leaf(client))
        elif (key := self._known[hash(client) & _WHICH].pop(client, None)) is not None:
            self._size -= 1
            slot = (key & PLACE) // 2
            self.keys.remove(key)
            self.clients[slot] = b""
            self._free.append(slot)

    def _add(self, client: bytes, entry: Entry, leaf: int) -> None:
        if self._free:
            slot = self._free.pop()
        elif (slot := self._used) < MOST_SLOTS:
            self._used += 1
            if slot >= len(self.clients):
                self.clients.append(b"")
            if slot >= len(self.homes):
                self.homes.append(_NOWHERE)
            if 2 * slot >= len(self.positions):
                self.positions.extend((0.0, 0.0))
        else:
            return
        latitude, longitude = degrees(entry.line)
        self.clients[slot] = client
        self.homes[slot] = self._table.home(leaf)
        self._size += 1
        self.positions[2 * slot], self.positions[2 * slot + 1] = latitude, longitude
        self._known[hash(client) & _WHICH][client] = key = (
            cell_of(latitude, longitude) << SLOT_BITS | 2 * slot
        )
        self.keys.add(key)


def degrees(at_line: bytes) -> tuple[float, float]:
    """Return latitude and longitude of an AT line."""
    place = complex(
        at_line.rsplit(b" ", 2)[1].decode() + "j"
    )  # reads both numbers, and quicker than `float` does
    return place.real, place.imag
