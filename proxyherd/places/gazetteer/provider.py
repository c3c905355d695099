"""The provider `gazetteer`: answers from the file that is at the path now.

A search of one step is answered at once. Longer searches do one step in each round of the event loop, a few searches at
a time. Other searches wait, and askers take turns. Only opening a file uses a thread. Searches use none: Python code in
a thread delays the event loop as much as in the loop itself, and costs more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxyherd.places.answers import Answer, no_results
from proxyherd.places.gazetteer.file import DamagedError, File, OutdatedError
from proxyherd.places.limits.gate import Gate
from proxyherd.places.query import Query

SEARCHES: Final = 4
"""Longer searches that are done at the same time. A step of each takes up to 0.2 ms."""

_REMEDY: Final = "`proxyherd gazetteer build`"
_MISSING: Final = no_results(
    "UNKNOWN_ERROR", f"the gazetteer is missing or outdated; the server's operator can run {_REMEDY}"
)
_UNREADABLE: Final = no_results(
    "UNKNOWN_ERROR", f"the gazetteer cannot be read; the server's operator can delete it and run {_REMEDY}"
)


class Gazetteer:
    """Answers queries of many askers. The file may be missing, and may be replaced, at any time."""

    name = "gazetteer"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._gate = Gate(SEARCHES)
        # The identity of the file that was opened; and the file, or the answer if it cannot be used.
        self._opened: tuple[tuple[int, ...], File | Answer] = (), _MISSING
        self._opening: asyncio.Task[Answer | None] | None = None

    def widened(self, query: Query) -> Query:
        """Return the query itself."""
        return query

    def join(self, query: Query, asker: object) -> None:
        """Let a query that waits at the gate also use the turns of this asker."""
        self._gate.join(asker, query)

    def answer_at_once(self, query: Query) -> Answer | None:
        """Answer a query; None if its search takes more than a slice, or if a file must be opened first."""
        file = self._look()
        if not isinstance(file, File):
            return file
        found = next(_search(file, query))
        return None if found is None else file.answer(found)

    async def nearby(self, query: Query, asker: str | None = None) -> Answer:
        """Answer a query of `asker`; UNKNOWN_ERROR, with the remedy, if the file cannot be read."""
        async with self._gate.turn(asker, query):
            while True:
                file = self._look() or await self._open()
                if isinstance(file, Answer):
                    return file
                if file is None:
                    continue
                for found in _search(file, query):
                    if found is not None:
                        return file.answer(found)
                    await asyncio.sleep(0)
                    if self._look() is not file:  # it may have been cut short
                        break

    async def close(self) -> None:
        """Forget the file."""
        self._opened = (), _MISSING

    def _look(self) -> File | Answer | None:
        """Return the file, or the answer if it cannot be used; None if the present file must be opened first."""
        try:
            identity = _identity(self._path)
        except FileNotFoundError:
            return _MISSING
        except OSError:
            return _UNREADABLE
        seen, opened = self._opened
        return opened if identity == seen else None

    async def _open(self) -> Answer | None:
        """Open the file, once for all who wait for it. Return an answer if the file is missing or cannot be read."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(asyncio.to_thread(self._open_in_thread))
        return await asyncio.shield(self._opening)

    def _open_in_thread(self) -> Answer | None:
        opened: File | Answer
        try:
            identity = _identity(self._path)  # before opening: a file that replaces it is opened next
            opened = File(self._path)
        except FileNotFoundError:
            return _MISSING
        except OSError:
            return _UNREADABLE
        except OutdatedError:
            opened = _MISSING
        except DamagedError:
            opened = _UNREADABLE
        self._opened = identity, opened
        return None


def _identity(path: Path) -> tuple[int, ...]:
    """Return values that change when the file or its content changes, without reading it. Raises OSError."""
    found = os.stat(path)  # noqa: PTH116 - for each query, a microsecond less than Path's
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _search(file: File, query: Query) -> Iterator[tuple[int, ...] | None]:
    return file.points.near(float(query.latitude), float(query.longitude), float(query.metres), query.most)
