"""Updates to disk and back: an append-only journal of AT lines, each with a checksum.

A journal is a folder of numbered files of records, a line each: eight hexadecimal digits of the CRC-32 of an AT
line, a space, the AT line. `N.segment` files are appended to, by one start of the server each; an `N.snapshot`
holds the whole table as it was while it was written, and stands for all that is numbered lower. Replaying is a
merge: neither order nor repetition matters, so whatever files a crash leaves are right.

A rewrite opens the segment behind the snapshot first, so that appends go on, then writes the snapshot in slices,
syncs it, renames it into place, syncs the folder, and only then deletes what it stands for.

What cannot be written, or is not there any more under its name, makes the journal `failing`, and it stays so until
a rewrite has brought a whole snapshot to disk. A segment that failed is cut to its last whole record and never appended to again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias
from zlib import crc32

from msgspec import Struct

from proxyherd.base.files import inode_and_size, make_folder, open_regular, sync_folder, write_all

_NAME: Final = re.compile(r"([0-9]{12})\.(segment|snapshot)")
_CHECKSUM_BYTES: Final = 9
MOST_LINE_BYTES: Final = 1_049_088
"""Bytes of an AT line in any herd, however it is configured."""

_CHUNK_BYTES: Final = 262_144
_MOST_FILES: Final = 16
"""Files after which a rewrite is due: each start leaves one."""


class Finding(Struct, frozen=True):
    """What reading one file of a journal has shown."""

    path: Path
    records: int  # whole and right
    damaged: int  # lines in the middle that are no records
    end: int  # bytes up to the end of the last whole record
    torn: int  # bytes behind it: what a crash cut off


Batches: TypeAlias = Generator[list[bytes], None, Finding]


def record(line: bytes) -> bytes:
    """Return the record of an AT line, with LF."""
    return _records((line,))


def records_bytes(lines: Sequence[bytes]) -> int:
    """Return how many bytes the records of these AT lines take in a file."""
    return sum(map(len, lines)) + (_CHECKSUM_BYTES + 1) * len(lines)


def read(path: Path, line_bytes: int = MOST_LINE_BYTES) -> Batches:
    """Yield the AT lines of a file, a batch at a time; return what was found. Raises OSError.

    Never holds more than a chunk: what is longer than `line_bytes` is damage, whatever follows.
    """
    limit = line_bytes + _CHECKSUM_BYTES
    records = damaged = suspect = at = end = 0
    rest, dropping = b"", False
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            *raw, rest = (rest + chunk).split(b"\n")
            lines: list[bytes] = []
            for one in raw:
                at += len(one) + 1
                line = one[_CHECKSUM_BYTES:]
                if len(one) <= limit and not dropping and b"%08x " % crc32(line) == one[:_CHECKSUM_BYTES]:
                    lines.append(line)
                    damaged += suspect
                    suspect = 0
                    end = at
                else:
                    suspect += 1
                dropping = False
            if len(rest) > limit:  # no record is so long: drop it, with what follows up to LF
                at += len(rest)
                rest, dropping = b"", True
            records += len(lines)
            if lines:
                yield lines
        size = at + len(rest)
    return Finding(path, records, damaged, end, size - end)


def verify(path: Path) -> Finding:
    """Read a file for what is found in it alone. Raises OSError."""
    batches = read(path)
    while True:
        try:
            next(batches)
        except StopIteration as end:
            finding: Finding = end.value
            return finding


def files(folder: Path) -> list[Path]:
    """Return the files of a journal, in the order of their numbers. Raises OSError."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


