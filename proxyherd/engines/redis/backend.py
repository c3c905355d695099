"""The engine `redis`, put together. It has no state of its own; its state is in the cluster."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from proxyherd.config.herd_file import Herd, Server
from proxyherd.config.schema import Limits
from proxyherd.core.rules import Rules
from proxyherd.engines.redis.engine import RedisEngine
from proxyherd.engines.redis.lookout import Lookout
from proxyherd.engines.redis.opening import Opener
from proxyherd.engines.redis.revocations import Revocations
from proxyherd.telemetry.observer import Observer

_TICK_SECONDS: Final = 0.1
"""The interval of checks for commands that have waited too long."""


class RedisBackend:
    """The parts of the engine `redis` that the daemon starts and stops."""

    def __init__(
        self, herd: Herd, server: Server, limits: Limits, observer: Observer, wake: Callable[[], None]
    ) -> None:
        assert herd.redis is not None
        self.table = self.areas = self.follows = None
        opener = Opener(herd.redis, herd.file, os.environ, observer)
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._patience = self._loop.time() + herd.timing.ready_seconds
        self._started = False
        self.engine = engine = RedisEngine(
            Rules(server.name, limits),
            herd.redis,
            observer,
            opener.library,
            tombstone_seconds=herd.erasure.tombstone_seconds,
            doubt=self._doubt,
            wake=wake,
        )
        self._revocations = Revocations(
            opener.library, engine.routes.owner, herd.redis.timeout_seconds, observer.fault
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

    def erased_until(self, name: bytes) -> int | None:
        """Return up to which moment an ID was erased; 0: never; None: the cluster has not told it yet."""
        return self._revocations.erased_until(name)

    def start(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Start the background work, as soon as the server listens for clients."""
        spawn(self._lookout.run())
        spawn(self._let_time_pass())
        spawn(self._revocations.run())

    async def _let_time_pass(self) -> None:
        """Let time pass for waiting commands, forever."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.engine.tick(self._loop.time())

    def tick(self) -> bool:
        """Return whether the start has ended, even if there is a problem now."""
        now = self._loop.time()
        self._started = self._started or not self.engine.routes.trouble() or now > self._patience
        return self._started

    @property
    def trouble(self) -> str:
        """Why the server is not ready, empty when it is."""
        trouble = self.engine.routes.trouble()
        silence = self._lookout.silence
        if trouble and silence:
            trouble += f"; nobody tells who is master: {silence}"
        return "; ".join(filter(None, (trouble, self.engine.routes.full())))

    @property
    def tick_at(self) -> float:
        """When `tick` has something to do at the earliest: always."""
        return -math.inf

    def renew(self, *_: object) -> None:
        """Do nothing: there are no links, and passwords and certificates are read for each connection to Redis."""

    def figures(self) -> dict[str, int]:
        """Set the metrics that are not counted by events; return the figures for the log line that says the server is
        ready.
        """
        masters = self.engine.routes.masters
        self._observer.cluster.state(
            len(masters),
            up=sum(not master.trouble for master in masters),
            full=sum(master.full for master in masters),
            waiting=self.engine.backlog.wishes,
        )
        return {"masters": len(masters)}

    async def stop(self, clients_gone: Awaitable[None], _: float) -> None:
        """Close the connections to masters when clients need them no more. Waiting commands have a deadline of their own,
        and answered reports are with the masters.
        """
        await clients_gone
        await self.engine.close()
