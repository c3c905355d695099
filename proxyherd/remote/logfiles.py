"""Reads the files of one server's log while it is written and rotated: backwards from its end, and forwards as it grows.

The rule: no line is lost and none is read twice, whoever rotates. A file is known by its inode, and kept open until it
is read to its end. The end is certain once a later file has contents: there is only one writer, the server, and it has
then left the earlier file for good. Until then it may still write into a file that has been renamed.

Backwards in time, `Clark.log` is followed by `Clark.log.1`, `Clark.log.2` and so on, as the server itself names them.
They are opened in this order, and a rotation moves them in the opposite direction. So a rotation may show a file
twice, which its inode reveals. A rotation hides a file only while its number is vacant for a moment, so one vacant
number is skipped.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from proxyherd.base.files import open_regular

_CHUNK_BYTES: Final = 262_144
_TRIES: Final = 5
"""How often to look for the file that was the newest; it may have been rotated far back, or deleted."""

_KNOWN_FILES: Final = 4_096

MOST_LOG_LINE_BYTES: Final = 4_194_304
"""Bytes of a line; longer ones are read as several. No event is that long, because its fields are cut."""


def _fingerprint(info: os.stat_result) -> tuple[int, ...]:
    """Return what identifies a file that is no longer written; an inode alone is soon used again."""
    return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size


class OpenFile:
    """One open file, read forward from any offset."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.identity = _fingerprint(os.fstat(fd))[:2]
        self.offset = 0
        self._rest = b""

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def seek(self, offset: int) -> None:
        self.offset, self._rest = offset, b""

    def read(self) -> list[bytes] | None:
        """Return the complete lines of the next chunk; None at the present end."""
        if self.size() < self.offset:  # somebody has emptied the file: its contents are new
            self.seek(0)
        data = os.pread(self.fd, _CHUNK_BYTES, self.offset)
        if not data:
            return None
        self.offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MOST_LOG_LINE_BYTES:
            lines.append(self.take_rest())
        return [line for line in lines if line]

    @property
    def is_within_line(self) -> bool:
        """Whether the bytes read last are the beginning of a line."""
        return bool(self._rest)

    def end_of_lines(self) -> int:
        """Return the offset after the last complete line."""
        last = next(self.lines_back(), None)
        if last is None:
            return 0
        at, line = last
        end = at + len(line)
        return end + 1 if os.pread(self.fd, 1, end) == b"\n" else at

    def take_rest(self) -> bytes:
        """Return the bytes after the last complete line."""
        rest, self._rest = self._rest, b""
        return rest

    def lines_back(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines from the last to the first, each with its offset, including a last one without LF."""
        at = self.size()
        tail = b""  # the end of a line that starts further back
        while at:
            start = max(0, at - _CHUNK_BYTES)
            data = os.pread(self.fd, at - start, start) + tail
            first, *lines = data.split(b"\n")
            end = start + len(data)
            for line in reversed(lines):
                end -= len(line)
                if line:
                    yield end, line
                end -= 1
            tail, at = first, start
            if len(tail) > MOST_LOG_LINE_BYTES:
                yield start, tail
                tail = b""
        if tail:
            yield 0, tail


class ServerLog:
    """The log of one server. `close` it at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[OpenFile] = []  # from the oldest that is not read to its end to the one at the path
        # Older ones: files that are read, and those that were rotated before.
        self._known: deque[tuple[int, ...]] = deque(maxlen=_KNOWN_FILES)
        self.gaps = 0
        """How often files may have been deleted before they were read."""

    @property
    def is_there(self) -> bool:
        """Whether any of its files has been found."""
        return bool(self._files)

    def open(self) -> None:
        """Look for its newest file. Raises OSError if that is not a regular file or cannot be read; it need
        not exist.
        """
        number = 0
        while (info := self._stat(number + 1) or self._stat(number + 2)) is not None:
            self._known.append(_fingerprint(info))
            number += 1
        if (found := self._find(0)) is not None:
            self._files = [found[1]]

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop().fd)

    def _name(self, number: int) -> Path:
        path = Path(os.path.realpath(self._path))  # a link leads to where the server rotates
        return path.with_name(f"{path.name}.{number}") if number else path

    def _stat(self, number: int) -> os.stat_result | None:
        try:
            return self._name(number).stat()
        except FileNotFoundError:
            return None

    # Back in time. -------------------------------------------------------------------------------------------

    def begin(self, wanted: Callable[[bytes], bool | None], most: int | None) -> None:
        """Begin at the first of the last `most` lines that are `wanted`, or at the end if there are none.

        `wanted` returns None for a line if all lines before it are too old.
        """
        if not self._files:
            return
        start = self._files[0]
        offset = start.end_of_lines()
        found = 0
        for file, at, line in self._lines_back() if most != 0 else ():
            answer = wanted(line)
            if answer is None:
                break
            if answer:
                start, offset = file, at
                found += 1
                if found == most:
                    break
        start.seek(offset)
        while self._files[0] is not start:
            os.close(self._files.pop(0).fd)

    def _lines_back(self) -> Iterator[tuple[OpenFile, int, bytes]]:
        number = 0
        while True:
            file = self._files[0]
            for at, line in file.lines_back():
                yield file, at, line
            while (found := self._find(number + 1)) is not None:
                number, older = found
                if not self._holds(older):
                    self._files.insert(0, older)
                    break
                os.close(older.fd)
            if self._files[0] is file:
                return

    # On in time. ---------------------------------------------------------------------------------------------

    def lines(self, *, last: bool) -> Iterator[bytes]:
        """Yield the lines so far; with `last`, also a last line without LF, because nothing will be read after it."""
        for file in self._files:
            end = file.size()
            while (lines := file.read()) is not None:
                yield from lines
                if file.offset >= end and not file.is_within_line:
                    break
            if last and (rest := file.take_rest()):
                yield rest

    def more(self) -> list[bytes]:
        """Return the next lines that have been written, at most a chunk; an empty list if there are none."""
        self._look()
        while self._files:
            file = self._files[0]
            # Checked before the read that finds the end; otherwise lines written in between would be lost.
            is_left = any(later.size() for later in self._files[1:])
            lines = file.read()
            if lines is not None:
                return lines
            if not is_left:
                return []
            rest = file.take_rest()
            self._known.append(_fingerprint(os.fstat(file.fd)))
            os.close(self._files.pop(0).fd)
            if rest:
                return [rest]
        return []

    def _look(self) -> None:
        """Find the files that are newer than the newest known one."""
        info = self._stat(0)
        if info is None or (self._files and _fingerprint(info)[:2] == self._files[-1].identity):
            return
        for attempt in range(1, _TRIES + 1):
            found, is_all = self._new()
            if is_all or attempt == _TRIES:
                break
            for file in found:
                os.close(file.fd)
        self.gaps += len(found) > 1 and not is_all
        self._files += reversed(found)

    def _new(self) -> tuple[list[OpenFile], bool]:
        """Return the unknown files, the newest first, and whether they are certainly all."""
        files: list[OpenFile] = []
        number = -1
        while (found := self._find(number + 1)) is not None:
            number, file = found
            # The newest known file may have any name now; then an older one is still here.
            is_known = self._holds(file) or _fingerprint(os.fstat(file.fd)) in self._known
            if not is_known and not any(file.identity == one.identity for one in files):
                files.append(file)
                continue
            os.close(file.fd)
            if is_known:
                return files, True
        return files, not self._files

    def _holds(self, file: OpenFile) -> bool:
        return any(file.identity == one.identity for one in self._files)

    def _find(self, number: int) -> tuple[int, OpenFile] | None:
        """Open the file with that number or, if it is vacant, with the next one."""
        for one in (number, number + 1):
            try:
                return one, OpenFile(open_regular(self._name(one), os.O_RDONLY))
            except FileNotFoundError:
                continue
        return None
