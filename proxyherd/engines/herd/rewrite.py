"""The rewrite of a journal: the whole table as a snapshot, which replaces the files of before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from zlib import crc32

from proxyherd.base.files import open_regular, sync_folder, write_all


class Rewrite:
    """A snapshot that is being written. Call `write` for each slice, then `finish` in another thread than the event
    loop's. Both raise OSError. It replaces the files that it is `standing_for`; `kept` has a suffix for those that are
    renamed, not deleted.
    """

    def __init__(self, path: Path, standing_for: Iterable[Path], kept: Mapping[Path, str]) -> None:
        self.path = path
        self.size = 0
        self.inode: int  # known when it is finished
        self._standing_for = [*standing_for]
        self._unfinished = self.path.with_suffix(".unfinished")
        self._kept = dict(kept)
        self._fd: int | None = None

    def write(self, lines: list[bytes]) -> None:
        """Write one slice."""
        if self._fd is None:
            self._fd = open_regular(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        data = spell_records(lines)
        write_all(self._fd, data)
        self.size += len(data)

    def finish(self, also: Iterable[Path] = ()) -> None:
        """Bring the snapshot to disk and into place, and delete the files that it replaces, and `also` these."""
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
        for path in (*self._standing_for, *also):
            with contextlib.suppress(OSError):
                if suffix := self._kept.get(path):
                    path.rename(path.with_name(f"{path.name}{suffix}"))
                else:
                    path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Delete what was written."""
        with contextlib.suppress(OSError):
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
            self._unfinished.unlink(missing_ok=True)


def spell_records(lines: Sequence[bytes]) -> bytes:
    """Return the records of these lines, each with LF."""
    if len(lines) == 1:
        return b"%08x %b\n" % (crc32(lines[0]), lines[0])
    fields: list[int | bytes] = [b""] * (2 * len(lines))
    fields[::2] = map(crc32, lines)
    fields[1::2] = lines
    return b"%08x %b\n" * len(lines) % tuple(fields)  # costs half of one formatting for each line
