"""A server of the engine `redis`, put together: it has no state, and knows where the cluster has it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

from proxyherd.cluster.engine import Clustered
from proxyherd.cluster.opening import Opener
from proxyherd.cluster.views import View, merge
from proxyherd.config import Address, Herd, Server
from proxyherd.metrics import Metrics
from proxyherd.observe import Observer
from proxyherd.schema import Limits, Redis
from proxyherd.table import Table

_ASKED_NODES: Final = 3
"""Nodes that are asked at once who is master of what: one alone may be cut off."""

_LOOK_SECONDS: Final = 5.0
"""Between two looks at who is master of what, while nothing is amiss."""

_TICK_SECONDS: Final = 0.1
"""Between two looks at what has waited too long."""

_DOUBT_SECONDS: Final = 0.2
"""Likewise while something is."""


class Front:
    """What the daemon wants of the engine `redis`, from start to stop."""

    def __init__(self, herd: Herd, server: Server, limits: Limits, observer: Observer) -> None:
        assert herd.redis is not None
        self.table = Table(bytes(32))
        """Empty: there is nothing to see here of where clients are."""
        self._settings: Redis = herd.redis
        self._observer = observer
        self._seeds = tuple(herd.redis_nodes)
        self._nodes = self._seeds
        self._opener = Opener(herd.redis, herd.file, os.environ, observer)
        self._doubt = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._patience = self._loop.time() + herd.timing.ready_seconds
        self._started = False
        self._silence = ""
        """What the last node said that did not tell who is master of what; empty when one has told."""
        self.engine = Clustered(
            server.name, limits, herd.redis, observer, self._opener.library, self._doubt.set
        )

    def start(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Begin what goes on in the background, as soon as clients are listened for."""
        spawn(self._watch())
        spawn(self._let_time_pass())

    async def _watch(self) -> None:
        """Find out who is master of what, for ever."""
        while True:
            self._doubt.clear()
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - a fault of ours must not be the last look
                self._observer.fault("the masters cannot be found out", error)
            await asyncio.sleep(_DOUBT_SECONDS)
            if not self.engine.routes.trouble():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._doubt.wait()

    async def _let_time_pass(self) -> None:
        """Let time pass for what waits, for ever."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.engine.tick(self._loop.time())

    async def _look(self) -> None:
        nodes = list(dict.fromkeys((*random.sample(self._nodes, len(self._nodes)), *self._seeds)))
        for at in range(0, len(nodes), _ASKED_NODES):
            asked = nodes[at : at + _ASKED_NODES]
            views = [view for view in await asyncio.gather(*map(self._ask, asked)) if view is not None]
            if views:
                self.engine.learn(merge(views))
                self._nodes = tuple(dict.fromkeys(node for view in views for node in view.nodes))
                self._silence = ""
                return

    async def _ask(self, address: Address) -> View | None:
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                return await self._opener.ask_view(address)
        except self._opener.library.errors as error:
            self._silence = f"{address}: {str(error) or 'no answer in time'}"
            self._observer.node_failed(str(address), str(error) or "no answer in time")
            return None

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
        if trouble and self._silence:
            return f"{trouble}; nobody tells who is master: {self._silence}"
        return trouble

    def figures(self) -> dict[str, int]:
        """Return what is told when the server is ready."""
        return {"masters": len(self.engine.routes.masters)}

    def refresh(self, metrics: Metrics) -> None:
        """Bring the figures up to date that are not counted as things happen."""
        masters = self.engine.routes.masters
        metrics.masters.set(len(masters))
        metrics.masters_up.set(sum(not master.trouble for master in masters))
        metrics.waiting.set(self.engine.backlog.wishes)

    async def flush(self, deadline: float) -> None:
        """There is nobody to wait for: what was answered is with the masters."""

    async def part(self) -> None:
        """Let go of the masters."""
        await self.engine.close()

    async def close(self) -> None:
        """There is nothing to bring to disk."""
