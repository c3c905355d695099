"""Opens files by name: only regular files, and without ever waiting.

A name may lead to a pipe without a writer, to a terminal or to a disk. Opening or reading one of these could block a
server forever, and writing could destroy data.

Files and folders are made with modes that keep other users of the machine out, whatever the umask.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o750
FILE_MODE: Final = 0o640

_MISSING: Final = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG])

NOT_REGULAR = "is a pipe, a socket or a device, not a regular file"


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a regular file as os.open does; return its descriptor. Raises OSError, also for any other kind of file."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a pipe without a reader
            raise OSError(errno.ENXIO, NOT_REGULAR, str(path)) from error
        raise
    except ValueError as error:  # a NUL; each Python has other words for it
        raise OSError(errno.EINVAL, "the name has a NUL, and no file's can", str(path)) from error
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.ENXIO, NOT_REGULAR, str(path))


def read_regular(path: Path, most: int = -1) -> bytes:
    """Return the first `most` bytes of a regular file, all if -1. Raises OSError, as `open_regular`."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read(most)


def is_there(path: Path) -> bool:
    """Return whether something has this name. Raises OSError if that cannot be known, for example in a folder that may not
    be searched; Path.exists of Python 3.14 would say no.
    """
    try:
        path.stat()
    except OSError as error:
        if error.errno in _MISSING:
            return False
        raise
    except ValueError:  # as above
        return False
    return True


def check_replaceable(path: Path) -> None:
    """Raise OSError if a pipe, a socket or a device has this name: it must not be replaced by a file."""
    if is_there(path) and not path.is_file() and not path.is_dir():
        raise OSError(errno.ENXIO, NOT_REGULAR, str(path))


def make_folder(path: Path) -> None:
    """Make a folder, and missing folders above it; existing ones keep their mode. Raises OSError."""
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            folder.mkdir(FOLDER_MODE, exist_ok=True)


def make_file(path: Path) -> None:
    """Make an empty file if there is none, for a library that would open it with the umask's mode. Remove other users'
    permissions from an existing one, unless it belongs to another user. Raises OSError, as `open_regular`.
    """
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        mode = os.fstat(descriptor).st_mode & 0o777
        if mode & ~FILE_MODE:
            with contextlib.suppress(PermissionError):
                os.fchmod(descriptor, mode & FILE_MODE)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, in as many writes as the system needs. Raises OSError; then a part may have been written."""
    while data:
        data = data[os.write(descriptor, data) :]


def sync_folder(path: Path) -> None:
    """Sync the names in a folder to disk: those of new, renamed and deleted files. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def inode_and_size(path: Path | str) -> tuple[int, int]:
    """Return the inode number of a file and its size in bytes; both 0 if there is no such file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - costs less than Path's, and is asked for each second
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size
