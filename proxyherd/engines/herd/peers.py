"""Sockets under the peer links: listen, dial, back off, replace.

A server dials each neighbour whose name sorts after its own, for ever, at each of its addresses. Pauses grow up to a
limit, with jitter, so that the servers of a herd don't dial all at once. An incoming connection is a stranger until its
link is proved, and the number of strangers is limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import secrets
import time
from collections.abc import Callable
from typing import Final, cast

from proxyherd.base.backoff import backoff
from proxyherd.config.address import Address
from proxyherd.config.herd_file import Herd, Server
from proxyherd.core.handshake import NONCE_BYTES, State, Terms
from proxyherd.core.link import BEAT, CLOSED, SILENT_HEARTBEATS, Link
from proxyherd.core.node import Node
from proxyherd.core.notes import LinkFailed
from proxyherd.core.ticks import seconds_ahead
from proxyherd.engines.herd.engine import HerdEngine
from proxyherd.engines.herd.neighbour_hosts import NeighbourHosts, canonical
from proxyherd.net.dialling import address_and_host, hosts_of
from proxyherd.net.listening import AcceptFailure, Listener
from proxyherd.net.low_water import LowWater, low_water
from proxyherd.net.tls import Contexts, dialling_options, dns_names, explain
from proxyherd.telemetry.observer import Observer

_READ_AHEAD: Final = 262_144
"""Received bytes that may wait to be handled, beside one line. With more, reading from the peer pauses."""

FIRST_PAUSE_SECONDS: Final = 0.05
"""The pause before a neighbour that did not answer is dialled again: about as long as a restart takes."""


class Peers:
    """All connections of one server with its neighbours."""

    def __init__(
        self,
        herd: Herd,
        server: Server,
        terms: Terms,
        node: Node,
        engine: HerdEngine,
        observer: Observer,
        contexts: Contexts,
    ) -> None:
        self.limits = herd.limits
        self.terms = terms
        self.node = node
        self.engine = engine
        self.observer = observer
        self.loop = asyncio.get_running_loop()
        self.connections: set[PeerConnection] = set()
        self._hosts = NeighbourHosts(one for name in server.neighbours for one in herd.servers[name].peers)
        self._herd = herd
        self._server = server
        self.contexts = contexts
        self.listener = Listener(
            lambda: PeerConnection(self, None),
            contexts.peers,
            backlog=128,
            handshake_seconds=herd.timing.handshake_seconds,
            shutdown_seconds=herd.timing.handshake_seconds,
            room=lambda: self.limits.max_peer_connections - self.strangers,
            refused=self._refused,
        )
        self._dialling: list[asyncio.Task[None]] = []
        self.parting = False  # whether the server stops

    def renew(self, terms: Terms, contexts: Contexts) -> None:
        """Use other secrets and certificates for future connections. End the links of revoked certificates."""
        self.terms = terms
        self.contexts = contexts
        self.listener.renew(contexts.peers)
        for connection in self.connections:
            connection.check_certificate()
            if connection.link.state is CLOSED:
                self.node.closed(connection.link)
        self.engine.wake()

    def dial(self) -> None:
        """Start to dial the neighbours that this server has to dial."""
        look_up = self._hosts.keep_looking_up(self._herd.timing.compare_seconds)
        self._dialling.append(self.loop.create_task(look_up))
        for name in self._server.neighbours:
            if name > self._server.name:
                self._dialling.append(self.loop.create_task(self._keep_dialling(name)))

    def tick(self, now: float) -> float:
        """Let time pass for every link. Call a few times per heartbeat, or not before what it returns: when there is
        something to do at the earliest.
        """
        self.node.rules.clock = time.time_ns()  # locations become too old even if nothing happens
        ahead, due = seconds_ahead(now, self.terms.heartbeat), math.inf
        for connection in tuple(self.connections):
            try:
                connection.look(now)
                link = connection.link
                due = min(due, link.tick(now, ahead))
                if link.state is CLOSED:
                    self.node.closed(link)
            except Exception as error:  # noqa: BLE001 - time passes for the others
                connection.fail(error)
        due = min(due, self.node.tick(now))
        self.engine.beat(now)
        return due

    def part(self) -> None:
        """Stop dialling and listening, and close every link: see `linger`."""
        self.parting = True
        for task in self._dialling:
            task.cancel()
        self.listener.close()
        for connection in tuple(self.connections):
            connection.link.close("server stops")
            self.node.closed(connection.link)
        self.engine.wake()

    async def flush(self, deadline: float) -> None:
        """Wait until what is to be passed on was sent to the neighbours, and they have read it."""
        await self._while(lambda: self.unsent > 0 or bool(self.node.news), deadline)

    async def leave(self) -> None:
        """Close every link, and wait until the neighbours have read everything."""
        self.part()
        silence = SILENT_HEARTBEATS * self.terms.heartbeat
        await self._while(lambda: self.linger, self.loop.time() + silence)

    async def _while(self, condition: Callable[[], bool], deadline: float) -> None:
        while condition() and self.loop.time() < deadline:  # noqa: ASYNC110 - sockets do not tell
            await asyncio.sleep(0.01)

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent to neighbours."""
        return sum(one.unsent for one in self.connections)

    @property
    def linger(self) -> bool:
        """Whether a neighbour has not closed its side yet. It does so when it has read everything."""
        return any(one.link.proved for one in self.connections)

    @property
    def strangers(self) -> int:
        """The number of incoming connections whose link is not proved."""
        return sum(one.is_stranger for one in self.connections)

    def make_room(self) -> None:
        """If there are too many strangers, close the oldest. Those that don't come from a neighbour's address are closed
        first, so a flood from elsewhere keeps no neighbour out.
        """
        if self.strangers > self.limits.max_peer_connections:
            strangers = (one for one in self.connections if one.is_stranger)
            oldest = min(strangers, key=lambda one: (one.host in self._hosts, one.link.opened))
            oldest.link.close("it was the oldest of more strangers than max_peer_connections")

    def _refused(self, address: str, _: AcceptFailure, reason: str) -> None:
        self.node.note(LinkFailed(None, dialled=False, reason=reason, address=address))
        self.engine.wake()

    async def _keep_dialling(self, neighbour: str) -> None:
        most = self._herd.timing.backoff_seconds
        while True:
            for pause in backoff(FIRST_PAUSE_SECONDS, most, random.Random()):  # noqa: S311 - no secret
                if await self._visit(neighbour) > most:
                    break  # the link has lasted: dial at once, and begin with short pauses again
                await asyncio.sleep(pause)

    async def _visit(self, neighbour: str) -> float:
        """Dial a neighbour's addresses one after another until a link is proved. Return when that link has ended: the
        seconds that it lasted, or 0 if there was none.
        """
        failures: list[str] = []
        for address in self._herd.servers[neighbour].peers:
            for host in await self._look_up(address, failures):
                connection = await self._connect(neighbour, address, host, failures)
                if connection is not None:
                    self._unreachable(neighbour, failures)
                    if await asyncio.shield(connection.ended):
                        return self.loop.time() - connection.link.opened
        self._unreachable(neighbour, failures)
        return 0.0

    async def _look_up(self, address: Address, failures: list[str]) -> list[str]:
        """Return all addresses of a name. Each is dialled by itself, so one that swallows packets does not take the time
        of the next.
        """
        try:
            async with asyncio.timeout(self._herd.timing.handshake_seconds):
                return await hosts_of(self.loop, address.host, address.port)
        except (OSError, TimeoutError, UnicodeError) as error:
            failures.append(f"{address}: {self._why(error)}")
            return []

    async def _connect(
        self, neighbour: str, address: Address, host: str, failures: list[str]
    ) -> PeerConnection | None:
        seconds = self._herd.timing.handshake_seconds
        tls = dialling_options(self.contexts.dialling, neighbour, seconds)
        connection, is_made = PeerConnection(self, neighbour), False
        try:
            async with asyncio.timeout(seconds):
                await self.loop.create_connection(lambda: connection, host, address.port, **tls)
            is_made = True
        except (OSError, TimeoutError) as error:
            failures.append(f"{address_and_host(address, host)}: {self._why(error)}")
            return None
        finally:
            if not is_made:  # not in time; it may have been made a moment later
                connection.give_up("")
        return connection

    def _why(self, error: Exception) -> str:
        seconds = self._herd.timing.handshake_seconds
        return explain(error) if str(error) else f"no connection within {seconds:g} s"

    def _unreachable(self, neighbour: str, failures: list[str]) -> None:
        """Note all failures as one, in sorted order. Name servers may change the order of addresses, and the log leaves
        out a failure only if it repeats the last one.
        """
        if failures:
            self.node.note(LinkFailed(neighbour, dialled=True, reason="; ".join(sorted(failures))))
            self.engine.wake()
            failures.clear()


