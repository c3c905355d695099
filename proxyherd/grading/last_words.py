"""What a started program printed last: it mostly says why the program has ended."""

from __future__ import annotations

import os
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
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        lines = [line.rstrip() for line in last_bytes(file).split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return [escaped(line[-LINE_BYTES:]) for line in lines[-LINES:]]
