"""Files that a stranger may have put in place of a log: only regular ones are opened, and no opening waits.

A pipe without a writer would hold up whoever opens it for ever, and a device has no end.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

_NEVER_WAIT: Final = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_to_read(file: Path) -> BinaryIO:
    """Open a regular file. Raises OSError, also where it is no such file."""
    return os.fdopen(_regular(file, os.O_RDONLY), "rb")


def open_to_append(file: Path) -> BinaryIO:
    """Open a regular file of this user's, or make it. Raises OSError likewise."""
    return os.fdopen(_regular(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW), "ab")


def _regular(file: Path, flags: int) -> int:
    descriptor = os.open(file, flags | _NEVER_WAIT, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "is no regular file", str(file))
