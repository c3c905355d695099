"""The log of one server: structlog events, one JSON object a line, into one file.

Logging never raises and never stops a server. Lines that cannot be written are counted and dropped, and logging goes on
when there is room again. Lines gather in memory, and leave in one write for each round of the event loop; a clean exit
loses none. The file is rotated here, by size, so that it cannot fill a disk; or by another program, which renames it and
sends SIGHUP; or by both, because it is rotated here only if the open file is still in its place.

The log may be a pipe, a terminal or another device, such as /dev/stdout. Writing never waits for the reader: what does
not fit at once is lost and counted, as on a full disk. Only a regular file that is no standard stream is rotated.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import gmtime, strftime, time_ns
from typing import Any, Final, cast

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from proxyherd.base.escapes import escaped_for_json, visible_for_json
from proxyherd.base.files import check_replaceable
from proxyherd.telemetry.event_limits import EventLog
from proxyherd.telemetry.frequent import Forms, FrequentEvent, SeveralEvents, spelled_out

_GATHER_BYTES: Final = 1 << 20
"""When this many bytes have gathered, they are written even without a flush. A pipe gets a buffer of this size, if the
system allows it: the lines of a busy turn then fit, even if the reader wakes late.
"""


class LogFile:
    """The file of the log. With a `max_bytes` of 0, it is not rotated here. Raises OSError if it cannot be opened at
    first. Later nothing raises, and nothing waits.
    """

    def __init__(self, path: Path, *, max_bytes: int = 0, backups: int = 4) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._backups = backups
        self.lines: list[bytes] = []  # wait to be written
        self._is_asked = False  # for a flush
        self._gathered = 0
        self._most = -1
        self._torn: bool
        self._troubled: bool  # torn or failing
        self.failing = False
        """Whether the last lines that were to be written were lost."""
        self._later: Callable[[Callable[[], None]], object] | None = None
        self.bytes_written = 0
        self._take(self._open(path))
        self.lines_lost = 0
        self.failures = 0

    def gather(self, later: Callable[[Callable[[], None]], object]) -> None:
        """Gather lines from now on. `later`, such as an event loop's call_soon, is asked to call `flush`."""
        self._later, self._most = later, _GATHER_BYTES

    def write(self, line: bytes, *, flush_follows: bool = False) -> None:
        """Add a line, without LF. The next flush writes it, which is soon. `flush_follows`: whether the caller flushes; no flush
        is asked for then.
        """
        if not flush_follows and not self._is_asked and self._later is not None:
            self._is_asked = True
            self._later(self.flush)
        self.lines.append(line)
        self._gathered += len(line)
        if self._gathered > self._most:
            self.flush()

    # structlog calls the method that is named as the level.
    debug = info = warning = error = critical = write

    def flush(self) -> None:
        """Write the lines that have gathered."""
        lines = self.lines
        self._is_asked = False
        if not lines:
            return
        lines.append(b"")
        data = b"\n".join(lines)
        lines.clear()
        self._gathered = 0
        if self._torn:  # a line that was cut, as on a full disk, stays on a line of its own
            data = b"\n" + data
        try:
            written = os.write(self._fd, data)
        except OSError:
            written = 0
            self.failures += 1
        if written < len(data) or self._troubled:
            written = self._write_rest(data, written)
        self.bytes_written += written
        if self.bytes_written >= self._rotate_at:
            self._rotate()

    def reopen(self) -> None:
        """Go on in a new file of the same name, after the old one was renamed."""
        self.flush()
        self._go_on_in(self._path)

    def _go_on_in(self, path: Path) -> None:
        """Write to the file at this path from now on. If it cannot be opened, go on with the old file."""
        try:
            fd = self._open(path)
        except OSError:
            self.failures += 1
            return
        os.close(self._fd)
        self._take(fd)

    def close(self) -> None:
        """Write the lines that have gathered, and close the file."""
        self._later = None
        self.flush()
        os.close(self._fd)

    def _open(self, path: Path) -> int:
        """Open a path, which may be /dev/stdout. The descriptor is our own: others that share the file can still block."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            return os.open(path, flags, 0o640)
        except OSError as error:
            if error.errno == errno.ENXIO:
                why = "is a pipe that nobody reads, or a socket: start its reader first"
                raise OSError(errno.ENXIO, why, str(path)) from error
            raise

    def _take(self, fd: int) -> None:
        """Write to this descriptor from now on."""
        self._fd = fd
        info = os.fstat(fd)
        is_regular = stat.S_ISREG(info.st_mode)
        self._target = Path(os.path.realpath(self._path))
        rotates = bool(self._max_bytes) and is_regular and not _is_standard_stream(fd, info)
        self._rotate_at = self.bytes_written + self._max_bytes - info.st_size if rotates else sys.maxsize
        self._torn = is_regular and self._last_byte() != b"\n"
        self._troubled = self._torn or self.failing
        with contextlib.suppress(OSError):  # it is no pipe, or the size is more than this user may have
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _GATHER_BYTES)

    def _last_byte(self) -> bytes:
        try:
            with self._target.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1)
        except OSError:
            return b"\n"  # it is empty, or cannot be read: assume that no line was cut

    def _is_in_place(self) -> bool:
        """Whether the open file is still the one to which the path leads, after all symbolic links."""
        try:
            return os.path.samestat(self._target.lstat(), os.fstat(self._fd))
        except OSError:
            return False

    def _write_rest(self, data: bytes, written: int) -> int:
        """Write what is left; return how much is written then. Count the lines that are lost."""
        torn = self._torn
        try:
            while 0 < written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            self.failures += 1
        if written:
            self._torn = data[written - 1] != 0x0A
        lost = data.count(b"\n", max(written, torn))
        self.lines_lost += lost
        self.failing = lost > 0
        self._troubled = self._torn or self.failing
        return written

    def _rotate(self) -> None:
        def named(number: int) -> Path:
            return self._target.with_name(f"{self._target.name}.{number}") if number else self._target

        # If something fails, the next attempt comes only after as many bytes more.
        self._rotate_at = self.bytes_written + self._max_bytes
        if not self._is_in_place():  # another program has rotated it, and will send SIGHUP
            self.reopen()
            return
        try:
            os.close(self._open(self._target))  # check that a file can be opened, before others are renamed
            for number in range(1, self._backups + 1):
                check_replaceable(named(number))
            for number in range(self._backups, 0, -1):
                if named(number - 1).exists():
                    named(number - 1).replace(named(number))
            if not self._backups:
                self._target.unlink()
        except OSError:
            self.failures += 1
            return
        self._go_on_in(self._target)


def _is_standard_stream(fd: int, info: os.stat_result) -> bool:
    """Whether a file is also this process's stdin, stdout or stderr: the program that opened it then rotates it."""
    for descriptor in {0, 1, 2} - {fd}:
        with contextlib.suppress(OSError):
            if os.path.samestat(info, os.fstat(descriptor)):
                return True
    return False


