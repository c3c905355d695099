"""Whether Google can be reached from here, for herds that ask it themselves.

The rule: that is looked up only when a herd gives no places, and a herd that may ask Google is not blamed for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from proxyherd.base.files import read_regular
from proxyherd.grading.google import HOSTS

REACH_SECONDS: Final = 3.0
"""How long to wait for a connection to Google."""

DOMAIN: Final = b"googleapis.com"
"""What stands in the code of a herd that asks Google."""

MOST_FILES_READ: Final = 2_000
MOST_CODE_BYTES: Final = 1 << 20
"""Files of a herd, and bytes of each, that are looked at: code is small."""

LEFT_OUT: Final = frozenset(("node_modules", "venv", "__pycache__"))
"""Folders of other people's code. So are those whose names begin with a dot."""

Reach: TypeAlias = Callable[[str, int], Awaitable[tuple[Any, asyncio.StreamWriter]]]
"""Opens a connection to a host and a port, as asyncio.open_connection does."""


class GoogleReach:
    """Google, as a herd sees it that may ask it or not."""

    def __init__(self, *, may_be_asked: bool = False, reach: Reach = asyncio.open_connection) -> None:
        self._may_be_asked = may_be_asked
        self._reach = reach
        self._lock = asyncio.Lock()
        self._problem: str | None = None

    async def problem(self) -> str:
        """Return why places cannot be judged: the herd may ask Google, which cannot be reached. Empty if it can be, or if
        the herd does not ask it.
        """
        async with self._lock:
            if self._problem is None:
                self._problem = await self._look() if self._may_be_asked else ""
        return self._problem

    async def _look(self) -> str:
        try:
            async with asyncio.timeout(REACH_SECONDS):
                _, writer = await self._reach(HOSTS[0], 443)
        except TimeoutError:
            why = f"no connection within {REACH_SECONDS:g} s"
        except OSError as error:
            why = error.strerror or str(error)
        else:
            writer.close()
            return ""
        return (
            f"because Google cannot be reached from here ({HOSTS[0]}: {why}), and the herd may ask it; "
            "--batch has a stand-in for it in its sandbox, if there is a gazetteer"
        )


def names_google(folder: Path, command: str) -> bool:
    """Whether Google's domain stands in the files of a folder, or in those that a command names."""
    named = (folder / word for word in shlex.split(command))
    return any(map(_names_google, named)) or any(map(_names_google, _files(folder)))


def _files(folder: Path) -> Iterator[Path]:
    left = MOST_FILES_READ
    for where, folders, files in os.walk(folder):
        folders[:] = [one for one in folders if not one.startswith(".") and one not in LEFT_OUT]
        for file in files[:left]:
            yield Path(where, file)
        left -= len(files)
        if left <= 0:
            return


def _names_google(file: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a name may hold a NUL
        return DOMAIN in read_regular(file, MOST_CODE_BYTES)
    return False
