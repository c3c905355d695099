"""The bridge as a server of the herd: it links, catches up and floods like any other, but has no clients and no journal.

What it learns from neighbours goes to the cluster, and what it learns from the cluster goes to them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from proxyherd.config.herd_file import Herd, Server
from proxyherd.config.secrets import Secrets
from proxyherd.core.engine import Client
from proxyherd.core.messages import At, received
from proxyherd.core.news import News
from proxyherd.core.node import Node
from proxyherd.core.turn import Turn
from proxyherd.engines.herd.backend import make_table, make_terms
from proxyherd.engines.herd.engine import HerdEngine
from proxyherd.engines.herd.peers import Peers
from proxyherd.engines.redis.layout import SaltedTombstones
from proxyherd.net.binding import Binder
from proxyherd.net.tls import Contexts
from proxyherd.server.driver import Driver
from proxyherd.server.places_queries import AsyncPlacesQueries
from proxyherd.telemetry.observer import Observer

_UNSENT_BYTES: Final = 1_048_576
"""How many bytes may wait for neighbours before the cluster is read further: far less than `peer_queue_bytes`, at which
links are closed."""

_LEAVES: Final = 1_024
"""Leaves of the table that are looked at without a pause."""

_MILLISECOND: Final = 1_000_000
_LOOK_SECONDS: Final = 0.01


class _Told:
    """Takes the place of a server's journal: it gets all news."""

    always = False
    takes_reports = True

    def __init__(self, node: Node, tell: Callable[[bytes], None]) -> None:
        self.heard = 0
        self._node = node
        self._tell = tell

    def append(self, _: Sequence[bytes]) -> bool:
        """Report what came from neighbours; the cluster has its own lines already."""
        for one in self._node.news:
            if one.source is not None and one.client.split() == [
                one.client
            ]:  # no tombstone, which names nobody
                self.heard += 1
                self._tell(one.client)
        return True

    def sync(self, _: Callable[[bool], None]) -> None:
        """Do nothing: nothing is written to disk."""


class Member:
    """A server of the herd. `tell` is called with each client for which a neighbour has sent news."""

    def __init__(
        self,
        herd: Herd,
        server: Server,
        secrets: Secrets,
        contexts: Contexts,
        observer: Observer,
        tell: Callable[[bytes], None],
    ) -> None:
        self._server = server
        self._loop = loop = asyncio.get_running_loop()
        self.node = Node(
            server.name,
            make_table(secrets, herd.limits),
            herd.limits,
            herd.timing,
            alone=not server.neighbours,
            now=loop.time(),
            erasure=herd.erasure,
        )
        self.node.contact.began = time.time_ns()  # its table is empty, and shows nothing
        self._told = _Told(self.node, tell)
        driver = Driver(loop)
        self._engine = HerdEngine(self.node, self._told, driver.wake)
        queries = AsyncPlacesQueries[Client](loop.create_future(), observer, loop)  # nobody asks for places
        driver.start(Turn(self._engine, queries, observer, driver.wake))
        terms = make_terms(herd, server, secrets, self.node)
        self._peers = Peers(herd, server, terms, self.node, self._engine, observer, contexts)

    async def listen(self, binder: Binder) -> None:
        """Listen for neighbours and dial them."""
        await binder.listen("peers", self._server.peers, self._peers.listener.listen)
        if not binder.unbound:
            self._peers.dial()

    def tick(self) -> None:
        """Let time pass on the links; call a few times per heartbeat."""
        self._peers.tick(self._loop.time())

    @property
    def heard(self) -> int:
        """How often neighbours have sent news."""
        return self._told.heard

    @property
    def unlinked(self) -> list[str]:
        """The neighbours without a live link."""
        linked = {*self.node.linked}
        return [name for name in self._server.neighbours if name not in linked]

    def learn(self, ats: Iterable[At]) -> tuple[int, list[bytes], int]:
        """Learn what the cluster holds. Return how many lines were news, the clients with a greater line here, and the
        number of lines for which there was no room.
        """
        node, news, refused = self.node, 0, 0
        ahead: list[bytes] = []
        for at in ats:
            admitted = node.admit(at)
            if admitted:
                node.news.append(News(at.client, at.entry.line))
                news += 1
            elif admitted is None:
                refused += 1
            elif self._is_ahead(at):
                ahead.append(at.client)
        if news:
            self._engine.wake()
        return news, ahead, refused

    def _is_ahead(self, at: At) -> bool:
        """Whether the herd has something greater than this line, or has erased it."""
        table = self.node.table
        held = table.get(at.client)
        return (held is not None and held.line != at.entry.line) or table.is_erased(at.client, at.entry.line)

    async def erase(self, erased: SaltedTombstones) -> None:
        """Erase the clients here that are erased in the cluster."""
        table = self.node.table
        for first in range(0, table.leaf_count if erased else 0, _LEAVES):
            for client, _ in table.entries(first, first + _LEAVES):
                if (until := erased.until(client)) > table.erased_until(client):
                    tombstone = table.tombstone(client, until)
                    if self.node.admit(tombstone):
                        self.node.news.append(News(tombstone.client, tombstone.line))
                        self._engine.wake()
            await asyncio.sleep(0)

    def erased_until(self, client: bytes) -> int:
        """Return up to which moment a client is erased, in nanoseconds of POSIX time; 0 if it is not."""
        return self.node.table.erased_until(client)

    def value_of(self, client: bytes) -> tuple[bytes, int, int] | None:
        """Return a client's AT line, its time, and the POSIX milliseconds when it is forgotten (0: never)."""
        entry = self.node.table.get(client)
        rules = self.node.rules
        if entry is None or rules.is_forgotten(entry):
            return None
        expires = (received(entry.line) + rules.age) // _MILLISECOND if rules.age else 0
        return entry.line, entry.nanoseconds, expires

    async def has_room(self) -> None:
        """Wait until neighbours have read most of what was sent to them."""
        while self._peers.unsent > _UNSENT_BYTES:  # noqa: ASYNC110 - sockets do not tell
            await asyncio.sleep(_LOOK_SECONDS)

    @property
    def unsent(self) -> int:
        """Bytes that wait for neighbours."""
        return self._peers.unsent

    async def hear_out(self, seconds: float) -> None:
        """Handle the last lines of neighbours that have left."""
        deadline = self._loop.time() + seconds
        heard = -1
        while heard != self.heard and self._loop.time() < deadline:
            heard = self.heard
            await asyncio.sleep(5 * _LOOK_SECONDS)

    async def part(self, seconds: float) -> bool:
        """Close the links when neighbours have received everything; return whether they have."""
        await self._peers.flush(self._loop.time() + seconds)
        await self._peers.leave()
        return not self._peers.unsent and not self._peers.linger
