"""Where output goes: the target of `--output`, a file that is created or replaced in one step.

The rule: only a regular file is ever replaced; of a symbolic link, the file that it points to. Anything else with that
name, such as a pipe, a terminal or /dev/null, is written into, as the shell's `>` does.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from proxyherd.cli.common import Misconfigured


@contextmanager
def open_output(path: Path | None, mode: int) -> Iterator[BinaryIO]:
    """Lend stdout, or a file that replaces `path` with that mode when it is complete. Raises Misconfigured."""
    try:
        if path is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif (descriptor := _irreplaceable(path)) is not None:
            with os.fdopen(descriptor, "wb") as file:
                yield file
        else:
            with _replacing(Path(os.path.realpath(path)), mode) as file:
                yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Misconfigured(
            f"{path or 'stdout'}: {error.strerror}; it is written into an existing directory, as a file, with room for it"
        ) from error


def _irreplaceable(path: Path) -> int | None:
    """Open a file that must not be replaced; None if it may be. Raises OSError."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return None
    for descriptor in (1, 2):  # such as /dev/stdout; it may be a file to which others append
        with suppress(OSError):
            if os.path.samestat(there, os.fstat(descriptor)):
                return os.dup(descriptor)
    return None if stat.S_ISREG(there.st_mode) else os.open(path, os.O_WRONLY | os.O_NOCTTY)


@contextmanager
def _replacing(path: Path, mode: int) -> Iterator[BinaryIO]:
    import tempfile  # noqa: PLC0415 - not for `serve`

    descriptor, name = tempfile.mkstemp(
        prefix=f".{path.name}.", dir=path.parent
    )  # which *.json does not match
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
