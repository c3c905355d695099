"""The client listener: one connection for each client, one answer for each line, in order.

A connection reads only as much as it can answer. While answers wait, for Places or for a slow reader, more lines of the
client stay in the socket. So they do while it is over one of its rates (`core/buckets.py`). A client may close its
sending half, and still gets all its answers. Idle clients, slow readers, clients beyond `max_connections`, and clients
that send an HTTP request are disconnected; the log says why.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Final, cast

from proxyherd.config.token_keys import TokenKey
from proxyherd.core.buckets import PAY_COMMANDS, Allowance
from proxyherd.core.conversation import (
    AWAIT_SECONDS,
    LINGER_SECONDS,
    LOOK_SECONDS,
    OPEN,
    Conversation,
    Ending,
)
from proxyherd.core.framing import Line
from proxyherd.core.reply import Reply
from proxyherd.net.listening import Listener, host_of, spell_address, takes_more
from proxyherd.net.networks import is_loopback
from proxyherd.net.tls import Contexts
from proxyherd.server.clients.clients import Clients, Spoken
from proxyherd.telemetry.frequent import label

_HANDSHAKE_SECONDS: Final = 10.0
"""For a client's TLS handshake: enough for a slow line, and a stalled client is gone soon."""

_MAX_HANDSHAKES: Final = 512
"""TLS handshakes of clients at the same time, at most. They count towards `max_connections`. Each takes some 60 KiB."""


class TcpListener:
    """Accepts clients that speak the line protocol, over TCP or TLS. `loopback_only`: no others than this machine's."""

    key = "clients"

    def __init__(
        self,
        clients: Clients,
        context: ssl.SSLContext | None,
        *,
        drain_seconds: float,
        loopback_only: bool = False,
    ) -> None:
        self._loopback_only = loopback_only
        self._refused = clients.observer.connections.refused
        self._listener = Listener(
            lambda: line_connection(clients, tls=context is not None),
            context,
            backlog=4_096,
            handshake_seconds=_HANDSHAKE_SECONDS,
            # The shutdown includes flushing, so it must not end a connection before the sweep or the drain would.
            shutdown_seconds=max(clients.limits.slow_reader_seconds, drain_seconds),
            room=lambda: min(_MAX_HANDSHAKES, clients.room),
            refused=clients.observer.connections.refused,
            admits=lambda peer: self._admits(peer) and clients.accepts(peer),
        )

    def _admits(self, peer: object) -> bool:
        """Whether a connection comes from where it may come from; the log has it if not."""
        if not self._loopback_only or is_loopback(host_of(peer)):
            return True
        self._refused(spell_address(peer), "lines", 'lines = "loopback" in [auth] lets only this machine in')
        return False

    async def listen(self, sock: socket.socket) -> None:
        """Accept clients from a bound socket."""
        await self._listener.listen(sock)

    def renew(self, contexts: Contexts, _: Sequence[TokenKey]) -> None:
        """Accept future clients with other certificates. There are no tokens here."""
        self._listener.renew(contexts.clients)

    def close(self) -> None:
        """Accept no more clients."""
        self._listener.close()


