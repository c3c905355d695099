"""The client listener: one connection a client, one answer a line, in order.

A connection reads only as much as it can answer: while answers wait, for Places or for a slow reader, what the
client pipelines stays in the socket. A client may close its sending half, and still gets all its answers. Idle
clients, slow readers, clients beyond `max_connections`, and whoever sends an HTTP request are disconnected; the log
says why.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import deque
from collections.abc import Iterable
from typing import Final, cast

from proxyherd.config.schema import Limits
from proxyherd.core.framing import LineFramer, Overlong
from proxyherd.core.reply import Reply
from proxyherd.net.listening import Listener, spell, takes_more
from proxyherd.server.turn import Turn
from proxyherd.telemetry.observer import Observer

_READ_AHEAD: Final = 65_536
"""Bytes received and not yet answered past which a connection is not read; more where a line may be longer."""

_HANDSHAKE_SECONDS: Final = 10.0
"""For a client's TLS handshake: a slow line has its time, and who stalls is gone soon."""

_MAX_HANDSHAKES: Final = 512
"""TLS handshakes of clients under way at once; they count among `max_connections`. Each takes some 60 KiB."""

_QUIET_SECONDS: Final = 2.0
"""How long after its last line a client is taken for busy when the server stops."""

_LINGER_SECONDS: Final = 0.5
"""How long a busy client is then read, and not heard, until it closes too. A socket closed with bytes unread is
reset, and takes the answers with it that are under way. But a phone that has just lost its network closes nothing,
and until the server has gone and come back nobody is let in. Who has not taken all its answers keeps its time."""

_UNFINISHED_SECONDS: Final = 5.0
"""How long a line may stand without its LF before the log has an event. Packets of one line come sooner, also those that
were lost on the way once or twice."""

_LOOK_SECONDS: Final = 0.05
"""Between two looks at whether all that was written has left the process."""


class Clients:
    """All client connections of one server."""

    def __init__(
        self,
        limits: Limits,
        turn: Turn,
        observer: Observer,
        context: ssl.SSLContext | None,
        *,
        drain_seconds: float,
    ) -> None:
        self.limits = limits
        self.turn = turn
        self.observer = observer
        self.loop = loop = asyncio.get_running_loop()
        self.listener = Listener(
            lambda: Connection(self),
            context,
            backlog=4_096,
            handshake_seconds=_HANDSHAKE_SECONDS,
            # Flushing is part of it, so it ends no connection that the sweep or the drain would leave alone.
            shutdown_seconds=max(limits.slow_reader_seconds, drain_seconds),
            room=lambda: min(_MAX_HANDSHAKES, limits.max_connections - len(self.connections)),
            refused=observer.client_refused,
        )
        self.connections: set[Connection] = set()
        self.gone = asyncio.Event()  # set when the server stops and the last client is gone
        self.most_owed = limits.max_answers_outstanding
        self.read_ahead = max(_READ_AHEAD, 2 * limits.max_line_bytes)
        self._sweep_seconds = min(max(min(limits.idle_seconds, limits.slow_reader_seconds) / 10, 0.05), 5.0)
        self._sweeper = loop.call_later(self._sweep_seconds, self._sweep)

    def stop_listening(self) -> None:
        """Take no more connections, and no more commands: answer what was read, then close."""
        self._sweeper.cancel()
        self.listener.close()
        for connection in tuple(self.connections):
            connection.drain()
        self.forget(None)

    def forget(self, connection: Connection | None) -> None:
        """Count a connection out."""
        if connection is not None:
            self.connections.discard(connection)
        if self._sweeper.cancelled() and not self.connections:
            self.gone.set()

    def abort(self) -> None:
        """End every connection at once."""
        for connection in tuple(self.connections):
            connection.end("server stops")

    def _sweep(self) -> None:
        """Let go who is idle or does not read."""
        self._sweeper = self.loop.call_later(self._sweep_seconds, self._sweep)
        now = self.loop.time()
        for connection in tuple(self.connections):
            try:
                connection.check(now)
            except Exception as error:  # noqa: BLE001 - the others are looked at
                self.observer.fault("a client cannot be looked at", error)
                connection.fail()


