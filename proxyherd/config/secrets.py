"""The herd's secret: 32 random bytes in a file that only its owner can use. No error text contains any of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from msgspec import Struct

from proxyherd.base.files import is_there, open_regular, sync_folder, write_all
from proxyherd.config.errors import ConfigError

SECRET_BYTES: Final = 32


_UNSET: Final = b"\n"
"""What our systemd units put into a credential for which the operator has no file."""


def read(path: Path) -> bytes:
    """Return the secret in a file. Raises ConfigError, which says what to do."""
    remedy = (
        "copy the herd's secret there, from another host or a backup; only if there is none, make one for the whole herd with "
        "`proxyherd secret new FILE`, and name it with --secret-file"
    )
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            size = os.fstat(file.fileno()).st_size
            found = file.read(SECRET_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {remedy}") from error
    # systemd lets the service's user read a credential by an access list, which appears as the group's bits.
    if mode & 0o077 and not _is_credential(path):
        raise ConfigError(f"{path}: others than its owner can use it; run: chmod 600 {path}")
    if len(found) != SECRET_BYTES:
        raise ConfigError(
            f"{path}: has {size} bytes, a secret has {SECRET_BYTES}; move it away, and {remedy}"
        )
    return found


class Secrets(Struct, frozen=True):
    """The secrets of the herd that a server knows."""

    proves: bytes
    accepted: tuple[bytes, ...]  # the one used for proofs; and others, while the herd changes its secret
    table: bytes
    """The key of the table's digests and of its tombstones. It must be the same on all servers, and outlive changes of
    the secret: a tombstone of another key matches nobody."""

    def __repr__(self) -> str:
        return f"<{len(self.accepted)} secrets>"  # for tracebacks


def read_all(path: Path) -> Secrets:
    """Return the secret in a file, and those beside it: `.next` is already accepted, and `.old` is still accepted, while
    the herd changes its secret; `.table` is the first secret that the herd has had, and stays. Raises ConfigError.
    """
    proves = read(path)
    following, former, table = (_beside(path, end) for end in (".next", ".old", ".table"))
    accepted = tuple(one for one in (proves, following, former) if one is not None)
    return Secrets(proves, accepted, table or former or proves)


def _beside(path: Path, end: str) -> bytes | None:
    """Return the secret in a file beside another one; None if there is none. Raises ConfigError."""
    other = path.with_name(path.name + end)
    if not is_there(other) or (_is_credential(other) and other.read_bytes() == _UNSET):
        return None
    return read(other)


def _is_credential(path: Path) -> bool:
    return str(path.parent) == os.environ.get("CREDENTIALS_DIRECTORY")


def create(path: Path) -> None:
    """Write a new secret. Raises OSError, and then there is no file; FileExistsError if it exists, which is then unchanged."""
    # Written under another name, then linked: nobody ever reads half a secret, or loses one. A process that was killed may have
    # left such a name, and in containers its ID comes again.
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        write_all(descriptor, os.urandom(SECRET_BYTES))
        os.fsync(descriptor)
        os.link(temporary, path)
        try:
            sync_folder(path.parent)
        except OSError:
            path.unlink()
            raise
    finally:
        os.close(descriptor)
        temporary.unlink()
