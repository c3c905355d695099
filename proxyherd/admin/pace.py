"""How often the metrics may be made: they cost most of all answers of the admin port."""

from __future__ import annotations

import asyncio
import time
from typing import Final

_SHARE: Final = 10
"""Metrics take at most one part in this many of the time: after they are made, there is a pause."""


class Pace:
    """Admits one at a time, and the next one when `_SHARE` times as long has passed as the last one took."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._next = self._began = 0.0

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        await self._lock.acquire()
        try:
            await asyncio.sleep(self._next - loop.time())
        except BaseException:
            self._lock.release()
            raise
        self._began = time.perf_counter()

    async def __aexit__(self, *_: object) -> None:
        took = time.perf_counter() - self._began
        self._next = asyncio.get_running_loop().time() + _SHARE * took
        self._lock.release()
