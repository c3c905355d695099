"""The mark: a file beside the journal, which tells the next start whether the journal may lack records.

The mark lists the files of the journal, each with its inode and a length that it has reached. It names the boot of the
machine, or says that the server has been closed, and the moment of the last contact with the herd. It is updated every
second, and made void as soon as the journal fails; a void one names the moment only.
So at the next start:

- no mark, or a void one: the journal failed, or was never whole. Records may be missing.
- another boot, and not closed: after a power cut the last second may be missing.
- other files, other inodes, or shorter ones: a backup was put back, or something was deleted. Then the moment does not
  count: it says nothing about the age of these files, but only that there was no contact since.

A backup has no mark. The mark is not synced: if a power cut leaves an earlier mark or none, one of these rules applies.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from proxyherd.base.files import open_regular, read_regular

_BOOT_VARIABLE: Final = "PROXYHERD_BOOT"
"""The environment variable in which our systemd unit passes the ID of the boot: its sandbox hides the file."""

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_CLOSED: Final = b"closed"
_VOID: Final = b"-"
_MOST_BYTES: Final = 65_536
_MOST_DIGITS: Final = 21


def this_boot() -> bytes:
    """Return the ID of the present boot of this machine; empty if it is not known."""
    if told := os.environ.get(_BOOT_VARIABLE, "").split():
        return os.fsencode(told[0])
    try:
        return _BOOT.read_bytes().strip()
    except OSError:
        return b""


class Mark:
    """The mark of one journal. What the last process has left is read at the start."""

    def __init__(self, path: Path, boot: bytes | None = None) -> None:
        self._path = path
        self._boot = this_boot() if boot is None else boot
        self._written: tuple[bool, Mapping[str, tuple[int, int]], int] | None = None
        try:
            self._left = read_regular(path, _MOST_BYTES)
        except OSError:
            self._left = b""
        how, _, moment = self._left.partition(b"\n")[0].partition(b" ")
        self._how = how
        self._moment = int(moment) if moment.isdigit() and len(moment) <= _MOST_DIGITS else 0

    def lacks(self, found: Mapping[str, tuple[int, int]]) -> str:
        """Return why the journal may lack records; empty if it lacks none. `found`: inode and bytes of each file that
        the start has found.
        """
        others = self._others(found)
        if others is None:
            return "the last life of this server has not left word that they are whole"
        if self._how not in (_CLOSED, self._boot):
            return "the machine has been started again, and the server was not closed before"
        return others

    def moment(self, found: Mapping[str, tuple[int, int]]) -> int:
        """Return when the last process was in contact with its herd with these files, in nanoseconds of POSIX time; 0 if it
        has left no word of that, or if they are others, such as those of a backup.
        """
        return self._moment if self._others(found) == "" else 0

    @property
    def last_moment(self) -> int:
        """When a process was last in contact with its herd, whatever its files were; 0 if there is no word of that."""
        return self._moment

    def _others(self, found: Mapping[str, tuple[int, int]]) -> str | None:
        """Return why these are not the files of the mark; empty if they are. None: the mark names no files."""
        _, *lines = self._left.split(b"\n")
        try:
            listed = {name: (int(inode), int(size)) for name, inode, size in map(bytes.split, lines[:-1])}
        except ValueError:
            return None
        if not self._how or self._how.startswith(_VOID) or lines[-1:] != [b""]:
            return None
        if listed.keys() != {name.encode() for name in found}:
            return "they are not the files that the last life of this server has left"
        for name, (inode, size) in found.items():
            left_inode, left_size = listed[name.encode()]
            if inode != left_inode:
                return f"{name} is not the file that the last life of this server has left"
            if size < left_size:
                return f"{name} is shorter than the last life of this server has left it"
        return ""

    def write(self, files: Mapping[str, tuple[int, int]], moment: int = 0, *, closed: bool = False) -> None:
        """Write that these files lack nothing, and that the server was last in contact with its herd at this moment, in
        nanoseconds of POSIX time. `closed`: that all of it is on disk. Does not raise.
        """
        if (closed, files, moment) == self._written:
            return
        self._written = closed, dict(files), moment
        lines = [b"%b %d %d" % (name.encode(), inode, size) for name, (inode, size) in files.items()]
        how = b"%b %d" % (_CLOSED if closed else self._boot, moment)
        text = b"\n".join([how, *lines, b""])
        try:
            self._overwrite(text, os.O_CREAT)
        except OSError:
            self.make_void(moment)

    def make_void(self, moment: int = 0) -> None:
        """Make the mark void, but for the moment. Does not raise."""
        self._written = None
        try:
            self._overwrite(b"%b %d" % (_VOID, moment))
        except FileNotFoundError:
            pass
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _overwrite(self, text: bytes, flags: int = 0) -> None:
        """Write in place: this works on a full disk, because the file keeps its space."""
        fd = open_regular(self._path, os.O_WRONLY | flags, 0o640)
        try:
            os.pwrite(fd, text, 0)
            os.ftruncate(fd, len(text))
        finally:
            os.close(fd)
