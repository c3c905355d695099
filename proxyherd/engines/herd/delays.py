"""When updates that were learned without a turn are passed on, and when they are written to the journal and the log.

They are passed on when everything that is ready has been read: then one write to each link is enough. They are written
within 5 ms. If more comes in the second half of that time, they are written with it: so a busy server need not wake up
for them. Spare copies wait longer (`flood_paths`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from proxyherd.core.flood_paths import SPARE_COPY_SECONDS

LEARNED_SECONDS: Final = 0.005
"""Updates from neighbours wait for the journal and the log for this long, at most."""


class Delays:
    """Calls `pass_on`, `settle` and `send_spare` when they are due."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pass_on: Callable[[], None],
        settle: Callable[[], None],
        send_spare: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._pass_on = pass_on
        self._settle = settle
        self._send_spare = send_spare
        self._sends_spare = False  # whether `send_spare` will be called
        self._passes_on = False  # whether `pass_on` will be called
        self._timer: asyncio.TimerHandle | None = None
        self._early: float  # from this time on, what comes is written at once

    def pass_on_soon(self) -> None:
        """Note that something is to be passed on."""
        if not self._passes_on:
            self._passes_on = True
            self._loop.call_soon(self._pass_on_now)

    def settle_later(self) -> None:
        """Note that something waits, perhaps since earlier calls. `settle` may be called at once."""
        if self._timer is None:
            self._early = self._loop.time() + LEARNED_SECONDS / 2
            self._timer = self._loop.call_later(LEARNED_SECONDS, self._settle_now)
        elif self._loop.time() >= self._early:
            self._settle_now()

    def send_spare_later(self) -> None:
        """Note that spare copies of updates wait, perhaps since earlier calls."""
        if not self._sends_spare:
            self._sends_spare = True
            self._loop.call_later(SPARE_COPY_SECONDS, self._send_spare_now)

    def settled(self) -> None:
        """Note that nothing waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pass_on_now(self) -> None:
        self._passes_on = False
        self._pass_on()

    def _settle_now(self) -> None:
        self.settled()
        self._settle()

    def _send_spare_now(self) -> None:
        self._sends_spare = False
        self._send_spare()