class _Render:
    """The only structlog processor. It turns an event into a line of JSON: fixed keys first, long fields cut.

    Events that are written together have the same time stamp.
    """

    def __init__(self, file: LogFile, server: str, most_bytes: int) -> None:
        self._file = file
        self._server = server
        self._most_bytes = most_bytes
        self._forms = Forms(server, most_bytes)
        self._encode = msgspec.json.Encoder().encode
        self._second = -1
        self._prefix = b""
        self._stamp = self._timestamp()

    def __call__(self, _: WrappedLogger, level: str, event: EventDict) -> bytes:
        if not self._file.lines:
            self._stamp = self._timestamp()
        return self._render(level, event)

    def frequent(self, said: Sequence[FrequentEvent | SeveralEvents]) -> bytes:
        """Return the lines of frequent events: of all in one step, or else of each."""
        if not self._file.lines:
            self._stamp = self._timestamp()
        return self._forms.fill(self._stamp, said) or self._one_by_one(said)

    def _one_by_one(self, said: Sequence[FrequentEvent | SeveralEvents]) -> bytes:
        """Return the lines of frequent events of which some do not fit the forms."""
        one = said[0]
        if len(said) == 1 and isinstance(one, FrequentEvent):
            return self._render("info", spelled_out(one))
        each = one.each() if len(said) == 1 and isinstance(one, SeveralEvents) else said
        lines = [self._forms.fill(self._stamp, [event]) or self._one_by_one([event]) for event in each]
        return b"\n".join(lines)

    def _render(self, level: str, event: EventDict) -> bytes:
        line: dict[str, Any] = {
            "timestamp": self._stamp.decode(),
            "level": level,
            "server": self._server,
            "event": event.pop("event"),
        }
        if "exc_info" in event:
            event = structlog.processors.format_exc_info(None, level, event)
        most = self._most_bytes
        for key, value in event.items():
            kind = value.__class__
            if kind is bytes:
                if len(value) > most:
                    line[key] = escaped_for_json(value[:most])
                    line[f"{key}_bytes"] = len(value)
                else:
                    line[key] = escaped_for_json(value)
            elif kind is str:
                line[key] = value if value.isascii() and "\x7f" not in value else visible_for_json(value)
                if len(value) > most and key != "exception":
                    line[key] = line[key][:most]
                    line[f"{key}_bytes"] = len(value)
            elif kind is list:
                line[key] = [escaped_for_json(one) if one.__class__ is bytes else one for one in value]
            else:
                line[key] = value
        try:
            return self._encode(line)
        except (TypeError, ValueError):
            return self._encode({key: visible_for_json(str(value)) for key, value in line.items()})

    def _timestamp(self) -> bytes:
        second, nanoseconds = divmod(time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second)).encode()
        return b"%b.%06dZ" % (self._prefix, nanoseconds // 1000)


def make_logger(file: LogFile, *, server: str, level: str, max_field_bytes: int) -> EventLog:
    """Return the logger of a server. `level` is the lowest level that is written."""
    render = _Render(file, server, max_field_bytes)
    filtering: Any = structlog.make_filtering_bound_logger(level)

    class Logger(filtering):  # type: ignore[misc]  # it is made while the program runs
        """Has a short way for frequent events. Structlog's own takes several times the steps: it is for many processors,
        which may return several types.
        """

        def frequent(
            self, said: Sequence[FrequentEvent | SeveralEvents], *, flush_follows: bool = False
        ) -> None:
            if is_told:
                file.write(render.frequent(said), flush_follows=flush_follows)

    logger = cast("EventLog", structlog.wrap_logger(file, processors=[render], wrapper_class=Logger).bind())
    is_told = logger.is_enabled_for(logging.INFO)
    return logger
