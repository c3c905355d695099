"""The gazetteer's file: the position of each place, and its text in answers.

Servers map the file into memory, so all servers of a machine share its pages. The rules: a file is complete and never
changes; a new file replaces it under its name. The checksum is compared before the content is used.

- The header: JSON, filled up with spaces to HEADER_BYTES.
- Records, each with a NUL at its end. One for each attribution: a JSON string, or nothing. One for each place: the
  position of its attribution's record in the file, a tab, and a result of a Nearby Search as JSON.
- The points: see `search`. A point's number is the position of its place's record in the file.
"""

from __future__ import annotations

import mmap
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from io import FileIO
from operator import itemgetter
from pathlib import Path
from typing import Final

import msgspec

from proxyherd.base.files import open_regular
from proxyherd.places.answers import Answer
from proxyherd.places.gazetteer.search import Points

FORMAT: Final = 3
"""The version of the format; a file with another version is built again."""

HEADER_BYTES: Final = 256

_first, _second = itemgetter(0), itemgetter(1)

_SQLITE: Final = b"SQLite format 3\0"
"""The first bytes of files of FORMAT 1 and 2."""


class OutdatedError(Exception):
    """The file has another format, or another machine's byte order."""


class DamagedError(Exception):
    """The file is not complete, or is not a gazetteer."""


class Header(msgspec.Struct, frozen=True):
    """The header of a file: format, byte order, version of GeoNames' data, digest of the operator's places, bytes of the
    records and of the whole file, and the CRC-32 of the whole file, in which this field is 0.
    """

    gazetteer: int
    order: str
    data: str
    own: str
    records: int
    size: int
    crc: int


def spell(header: Header) -> bytes:
    """Return the bytes of a header in its file."""
    return msgspec.json.encode(header).ljust(HEADER_BYTES)


def checksum(header: Header, chunks: Iterable[bytes | bytearray]) -> int:
    """Return the checksum of a file with this header, and these bytes after it."""
    crc = zlib.crc32(spell(msgspec.structs.replace(header, crc=0)))
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
    return crc


def stamp() -> tuple[int, str]:
    """Return the stamp of a file that can be read here: format and byte order."""
    return FORMAT, sys.byteorder


class File:
    """A gazetteer, mapped into memory. Opening it reads it once for its checksum: some 30 ms, almost all without the GIL.

    Raises OSError if it cannot be read, OutdatedError, and DamagedError. If a mapped file is cut short, the system kills
    a process that reads the missing part: check that the file is still the same first.
    """

    def __init__(self, path: Path) -> None:
        with FileIO(open_regular(path, os.O_RDONLY)) as file:
            self.header = _check(file, path)
            self._map = mmap.mmap(file.fileno(), self.header.size, access=mmap.ACCESS_READ)
        self._attributions: dict[bytes, bytes] = {}
        self.points = Points(memoryview(self._map)[HEADER_BYTES + self.header.records :])

    def answer(self, positions: Iterable[int]) -> Answer:
        """Return an answer in Google's form. Its attributions are those of its places, and no others."""
        content, end = self._map, self._map.find
        found = [content[at : end(b"\0", at)].split(b"\t", 1) for at in positions]
        thanks = [thank for kind in dict.fromkeys(map(_first, found)) if (thank := self._attribution(kind))]
        status = "OK" if found else "ZERO_RESULTS"
        body = b'{"html_attributions":[%b],"results":[%b],"status":"%b"}' % (
            b",".join(thanks),
            b",".join(map(_second, found)),
            status.encode(),
        )
        return Answer(msgspec.json.format(body, indent=3), status, len(found))

    def places(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield each place: its result and its attribution as JSON, and its inhabitants."""
        for position, population in self.points.all():
            kind, result = self._map[position : self._map.find(b"\0", position)].split(b"\t", 1)
            yield result, self._attribution(kind), population

    def _attribution(self, position: bytes) -> bytes:
        """Return an attribution. There are few of them, so each is kept."""
        thank = self._attributions.get(position)
        if thank is None:
            at = int(position)
            thank = self._attributions[position] = self._map[at : self._map.find(b"\0", at)]
        return thank


def _check(file: FileIO, path: Path) -> Header:
    """Read the whole file, and return its header. Raises OSError, OutdatedError, DamagedError."""
    remedy = f"run: proxyherd gazetteer build {path}"
    start = file.read(HEADER_BYTES)
    if start.startswith(_SQLITE):
        raise OutdatedError(f"{path}: is a gazetteer of an earlier version; {remedy}")
    try:
        header = msgspec.json.decode(start, type=Header)
    except msgspec.MsgspecError as error:
        raise DamagedError(f"{path}: is no gazetteer; {remedy}") from error
    if (header.gazetteer, header.order) != stamp():
        raise OutdatedError(f"{path}: is of another version or another machine; {remedy}")
    crc = checksum(header, iter(partial(file.read, 1 << 18), b""))
    if (start, file.tell(), crc) != (spell(header), header.size, header.crc):
        raise DamagedError(f"{path}: is damaged: its checksum or its length is another; {remedy}")
    return header