class Connection(asyncio.Protocol):
    """One client."""

    __slots__ = (
        "_asks",
        "_blocked_at",
        "_clients",
        "_drains",
        "_eof",
        "_framer",
        "_heard",
        "_lingers",
        "_reading",
        "_reason",
        "_transport",
        "_unfinished_at",
        "_unsent",
        "label",
        "name",
        "owed",
        "queued",
    )

    def __init__(self, clients: Clients) -> None:
        self.name = ""
        self.label = b""
        self.owed: deque[tuple[bytes | Overlong, Reply]] = deque()
        self.queued = False
        self._clients = clients
        self._framer = LineFramer(clients.limits.max_line_bytes, ends_at_http=True)
        self._transport: asyncio.Transport | None = None
        self._heard = clients.loop.time()  # the last whole line
        self._asks = False  # lines were taken, and what they are answered with is not here yet
        self._reading = True
        self._eof = False
        self._drains = False
        self._lingers = False
        self._blocked_at = 0.0  # since when the reader has been too slow; 0: it is not
        self._unsent = 0
        self._unfinished_at = 0.0  # when a line without LF was first seen; inf: the log has one
        self._reason = "closed by client"

    # What asyncio tells. -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, or turn the client away."""
        transport = cast("asyncio.Transport", transport)
        clients = self._clients
        peer = transport.get_extra_info("peername")
        self.name = spell(peer)
        self.label = self.name.encode()
        if len(clients.connections) >= clients.limits.max_connections:
            most = clients.limits.max_connections
            clients.observer.client_refused(
                self.name, f"{most} connections are open, as many as max_connections"
            )
            transport.abort()
            return
        self._transport = transport
        transport.set_write_buffer_limits(high=clients.limits.write_buffer_bytes)
        clients.connections.add(self)
        clients.observer.client_opened(self.name, len(clients.connections))

    def data_received(self, data: bytes) -> None:
        """Take in what arrived; it is answered in this turn."""
        if self._transport is None or self._drains:
            return
        if self._framer.receive(data) > self._clients.read_ahead and self._reading:
            self._reading = False
            self._transport.pause_reading()
        self._clients.turn.client_said(self)

    def eof_received(self) -> bool:
        """Keep the sending half open until every answer is out."""
        self._eof = True
        if self._transport is None or self._transport.get_extra_info("ssl_object") is not None:
            return False  # inside TLS, the end of one direction is the end of both
        self._clients.turn.client_said(self)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        if self._transport is None:
            return
        self._transport = None
        clients = self._clients
        clients.forget(self)
        clients.turn.client_left(self)
        if exc is not None and self._reason == "closed by client":
            self._reason = "broken by client"
        clients.observer.client_closed(self.name, self._reason, len(clients.connections))

    def pause_writing(self) -> None:
        """The client reads too slowly: read no more of its commands for now."""
        self._blocked_at = self._clients.loop.time()

    def resume_writing(self) -> None:
        """The client has caught up with reading."""
        self._blocked_at = 0.0
        self._clients.turn.client_said(self)

    @property
    def gone(self) -> bool:
        """Whether nobody is there any more to be answered."""
        return self._transport is None or self._lingers

    # What a turn wants. --------------------------------------------------------------------------------------

    def take(self, most: int, now: float) -> list[bytes | Overlong]:
        """Return lines to answer now."""
        transport = self._transport
        if transport is None or self._blocked_at or self._lingers:
            return []
        room = self._clients.most_owed - len(self.owed)
        if room < most:
            most = room
            if room <= 0:
                return []
        lines = self._framer.lines(most)
        if len(lines) >= most:
            self._clients.turn.client_said(self)  # there may be more; let others go first
        elif self._eof:
            lines += self._framer.end()
        if self._framer.ended:
            self._end_at_request(transport)
        if lines:
            self._heard = now
            self._asks = True
        if not self._reading:
            self._read_on(transport)
        return lines

    def _end_at_request(self, transport: asyncio.Transport) -> None:
        """Take nothing behind an HTTP request; close when all answers are out."""
        if not self._drains:
            self._reason, self._drains = "HTTP request", True
        if self._reading and not transport.is_closing():
            self._reading = False
            transport.pause_reading()

    def _read_on(self, transport: asyncio.Transport) -> None:
        framer = self._framer
        if framer.waiting <= self._clients.read_ahead and not framer.ended and not transport.is_closing():
            self._reading = True
            transport.resume_reading()

    def answer(self, answers: list[bytes]) -> None:
        """Write the answers to what was taken, in one write, where nothing else is owed."""
        transport, self._asks = self._transport, False
        if transport is None:
            return
        if answers:
            transport.write(b"\n".join([*answers, b""]))
        if self._eof or self._drains:
            self._close(transport)

    def owe(self, commands: Iterable[tuple[bytes | Overlong, Reply]]) -> None:
        """Take note of commands whose answers stand in their replies, or will."""
        self.owed.extend(commands)
        self._asks = False

    def release(self) -> list[tuple[bytes | Overlong, Reply]]:
        """Write the answers that are there, in order, in one write; return them.

        Those to a client that has gone are returned too: what it asked for was done, and the log tells it.
        """
        owed, transport = self.owed, self._transport
        answers: list[bytes] = []
        for _, reply in owed:
            if reply.answer is None:
                break
            answers.append(reply.answer)
        released = [owed.popleft() for _ in answers]
        if transport is None:
            return released
        if answers:
            if len(owed) + len(answers) >= self._clients.most_owed:
                self._clients.turn.client_said(self)
            answers.append(b"")
            transport.write(b"\n".join(answers))
        if not owed:
            self._close(transport)
        return released

    def _close(self, transport: asyncio.Transport) -> None:
        """End the connection if nothing more comes of it."""
        if self.queued:
            return
        if self._eof and (self._drains or not self._framer.waiting):
            transport.close()
        elif self._drains and not (self._framer.waiting and self._blocked_at):
            self._part(transport)

    def _part(self, transport: asyncio.Transport) -> None:
        """End the connection when all that was read is answered: at once if the client has been quiet."""
        if self._lingers:
            return
        quiet = self._clients.loop.time() - self._heard > _QUIET_SECONDS
        if quiet and self._reading and transport.can_write_eof():
            transport.close()
        else:
            self._linger(transport)

    def _linger(self, transport: asyncio.Transport) -> None:
        """Take no more commands, and end the connection when the client has what was written."""
        self._lingers = True
        if not transport.can_write_eof():
            transport.close()  # flushes, says close_notify, and waits for the client's
        else:
            transport.write_eof()
            if not self._reading:
                self._reading = True
                transport.resume_reading()
        self._clients.loop.call_later(_LINGER_SECONDS - _LOOK_SECONDS, self._let_go, transport, False)

    def _let_go(self, transport: asyncio.Transport, was_out: bool) -> None:
        """End the connection as soon as nothing more waits in this process: the system delivers the rest."""
        if self._transport is None:
            return
        out = not transport.get_write_buffer_size() and takes_more(transport)
        # Twice: of a socket that takes more only since a moment ago, the buffer below TLS may not be empty yet.
        if out and was_out:
            transport.abort()
        else:
            self._clients.loop.call_later(_LOOK_SECONDS, self._let_go, transport, out)

    def give_up(self, reason: str) -> list[tuple[bytes | Overlong, Reply]]:
        """Close without the answers that are owed; return their commands."""
        owed = list(self.owed)
        self.owed.clear()
        if self._transport is not None and not self._lingers and not self._transport.is_closing():
            self._reason, self._drains = reason, True
            self._linger(self._transport)
        return owed

    # What the listener wants. --------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Let the client go if it is idle or does not read."""
        limits = self._clients.limits
        assert self._transport is not None
        if self._blocked_at:
            unsent = self._transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._blocked_at = now
            self._unsent = unsent
            if now - self._blocked_at > limits.slow_reader_seconds:
                self.end("slow reader")
        elif not self.owed and not self._asks and now - self._heard > limits.idle_seconds:
            self.end("idle")
        else:
            self._look_for_unfinished(now)

    def _look_for_unfinished(self, now: float) -> None:
        """Log a line that waits for its LF, once a connection: its client may wait for an answer."""
        size = self._framer.waiting
        if not size or self.owed or self.queued:
            return
        if self._heard > self._unfinished_at:
            self._unfinished_at = now
        elif now - self._unfinished_at >= _UNFINISHED_SECONDS:
            self._clients.observer.line_unfinished(self.name, size, now - self._unfinished_at)
            self._unfinished_at = math.inf

    def drain(self) -> None:
        """Read no more; close when the answers to what was read are out."""
        self._reason = "server stops"
        self._drains = True
        self._clients.turn.client_said(self)

    def end(self, reason: str) -> None:
        """End the connection at once."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def fail(self) -> None:
        """End the connection at once, and forget it: what was done for it has raised."""
        if (transport := self._transport) is not None:
            self._reason = "internal error"
            self.connection_lost(None)  # which a transport that raises may never tell
            transport.abort()
