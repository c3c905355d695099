"""Runs a server's turns on its event loop."""

from __future__ import annotations

import asyncio
import time

from proxyherd.core.turn import Turn


class Driver:
    """Runs a turn after `wake`, when everything that is ready has been read. `wake` may be called before `start`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon, self._time = loop.call_soon, loop.time
        self._turn: Turn
        self._is_due = self._has_begun = False

    def start(self, turn: Turn) -> None:
        """Use this `Turn` from now on."""
        self._turn, self._has_begun = turn, True
        if self._is_due:
            self._call_soon(self._run)

    def wake(self) -> None:
        """Ask for a turn soon."""
        if not self._is_due:
            self._is_due = True
            if self._has_begun:
                self._call_soon(self._run)

    def _run(self) -> None:
        self._is_due = False
        self._turn.run(self._time(), time.time_ns())