class Journal:
    """The journal of one server, in a folder that it owns.

    Files are opened by `start`, and an append is one write. What may take as long as the disk likes - `sync` and
    `Rewrite.finish` - is safe to call off the event loop; everything else belongs on it.
    """

    def __init__(self, folder: Path, *, line_bytes: int, rewrite_bytes: int) -> None:
        self._folder = folder
        self._line_bytes = line_bytes
        self._rewrite_bytes = rewrite_bytes
        self._old: list[Path] = []  # what the next snapshot stands for, beside the segment appended to now
        self._damaged: set[Path] = set()
        self._files: dict[Path, tuple[int, int]] = {}  # inode and bytes of each of the old ones
        self._rewrites = False
        self._number = 0
        self._fd: int | None = None
        self._inode = 0
        self._size = 0
        self._broken = True  # the segment appended to now takes no more
        self._appended: int  # bytes in segments that no snapshot stands for yet
        self._snapshot_bytes: int
        self._to_sync: list[int] = []  # descriptors of earlier segments that are not synced yet
        self.found: dict[str, tuple[int, int]] = {}  # the files that `start` found: inode and bytes of each
        self.failing = ""  # why the table is not on disk whole, while it is not
        self.unsynced = False
        self.bytes_written = 0
        self.failures = 0

    def start(self) -> None:
        """Look at what there is, and open a segment of this start's own. Does not raise: see `failing`."""
        try:
            make_folder(self._folder)
            self._old = files(self._folder)
        except OSError as error:
            self.fail(error)
            self._number = int(time.time())  # behind any number that may be there unseen
        with contextlib.suppress(OSError):
            for left in self._folder.glob("*.unfinished"):
                left.unlink()
        if self._old:
            self._number = int(self._old[-1].name[:12])
        self._files = {path: inode_and_size(path) for path in self._old}
        self.found = {path.name: one for path, one in self._files.items()}
        self._appended = sum(size for path, (_, size) in self._files.items() if path.suffix == ".segment")
        self._snapshot_bytes = sum(
            size for path, (_, size) in self._files.items() if path.suffix == ".snapshot"
        )
        self._open_segment(self._number + 1)
        for path in self._old:  # the life that wrote it may have been killed before it synced
            with contextlib.suppress(OSError):
                self._to_sync.append(open_regular(path, os.O_RDONLY))
        self.unsynced = bool(self._to_sync)

    @property
    def bytes_found(self) -> int:
        """The bytes in the files that `start` found; asked before anything is appended."""
        return self._appended + self._snapshot_bytes

    def replay(self) -> Iterator[list[bytes] | Finding]:
        """Yield the lines of every file that `start` found, in batches, and a Finding behind each file.

        A torn tail is cut off. A file with damage in its middle is kept aside when a snapshot stands for it.
        """
        for path in self._old:
            try:
                finding = yield from read(path, self._line_bytes)
                if finding.torn:
                    os.truncate(path, finding.end)
                    self._files[path] = self._files[path][0], finding.end
            except OSError as error:
                self.fail(error)
                finding = Finding(path, 0, 1, 0, 0)
            if finding.damaged:
                self._damaged.add(path)
            yield finding

    # Appending. ----------------------------------------------------------------------------------------------

    def append(self, lines: Sequence[bytes]) -> bool:
        """Append records of AT lines, all or none; False if they could not be written."""
        if self._broken or self._fd is None:
            return False
        data = _records(lines)
        try:
            write_all(self._fd, data)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            self.fail(error)
            return False
        self._size += len(data)
        self._appended += len(data)
        self.bytes_written += len(data)
        self.unsynced = True
        return True

    def begin_sync(self) -> list[int]:
        """Return the descriptors to hand to `sync`: all that was appended so far is behind them. Raises OSError."""
        if self._fd is not None:
            self._to_sync.append(os.dup(self._fd))
        self.unsynced = False
        descriptors, self._to_sync = self._to_sync, []
        return descriptors

    def drop_unsynced(self) -> None:
        """Let go of earlier segments that nobody needs to sync."""
        for fd in self._to_sync:
            os.close(fd)
        self._to_sync.clear()

    def fail(self, error: OSError) -> None:
        """Take note that something could not be written or synced."""
        self._broken, self._rewrites = True, False
        self.failures += 1
        self.failing = f"{error.filename or self._folder}: {error.strerror or error}"

    def check(self) -> None:
        """See whether every file is still there under its name, and else be `failing`; a rewrite mends that.

        While a rewrite is under way, which deletes files, only the segment appended to is looked for.
        """
        if self._broken:
            return
        for name, (inode, _) in self.listing().items():
            path = self._folder / name
            if self._rewrites and path != self._segment(self._number):
                continue
            if inode_and_size(path)[0] != inode:
                self.fail(OSError(errno.ENOENT, "deleted or replaced while the server runs", str(path)))
                return

    def listing(self) -> dict[str, tuple[int, int]]:
        """Return the files that the journal consists of now: inode and bytes of each."""
        listing = {path.name: self._files[path] for path in self._old}
        if self._fd is not None:
            listing[self._segment(self._number).name] = self._inode, self._size
        return listing

    @property
    def wants_rewrite(self) -> bool:
        """Whether replaying is much more than the table: a file too many, damage, or more appended than
        `rewrite_bytes` and than half of what the snapshot holds.
        """
        much = self._appended > max(self._rewrite_bytes, self._snapshot_bytes // 2)
        return much or bool(self._damaged) or len(self._old) > _MOST_FILES

    def close(self) -> None:
        """Close what is open."""
        self.drop_unsynced()
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._broken = None, True

    # Rewriting. ----------------------------------------------------------------------------------------------

    def begin_rewrite(self) -> Rewrite | None:
        """Let appends go to a new segment from now on, and return the rewrite; None if that cannot be done."""
        number, last = self._number + 1, self._segment(self._number)
        has_last, last_file = self._fd is not None, (self._inode, self._size)
        if not self._open_segment(self._number + 2):
            return None
        if last_file[1]:
            self._old = [*self._old, last]
            self._files[last] = last_file
        elif has_last:  # on a disk that stays full there is one a second
            with contextlib.suppress(OSError):
                last.unlink()
        self._rewrites = True
        return Rewrite(self._folder / f"{number:012}.snapshot", self._old, self._damaged)

    def end_rewrite(self, rewrite: Rewrite) -> None:
        """Take note that a snapshot is in place. Unless appending has failed since, all is well again."""
        self.drop_unsynced()  # the snapshot stands for what they hold
        self._damaged.clear()
        self._old = [rewrite.path]
        self._files = {rewrite.path: (rewrite.inode, rewrite.size)}
        self._rewrites = False
        self._snapshot_bytes = rewrite.size
        self._appended = self._size
        if not self._broken:
            self.failing = ""

    def _open_segment(self, number: int) -> bool:
        path = self._segment(number)
        fd = None
        try:
            make_folder(self._folder)
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            sync_folder(self._folder)
        except OSError as error:
            if fd is not None:
                os.close(fd)
                with contextlib.suppress(OSError):
                    path.unlink()
            self.fail(error)
            return False
        if self._fd is not None and self._size:
            self._to_sync.append(self._fd)
        elif self._fd is not None:
            os.close(self._fd)
        self._fd, self._number, self._size, self._broken = fd, number, 0, False
        self._inode = os.fstat(fd).st_ino
        return True

    def _segment(self, number: int) -> Path:
        return self._folder / f"{number:012}.segment"


def sync(descriptors: list[int]) -> None:
    """Bring what was written to these descriptors to disk, and close them. Raises OSError."""
    try:
        for fd in descriptors:
            os.fdatasync(fd)
    finally:
        for fd in descriptors:
            os.close(fd)


class Rewrite:
    """A snapshot on its way. Call `write` for each slice, then `finish` off the event loop. Both raise OSError."""

    def __init__(self, path: Path, standing_for: list[Path], damaged: set[Path]) -> None:
        self.path = path
        self.size = 0
        self.inode: int  # known when it is finished
        self._standing_for = standing_for
        self._unfinished = self.path.with_suffix(".unfinished")
        self._damaged = set(damaged)
        self._fd: int | None = None

    def write(self, lines: list[bytes]) -> None:
        """Write one slice."""
        if self._fd is None:
            self._fd = open_regular(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        data = _records(lines)
        write_all(self._fd, data)
        self.size += len(data)

    def finish(self) -> None:
        """Bring the snapshot to disk and into place, and delete what it stands for."""
        self.write([])
        assert self._fd is not None
        os.fsync(self._fd)
        self.inode = os.fstat(self._fd).st_ino
        os.close(self._fd)
        self._fd = None
        self._unfinished.rename(self.path)
        try:
            sync_folder(self.path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise
        for path in self._standing_for:
            with contextlib.suppress(OSError):
                if path in self._damaged:
                    path.rename(path.with_name(f"{path.name}.damaged"))
                else:
                    path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Drop what was written of it."""
        with contextlib.suppress(OSError):
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
            self._unfinished.unlink(missing_ok=True)


def _records(lines: Sequence[bytes]) -> bytes:
    fields: list[int | bytes] = [b""] * (2 * len(lines))
    fields[::2] = map(crc32, lines)
    fields[1::2] = lines
    return b"%08x %b\n" * len(lines) % tuple(fields)  # one formatting costs half of as many
