"""The folder of the results of a class: who may write there, and a record for each submission.

The rules: one folder has the results of one class, and one grading at a time writes there. A file is written in one
step, and other users may not read it: marks are personal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import msgspec
from msgspec import Struct

from proxyherd.base.files import FILE_MODE, read_regular

RECORD: Final = "result.json"
REPORT: Final = "report.txt"
"""Names in a submission's own folder."""

CLASS: Final = "class.json"
"""The file that says whose results they are."""


class FolderError(Exception):
    """Results cannot be written there; the text says why, and what to do."""


class Record(Struct, frozen=True):
    """The result of one submission; or that there is none yet."""

    name: str
    key: str
    """A digest of all that its marks depend on."""

    problem: str = ""
    """Why it could not be graded; empty if it could."""

    attempts: int = 0
    """How often it was graded; 0: not yet."""

    seconds: float = 0.0
    """How long the last attempt took."""

    report: dict[str, Any] | None = None
    """The JSON report of `grade`, which may be there without marks."""

    code: int | None = None
    """The exit code of `grade` in the last attempt; None if it had to be ended."""

    @property
    def is_final(self) -> bool:
        return bool(self.attempts or self.problem)

    @property
    def reason(self) -> str:
        """Why there are no marks; empty if there are."""
        return self.problem if self.is_final else "not graded yet"


class _Class(Struct, frozen=True):
    submissions: str


@contextlib.contextmanager
def alone(output: Path) -> Iterator[None]:
    """Keep other runs out of a folder. Raises FolderError if one is there, and OSError."""
    folder = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(
                f"{output}: another grading writes there; wait for its end, or name another folder by --output"
            ) from None
        yield
    finally:
        os.close(folder)


def claim(output: Path, submissions: Path) -> None:
    """Note that a folder is for the results of these submissions. Raises FolderError if it is for anything else, and
    OSError.
    """
    file, mine = output / CLASS, os.fsencode(submissions).decode(errors="replace")
    remedy = "name another folder by --output"
    try:
        owner = msgspec.json.decode(read_regular(file), type=_Class).submissions
    except FileNotFoundError:
        others = sorted(path.name for path in output.iterdir() if not path.name.startswith("."))
        if others:
            raise FolderError(f"{output}: holds other files, such as {others[0]}; {remedy}") from None
        write_result(file, msgspec.json.encode(_Class(mine)) + b"\n")
        return
    except msgspec.MsgspecError as error:
        raise FolderError(f"{file}: {error}; {remedy}") from error
    if owner != mine:
        raise FolderError(f"{output}: holds the results of another class, {owner}; {remedy}")


def kept(file: Path) -> Record | None:
    """Return the record in a file; None if there is none that can be read."""
    try:
        return msgspec.json.decode(read_regular(file), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None


def write_result(file: Path, data: bytes) -> None:
    """Write a file in one step. Raises OSError."""
    new = file.with_name(f".{file.name}.new")
    with new_file(new) as opened:
        opened.write(data)
    new.replace(file)


def new_file(file: Path) -> IO[bytes]:
    """Open a new file to write and read. Raises OSError."""
    file.unlink(missing_ok=True)
    return os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE), "w+b")
