"""A server of the engine `redis`, put together: it has no state, and knows where the cluster has it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final

from proxyherd.config.herd_file import Herd, Server
from proxyherd.config.schema import Limits
from proxyherd.core.rules import Rules
from proxyherd.core.table import Table
from proxyherd.engines.redis.engine import Clustered
from proxyherd.engines.redis.lookout import Lookout
from proxyherd.engines.redis.opening import Opener
from proxyherd.telemetry.observer import Observer

_TICK_SECONDS: Final = 0.1
"""Between two looks at what has waited too long."""


class Front:
    """What the daemon wants of the engine `redis`, from start to stop."""

    def __init__(self, herd: Herd, server: Server, limits: Limits, observer: Observer) -> None:
        assert herd.redis is not None
        self.table = Table(bytes(32))
        """Empty: there is nothing to see here of where clients are."""
        opener = Opener(herd.redis, herd.file, os.environ, observer)
        self._loop = asyncio.get_running_loop()
        self._patience = self._loop.time() + herd.timing.ready_seconds
        self._started = False
        self.engine = engine = Clustered(
            Rules(server.name, limits), herd.redis, observer, opener.library, doubt=self._doubt
        )
        self._lookout = Lookout(
            herd.redis_nodes,
            opener,
            herd.redis.timeout_seconds,
            observer,
            engine.learn,
            engine.routes.trouble,
        )

    def _doubt(self) -> None:
        self._lookout.doubt()

    def start(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Begin what goes on in the background, as soon as clients are listened for."""
        spawn(self._lookout.run())
        spawn(self._let_time_pass())

    async def _let_time_pass(self) -> None:
        """Let time pass for what waits, for ever."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.engine.tick(self._loop.time())

    def tick(self) -> None:
        """See whether the start is over."""
        now = self._loop.time()
        self._started = self._started or not self.engine.routes.trouble() or now > self._patience

    @property
    def started(self) -> bool:
        """Whether the start is over, whatever may be amiss now."""
        return self._started

    @property
    def trouble(self) -> str:
        """Why the server is not ready, empty when it is."""
        trouble = self.engine.routes.trouble()
        silence = self._lookout.silence
        if trouble and silence:
            trouble += f"; nobody tells who is master: {silence}"
        return "; ".join(filter(None, (trouble, self.engine.routes.full())))

    def renew(self, *_: object) -> None:
        """There are no links; passwords and certificates are read for each connection to Redis anyway."""

    def figures(self) -> dict[str, int]:
        """Return the figures for the log line that says the server is ready."""
        return {"masters": len(self.engine.routes.masters)}

    def refresh(self, observer: Observer) -> None:
        """Bring the figures up to date that are not counted as things happen."""
        masters = self.engine.routes.masters
        observer.cluster.state(
            len(masters),
            up=sum(not master.trouble for master in masters),
            full=sum(master.full for master in masters),
            waiting=self.engine.backlog.wishes,
        )

    def drain(self) -> None:
        """Nobody is let go early: what waits has a deadline."""

    async def flush(self, deadline: float) -> None:
        """There is nobody to wait for: what was answered is with the masters."""

    async def part(self) -> None:
        """Let go of the masters."""
        await self.engine.close()

    async def close(self) -> None:
        """There is nothing to bring to disk."""
