"""What a supervisor needs from a process: messages that it is ready and alive, and one owner of a state directory.

systemd passes a socket in NOTIFY_SOCKET (sd_notify(3)). Without it, nothing is sent, so the same program also runs
under supervisord.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
from collections.abc import Mapping
from pathlib import Path

from proxyherd.base.files import make_folder, open_regular


class Notifier:
    """Speaks the sd_notify protocol."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # an abstract socket
            self._address = "\0" + self._address[1:]
        self.watchdog = "WATCHDOG_USEC" in environ and environ.get("WATCHDOG_PID", str(os.getpid())) == str(
            os.getpid()
        )

    def tell(self, *assignments: str) -> None:
        """Send assignments such as `READY=1`. If the supervisor does not listen, nothing fails."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            pass


class StateTaken(Exception):  # noqa: N818 - a fact about another process, not an error of this one
    """Another process owns the state directory; the text names it."""


class StateDirectory:
    """A directory that one process owns at a time. It is made if it is missing. Raises OSError and StateTaken."""

    def __init__(self, path: Path) -> None:
        make_folder(path)
        lock = path / "lock"
        self._fd = open_regular(lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StateTaken(
                f"{path} is in use by process {holder}, which holds {lock}; stop that one, or name another "
                f"directory with --state-dir"
            ) from error
        with contextlib.suppress(OSError):  # on a full disk, the lock holds, but does not say who holds it
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Give the directory up."""
        os.close(self._fd)


def raise_descriptor_limit() -> int:
    """Raise the limit of file descriptors as far as the system allows; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard
