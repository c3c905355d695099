"""What the daemon wants of an engine, besides its turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from proxyherd.config import secrets as secret
from proxyherd.core.area_searches import AreaSearches
from proxyherd.core.engine import Engine
from proxyherd.core.follows.follows import Follows
from proxyherd.core.table import Table
from proxyherd.net import tls


class Backend(Protocol):
    """An engine with all that it needs: the daemon starts it, asks it and stops it."""

    @property
    def engine(self) -> Engine:
        """The engine that turns call."""

    @property
    def table(self) -> Table | None:
        """The table of all clients; None if this server does not have it."""

    @property
    def areas(self) -> AreaSearches | None:
        """What searches the table; None if this server does not have it."""

    @property
    def follows(self) -> Follows | None:
        """What tells followers of changes of the table; None if this server does not have it."""

    @property
    def trouble(self) -> str:
        """Why the server is not ready; empty if it is."""

    def erased_until(self, name: bytes) -> int | None:
        """Return up to which moment an ID was erased, in nanoseconds of POSIX time; 0: never; None: it is not known yet."""

    def start(self, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        """Start the background tasks; called when the server listens for clients."""

    def tick(self) -> bool:
        """Let time pass. Return whether the start is over, even if something fails now."""

    @property
    def tick_at(self) -> float:
        """When `tick` has something to do at the earliest, on the loop's clock; -inf: it must be called regularly."""

    def renew(self, secrets: secret.Secrets, contexts: tls.Contexts) -> None:
        """Use other secrets and certificates for future connections."""

    def figures(self) -> dict[str, int]:
        """Update the metrics that no event updates. Return the figures for the log line that says the server is ready."""

    async def stop(self, clients_gone: Awaitable[None], deadline: float) -> None:
        """Wait until the clients are gone. Then bring everything to disk or to other servers, and end. If others must
        read it, wait for them until `deadline`, on the loop's clock, at most.
        """
