"""The journal on disk: an append-only list of AT lines, each with a checksum.

A journal is a folder of numbered files. Each line of a file is a record: the CRC-32 of an AT line as eight hexadecimal
digits, a space, the AT line. Updates are appended to an `N.segment`; each start of the server, and each rewrite, begins
a new one. An `N.snapshot` holds the whole table as it was while it was written, and replaces all files with lower
numbers. A replay is a merge: neither order nor repetition matters, so all files that a crash leaves are right.

A rewrite first opens the segment after the snapshot, so that appends go on. It writes the snapshot in slices, syncs it,
renames it into place, and syncs the folder. After that it deletes the files that the snapshot replaces.

A journal that is too old is set aside: its files get the suffix `.outdated`, and the moment as the time of their last
change. A rewrite deletes them too, once a neighbour has shown that it has the table; see `retention`.

If a file cannot be written, or is no longer there under its name, the journal is `failing` until a rewrite has brought a
whole snapshot to disk. A segment that failed is cut to its last whole record, and never appended to again.
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
from proxyherd.engines.herd.rewrite import Rewrite, spell_records

_NAME: Final = re.compile(r"([0-9]{12})\.(segment|snapshot)")
_SEGMENT: Final = "%012d.segment"
_OUTDATED: Final = ".outdated"
_DAMAGED: Final = ".damaged"
_CHECKSUM_BYTES: Final = 9
MOST_LINE_BYTES: Final = 1_049_088
"""Bytes of an AT line in any herd, however it is configured."""

_CHUNK_BYTES: Final = 262_144
_MOST_FILES: Final = 16
"""Files after which a rewrite is due: each start leaves one."""


class Finding(Struct, frozen=True):
    """The result of reading one file of a journal."""

    path: Path
    records: int  # whole and right
    damaged: int  # lines in the middle that are no records
    end: int  # bytes up to the end of the last whole record
    torn: int  # bytes after it, of a write that a crash cut off


Batches: TypeAlias = Generator[list[bytes], None, Finding]


def record(line: bytes) -> bytes:
    """Return the record of an AT line, with LF."""
    return spell_records((line,))


def records_bytes(lines: Sequence[bytes]) -> int:
    """Return how many bytes the records of these AT lines take in a file."""
    return sum(map(len, lines)) + (_CHECKSUM_BYTES + 1) * len(lines)


def read(path: Path, line_bytes: int = MOST_LINE_BYTES) -> Batches:
    """Yield the AT lines of a file in batches; return what was found. Raises OSError.

    It needs memory for a chunk and a line: anything longer than `line_bytes` is damage, whatever follows.
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
    """Read a file, and return only what was found. Raises OSError."""
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

    `start` opens the files, and an append is one write. `sync` and `Rewrite.finish` may take long, and may be called in
    another thread than the event loop's. Call everything else in the event loop.
    """

    def __init__(self, folder: Path, *, line_bytes: int, rewrite_bytes: int) -> None:
        self._folder = folder
        self._line_bytes = line_bytes
        self._rewrite_bytes = rewrite_bytes
        self._old: list[Path] = []  # the files that the next snapshot replaces, beside the present segment
        self.outdated: list[Path] = []  # files that were set aside
        self._kept: dict[Path, str] = {}  # old files that are not deleted, and the suffix that each will get
        self._files: dict[Path, tuple[int, int]] = {}  # inode and bytes of each of the old ones
        self._rewrites = False
        self._number = 0
        self._fd: int | None = None
        self._inode = 0
        self._size = 0
        self._broken = True  # whether the present segment takes no more records
        self._appended_before: int  # bytes in earlier segments that no snapshot replaces yet
        self._snapshot_bytes: int
        self._to_sync: list[int] = []  # descriptors of earlier segments that are not synced yet
        self.found: dict[str, tuple[int, int]] = {}  # the files that `start` found: inode and bytes of each
        self.failing = ""  # why the table on disk is not whole; empty if it is
        self.unsynced = False
        self._written_before = 0  # bytes, to earlier segments
        self.failures = 0

    def start(self) -> None:
        """List the files, and open a new segment. Does not raise: see `failing`."""
        try:
            make_folder(self._folder)
            self._old = files(self._folder)
            self.outdated = self._list_outdated()
        except OSError as error:
            self.fail(error)
            self._number = int(time.time())  # greater than any number that could not be seen
        with contextlib.suppress(OSError):
            for left in self._folder.glob("*.unfinished"):
                left.unlink()
        if self._old:
            self._number = int(self._old[-1].name[:12])
        self._to_replay = [*self._old]
        self._files = {path: inode_and_size(path) for path in self._old}
        self.found = {path.name: one for path, one in self._files.items()}
        self._appended_before = sum(
            size for path, (_, size) in self._files.items() if path.suffix == ".segment"
        )
        self._snapshot_bytes = sum(
            size for path, (_, size) in self._files.items() if path.suffix == ".snapshot"
        )
        self._open_segment(self._number + 1)
        for path in self._old:  # the process that wrote it may have been killed before it synced
            with contextlib.suppress(OSError):
                self._to_sync.append(open_regular(path, os.O_RDONLY))
        self.unsynced = bool(self._to_sync)

    @property
    def bytes_found(self) -> int:
        """The bytes in the files that `start` found; valid until something is appended."""
        return self._appended_before + self._size + self._snapshot_bytes

    def replay(self) -> Iterator[list[bytes] | Finding]:
        """Yield the lines of every file that `start` found, in batches, and a Finding after each file.

        A torn end is cut off. A file with damage in its middle is renamed, not deleted, when a snapshot replaces it.
        """
        for path in self._to_replay:
            try:
                finding = yield from read(path, self._line_bytes)
                if finding.torn:
                    os.truncate(path, finding.end)
                    self._files[path] = self._files[path][0], finding.end
            except OSError as error:
                self.fail(error)
                finding = Finding(path, 0, 1, 0, 0)
            if finding.damaged:
                self._kept[path] = _DAMAGED
            yield finding

    def newest_first(self) -> Iterator[list[bytes]]:
        """Yield the lines of every file that `start` found, in batches, beginning with the last file."""
        for path in reversed(self._to_replay):
            with contextlib.suppress(OSError):  # the replay finds it too
                yield from read(path, self._line_bytes)

    def set_aside(self, moment: int) -> None:
        """Replay nothing of what `start` found. Its files are renamed, and get this `moment`, nanoseconds of POSIX time."""
        self._to_replay = []
        self.drop_unsynced()
        try:
            while self._old:
                path = self._old[0]
                aside = path.rename(path.with_name(f"{path.name}{_OUTDATED}"))
                self.outdated.append(aside)
                del self._old[0], self._files[path]
                os.utime(aside, ns=(moment, moment))
        except OSError as error:
            self._kept |= dict.fromkeys(self._old, _OUTDATED)
            self.fail(error)
        self._snapshot_bytes = self._appended_before = 0

    @property
    def set_aside_at(self) -> int:
        """The moment at which the first of the files in `outdated` was set aside; 0 if that is not known."""
        try:
            return min((path.stat().st_mtime_ns for path in self.outdated), default=0)
        except OSError:
            return 0

    def _list_outdated(self) -> list[Path]:
        return [*self._folder.glob(f"*{_OUTDATED}")]

    @property
    def bytes_written(self) -> int:
        """Bytes of all records that were appended since the start."""
        return self._written_before + self._size

    # Appending. ----------------------------------------------------------------------------------------------

    def append(self, lines: Sequence[bytes]) -> bool:
        """Append records of AT lines, all or none. Return False if they could not be written."""
        if self._broken or self._fd is None:
            return False
        data = spell_records(lines)
        try:
            written = os.write(self._fd, data)
            if written < len(data):
                write_all(self._fd, data[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            self.fail(error)
            return False
        self._size += len(data)
        self.unsynced = True
        return True

    def begin_sync(self) -> list[int]:
        """Return the descriptors for `sync`, which cover all that was appended so far. Raises OSError."""
        if self._fd is not None:
            self._to_sync.append(os.dup(self._fd))
        self.unsynced = False
        descriptors, self._to_sync = self._to_sync, []
        return descriptors

    def drop_unsynced(self) -> None:
        """Close the earlier segments that wait for a sync: nobody needs it."""
        for fd in self._to_sync:
            os.close(fd)
        self._to_sync.clear()

    def fail(self, error: OSError) -> None:
        """Note that something could not be written or synced."""
        self._broken, self._rewrites = True, False
        self.failures += 1
        self.failing = f"{error.filename or self._folder}: {error.strerror or error}"

    def check(self) -> None:
        """Check that every file is still there under its name. Otherwise the journal is `failing`; a rewrite mends that.

        During a rewrite, which deletes files, only the present segment is checked.
        """
        if self._broken:
            return
        listed = [*self.listing().items()]
        for name, (inode, _) in listed[-1:] if self._rewrites else listed:
            path = f"{self._folder}/{name}"
            if inode_and_size(path)[0] != inode:
                self.fail(OSError(errno.ENOENT, "deleted or replaced while the server runs", path))
                return

    def listing(self) -> dict[str, tuple[int, int]]:
        """Return the present files of the journal: inode and bytes of each."""
        listing = {path.name: self._files[path] for path in self._old}
        if self._fd is not None:
            listing[_SEGMENT % self._number] = self._inode, self._size
        return listing

    @property
    def wants_rewrite(self) -> bool:
        """Whether a rewrite is due: there are too many files, or there is damage, or more was appended than
        `rewrite_bytes` and than half of the snapshot.
        """
        much = self._appended_before + self._size > max(self._rewrite_bytes, self._snapshot_bytes // 2)
        return much or bool(self._kept) or len(self._old) > _MOST_FILES

    def close(self) -> None:
        """Close the files."""
        self.drop_unsynced()
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._broken = None, True

    # Rewriting. ----------------------------------------------------------------------------------------------

    def begin_rewrite(self) -> Rewrite | None:
        """Let appends go to a new segment from now on. Return the rewrite, or None if the segment cannot be opened."""
        number, last = self._number + 1, self._segment(self._number)
        has_last, last_file = self._fd is not None, (self._inode, self._size)
        if not self._open_segment(self._number + 2):
            return None
        if last_file[1]:
            self._old = [*self._old, last]
            self._files[last] = last_file
        elif has_last:  # it is empty; a disk that stays full would leave one a second
            with contextlib.suppress(OSError):
                last.unlink()
        self._rewrites = True
        return Rewrite(self._folder / f"{number:012}.snapshot", self._old, self._kept)

    def end_rewrite(self, rewrite: Rewrite) -> None:
        """Note that a snapshot is in place. The journal is whole again, unless appending has failed since."""
        self.drop_unsynced()  # the snapshot replaces them
        self._kept.clear()
        with contextlib.suppress(OSError):
            self.outdated = self._list_outdated()
        self._old = [rewrite.path]
        self._files = {rewrite.path: (rewrite.inode, rewrite.size)}
        self._rewrites = False
        self._snapshot_bytes = rewrite.size
        self._appended_before = 0
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
        self._appended_before += self._size
        self._written_before += self._size
        self._fd, self._number, self._size, self._broken = fd, number, 0, False
        self._inode = os.fstat(fd).st_ino
        return True

    def _segment(self, number: int) -> Path:
        return self._folder / (_SEGMENT % number)


def sync(descriptors: list[int]) -> None:
    """Bring what was written to these descriptors to disk, and close them. Raises OSError."""
    try:
        for fd in descriptors:
            os.fdatasync(fd)
    finally:
        for fd in descriptors:
            os.close(fd)
