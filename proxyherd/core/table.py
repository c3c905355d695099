"""The table of last locations: the last writer wins, and digests show where two tables differ.

One total order decides everywhere: the time as a number, then the bytes of the whole AT line. A greater line replaces
the present one. So lines can be learned in any order, and repeatedly, with the same result.

A client that was erased has a tombstone (`tombstones`). The greatest one of a client counts, and removes each line that
it covers; a covered line is not stored again. So tombstones too can be learned in any order. One thing depends on the
order: a line that lost against another one is gone, even if the other one is erased afterwards. Catching up brings it
back from a server that still has it; so a server that has erased a line asks its neighbours again (`node`). If all lines are learned a second time, the result is the same for any order: the
greatest tombstone, and the greatest line that it does not cover.

Clients are spread over 65,536 leaves by a keyed hash of their ID. Each leaf is a small dict; one large dict would
block the server while it grows. The leaves are at the bottom of a tree. Each node has sixteen children, and is named
by the hexadecimal digits that lead to it. A node's digest is the exclusive or of the keyed hashes of all lines below
it. Because both hashes are keyed, clients cannot choose IDs that fill one leaf or make different tables look alike.

`sweep` updates the digests in slices, and only where leaves have changed. A change behind a running sweep is missing
in the digests until the next sweep. This is no error: between linked servers, it travels as a live update.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Container, Iterator, Mapping
from functools import reduce
from hashlib import blake2b
from operator import xor
from typing import Final, Literal, Protocol

from proxyherd.core.messages import Entry, received
from proxyherd.core.sizes import FANOUT, SIZES
from proxyherd.core.tombstones import DIGEST_BYTES, Tombstone, Tombstones
from proxyherd.core.value import Value

_MOST_KNOWN: Final = 131_072
_KNOWN_BYTES: Final = 64
"""How many clients' leaves are cached, which costs less than hashing again; and the maximum length of their IDs, because
clients choose these. The cache takes at most 20 MiB."""

FINGERPRINT_BYTES: Final = 8
"""Bytes of the hash by which servers see whether their tables have the same key."""

_from_bytes = int.from_bytes


class Room(Value):
    """The limits of a table: clients, and bytes of their IDs and lines."""

    clients: int
    bytes: int


class Erasure(Value):
    """What a tombstone has changed: the moment of the client's earlier tombstone, 0 if it had none; and the client and its
    entry, if one was removed.
    """

    before: int
    client: bytes | None = None
    entry: Entry | None = None


class Evicted(Value):
    """What a stored report has replaced, None if its client is new, and the clients that have left for it."""

    held: Entry | None
    clients: tuple[tuple[bytes, Entry], ...]


class TableReader(Protocol):
    """Who wants to know which clients have changed."""

    def put_aside(self, changes: dict[bytes, Entry | None]) -> None:
        """Keep what another reader has taken out of the table."""


class Table:
    """One entry for each client. `key` is known only to the herd; it is the key of the hashes. `depth`: that of the
    herd's trees, see `Sizes`.
    """

    def __init__(self, key: bytes, depth: int = SIZES.depth) -> None:
        self.depth = depth
        self.leaf_count: int = FANOUT**depth
        fingerprint = blake2b(key=key, digest_size=FINGERPRINT_BYTES, person=b"fingerprint")
        self.fingerprint = fingerprint.hexdigest().encode()
        """A hash that only tables of the same key have, in hexadecimal. It does not help to guess the key."""
        self._leaf_hash = blake2b(key=key, digest_size=depth // 2, person=b"leaf")
        self._line_hash = blake2b(key=key, digest_size=8, person=b"line")
        self._gone_hash = blake2b(key=key, digest_size=DIGEST_BYTES - depth // 2, person=b"gone")
        self._leaves: list[dict[bytes, Entry] | None] = [None] * self.leaf_count
        self._filled = bytearray(self.leaf_count)  # which leaves have ever had an entry
        self._changed = bytearray(self.leaf_count)
        # The digests of each level of the tree, from the root's children down to the leaves.
        self._digests = [array("Q", bytes(8 * FANOUT**level)) for level in range(1, depth + 1)]
        self._known: dict[bytes, int] = {}  # leaves of clients that were looked up
        self._size = 0
        self.bytes = 0  # of all client IDs and lines
        self.tombstones = Tombstones()
        self.gone = self.tombstones.leaves  # to see at once that there are none, which is the usual case
        self.evicted = 0  # clients that have left to make room
        self.changes: dict[bytes, Entry | None] | None = None
        """While there are readers: the clients that have changed since one has read, and their entries now."""
        self.readers: list[TableReader] = []

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[tuple[bytes, Entry]]:
        for leaf in self._leaves:
            if leaf:
                yield from leaf.items()

    def leaf(self, client: bytes) -> int:
        """Return the number of a client's leaf."""
        leaf = self._known.get(client)
        if leaf is None:
            leaf = self._hash(client)
            if len(client) <= _KNOWN_BYTES:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[client] = leaf
        return leaf

    def _hash(self, client: bytes) -> int:
        leaf_hash = self._leaf_hash.copy()
        leaf_hash.update(client)
        return _from_bytes(leaf_hash.digest(), "big")

    def get(self, client: bytes, leaf: int | None = None) -> Entry | None:
        """Return the entry of a client; giving its leaf saves the hashing."""
        if leaf is None:
            leaf = self._known.get(client)
            if leaf is None:
                leaf = self.leaf(client)
        held = self._leaves[leaf]
        return held.get(client) if held else None

    def home(self, leaf: int) -> Mapping[bytes, Entry]:
        """Return the clients of a leaf, and their entries: always the present ones, if the leaf has ever had any."""
        held = self._leaves[leaf]
        return held if held is not None else {}

    def put(self, client: bytes, entry: Entry, leaf: int) -> None:
        """Store this entry, whatever was stored before."""
        held = self._leaves[leaf]
        if held is None:
            held = self._leaves[leaf] = {}
            self._filled[leaf] = 1
        before = held.get(client)
        held[client] = entry
        if before is None:
            self._size += 1
            self.bytes += len(client) + len(entry.line)
        elif more := len(entry.line) - len(before.line):
            self.bytes += more
        self._changed[leaf] = 1
        if self.changes is not None:
            self.changes[client] = entry

    def advance(
        self, client: bytes, entry: Entry, room: Room, too_old: Callable[[Entry], bool] | None = None
    ) -> Entry | Evicted | Literal[False] | None:
        """Store an entry if it is later than the present one, no tombstone covers it, and there is room for it. Return the
        entry that it replaced, None if there was none, or False if it was not stored. A present entry that is too old
        counts as none.
        """
        leaf = self._known.get(client)
        if leaf is None:
            leaf = self.leaf(client)
        if self.gone and self.is_erased(client, entry.line, leaf):
            return False
        clients = self._leaves[leaf]
        if not clients or (held := clients.get(client)) is None:
            if not self.has_room(client, entry.line, None, room):
                return False
            self.put(client, entry, leaf)
            return None
        if entry.nanoseconds <= held.nanoseconds and (too_old is None or not too_old(held)):
            return False
        if more := len(entry.line) - len(held.line):
            if more > 0 and self.bytes + more > room.bytes:
                return False
            self.bytes += more
        clients[client] = entry
        self._changed[leaf] = 1
        if self.changes is not None:
            self.changes[client] = entry
        return held

    def admit(
        self, client: bytes, entry: Entry, room: Room, too_old: Callable[[Entry], bool] | None = None
    ) -> bool | None:
        """Store an entry if it is greater in the total order than the present one. Return whether it was stored, or None
        if there was no room for it. A present entry that is too old counts as none.
        """
        leaf = self._known.get(client)
        if leaf is None:
            leaf = self.leaf(client)
        clients = self._leaves[leaf]
        held = clients.get(client) if clients else None
        if (
            held is not None
            and entry.nanoseconds <= held.nanoseconds
            and (entry.nanoseconds < held.nanoseconds or entry.line <= held.line)
            and (too_old is None or not too_old(held))
        ):
            return False
        if self.gone and self.is_erased(client, entry.line, leaf):
            return False
        if not self.has_room(client, entry.line, held, room):
            return None
        self.put(client, entry, leaf)
        return True

    def has_room(self, client: bytes, line: bytes, held: Entry | None, room: Room) -> bool:
        """Whether this line of its client can be stored within the limits."""
        if held is None:
            return self._size < room.clients and self.bytes + len(client) + len(line) <= room.bytes
        return len(line) <= len(held.line) or self.bytes + len(line) - len(held.line) <= room.bytes

    def remove(self, client: bytes, leaf: int) -> None:
        """Remove the entry of this client."""
        held = self._leaves[leaf]
        if held is not None and (entry := held.pop(client, None)) is not None:
            self._size -= 1
            self.bytes -= len(client) + len(entry.line)
            self._changed[leaf] = 1
            if self.changes is not None:
                self.changes[client] = None

    # Erasure. ------------------------------------------------------------------------------------------------

    def tombstone(self, name: bytes, until: int) -> Tombstone:
        """Return the tombstone of a client that is erased until this moment. It is not stored."""
        leaf = self.leaf(name)
        return Tombstone(leaf.to_bytes(self.depth // 2, "big") + self._rest(name), until)

    def _rest(self, client: bytes) -> bytes:
        """Return the hash of an ID in its tombstone, without the leaf in front of it."""
        gone_hash = self._gone_hash.copy()
        gone_hash.update(client)
        return gone_hash.digest()

    def erase(self, tombstone: Tombstone) -> Erasure | None:
        """Store a tombstone if it is later than the present one of its client, and remove the client's line if it covers
        that. Return what has changed, None if nothing has.
        """
        digest, until, leaf = tombstone.digest, tombstone.until, self._leaf_of(tombstone.digest)
        before = self.tombstones.until(digest, leaf)
        if until <= before:
            return None
        self._put_tombstone(digest, until, leaf)
        for client, entry in (self._leaves[leaf] or {}).items():
            if self._rest(client) == digest[self.depth // 2 :]:
                if received(entry.line) > until:
                    break
                self.remove(client, leaf)
                return Erasure(before, client, entry)
        return Erasure(before)

    def restore(self, tombstone: Tombstone, erasure: Erasure) -> None:
        """Undo an erasure; `tombstone` must still be the client's."""
        leaf = self._leaf_of(tombstone.digest)
        self._put_tombstone(tombstone.digest, erasure.before, leaf)
        if erasure.client is not None and erasure.entry is not None:
            self.put(erasure.client, erasure.entry, leaf)

    def held_until(self, digest: bytes) -> int:
        """Return the moment of the tombstone with this hash; 0 if there is none."""
        return self.tombstones.until(digest, self._leaf_of(digest))

    def drop_tombstones(self, first: int, last: int, until: int) -> None:
        """Remove the tombstones before this moment from the leaves from `first` up to `last`."""
        for leaf in range(first, last) if self.gone else ():
            for digest in [digest for digest, moment in self.gone.get(leaf, {}).items() if moment < until]:
                self._put_tombstone(digest, 0, leaf)

    def _put_tombstone(self, digest: bytes, until: int, leaf: int) -> None:
        self.tombstones.put(digest, until, leaf)
        self._filled[leaf] = self._changed[leaf] = 1

    def _leaf_of(self, digest: bytes) -> int:
        return _from_bytes(digest[: self.depth // 2], "big")

    def erased_until(self, name: bytes, leaf: int | None = None) -> int:
        """Return until when a client is erased, in nanoseconds of POSIX time; 0 if it never was. Giving its leaf saves the
        hashing.
        """
        if not self.gone:
            return 0
        if leaf is None:
            leaf = self.leaf(name)
        if leaf not in self.gone:
            return 0
        return self.tombstones.until(leaf.to_bytes(self.depth // 2, "big") + self._rest(name), leaf)

    def is_erased(self, client: bytes, line: bytes, leaf: int | None = None) -> bool:
        """Whether an AT line of this client is covered by its tombstone. Giving its leaf saves the hashing."""
        until = self.erased_until(client, leaf)
        return until > 0 and received(line) <= until

    # Digests, and lines for neighbours. ----------------------------------------------------------------------

    def span(self, node: str) -> tuple[int, int]:
        """Return the leaves below the node of that name: the first, and the one after the last."""
        width: int = FANOUT ** (self.depth - len(node))
        first = int(node or "0", 16) * width
        return first, first + width

    def sweep(self, first: int, last: int, most: int) -> int:
        """Update the digests of the leaves from `first` up to `last`, until `most` lines are hashed.

        Returns the leaf where to continue; `last` when all are done.
        """
        changed, hashed = self._changed, 0
        while (first := changed.find(1, first, last)) >= 0:
            if hashed >= most:
                return first
            hashes = self.hashes(first)
            change = reduce(xor, hashes, self._digests[-1][first])
            node = first
            for digests in reversed(self._digests):
                digests[node] ^= change
                node //= FANOUT
            changed[first] = 0
            hashed += len(hashes)
        return last

    def children(self, node: str) -> list[int]:
        """Return the digests of a node's sixteen children as of the last sweep; 0 if there is nothing below."""
        first = int(node or "0", 16) * FANOUT
        return self._digests[len(node)][first : first + FANOUT].tolist()

    def lines_of(self, leaf: int) -> list[bytes]:
        """Return all lines of a leaf: of its entries, and of its tombstones."""
        lines = [entry.line for entry in (self._leaves[leaf] or {}).values()]
        if self.gone and leaf in self.gone:
            lines += self.tombstones.lines(leaf)
        return lines

    def hashes(self, leaf: int) -> list[int]:
        """Return the hash of each line in a leaf."""
        line_hash, hashes = self._line_hash, []
        for line in self.lines_of(leaf):
            one = line_hash.copy()
            one.update(line)
            hashes.append(_from_bytes(one.digest(), "big"))
        return hashes

    def entries(self, first: int, last: int) -> list[tuple[bytes, Entry]]:
        """Return the clients and their entries in the leaves from `first` up to `last`."""
        return [item for held in self._leaves[first:last] if held for item in held.items()]

    def lines_beside(self, leaf: int, known: Container[int]) -> list[bytes]:
        """Return the lines of a leaf whose hashes are not among `known`."""
        lines, hashes = self.lines_of(leaf), self.hashes(leaf)
        return [line for line, own in zip(lines, hashes, strict=True) if own not in known]

    def lines(self, first: int, last: int, most_bytes: int) -> tuple[list[bytes], int]:
        """Return the lines of whole leaves from `first` on, of about `most_bytes`, and the next leaf."""
        lines: list[bytes] = []
        size = 0
        while (first := self._filled.find(1, first, last)) >= 0:
            if size >= most_bytes:
                return lines, first
            more = self.lines_of(first)
            lines += more
            size += sum(map(len, more))
            first += 1
        return lines, last