class PeerConnection(asyncio.Protocol):
    """One connection with a peer: moves bytes between a socket and a link."""

    def __init__(self, peers: Peers, dial: str | None) -> None:
        self.link: Link  # made with the connection, so that TLS takes none of its time
        self.queued = False
        self.host: str  # the other's address, in its canonical spelling; likewise
        self.ended: asyncio.Future[bool] = peers.loop.create_future()
        """Done when the connection is gone. The result: whether its link was ever live."""
        self._peers = peers
        self._dial = dial
        self._time, self._hear_few = peers.loop.time, peers.engine.hear_few
        self._most_waiting = peers.limits.peer_queue_bytes
        self._transport: asyncio.Transport | None = None
        self._water = LowWater()  # while it is up, heartbeats don't wake the process
        self._only_beats = False  # whether what arrived last was a heartbeat
        self._reading = True
        self._lost = False  # the connection is gone
        self._broken = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start a link."""
        peers = self._peers
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.host = canonical(str(peer[0])) if isinstance(peer, tuple) else ""
        nonce, old = secrets.token_bytes(NONCE_BYTES), not peers.node.table.gone
        self.link = Link(peers.terms, dial=self._dial, nonce=nonce, now=peers.loop.time(), takes_old=old)
        self.link.address = self.host if self._dial is None else ""
        self._water = low_water(transport)
        if transport.get_extra_info("ssl_object") is not None:
            self.link.certified = dns_names(transport.get_extra_info("peercert"))
            self.check_certificate()
        peers.connections.add(self)
        peers.make_room()
        peers.engine.add_link(self)

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        if self._transport is None:
            return 0
        return self._transport.get_write_buffer_size() + sum(map(len, [*self.link.out, *self.link.spare]))

    def check_certificate(self) -> None:
        """Let the link end, or not come up, if the other's certificate is revoked."""
        if self._transport is not None and self._peers.contexts.shows_revoked(self._transport):
            self.link.revoke()

    @property
    def is_stranger(self) -> bool:
        """Whether this is an incoming connection whose link is not proved yet."""
        return not self.link.dialled and self.link.state in {State.HELLO, State.PROVING}

    def data_received(self, data: bytes) -> None:
        """Take in what arrived. A turn handles it, unless it is little."""
        now = self._time()
        self._only_beats = data == BEAT
        if self._water.is_up and data.replace(BEAT, b""):
            self._water.drop()
        if self._hear_few(self, data, now, time.time_ns()):
            return
        self.link.receive_data(data, now)
        most = _READ_AHEAD + self._peers.terms.line_bytes
        if self._reading and self._transport is not None and self.link.waiting > most:
            self._reading = False
            self._transport.pause_reading()
        self._peers.engine.peer_said(self)

    def look(self, now: float) -> None:
        """Read the heartbeats that have woken nobody. Let the next ones wake nobody, if the neighbour sends nothing else."""
        water, transport, link = self._water, self._transport, self.link
        if transport is None or transport.is_closing():
            return
        try:
            if water.is_up:
                data = water.take()
                if not data:
                    if now - link.heard > link.terms.heartbeat:  # else it does not matter yet
                        link.hear(now - water.age())
                elif data.replace(BEAT, b""):
                    self.data_received(data)
                else:
                    link.hear(now)
            elif self._only_beats and not self.queued and not link.serves:
                water.rise(len(BEAT))  # not during a walk: its DONE would fit under the mark
        except OSError as error:
            self.connection_lost(error)
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the next turn handle what is left, which may be a neighbour's last lines, and end the link."""
        self._transport = None
        if self._lost:
            return
        self._lost, self._broken = True, "" if exc is None else f"connection broke: {explain(exc)}"
        self._peers.engine.peer_said(self)

    def give_up(self, reason: str) -> None:
        """End the connection at once, if there is one. With an empty reason, nothing is logged here.

        If the making of a connection is cancelled just when it is made, uvloop never calls `connection_lost`, and every
        call of the transport fails.
        """
        if (transport := self._transport) is not None:
            self._transport, self._lost = None, True
            self.link.close(reason)
            self.heard()
            transport.abort()

    def fail(self, error: Exception) -> None:
        """End the connection at once: work for it has raised an exception."""
        self.give_up("internal error; the log has its traceback")
        with contextlib.suppress(Exception):  # it may be the log that fails
            self._peers.observer.fault(
                f"the connection with {self.link.peer or self.host} cannot be served", error
            )

    def heard(self) -> None:
        """Read on, or end the link if the connection is gone."""
        if not self._lost:
            self._read_on()
        if not self._lost or self.ended.done():
            return
        peers = self._peers
        peers.connections.discard(self)
        peers.engine.remove_link(self)
        self.ended.set_result(self.link.proved)
        if self._broken:
            self.link.close(self._broken)
        elif self.link.dialled and self.link.certified is not None and self.link.state is State.HELLO:
            # With TLS 1.3, the handshake ends for the dialler before the listener has checked its certificate.
            self.link.close("closed by the other; did it take this server's certificate? see its log")
        else:
            self.link.receive_eof()
        peers.node.closed(self.link)

    def release(self, now: float) -> None:
        """Write what the link has to send, in one write; end the connection if the link has ended."""
        link, transport = self.link, self._transport
        if transport is None or transport.is_closing():
            return
        if data := link.data_to_send(now):
            transport.write(data)
            if (waiting := transport.get_write_buffer_size()) > self._most_waiting:
                link.close(f"{waiting} bytes wait for it, more than peer_queue_bytes")
        if link.state is CLOSED:
            self._peers.node.closed(link)
            if not link.proved:
                transport.close()
            elif self._peers.parting:
                self._part(transport)
            else:  # it needs none of what it has not read
                transport.abort()

    def _part(self, transport: asyncio.Transport) -> None:
        """Close the sending side, and read on until the neighbour closes. A socket that is closed with unread bytes is
        reset, and then the neighbour loses what it has not read yet.
        """
        self._water.drop()
        if not transport.can_write_eof():  # inside TLS, where closing waits for the other too
            transport.close()
            return
        transport.write_eof()
        self._read_on()

    def _read_on(self) -> None:
        transport = self._transport
        if not self._reading and transport is not None and not transport.is_closing():
            self._reading = True
            transport.resume_reading()
