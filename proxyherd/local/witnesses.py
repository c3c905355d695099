"""What runs in this folder.

The rule: the herd counts as stopped only when three witnesses say so: supervisord's socket, its pid file, and the
locks that servers hold on their state. A witness that cannot be asked is an error, not a no.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from proxyherd.local.messages import fail

SOCKET: Final = Path("var/run/supervisor.sock")
PID_FILE: Final = Path("var/run/supervisord.pid")

RPC_SECONDS: Final = 10.0
"""For one answer of supervisord."""


class Traces(NamedTuple):
    """What runs in this folder."""

    answers: bool
    """supervisord answers at its socket."""
    supervisord: int
    """The process that the pid file names, if it is this folder's supervisord; else 0."""
    holders: dict[Path, str]
    """By the directory with the state: the process that uses it, "?" where that is not known."""

    @property
    def nothing(self) -> bool:
        """Whether no part of a herd runs here."""
        return not (self.answers or self.supervisord or self.holders)


def look() -> Traces:
    """Ask all three witnesses. Fails where one cannot be asked."""
    try:
        return Traces(_answers(), _supervisord(), dict(_holders()))
    except PermissionError as error:
        fail(
            f"{error.filename or SOCKET}: permission denied, so it cannot be told whether a herd runs here; "
            f"type this as the user {owner(error.filename or SOCKET)}, or as root"
        )


def refuse_parts(found: Traces) -> None:
    """Fails where a herd runs that cannot be reached through supervisord's socket."""
    if found.answers:
        return
    if found.supervisord:
        pid = found.supervisord
        fail(
            f"supervisord runs as process {pid}, but nobody answers at {SOCKET}; stop it and its servers with: kill {pid}"
        )
    if found.holders:
        who = ", ".join(f"{state} (process {pid})" for state, pid in found.holders.items())
        pids = " ".join(pid for pid in found.holders.values() if pid != "?")
        fail(
            f"these are in use by processes that no supervisord controls: {who}; stop them with: kill {pids}"
        )


def _answers() -> bool:
    """Whether anybody listens at supervisord's socket. Raises PermissionError."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(RPC_SECONDS)
        try:
            probe.connect(str(SOCKET))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except PermissionError as error:
            raise PermissionError(error.errno, error.strerror, str(SOCKET)) from error
        except (TimeoutError, BlockingIOError):
            return True  # somebody listens, and hangs
    return True


def _supervisord() -> int:
    """Return the process in the pid file if it is this folder's supervisord: ids are used again. Raises
    PermissionError.
    """
    return _process(PID_FILE, b"supervisord", Path.cwd())


def _process(pid_file: Path, program: bytes, folder: Path) -> int:
    """Return the process in a pid file if it is this program at work in this folder, else 0: ids are used again.
    Raises PermissionError.
    """
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError, ValueError):
        return 0
    if program not in command:  # a zombie has no command line
        return 0
    try:
        works_in = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:  # another user's
        return pid
    return pid if works_in == folder or bytes(folder) in command else 0


def _holders() -> Iterator[tuple[Path, str]]:
    """Yield the directories of state that are in use, and by whom. Raises PermissionError."""
    for file in _files("var/redis", "redis.pid"):
        if pid := _process(file, b"redis-server", file.parent.absolute()):
            yield file.parent, str(pid)
    for lock in _files("var/lib", "lock"):
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):  # what is there may be a file of somebody's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(descriptor, 16).decode(errors="replace").strip()
            yield lock.parent, text if text.isdecimal() else "?"
        finally:
            os.close(descriptor)


def _files(folder: str, name: str) -> list[Path]:
    """Return the files of that name one level below a folder. Raises PermissionError."""
    try:
        return [below / name for below in sorted(Path(folder).iterdir())]
    except (FileNotFoundError, NotADirectoryError):
        return []


def owner(path: str | Path) -> str:
    """Return the user that owns a file, or the nearest folder above it that can be seen."""
    at = Path(path)
    while True:
        try:
            return at.owner()
        except KeyError:
            return str(at.stat().st_uid)
        except OSError:
            at = at.parent
