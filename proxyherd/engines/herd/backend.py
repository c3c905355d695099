"""Puts the engine `herd` together: the table, its journal, and the links that keep the tables of the herd equal."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from proxyherd.config.herd_file import PEER_LINE_SLACK, Herd, Server
from proxyherd.config.schema import Limits
from proxyherd.config.secrets import Secrets
from proxyherd.core.area_searches import AreaSearches
from proxyherd.core.evictions import EvictingTable
from proxyherd.core.flood_paths import spare_copies
from proxyherd.core.follows.follows import Follows
from proxyherd.core.handshake import Terms
from proxyherd.core.node import Node
from proxyherd.core.table import Room, Table
from proxyherd.engines.herd.delays import Delays
from proxyherd.engines.herd.durability import Durability
from proxyherd.engines.herd.engine import HerdEngine
from proxyherd.engines.herd.journal import Journal
from proxyherd.engines.herd.mark import Mark
from proxyherd.engines.herd.peers import Peers
from proxyherd.net.binding import Binder
from proxyherd.net.tls import Contexts
from proxyherd.telemetry.observer import Observer

_LIMITS = Limits()


def make_table(secrets: Secrets, limits: Limits = _LIMITS) -> Table:
    """Return an empty table. The key of its digests comes from the herd's secret."""
    key = hashlib.blake2b(secrets.table, digest_size=32, person=b"proxyherd table").digest()
    if limits.on_full == "evict":
        return EvictingTable(key, Room(limits.max_clients, limits.max_table_bytes))
    return Table(key)


def make_terms(herd: Herd, server: Server, secrets: Secrets, node: Node) -> Terms:
    """Return the parameters of a server's links. The key of the table of its `node` stays, even if the secrets change."""
    return Terms(
        name=server.name,
        neighbours=frozenset(server.neighbours),
        secrets=secrets.accepted,
        line_bytes=herd.limits.max_line_bytes + PEER_LINE_SLACK,
        lead=herd.limits.clock_lead,
        fingerprint=node.table.fingerprint,
        contact=node.contact,
        settings=tuple(settings_of_all(herd)),
        heartbeat=herd.timing.heartbeat_seconds,
        handshake=herd.timing.handshake_seconds,
    )


def settings_of_all(herd: Herd) -> Iterator[tuple[str, str]]:
    """Yield the settings that neighbours compare when they link: those with which tables would differ, or erased clients
    might come back, if they were not the same on all servers.
    """
    yield "tombstone_seconds", str(herd.erasure.tombstone_seconds).removesuffix(".0")
    yield "on_full", herd.limits.on_full
    if herd.limits.on_full == "evict":  # otherwise they only say how much a server takes
        yield "max_clients", str(herd.limits.max_clients)
        yield "max_table_bytes", str(herd.limits.max_table_bytes)


