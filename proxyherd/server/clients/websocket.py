"""WebSockets: frames between a socket and a conversation.

A WebSocket takes over the transport of the HTTP connection that has asked for it. To the client of the line protocol it
looks like a transport: what is written to it leaves as messages, and messages arrive as data. As with TLS, the end of
one direction ends both. A silent client gets a ping, and is disconnected if it does not answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, Protocol

from proxyherd.server.clients.clients import Clients
from proxyherd.server.clients.tcp import ClientConnection
from proxyherd.web.frames import Code, FrameReader, Message, Opcode, close_frame, code_of, frame, message

PING_SECONDS: Final = 25.0
"""How long a client may be silent before it gets a ping: less than the thirty seconds after which some proxies close."""

PONG_SECONDS: Final = 10.0
"""How long a client may be silent after a ping."""

CLOSE_SECONDS: Final = 2.0
"""How long a client may take to answer a close frame."""

_CODES: Final = {
    "HTTP request": Code.RULE_BROKEN,
    "server stops": Code.RESTART,
    "slow reader": Code.TOO_SLOW,
    "internal error": Code.FAULT,
    "no answer from the cluster": Code.TRY_LATER,
}
"""The codes for the reasons of a conversation's end."""

_TEXTS: Final = {
    Code.RESTART: "this server stops; connect again in 0.5 to 5 s, chosen at random, to any server",
}


class Session(Protocol):
    """What speaks over a WebSocket."""

    @property
    def reason(self) -> str:
        """Why it has ended, or will end."""

    @property
    def waits(self) -> bool:
        """Whether something is still to be answered."""

    def connection_made(self, transport: Any) -> None:
        """Start."""

    def messages_received(self, messages: list[bytes]) -> None:
        """Take in messages of one kind."""

    def eof_received(self) -> bool:
        """Note that the client closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""

    def pause_writing(self) -> None:
        """Note that the client reads too slowly."""

    def resume_writing(self) -> None:
        """Note that the client has read."""


class WebSocket(asyncio.Protocol):
    """A WebSocket after its handshake: a protocol for its transport, and a transport for its session."""

    __slots__ = (
        "_closing",
        "_held",
        "_kind",
        "_loop",
        "_pinged",
        "_reader",
        "_reads",
        "_seen",
        "_session",
        "_since",
        "_transport",
        "_wanted",
    )

    def __init__(
        self, transport: asyncio.Transport, session: Session, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._transport = transport
        self._session = session
        self._loop = loop
        self._reader = FrameReader()
        self._kind = int(Opcode.TEXT)  # of the messages that are answered now
        self._held: deque[Message] = deque()  # messages of another kind, which wait until these are answered
        self._seen = True  # whether the client has sent anything since the last check
        self._since = 0.0  # when it was last seen, or pinged
        self._pinged = False
        self._closing = False
        self._wanted = True  # whether the session wants more
        self._reads = True

    # Calls from asyncio. -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take in frames."""
        self._seen = True
        messages, error = self._reader.receive(data)
        if self._closing:
            if error or any(one.opcode == Opcode.CLOSE for one in messages):
                self._transport.close()
            return
        lines: list[bytes] = []
        for one in messages:
            if one.opcode == self._kind and not self._held:
                lines.append(one.data)
            elif one.opcode <= Opcode.BINARY:
                self._held.append(one)
            elif one.opcode == Opcode.PING:
                self._transport.write(frame(Opcode.PONG, one.data))
            elif one.opcode == Opcode.CLOSE:
                self._pass_on(lines)
                self._session.eof_received()
                self._say_close(code_of(one.data))
                self._transport.close()
                return
        self._pass_on(lines)
        if self._held:
            self._pass_on_held()
        if error is not None:
            self._say_close(error.code, error.reason)
            self._leave()

    def eof_received(self) -> bool:
        """Close: the client has gone without a close frame."""
        self._session.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End the session."""
        self._held.clear()
        self._session.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that the client reads too slowly."""
        self._session.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the client has read."""
        self._session.resume_writing()

    # Calls from the session, to which this is a transport. ---------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send answers, as one message of the same kind as what they answer."""
        self._transport.write(message(self._kind, data))
        if self._held:
            self._loop.call_soon(self._pass_on_held)

    def close(self) -> None:
        """Close behind what was sent, for the reason that the session has."""
        if not self._closing:
            code = _CODES.get(self._session.reason, Code.NORMAL)
            self._say_close(code, _TEXTS.get(code, self._session.reason))
            self._leave()

    def abort(self) -> None:
        """Close at once."""
        if not self._closing:
            code = _CODES.get(self._session.reason, Code.NORMAL)
            self._say_close(code, _TEXTS.get(code, self._session.reason))
        self._transport.abort()

    def can_write_eof(self) -> bool:
        """Return False: there is no half-close."""
        return False

    def is_closing(self) -> bool:
        """Whether it closes."""
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._wanted = False
        self._read_or_pause()

    def resume_reading(self) -> None:
        """Read on."""
        self._wanted = True
        self._read_or_pause()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the client has not received."""
        return self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when a client reads too slowly."""
        self._transport.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known about the socket."""
        return self._transport.get_extra_info(name, default)

    def check(self, now: float) -> None:
        """Ping a silent client, and close if it stays silent. Call every few seconds."""
        if self._held:
            self._pass_on_held()
        if self._seen:
            self._seen, self._pinged, self._since = False, False, now
        elif self._pinged:
            if now - self._since > PONG_SECONDS:
                self._transport.abort()
        elif now - self._since >= PING_SECONDS:
            self._pinged, self._since = True, now
            self._transport.write(frame(Opcode.PING, b""))

    # -----------------------------------------------------------------------------------------------------------

    def _pass_on(self, parts: list[bytes]) -> None:
        """Pass messages to the session."""
        if parts:
            self._session.messages_received(parts)

    def _pass_on_held(self) -> None:
        """Pass on messages of another kind, once those before them are answered."""
        while (
            self._held
            and not self._closing
            and (self._held[0].opcode == self._kind or not self._session.waits)
        ):
            one = self._held.popleft()
            self._kind = one.opcode
            self._pass_on([one.data])

        self._read_or_pause()

    def _read_or_pause(self) -> None:
        reads = self._wanted and not self._held
        if reads is not self._reads and not self._transport.is_closing():
            self._reads = reads
            if reads:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _say_close(self, code: int, reason: str = "") -> None:
        if not self._closing:
            self._closing = True
            self._held.clear()
            self._read_or_pause()
            self._transport.write(close_frame(code, reason))

    def _leave(self) -> None:
        """Close when the client has answered the close frame, or has not for a while."""
        self._loop.call_later(CLOSE_SECONDS, self._transport.close)


class LinesOverWebSocket(ClientConnection):
    """A client that speaks the line protocol over a WebSocket."""

    __slots__ = ()

    via = "websocket"

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients, tls=True)  # as there, no end is half

    def messages_received(self, messages: list[bytes]) -> None:
        """Take in lines. Each message ends its last line."""
        lines = [one if one.endswith(b"\n") else one + b"\n" for one in messages if one]
        self.data_received(b"".join(lines))

    def check(self, now: float) -> None:
        """Close if the client is idle, does not read, or does not answer a ping."""
        super().check(now)
        if isinstance(transport := self._transport, WebSocket):
            transport.check(now)
