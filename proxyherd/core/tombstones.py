"""Tombstones: what the herd keeps of a client that was erased.

A tombstone covers each line of its client that a server received at its moment or earlier, whatever time the client
named. So it wins over copies of these lines that come back from a neighbour, a journal or a backup. It has a keyed hash
of the ID, not the ID. A later report of the same client is stored beside it.

Its line travels, and is journalled, like an AT line: `GONE <32 hexadecimal digits> <nanoseconds of POSIX time>`. The
first digits of the hash are the client's leaf in the table, so digests and ranges need no ID to hold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

from proxyherd.core.messages import NANOSECONDS, At, Entry, parse_at
from proxyherd.core.value import Value

DIGEST_BYTES: Final = 16
"""Bytes of the hash of an ID."""

_gone = re.compile(rb"GONE ([0-9a-f]{32}) ([1-9][0-9]{0,21})").fullmatch


class Tombstone(Value):
    """A client was erased. `digest` is the keyed hash of its ID. Each of its lines that was received `until` this time is
    gone; nanoseconds of POSIX time, from 1 on.
    """

    digest: bytes
    until: int

    @property
    def line(self) -> bytes:
        """Its line, without LF."""
        return b"GONE %b %d" % (self.digest.hex().encode(), self.until)

    @property
    def entry(self) -> Entry:
        """Its line and its moment, as an update has its entry."""
        return Entry(self.line, self.until)

    @property
    def received(self) -> int:
        """Its moment, as an update has the time of receipt."""
        return self.until

    @property
    def client(self) -> bytes:
        """Its name in the log, where an update has the client's ID. No ID has a space."""
        return b"GONE " + self.digest.hex().encode()


def parse_gone(line: bytes) -> Tombstone | None:
    """Parse a tombstone's line, without LF. Return None if it does not have exactly the form that servers write."""
    match = _gone(line)
    return Tombstone(bytes.fromhex(match[1].decode()), int(match[2])) if match is not None else None


Learned: TypeAlias = At | Tombstone
"""What one line of a neighbour or of the journal tells."""


def parse_learned(line: bytes, lead: int = NANOSECONDS) -> Learned | None:
    """Parse a line of a neighbour or of the journal, without LF. Return None if it is neither an AT line nor a GONE line of
    exactly the form that servers write. `lead`: see `parse_at`.
    """
    return parse_at(line, lead) or parse_gone(line)


class Tombstones:
    """The tombstones of one table, by leaf. There are few, or none."""

    def __init__(self) -> None:
        self.leaves: dict[int, dict[bytes, int]] = {}
        """For each leaf that has any, the moment of each hash."""
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def until(self, digest: bytes, leaf: int) -> int:
        """Return the moment of the tombstone with this hash; 0 if there is none."""
        held = self.leaves.get(leaf)
        return held.get(digest, 0) if held else 0

    def put(self, digest: bytes, until: int, leaf: int) -> None:
        """Set the moment of the tombstone with this hash; 0 removes it."""
        held = self.leaves.setdefault(leaf, {})
        self._size -= len(held)
        if until:
            held[digest] = until
        else:
            held.pop(digest, None)
        self._size += len(held)
        if not held:
            del self.leaves[leaf]

    def lines(self, leaf: int) -> Iterator[bytes]:
        """Yield the lines of a leaf's tombstones."""
        for digest, until in self.leaves.get(leaf, {}).items():
            yield Tombstone(digest, until).line