class HerdBackend:
    """The engine `herd` with all that it needs: the daemon starts and stops it."""

    def __init__(
        self,
        herd: Herd,
        server: Server,
        secrets: Secrets,
        contexts: Contexts,
        state: Path,
        limits: Limits,
        observer: Observer,
        binder: Binder,
        wake: Callable[[], None],
    ) -> None:
        self._herd = herd
        self._server = server
        self._binder = binder
        self._observer = observer
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = loop = asyncio.get_running_loop()
        self._replayed = False
        self.tick_at = -math.inf
        """When `tick` has something to do at the earliest, on the loop's clock."""
        self.table = make_table(secrets, limits)
        self._node = Node(
            server.name,
            self.table,
            limits,
            herd.timing,
            alone=not server.neighbours,
            now=loop.time(),
            erasure=herd.erasure,
            spare_copies=spare_copies(herd.graph, server.name),
        )
        self._node.begin_replay()
        line_bytes = limits.max_line_bytes + PEER_LINE_SLACK
        journal = Journal(
            state / "journal", line_bytes=line_bytes, rewrite_bytes=herd.durability.rewrite_bytes
        )
        journal.start()
        self._durability = Durability(
            journal, Mark(state / "journal.mark"), self._node, herd.durability, observer, herd.erasure
        )
        self.engine = HerdEngine(
            self._node,
            self._durability,
            wake,
            later=Delays(
                loop,
                lambda: self.engine.pass_on(loop.time()),
                self._settle,
                lambda: self.engine.send_spare(loop.time()),
            ),
        )
        self.peers = Peers(
            herd,
            server,
            make_terms(self._herd, self._server, secrets, self._node),
            self._node,
            self.engine,
            observer,
            contexts,
        )

    @property
    def areas(self) -> AreaSearches:
        """What searches the table."""
        return self.engine.areas

    @property
    def follows(self) -> Follows:
        """What tells followers of changes of the table."""
        return self.engine.follows

    def erased_until(self, name: bytes) -> int | None:
        """Return up to which moment an ID was erased; 0: never; None: the journal is being replayed, or lacks records that
        neighbours have.
        """
        return None if self._node.all_wait else self.table.erased_until(name)

    def start(self, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        """Start the background tasks; call when the server listens for clients."""
        self._tasks = [spawn(self._durability.watch()), spawn(self._join())]

    async def _join(self) -> None:
        """Replay the journal, then link with the neighbours: the records that they ask for must be in the table."""
        await self._durability.replay()
        self._node.start(self._loop.time(), lacks=bool(self._durability.lacks))
        self.engine.wake()  # for the queries that have waited
        await self._binder.listen("peers", self._server.peers, self.peers.listener.listen)
        self.peers.dial()
        self._replayed = True
        await self._durability.keep()

    def _settle(self) -> None:
        """Write what has waited. Faults are only logged: this may run in a turn, or while a neighbour's bytes are read."""
        try:
            if notes := self.engine.settle():
                self._observer.note(notes)
                self._observer.end_turn()
        except Exception as error:  # noqa: BLE001 - the turn goes on, and the connection stays
            with contextlib.suppress(Exception):  # it may be the log that fails
                self._observer.fault("what neighbours have told cannot be written", error)

    def tick(self) -> bool:
        """Let time pass on the links. Return whether the start is over, even if something fails now."""
        links = self._replayed and not self.peers.parting
        self.tick_at = self.peers.tick(self._loop.time()) if links else -math.inf
        return self._replayed and self._node.ready

    def renew(self, secrets: Secrets, contexts: Contexts) -> None:
        """Use other secrets and certificates for future links."""
        self.peers.renew(make_terms(self._herd, self._server, secrets, self._node), contexts)

    @property
    def trouble(self) -> str:
        """Why the server is not ready; empty if it is."""
        if not self._replayed:
            return f"replaying the journal: {self._durability.replayed:.0%}"
        if self._durability.failing:
            return f"the journal cannot be written: {self._durability.failing}"
        return "" if self._node.ready else "catching up"

    def figures(self) -> dict[str, int]:
        """Update the metrics that no event updates. Return the figures for the log line that says the server is ready."""
        clients = len(self.table)
        self._observer.process.clients.set(clients)
        self._observer.table.evicted(self.table.evicted, clients)
        self._observer.table.index(self._node.searches.indexed or 0, len(self.engine.areas))
        follows = self.engine.follows
        self._observer.follows.state(len(follows), *follows.counts, follows.take_told())
        self._observer.erasures.state(len(self.table.tombstones), self._node.erasures.lines)
        return {"clients": clients, "links": len(tuple(self._node.linked))}

    async def stop(self, clients_gone: Awaitable[None], deadline: float) -> None:
        """Close the clients whose queries wait, then the links, and bring everything to disk.

        Until `deadline`, on the loop's clock, wait for the neighbours to read the updates that were sent to them: if
        this server is to be removed, these may be the only other copies.
        """
        self.engine.let_go()
        await clients_gone
        await self.peers.flush(deadline)
        await self.peers.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._settle()
        await self._durability.close()
