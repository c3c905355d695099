"""Keys and values in Redis. They are the same for all servers and versions: to change them, the table must be moved.

A client belongs to one of 512 tags, by the CRC-32 of its ID. The tag's name is in braces before the ID. So Redis puts
all keys of a tag into one slot, and one call can have many of them. The names are chosen so that the tags' slots are
32 apart: a part of the slots has the same part of the tags.

A client that was erased has a tombstone in its tag, `{tag} gone` with a hash behind it: see `function.lua`.

A value is 21 digits of nanoseconds, a space, and the AT line. So the values' order by bytes is the herd's total order:
time first, then line. 64-bit integers, Lua's numbers and the scores of sorted sets would lose nanoseconds.
"""

from __future__ import annotations

import hashlib
import re
from binascii import crc_hqx
from bisect import bisect_left, bisect_right
from itertools import count
from typing import Final
from zlib import crc32

from proxyherd.core.messages import Entry, nanoseconds, parse_at

TAGS: Final = 512
SLOTS: Final = 16_384
LAST_TAG: Final = TAGS - 1
SALT_DIGITS: Final = 32
"""Hexadecimal digits of the salt of a tag's tombstones, and of the hash of an ID in the key of one."""

VALUE_BYTES: Final = 22
"""Bytes of a value before its AT line: the digits of its time, and a space."""


def slot(hashed: bytes) -> int:
    """Return the slot for the part of a key that Redis hashes: CRC-16 (XMODEM), as in the specification of
    Redis Cluster.
    """
    return crc_hqx(hashed, 0) % SLOTS


def _names() -> list[bytes]:
    """Return for each tag the smallest number whose hash is in the tag's part of the slots."""
    names: dict[int, bytes] = {}
    for number in count():
        name = b"%d" % number
        names.setdefault(slot(name) * TAGS // SLOTS, name)
        if len(names) == TAGS:
            break
    return [names[tag] for tag in range(TAGS)]


NAMES: Final = _names()
PREFIXES: Final = [b"{%b}" % name for name in NAMES]
"""The part of a key before the client's ID, for each tag."""

TAG_SLOTS: Final = [slot(name) for name in NAMES]
"""The slot of each tag; no two have the same."""


_TAGS_BY_NAME: Final = {name: tag for tag, name in enumerate(NAMES)}
_tombstone_part = re.compile(rb"\{([0-9]+)\}( gone(?: [0-9a-f]{32})?)").fullmatch

VALUE: Final = b"%021d %b"
"""The value of a time in nanoseconds and an AT line."""


def tag_of(client: bytes) -> int:
    """Return the tag of a client's ID."""
    return crc32(client) & LAST_TAG


def key(client: bytes) -> bytes:
    """Return the key of a client's ID."""
    return PREFIXES[tag_of(client)] + client


def client_of(spelled: bytes) -> bytes | None:
    """Return the client's ID in a key, or None if it is not one of ours."""
    found = spelled.partition(b"}")[2]
    return found if found.split() == [found] and key(found) == spelled else None


def tombstone_part(spelled: bytes) -> tuple[int, bytes] | None:
    """Return the tag, and what stands behind it, in the key of a tombstone or of the salt of a tag's tombstones; None if
    it is another key.
    """
    match = _tombstone_part(spelled)
    tag = _TAGS_BY_NAME.get(match[1]) if match is not None else None
    return (tag, match[2]) if match is not None and tag is not None else None


def hash_of(salt: bytes, client: bytes) -> bytes:
    """Return the hash of a client's ID that stands in the key of its tombstone."""
    return hashlib.sha1(salt + client, usedforsecurity=False).hexdigest()[:SALT_DIGITS].encode()


def moment_of(value: bytes | None) -> int:
    """Return up to which moment a tombstone covers, in nanoseconds of POSIX time; 0 if there is none, or no server has
    written it.
    """
    return int(value) if value is not None and value.isdigit() else 0


class SaltedTombstones:
    """The tombstones of a cluster, by tag. Only who knows the ID of a client finds its own: see `function.lua`."""

    def __init__(self) -> None:
        self._salts: dict[int, bytes] = {}
        self._moments: dict[tuple[int, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._moments)

    def add(self, tag: int, rest: bytes, value: bytes) -> None:
        """Add what a key holds, as `tombstone_part` tells it."""
        _, _, hashed = rest.rpartition(b"gone")
        if hashed:
            self._moments[tag, hashed[1:]] = moment_of(value)
        else:
            self._salts[tag] = value[:SALT_DIGITS]

    def until(self, client: bytes) -> int:
        """Return up to which moment a client is erased, in nanoseconds of POSIX time; 0 if it is not."""
        tag = tag_of(client)
        salt = self._salts.get(tag)
        if salt is None:
            return 0
        return self._moments.get((tag, hash_of(salt, client)), 0)


def seal(tag: int, master: str) -> bytes:
    """Return the key that a batch writes last. Its spaces distinguish it from clients' keys. The master's address
    distinguishes it from other masters' seals in the same tag, so that a moving slot never has the key at both ends.
    """
    return b"%b seal %b" % (PREFIXES[tag], master.encode())


def entry(value: bytes, lead: int) -> Entry | None:
    """Return the entry in a value, or None if it has another form: then somebody else has written it. `lead`: that of
    the herd, as in `messages.parse_at`. Version 1 wrote the time of the report, also where it does not count.
    """
    line = value[VALUE_BYTES:]
    at = parse_at(line, lead)
    if at is None:
        return None
    if not value.startswith(b"%021d " % at.entry.nanoseconds):
        seconds, _, fraction = line.rpartition(b" ")[2].partition(b".")
        if not value.startswith(b"%021d " % nanoseconds(seconds, fraction)):
            return None
    return at.entry


def owned(first: int, last: int) -> range:
    """Return the tags in the slots from `first` to `last`, including both. A later tag has a later slot."""
    return range(bisect_left(TAG_SLOTS, first), bisect_right(TAG_SLOTS, last))
