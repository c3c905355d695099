"""Reads the last location of every client from a server's journal, and writes a file for maps or tables.

The rules: the result is what the server would have if it started now, by the same order of updates. The journal may be
appended to and rewritten meanwhile. Numbers keep the client's digits, and never become floats.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from proxyherd.base.escapes import escaped
from proxyherd.core import messages
from proxyherd.core.messages import At, Entry
from proxyherd.core.tombstones import Tombstone, parse_gone
from proxyherd.engines.herd import journal

_RELISTINGS: Final = 100
_LEADING_ZEROS: Final = re.compile(r"\A(-?)0+(?=[0-9])")
_encode: Final = msgspec.json.Encoder().encode

_CALCULATED: Final = re.compile("^[=+@\uff0b\uff0d\uff1d\uff20-]|;")
"""Characters that let a spreadsheet take a cell for a formula, in any width; and those that some take for the end of a
cell."""


class Found(Struct):
    """The contents of a journal. The entries are filled in place: there may be a million of them."""

    entries: dict[bytes, Entry]
    damaged: int = 0
    """Records that could not be read."""
    gone: list[Tombstone] = []
    """The tombstones that stand there."""


def read(
    folder: Path,
    lead: int,
    progress: Callable[[int], object] = lambda _: None,
    is_erased: Callable[[At], bool] = lambda _: False,
) -> Found:
    """Read the journal in a folder. `lead`: that of the herd, as in `messages.parse_at`. `progress` is called with the
    number of bytes that were read. Lines that are erased are left out: who knows the key of the herd's table can say so
    of the tombstones that an earlier `read` has found. Raises OSError.
    """
    found = Found({})
    done: set[str] = set()
    for _ in range(_RELISTINGS):
        for path in journal.files(folder):
            if path.name in done:
                continue
            try:
                _read_file(path, found, lead, progress, is_erased)
            except FileNotFoundError:
                break  # the journal was rewritten: a snapshot replaces this file, and a new list shows it
            done.add(path.name)
        else:
            return found
    raise FileNotFoundError(2, "its files are rewritten faster than they can be read", str(folder))


def _read_file(
    path: Path, found: Found, lead: int, progress: Callable[[int], object], is_erased: Callable[[At], bool]
) -> None:
    """Merge a file into what was found."""
    batches, entries = journal.read(path), found.entries
    while True:
        try:
            lines = next(batches)
        except StopIteration as end:
            finding: journal.Finding = end.value
            found.damaged += finding.damaged
            return
        for line in lines:
            if (at := messages.parse_at(line, lead)) is None:
                if (gone := parse_gone(line)) is not None:
                    found.gone.append(gone)
                else:
                    found.damaged += 1
                continue
            held = entries.get(at.client)
            is_later = held is None or (at.entry.nanoseconds, line) > (held.nanoseconds, held.line)
            if is_later and not is_erased(at):
                entries[at.client] = at.entry
        progress(sum(map(len, lines)))


def size(folder: Path) -> int:
    """Return about how many bytes there are to read. Raises OSError."""
    sizes = 0
    for path in journal.files(folder):
        try:
            sizes += path.stat().st_size
        except FileNotFoundError:
            continue
    return sizes


def forget(found: Found, before: int) -> None:
    """Drop what a server received before this time, in nanoseconds of POSIX time: the herd has forgotten it."""
    old = [client for client, entry in found.entries.items() if messages.received(entry.line) < before]
    for client in old:
        del found.entries[client]


# Forms. ------------------------------------------------------------------------------------------------------


class LastPlace(Struct, frozen=True):
    """The last location of one client."""

    client: str
    """Its ID, escaped, because people view the file on terminals."""
    latitude: str
    """Degrees, as JSON numbers; the same for the longitude."""
    longitude: str
    time: str
    """POSIX seconds, as in the report."""
    received_by: str
    """The server that took the report."""
    difference: str
    """Seconds from the client's time to that server's, with sign."""


def last_place(line: bytes) -> LastPlace:
    """Split an AT line into its fields."""
    _, server, difference, client, _, time = line.split(b" ")
    latitude, longitude = messages.position(line)
    return LastPlace(
        escaped(client),
        number(latitude),
        number(longitude),
        time.decode(),
        server.decode(),
        difference.decode(),
    )


def number(spelled: str) -> str:
    """Convert a number of ISO 6709, which has a sign and may have leading zeros, to JSON, with the same digits."""
    return _LEADING_ZEROS.sub(r"\1", spelled.removeprefix("+"))


def lines(form: str, entries: dict[bytes, Entry]) -> Iterator[bytes]:
    """Yield the file in pieces, one for each client, in the order of their IDs."""
    places = (last_place(entries[client].line) for client in sorted(entries))
    return _geojson(places) if form == "geojson" else _csv(places)


def _geojson(places: Iterable[LastPlace]) -> Iterator[bytes]:
    """RFC 7946: a position is longitude, latitude."""
    before = b'{"type":"FeatureCollection","features":['
    for one in places:
        properties = {
            "client": one.client,
            "time": one.time,
            "received_by": one.received_by,
            "difference": one.difference,
        }
        yield (
            b'%b\n{"type":"Feature","geometry":{"type":"Point","coordinates":[%b,%b]},"properties":%b}'
            % (before, one.longitude.encode(), one.latitude.encode(), _encode(properties))
        )
        before = b","
    yield b"\n]}\n" if before == b"," else before + b"]}\n"


def _csv(places: Iterable[LastPlace]) -> Iterator[bytes]:
    """Write RFC 4180, except that lines end with LF alone. Spreadsheets find no formula in it."""
    row = io.StringIO()
    write = csv.writer(row, lineterminator="\n").writerow
    write(("client", "latitude", "longitude", "time", "received_by", "difference"))
    for one in places:
        yield row.getvalue().encode()
        row.seek(0)
        row.truncate()
        client = _CALCULATED.sub(_coded, one.client)
        write((client, one.latitude, one.longitude, one.time, one.received_by, one.difference))
    yield row.getvalue().encode()


def _coded(match: re.Match[str]) -> str:
    """Escape one character as `escaped` escapes invisible ones."""
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"
