"""Finds the masters, forever: from time to time if all is well, and soon if there is a problem."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Final

from proxyherd.config.address import Address
from proxyherd.engines.redis.opening import Opener
from proxyherd.engines.redis.shard import error_text
from proxyherd.engines.redis.views import View, merge_views
from proxyherd.telemetry.observer import Observer

_ASKED_NODES: Final = 3
"""Nodes that are asked at once, because a single one may be cut off."""

_LOOK_SECONDS: Final = 5.0
"""The interval while there is no problem."""

_DOUBT_SECONDS: Final = 0.2
"""The interval while there is one."""


class Lookout:
    """Asks the nodes of one cluster, `seeds` and others that they name, each for `seconds` at most.

    `learn` gets the master of each tag, None if there is none; `trouble` says whether there is a problem.
    """

    def __init__(
        self,
        seeds: Sequence[Address],
        opener: Opener,
        seconds: float,
        observer: Observer,
        learn: Callable[[list[Address | None]], None],
        trouble: Callable[[], str],
    ) -> None:
        self.silence = ""
        """The error of the last node that did not name the masters; empty when one has named them."""
        self._seeds = self._nodes = tuple(seeds)
        self._opener = opener
        self._seconds = seconds
        self._observer = observer
        self._learn = learn
        self._trouble = trouble
        self._doubt = asyncio.Event()

    def doubt(self) -> None:
        """Note a problem: look soon."""
        self._doubt.set()

    async def run(self) -> None:
        """Look, forever."""
        while True:
            self._doubt.clear()
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - a fault of ours must not be the last look
                self._observer.fault("the masters cannot be found out", error)
            await asyncio.sleep(_DOUBT_SECONDS)
            if not self._trouble():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._doubt.wait()

    async def _look(self) -> None:
        nodes = list(dict.fromkeys((*random.sample(self._nodes, len(self._nodes)), *self._seeds)))
        for at in range(0, len(nodes), _ASKED_NODES):
            asked = nodes[at : at + _ASKED_NODES]
            views = [view for view in await asyncio.gather(*map(self._ask, asked)) if view is not None]
            if views:
                self._nodes = tuple(dict.fromkeys(node for view in views for node in view.nodes))
                self.silence = ""
                self._learn(merge_views(views))
                return

    async def _ask(self, address: Address) -> View | None:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._opener.ask_view(address)
        except self._opener.library.errors as error:
            reason = error_text(error)
            self.silence = f"{address}: {reason}"
            self._observer.cluster.node_failed(str(address), reason)
            return None
