"""All clients of one server, over all transports. `max_connections` limits their number, `[rates]` what each of them and
each address may ask, and they are drained together when the server stops.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence, Sized
from typing import Protocol

from proxyherd.config.rates import RateSettings
from proxyherd.config.schema import Limits
from proxyherd.config.token_keys import TokenKey
from proxyherd.core.buckets import Allowance, Allowances, ConnectionLimit, Usage
from proxyherd.core.conversation import Ending, Stage
from proxyherd.core.engine import Client
from proxyherd.core.framing import Line
from proxyherd.core.reply import Reply
from proxyherd.core.ticks import seconds_to_moment
from proxyherd.core.turn import Turn
from proxyherd.net.listening import host_of, spell_address
from proxyherd.net.networks import Counted
from proxyherd.net.tls import Contexts
from proxyherd.telemetry.observer import Observer


class ConnectedClient(Client, Protocol):
    """One client's connection, over any transport. `via`: the protocol that it speaks; `name`: its address; `allowance`:
    what it may ask, from `Clients.admit` to `Clients.forget`; None: nothing is counted.
    """

    name: str
    via: str
    allowance: Allowance | None

    def check(self, now: float) -> None:
        """Close if the client is idle or does not read. `now` is the event loop's time."""

    def drain(self) -> None:
        """Read no more; close after the answers to what was read."""

    def end(self, reason: str) -> None:
        """Close at once."""


class Spoken(Protocol):
    """A conversation with a client, whatever they speak. `Conversation` says what its members mean."""

    stage: Stage
    reason: str
    reads: bool
    more: bool

    @property
    def owed(self) -> Sized: ...
    def owe(self, commands: Iterable[tuple[Line, Reply]], /) -> None: ...
    @property
    def gone(self) -> bool: ...
    @property
    def waits(self) -> bool: ...
    def receive_data(self, data: bytes) -> None: ...
    def receive_eof(self) -> bool: ...
    def pause_writing(self, now: float) -> None: ...
    def resume_writing(self) -> None: ...
    def lose(self, *, broken: bool) -> None: ...
    def take(self, most: int, now: float) -> list[Line]: ...
    def answer(self, answers: list[bytes]) -> bytes: ...
    def release(self) -> tuple[list[tuple[Line, Reply]], bytes]: ...
    def drain(self) -> None: ...
    def give_up(self, reason: str) -> list[tuple[Line, Reply]]: ...
    def abort(self, reason: str) -> None: ...
    def check(self, now: float, unsent: int) -> tuple[int, float] | None: ...
    def ending(self, now: float) -> Ending | None: ...
    def has_left(self, *, out: bool) -> bool: ...


class ClientListener(Protocol):
    """Accepts clients over one transport, and makes a `ConnectedClient` for each."""

    @property
    def key(self) -> str:
        """The key of its addresses in the herd's file, which also names them in the log."""

    async def listen(self, sock: socket.socket) -> None:
        """Accept clients from a bound socket."""

    def renew(self, contexts: Contexts, keys: Sequence[TokenKey]) -> None:
        """Accept future clients with other certificates, and by tokens of other keys."""

    def close(self) -> None:
        """Accept no more clients."""


