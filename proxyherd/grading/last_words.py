"""What a started program printed last: it mostly says why the program has ended."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from msgspec import Struct

from proxyherd.base.escapes import escaped
from proxyherd.base.files import open_regular

LINES: Final = 8
LAST_BYTES: Final = 4_096
LINE_BYTES: Final = 200
"""How much is shown of it, and of a line."""


_begins_traceback = re.compile(rb"Traceback \(most recent call last\):").fullmatch


class LastWords(Struct, frozen=True):
    """The command of a server that could not be judged, and the last lines that it printed, escaped."""

    server: str
    command: str
    lines: Sequence[str]


def last_bytes(file: IO[bytes]) -> bytes:
    """Return the end of a file. Raises OSError."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
    return file.read(LAST_BYTES)


def last_lines(path: Path) -> list[str]:
    """Return the last lines of a file, escaped, without blank ones at its end. Raises OSError."""
    return [escaped(line[-LINE_BYTES:]) for line in _lines(path)[-LINES:]]


def telling_line(path: Path) -> str:
    """Return the line of a file that mostly says why a program has ended, escaped: of its last traceback the one with the
    exception, which others may follow; without a traceback the last one; "" if there is none. Raises OSError.
    """
    lines = _lines(path)
    begins = [at for at, line in enumerate(lines) if _begins_traceback(line)]
    for line in lines[begins[-1] + 1 :] if begins else ():
        if line and not line[:1].isspace():
            return escaped(line[:LINE_BYTES])
    return escaped(lines[-1].strip()[-LINE_BYTES:]) if lines else ""


def _lines(path: Path) -> list[bytes]:
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        lines = [line.rstrip() for line in last_bytes(file).split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
