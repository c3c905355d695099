"""Bodies of requests: how large they may be, what is in them if they are packed, and how much work they are."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from proxyherd.web.problems import ENCODING, LARGE, MEDIA_TYPE, Problem

BODY_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a body, as it arrives and unpacked: twenty times a batch of 1,000 reports."""

VALUES_BYTES: Final = 512 * 1024
"""Bytes of the values in a batch of reports, eight times those of 1,000 usual ones; or of the names in what an app sends.
Names take the most time: up to 20 ns a byte.
"""

PACKED_BYTES: Final = 256 * 1024
"""Bytes of a packed body, eight times those of a batch of 1,000 reports. Unpacking costs time for each byte that comes in,
also if nothing comes out: 2 MiB of hostile blocks that are empty take 0.2 s.
"""

_LINE_BYTES: Final = 16
"""Bytes of a body that take as much work as a line."""

_TEXT_BYTES: Final = 256
"""The same of a large message or target: it describes an area with 1,000 positions in 40 KB, and takes a millisecond."""

LARGE_BYTES: Final = 1_024
"""Bytes of a message or target that may be more work than a line: one that describes an area by many positions."""

_PACKED_LINES: Final = 512
"""Lines that take as much work as a packed body, however small it is."""

_GZIP: Final = 16 + zlib.MAX_WBITS  # with the header and the checksum of gzip


def unpacked(body: bytes, encoding: str) -> bytes:
    """Return what is in a body; `encoding`: the header Content-Encoding, empty if there is none. Raises Problem."""
    name = encoding and encoding.strip().lower()
    if name in ("", "identity"):
        data = body
    elif name not in ("gzip", "x-gzip"):
        raise Problem(MEDIA_TYPE, "A body may be packed with gzip, once, and with nothing else.")
    else:
        data = _unzip(body)
    if len(data) > BODY_BYTES:
        raise Problem(LARGE, f"A body has at most {BODY_BYTES:,} bytes, also when it is unpacked.")
    return data


def work_of(size: int, encoding: str) -> int:
    """Return how many lines take as much work as a request with a body of this size; `encoding`: as above."""
    return (_PACKED_LINES if encoding else 1) + size // _LINE_BYTES


def work_of_text(size: int) -> int:
    """Return how many lines take as much work as a message or a target with so many bytes, besides the one that it counts as."""
    return size // _TEXT_BYTES if size > LARGE_BYTES else 0


def has_large_area(target: str, body: bytes) -> bool:
    """Whether a request may describe an area by many positions."""
    return len(target) + len(body) > LARGE_BYTES and "within" in target


class LargeReads:
    """Lets one large message or request be read in each turn, of all clients: a line that comes meanwhile does not wait for
    all that are there. `turn`: returns a number of the present turn.

    Turns hear clients in one order. So whoever is put off first behind the one that reads is the next to read: otherwise a
    client that has large messages all the time would be the only one. If it does not ask in the next turn, nobody reads then.
    """

    def __init__(self, turn: Callable[[], int]) -> None:
        self._turn = turn
        self._last_turn = -1
        self._reader: object = None  # in this turn
        self._first: object = None  # who alone may read in this turn
        self._next: object = None  # likewise, in the next one

    def may_read(self, asker: object) -> bool:
        """Return whether a connection may read one now, and count it."""
        turn = self._turn()
        if turn != self._last_turn:
            self._last_turn, self._reader = turn, None
            self._first, self._next = self._next, None
        if self._reader is not None:
            if self._next is None and asker is not self._reader:
                self._next = asker
            return False
        if self._first is not None and asker is not self._first:
            return False
        self._reader = asker
        return True


def _unzip(body: bytes) -> bytes:
    """Return what is in a gzip file of one member, but not much more than is allowed."""
    if len(body) > PACKED_BYTES:
        raise Problem(LARGE, f"A packed body has at most {PACKED_BYTES:,} bytes.")
    unpacker = zlib.decompressobj(_GZIP)
    try:
        data = unpacker.decompress(body, BODY_BYTES + 1)
    except zlib.error:
        raise Problem(ENCODING, "The body is not packed with gzip, or is damaged.") from None
    # A second member is not read: a hundred thousand empty ones fit into a body.
    if len(data) <= BODY_BYTES and (not unpacker.eof or unpacker.unused_data):
        raise Problem(ENCODING, "The body breaks off, or has something behind its end.")
    return data
