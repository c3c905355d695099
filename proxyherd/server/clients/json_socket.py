"""A client that speaks `proxyherd.json.v1` over a WebSocket: each message is an object, and gets one answer, in order."""

from __future__ import annotations

import time
from typing import Any, cast

from proxyherd.core.framing import Overlong
from proxyherd.core.reply import Reply
from proxyherd.net.listening import spell_address
from proxyherd.server.clients.web import WebClients
from proxyherd.server.clients.websocket import WebSocket
from proxyherd.telemetry.frequent import label
from proxyherd.web.answers import WebAnswer
from proxyherd.web.exchanges import Exchanges, WebExchange
from proxyherd.web.ops import Op, read_op


class JsonSocket:
    """One client: passes messages to a turn, and answers to the WebSocket."""

    __slots__ = (
        "_blocked_since",
        "_drains",
        "_exchanges",
        "_socket",
        "_unsent",
        "_web",
        "label",
        "name",
        "owe",
        "owed",
        "queued",
        "reason",
    )

    via = "websocket"

    def __init__(self, web: WebClients) -> None:
        self.name = ""
        self.label = b""
        self.queued = False
        self.reason = "closed by client"
        self._web = web
        self._exchanges = Exchanges()
        self.owe, self.owed = self._exchanges.owe, self._exchanges.owed
        self._socket: WebSocket | None = None
        self._blocked_since: float | None = None
        self._unsent = 0
        self._drains = False

    # Calls from the WebSocket. -------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether something is still to be answered."""
        return len(self._exchanges) > 0

    def connection_made(self, transport: Any) -> None:
        """Start, or turn the client away."""
        self.name = spell_address(transport.get_extra_info("peername"))
        self.label = label(self.name, self.via)
        if not self._web.clients.admit(self):
            self.reason = "refused"
            transport.abort()
            return
        self._socket = cast("WebSocket", transport)
        transport.set_write_buffer_limits(high=self._web.clients.limits.write_buffer_bytes)

    def messages_received(self, messages: list[bytes]) -> None:
        """Take in messages. A turn answers them."""
        if self._drains:
            return
        clock = time.time_ns()
        for one in messages:
            op = read_op(one, clock, self._web.writer)
            self._exchanges.add(WebExchange(self.via, [op.line] if op.line else [], _finish(op)))
        if len(self._exchanges) >= self._web.clients.limits.max_answers_outstanding and self._socket:
            self._socket.pause_reading()
        if self._exchanges.more:
            self._web.clients.turn.client_said(self)
        else:
            self._send_finished()

    def eof_received(self) -> bool:
        """Note that the client closes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        if self._socket is not None:
            self._socket = None
            if exc is not None and self.reason == "closed by client":
                self.reason = "broken by client"
            self._web.clients.forget(self, self.reason)

    def pause_writing(self) -> None:
        """Note that the client reads too slowly: take none of its messages for now."""
        self._blocked_since = self._web.clients.loop.time()

    def resume_writing(self) -> None:
        """Note that the client has read."""
        self._blocked_since = None
        self._web.clients.turn.client_said(self)

    # Calls from a turn. --------------------------------------------------------------------------------------

    @property
    def gone(self) -> bool:
        """Whether the client is no longer there to get answers."""
        return self._socket is None

    def take(self, most: int, _: float) -> list[bytes | Overlong]:
        """Return lines to answer now."""
        if self._blocked_since is not None or self._socket is None:
            return []
        lines = self._exchanges.take(most)
        if self._exchanges.more:
            self._web.clients.turn.client_said(self)
        return lines

    def answer(self, answers: list[bytes]) -> None:
        """Do nothing: a turn passes the answers with their replies, because something is always owed."""

    def release(self) -> list[tuple[bytes | Overlong, Reply]]:
        """Send the answers that are complete; return their commands."""
        released = self._exchanges.release()
        self._send_finished()
        return released

    def give_up(self, reason: str) -> list[tuple[bytes | Overlong, Reply]]:
        """Close without the answers that are owed; return their commands."""
        unanswered = self._exchanges.give_up()
        self._close(reason)
        return unanswered

    def fail(self) -> None:
        """End the connection at once, and forget it: work for it has raised an exception."""
        if (socket := self._socket) is not None:
            self.reason = "internal error"
            self.connection_lost(None)
            socket.abort()

    # Calls from `Clients`. -----------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Close if the client does not read, or does not answer a ping."""
        socket = self._socket
        assert socket is not None
        if self._blocked_since is not None:
            unsent = socket.get_write_buffer_size()
            if unsent < self._unsent:
                self._blocked_since = now
            self._unsent = unsent
            if now - self._blocked_since > self._web.clients.limits.slow_reader_seconds:
                self.end("slow reader")
                return
        socket.check(now)

    def drain(self) -> None:
        """Take no more messages; close when those that came are answered."""
        self._drains = True
        if not self.waits:
            self._close("server stops")

    def end(self, reason: str) -> None:
        """End the connection at once."""
        self.reason = reason
        if self._socket is not None:
            self._socket.abort()

    # -----------------------------------------------------------------------------------------------------------

    def _send_finished(self) -> None:
        finished = self._exchanges.finished()
        if self._socket is None:
            return
        for exchange in finished:
            self._socket.write(exchange.finish(exchange.replies).body)
        if finished and len(self._exchanges) < self._web.clients.limits.max_answers_outstanding:
            self._socket.resume_reading()
        if self._drains and not self.waits:
            self._close("server stops")

    def _close(self, reason: str) -> None:
        self.reason = reason
        if self._socket is not None:
            self._socket.close()


def _finish(op: Op) -> Any:
    return lambda replies: WebAnswer(200, op.content(replies[0] if replies else None))
