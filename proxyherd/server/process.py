"""The start and the end of a process, for a server and the bridge: no core dumps, a log file, background tasks, and
imports that take long.
"""

from __future__ import annotations

import asyncio
import importlib
import resource
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from proxyherd.base.files import make_folder
from proxyherd.config.errors import ConfigError
from proxyherd.telemetry.logs import LogFile

T = TypeVar("T")


def forbid_core_dumps() -> None:
    """Forbid core dumps: they would hold the secret, the key for Places, and the locations of people."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def open_log(path: Path, *, max_bytes: int, backups: int = 4) -> LogFile:
    """Open a log file, and make its folder if it is missing. Raises ConfigError."""
    try:
        make_folder(path.parent)
        return LogFile(path, max_bytes=max_bytes, backups=backups)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a log file with --log-file") from error


class Background:
    """Tasks that nobody waits for. `failed` is called with the error of each task that fails."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task. Return it, so that it can be cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def end(self) -> None:
        """Cancel all tasks, and wait until they have ended."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class SlowImports:
    """Imports in threads, while the event loop serves: aiohttp takes a quarter of a second.

    One thread at a time. If two import modules that import each other, such as those of aiohttp, Python lets one of them
    go on with a module that is not complete, and the import fails.
    """

    def __init__(self) -> None:
        self._one = asyncio.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """Run work that imports modules."""
        async with self._one:
            return await asyncio.to_thread(work)

    async def module(self, name: str) -> Any:
        return await self.run(partial(importlib.import_module, name))
