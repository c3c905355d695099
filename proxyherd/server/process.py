"""The start and the end of a process, for a server and the bridge: no core dumps, a log file, and background tasks."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from proxyherd.base.files import make_folder
from proxyherd.config.errors import ConfigError
from proxyherd.telemetry.logs import LogFile


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
