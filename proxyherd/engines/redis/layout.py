"""Keys and values in Redis, the same for every server and version: who changes them must move the table.

A client belongs to one of 512 tags, by the CRC-32 of its ID. The tag's name stands in braces before the ID, so Redis
puts all keys of a tag into one slot, and one call can carry many of them. Names are chosen so that tags lie evenly over
the slots, 32 of them apart: whoever has a share of the slots has the same share of the tags.

A value is 21 digits of nanoseconds, a space, and the AT line. So the order of values by bytes is the herd's total
order, time first, then line; integers of 64 bits, Lua's numbers and the scores of sorted sets all lose nanoseconds.
"""

from __future__ import annotations

from binascii import crc_hqx
from bisect import bisect_left, bisect_right
from itertools import count
from typing import Final
from zlib import crc32

from proxyherd.core.messages import Entry, parse_at

TAGS: Final = 512
SLOTS: Final = 16_384
LAST_TAG: Final = TAGS - 1
VALUE_BYTES: Final = 22
"""Of a value before its AT line: the digits of its time, and a space."""


def slot(hashed: bytes) -> int:
    """Return the slot of what Redis hashes of a key: CRC-16 (XMODEM), as its cluster specification says."""
    return crc_hqx(hashed, 0) % SLOTS


def _names() -> list[bytes]:
    """Return the least number for each tag that hashes into the tag's part of the slots."""
    names: dict[int, bytes] = {}
    for number in count():
        name = b"%d" % number
        names.setdefault(slot(name) * TAGS // SLOTS, name)
        if len(names) == TAGS:
            break
    return [names[tag] for tag in range(TAGS)]


NAMES: Final = _names()
PREFIXES: Final = [b"{%b}" % name for name in NAMES]
"""What stands before the client's ID in a key."""

TAG_SLOTS: Final = [slot(name) for name in NAMES]
"""The slot of each tag; no two have the same."""


VALUE: Final = b"%021d %b"
"""The value of a time in nanoseconds and an AT line."""


def tag(client: bytes) -> int:
    """Return the tag of a client's ID."""
    return crc32(client) & LAST_TAG


def key(client: bytes) -> bytes:
    """Return the key of a client's ID."""
    return PREFIXES[tag(client)] + client


def client_of(spelled: bytes) -> bytes | None:
    """Return the client's ID in a key, None if it is not one of ours."""
    found = spelled.partition(b"}")[2]
    return found if found.split() == [found] and key(found) == spelled else None


def seal(tag: int, master: str) -> bytes:
    """Return the key that a batch writes last: spaces keep it apart from any client's, and the master's address from
    what another master has written to the same tag, so that moving a slot never finds a key at both ends.
    """
    return b"%b seal %b" % (PREFIXES[tag], master.encode())


def entry(value: bytes) -> Entry | None:
    """Return the entry in a value, None if it is none: somebody else has written it."""
    at = parse_at(value[VALUE_BYTES:])
    if at is None or value[:VALUE_BYTES] != b"%021d " % at.entry.nanoseconds:
        return None
    return at.entry


def owned(first: int, last: int) -> range:
    """Return the tags in slots from `first` up to and with `last`: each tag has a slot behind those of the tags before."""
    return range(bisect_left(TAG_SLOTS, first), bisect_right(TAG_SLOTS, last))
