"""The herd's secret: 32 random bytes in a file that only its owner can use. No error text contains any of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from msgspec import Struct

from proxyherd.base.files import open_regular
from proxyherd.config.errors import ConfigError

SECRET_BYTES: Final = 32


def read(path: Path) -> bytes:
    """Return the secret in a file. Raises ConfigError, which says what to do."""
    remedy = "make one for the whole herd with `proxyherd secret new FILE`, and name it with --secret-file"
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            size = os.fstat(file.fileno()).st_size
            found = file.read(SECRET_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {remedy}") from error
    # systemd lets the service's user read a credential by an access list, which appears as the group's bits.
    if mode & 0o077 and str(path.parent) != os.environ.get("CREDENTIALS_DIRECTORY"):
        raise ConfigError(f"{path}: others than its owner can use it; run: chmod 600 {path}")
    if len(found) != SECRET_BYTES:
        raise ConfigError(
            f"{path}: has {size} bytes, a secret has {SECRET_BYTES}; move it away, and {remedy}"
        )
    return found


class Secrets(Struct, frozen=True):
    """The secrets of the herd that a server knows."""

    proves: bytes
    accepted: tuple[bytes, ...]  # the one used for proofs
    table: bytes  # the key of the table's digests, which must be the same on all servers during a change

    def __repr__(self) -> str:
        return f"<{len(self.accepted)} secrets>"  # for tracebacks


def read_all(path: Path) -> Secrets:
    """Return the secret in a file, and those beside it while the herd changes its secret: `.next` is already accepted,
    `.old` is still accepted. Raises ConfigError.
    """
    proves = read(path)
    following, former = (path.with_name(path.name + end) for end in (".next", ".old"))
    accepted = [proves, *(read(other) for other in (following, former) if other.exists())]
    return Secrets(proves, tuple(accepted), accepted[-1] if former.exists() else proves)


def create(path: Path) -> None:
    """Write a new secret. Raises OSError; FileExistsError if the file exists, which is then unchanged."""
    # Written under another name, then linked: nobody ever reads half a secret, or loses one.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, os.urandom(SECRET_BYTES))
        os.fsync(descriptor)
        os.link(temporary, path)
    finally:
        os.close(descriptor)
        temporary.unlink()