class ClientConnection(asyncio.Protocol):
    """One client's connection: carries bytes between its conversation and a transport."""

    __slots__ = (
        "_asker",
        "_clients",
        "_conversation",
        "_meter",
        "_reading",
        "_timer",
        "_transport",
        "allowance",
        "label",
        "name",
        "owe",
        "owed",
        "queued",
        "via",
    )

    besides = unpaid = 0

    def __init__(self, clients: Clients, conversation: Spoken, via: str) -> None:
        self.name = ""
        self._asker = ""  # who asks now: others, where a proxy speaks for many
        self.via = via
        self.label = b""
        self.queued = False
        self.allowance: Allowance | None = None
        self._meter: Allowance | None = None  # the same, where lines are counted here
        self._timer: asyncio.TimerHandle | None = (
            None  # the client is over a rate: no lines are taken until then
        )
        self._clients = clients
        self._conversation = conversation
        self.owe, self.owed = conversation.owe, conversation.owed
        self._transport: asyncio.Transport | None = None
        self._reading = True

    # Calls from asyncio. -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, or turn the client away."""
        transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.name = self._asker = spell_address(peer)
        self.label = label(self.name, self.via)
        if not self._clients.admit(self, self._host(peer)):
            self._conversation.abort("refused")
            transport.abort()
            return
        self._transport = transport
        transport.set_write_buffer_limits(high=self._clients.limits.write_buffer_bytes)
        self._count()

    def _host(self, peer: object) -> str:
        """Return the address for which the connection counts, "" if for none."""
        return host_of(peer)

    def _count(self) -> None:
        """Count the client's lines from now on. The first of them wait if there are too many new connections."""
        self._meter = self.allowance
        if self._meter is not None and (seconds := self._meter.wait(self._clients.loop.time())) > 0.0:
            self._wait(self._meter, seconds)

    def data_received(self, data: bytes) -> None:
        """Take in what arrived. A turn answers it."""
        conversation = self._conversation
        conversation.receive_data(data)
        if conversation.reads is not self._reading:
            self._read_or_pause()
        if conversation.more:
            self._clients.turn.client_said(self)

    def eof_received(self) -> bool:
        """Keep the sending half open until every answer is out."""
        stays = self._conversation.receive_eof()
        if stays:
            self._clients.turn.client_said(self)
        return stays

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        if self._transport is None:
            return
        self._transport = None
        self._end_wait()
        self._conversation.lose(broken=exc is not None)
        self._clients.forget(self, self._conversation.reason)

    def pause_writing(self) -> None:
        """Note that the client reads too slowly."""
        self._conversation.pause_writing(self._clients.loop.time())

    def resume_writing(self) -> None:
        """Note that the client has read, and more can be written."""
        self._conversation.resume_writing()
        self._clients.turn.client_said(self)

    # Calls from a turn. --------------------------------------------------------------------------------------

    @property
    def gone(self) -> bool:
        """Whether the client is no longer there to get answers."""
        return self._conversation.gone

    @property
    def payer(self) -> str:
        """Who pays for the queries of places: its address, or the connection itself if that is exempt."""
        return self.name if self.allowance is None else self.allowance.payer

    def may_ask_places(self, now: float) -> bool:
        """Return whether a query of places may begin, and count it then."""
        return self.allowance is None or self.allowance.may_ask_places(now)

    @property
    def waits(self) -> bool:
        """Whether something is still to be answered."""
        return self._conversation.waits

    @property
    def reason(self) -> str:
        """Why the connection has ended, or will end."""
        return self._conversation.reason

    def take(self, most: int, now: float) -> list[Line]:
        """Return lines to answer now."""
        meter = self._meter
        if meter is not None and meter.used >= PAY_COMMANDS and self._must_wait(meter, now):
            return []
        conversation = self._conversation
        lines = conversation.take(most, now)
        if meter is not None:
            meter.used += len(lines) + self.besides - self.unpaid
        if conversation.more:
            self._clients.turn.client_said(self)  # there may be more; others come first
        if conversation.reads is not self._reading:
            self._read_or_pause()
        return lines

    def answer(self, answers: list[bytes]) -> None:
        """Write the answers to the lines that were taken, in one write, if no other answer is owed."""
        conversation, transport = self._conversation, self._transport
        data = conversation.answer(answers)
        if data and transport is not None:
            transport.write(data)
        if conversation.stage is not OPEN:
            self._follow()

    def release(self) -> list[tuple[Line, Reply]]:
        """Write the answers that are ready, in order, in one write; return their commands."""
        conversation = self._conversation
        released, data = conversation.release()
        if conversation.more:
            self._clients.turn.client_said(self)
        if data or conversation.stage is not OPEN:
            self._send(data)
        return released

    def give_up(self, reason: str) -> list[tuple[Line, Reply]]:
        """Close without the answers that are owed; return their commands."""
        unanswered = self._conversation.give_up(reason)
        self._follow()
        return unanswered

    def fail(self) -> None:
        """End the connection at once, and forget it: work for it has raised an exception."""
        if (transport := self._transport) is not None:
            self._conversation.abort("internal error")
            self.connection_lost(None)  # a transport that raises may never call it
            transport.abort()

    # Calls from `Clients`. -----------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Close if the client is idle or does not read."""
        if self._timer is not None:
            return  # it may have sent something that is not read yet
        assert self._transport is not None
        unfinished = self._conversation.check(now, self._transport.get_write_buffer_size())
        if unfinished is not None:
            self._clients.observer.connections.line_unfinished(self.name, *unfinished)
        if self._conversation.stage is not OPEN:
            self._follow()

    def drain(self) -> None:
        """Read no more; close when the answers to what was read are out."""
        self._end_wait()
        self._meter = None  # that is answered without delay
        self._conversation.drain()
        self._clients.turn.client_said(self)

    def end(self, reason: str) -> None:
        """End the connection at once."""
        self._conversation.abort(reason)
        self._follow()

    # Rates. --------------------------------------------------------------------------------------------------

    def _must_wait(self, meter: Allowance, now: float) -> bool:
        """Pay for the lines that were taken. Return whether the next ones must wait."""
        if self._timer is None and (seconds := meter.pay(now)) > 0.0:
            self._wait(meter, seconds)
        return self._timer is not None

    def _wait(self, allowance: Allowance, seconds: float) -> None:
        """Take no lines for a while, and read no more: what the client sends stays in the socket."""
        self._end_wait()
        self._timer = self._clients.loop.call_later(seconds, self._go_on)
        if self._meter is not None:
            self._meter.used = PAY_COMMANDS  # so that `take` asks
        self._clients.loop.call_soon(self._read_or_pause)  # a new transport begins to read a moment later
        self._clients.observer.connections.waits(self._asker, self.via, allowance.limit, seconds)

    def _go_on(self) -> None:
        self._end_wait()
        self._read_or_pause()
        self._clients.turn.client_said(self)

    def _end_wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if self._meter is not None:
                self._meter.used = 0
            self._clients.observer.connections.goes_on()

    # Effects of the conversation. ----------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        transport = self._transport
        if data and transport is not None:
            transport.write(data)
        if self._conversation.stage is not OPEN:
            self._follow()

    def _read_or_pause(self) -> None:
        transport, conversation = self._transport, self._conversation
        reads = conversation.reads and (self._timer is None or conversation.gone)
        if transport is not None and reads is not self._reading and not transport.is_closing():
            self._reading = reads
            if reads:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _follow(self) -> None:
        """Close the transport, or one side of it, if the conversation has ended."""
        transport = self._transport
        if transport is None:
            return
        ending = self._conversation.ending(self._clients.loop.time())
        if ending is not None:
            self._end(transport, ending)

    def _end(self, transport: asyncio.Transport, ending: Ending) -> None:
        if ending is Ending.ABORT:
            transport.abort()
        elif ending is Ending.CLOSE:
            transport.close()
        elif ending is Ending.HALF_CLOSE:
            if transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()  # flushes, says close_notify, and waits for the client's
            if self._conversation.reads is not self._reading:
                self._read_or_pause()
            self._clients.loop.call_later(LINGER_SECONDS - LOOK_SECONDS, self._look)
        else:
            if self._conversation.reads is not self._reading:
                self._read_or_pause()
            self._clients.loop.call_later(AWAIT_SECONDS, transport.abort)

    def _look(self) -> None:
        """End the connection if all that was written has left; otherwise look again later."""
        transport = self._transport
        if transport is None:
            return
        out = not transport.get_write_buffer_size() and takes_more(transport)
        if self._conversation.has_left(out=out):
            transport.abort()
        else:
            self._clients.loop.call_later(LOOK_SECONDS, self._look)


def line_connection(clients: Clients, *, tls: bool = False) -> ClientConnection:
    """Return the connection of a client that speaks the line protocol."""
    return ClientConnection(clients, Conversation(clients.limits, tls=tls, now=clients.loop.time()), "lines")