class Clients:
    """All client connections of one server. A connection calls `admit` at its beginning and `forget` at its end."""

    def __init__(
        self, limits: Limits, turn: Turn, observer: Observer, rates: RateSettings | None = None
    ) -> None:
        self.limits = limits
        self.rates = rates or RateSettings()
        self.allowances = Allowances(self.rates)
        self._of_subjects = self.allowances.of_subjects()
        self._counted = Counted(self.rates.exempt)
        self.turn = turn
        self.observer = observer
        self.loop = asyncio.get_running_loop()
        self.connections: set[ConnectedClient] = set()
        self.gone = asyncio.Event()  # set when the server stops and the last client is gone
        self._sweep_seconds = min(max(min(limits.idle_seconds, limits.slow_reader_seconds) / 10, 0.05), 5.0)
        self._sweep_later()

    @property
    def room(self) -> int:
        """How many more clients may connect."""
        return self.limits.max_connections - len(self.connections)

    def accepts(self, peer: object, *, named: bool = False) -> bool:
        """Return whether a new connection from a socket's address is accepted; the log has why not. `named`: a header has
        named it.
        """
        address = self._counted.key(host_of(peer), named)
        limit = self.allowances.connect(address, self.loop.time()) if address is not None else ""
        if limit:
            self._refuse(spell_address(peer), limit)
        return not limit

    def admit(self, connection: ConnectedClient, host: str = "") -> bool:
        """Add a connection. `host`: the address that it counts for. Return whether there is room for it; otherwise it must
        close.
        """
        if self.room <= 0:
            most = self.limits.max_connections
            self.observer.connections.refused(
                connection.name, "max_connections", f"{most} connections are open, as many as max_connections"
            )
            return False
        if limit := self.limit_of_connections(host):
            self._refuse(connection.name, limit)
            return False
        self.enter(connection, host)
        return True

    def enter(
        self, connection: ConnectedClient, host: str, subject: bytes | None = None, *, named: bool = False
    ) -> None:
        """Add a connection without asking whether there is room for it. `host`: as above; `subject`: of its token;
        `named`: a header has named the address.
        """
        if (address := self._counted.key(host, named)) is not None:
            connection.allowance = self.allowances.enter(address, self.loop.time(), subject)
        elif subject is not None:
            connection.allowance = self._of_subjects.enter(b"", self.loop.time(), subject)
        self.connections.add(connection)
        self.observer.connections.opened(connection.name, connection.via, len(self.connections))

    def asker(
        self, connection: ConnectedClient, host: str, subject: bytes | None, *, named: bool = False
    ) -> Allowance | None:
        """Return what a request may ask, of this address, and of the subject of its token if it has one, over a
        connection that may be a proxy's. `named`: a header has named the address. None: nothing is counted.
        """
        if subject is None and not host:
            return connection.allowance
        if (address := self._counted.key(host, named)) is None:
            if subject is None:
                return None
            return self._of_subjects.ask(Usage(b""), b"", self.loop.time(), subject)
        own = connection.allowance.own if connection.allowance is not None else Usage(b"")
        return self.allowances.ask(own, address, self.loop.time(), subject)

    def limit_of_connections(self, host: str) -> ConnectionLimit:
        """Return the limit that one more connection of an address would exceed, or ""."""
        if (address := self._counted.key(host)) is None:
            return ""
        return self.allowances.full(self.allowances.addresses.find(address, self.loop.time()))

    def _refuse(self, name: str, limit: ConnectionLimit) -> None:
        most = getattr(self.rates, limit)
        self.observer.connections.refused(name, limit, f"its address has reached {limit}, {most:g}")

    def forget(self, connection: ConnectedClient, reason: str) -> None:
        """Remove a connection that has ended for this reason."""
        self.connections.discard(connection)
        self._end_if_empty()
        if connection.allowance is not None:
            connection.allowance.leave(self.loop.time())
            connection.allowance = None
        self.turn.client_left(connection)
        self.observer.connections.closed(connection.name, connection.via, reason, len(self.connections))

    def drain(self) -> None:
        """Take no more commands: answer what was read, then close."""
        self._sweeper.cancel()
        for connection in tuple(self.connections):
            connection.drain()
        self._end_if_empty()

    def abort(self) -> None:
        """End every connection at once."""
        for connection in tuple(self.connections):
            connection.end("server stops")

    def _end_if_empty(self) -> None:
        if self._sweeper.cancelled() and not self.connections:
            self.gone.set()

    def _sweep_later(self) -> None:
        seconds = seconds_to_moment(self.loop.time(), self._sweep_seconds)
        self._sweeper = self.loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        """Close clients that are idle or do not read."""
        self._sweep_later()
        now = self.loop.time()
        for connection in tuple(self.connections):
            try:
                connection.check(now)
            except Exception as error:  # noqa: BLE001 - the others are checked
                self.observer.fault("a client cannot be looked at", error)
                connection.fail()
