"""One connection of the web port: HTTP/1.1, a request and its answer at a time.

aiohttp's parser splits what arrives into requests; `web/routes` decides about each; a turn answers what needs one. This
file only waits, with limits: a request must come within a deadline, a body has at most `BODY_BYTES`, packed or not,
requests behind the one that is served are few, and slow readers are disconnected. A connection whose request was
refused before it was read whole is closed behind the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final, cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, HttpVersion10, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import StreamReader

from proxyherd.core.framing import Overlong
from proxyherd.core.reply import Reply
from proxyherd.net.listening import spell_address
from proxyherd.server.clients.http_answers import CONTINUE, spelled_answer, upgraded
from proxyherd.server.clients.json_socket import JsonSocket
from proxyherd.server.clients.web import WebClients
from proxyherd.server.clients.websocket import LinesOverWebSocket, Session, WebSocket
from proxyherd.telemetry.frequent import label
from proxyherd.web import problems
from proxyherd.web.answers import WebAnswer, of_problem
from proxyherd.web.bodies import BODY_BYTES
from proxyherd.web.exchanges import Exchanges, WebExchange
from proxyherd.web.handshakes import JSON_PROTOCOL, Upgrade
from proxyherd.web.problems import Problem
from proxyherd.web.requests import WebRequest

IDLE_SECONDS: Final = 60.0
"""How long a connection may be without a whole request."""

BODY_SECONDS: Final = 30.0
"""How long the body of a request may take, once its headers are there."""

REFUSED_SECONDS: Final = 1.0
"""How long a refused client is read on, so that it gets the answer: a socket that is closed with unread bytes is
reset."""

_HEADER_BYTES: Final = 16_384
"""Bytes of the request line, and of a header: room for an ID of 5,000 bytes, percent-encoded."""

_TOO_LARGE: Final = Problem(problems.LARGE, f"A body has at most {BODY_BYTES:,} bytes.")
_MOST_HEADERS: Final = 64
_MOST_WAITING: Final = 8
"""Requests that may wait behind the one that is served."""


class HttpConnection(asyncio.Protocol):
    """One connection: passes requests to the routes and to a turn, and answers to the client."""

    __slots__ = (
        "_blocked_since",
        "_body",
        "_close",
        "_ended",
        "_exchanges",
        "_hears",
        "_origin",
        "_parser",
        "_reading",
        "_requests",
        "_served",
        "_since",
        "_stalled",
        "_tail",
        "_transport",
        "_unsent",
        "_upgrades",
        "_web",
        "label",
        "name",
        "owe",
        "owed",
        "queued",
        "reason",
    )

    via = "http"

    def __init__(self, web: WebClients) -> None:
        self.name = ""
        self.label = b""
        self.queued = False
        self.reason = "closed by client"
        self._web = web
        self._exchanges = Exchanges()
        self.owe, self.owed = self._exchanges.owe, self._exchanges.owed
        self._transport: asyncio.Transport | None = None
        self._parser = HttpRequestParser(
            cast("BaseProtocol", self),
            web.clients.loop,
            2 * BODY_BYTES,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
            max_headers=_MOST_HEADERS,
            auto_decompress=False,
            max_msg_queue_size=_MOST_WAITING,
        )
        self._requests: deque[tuple[RawRequestMessage, StreamReader]] = deque()
        self._tail = b""  # behind the last request, which asks for another protocol
        self._served: RawRequestMessage | None = None  # the request that waits for its answer
        self._origin = ""  # of the request that is served, if it is another site's
        self._body: bytearray | None = None  # of the next request, as far as it has come
        self._since = web.clients.loop.time()  # of what is waited for
        self._hears = True  # whether further requests are served
        self._ended = False  # whether the client has closed its sending half
        self._close = False  # whether the connection closes behind the answer
        self._reading = True
        self._stalled = False
        self._upgrades = False
        self._blocked_since: float | None = None
        self._unsent = 0

    # Calls from asyncio. -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, or turn the client away."""
        transport = cast("asyncio.Transport", transport)
        self.name = spell_address(transport.get_extra_info("peername"))
        if not self._web.clients.admit(self):
            self._hears = False
            transport.abort()
            return
        self._transport = transport
        transport.set_write_buffer_limits(high=self._web.clients.limits.write_buffer_bytes)

    def data_received(self, data: bytes) -> None:
        """Take in what arrived, and serve what is complete."""
        if not self._hears:
            return
        self._parse(data)
        self._serve_all()

    def eof_received(self) -> bool:
        """Keep the sending half open until the requests that came whole are answered."""
        self._ended = True
        self._serve_all()
        return self._transport is not None and (self._served is not None or bool(self._requests))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        if self._transport is None:
            return
        self._transport = None
        self._hears = False
        self._requests.clear()
        if exc is not None and self.reason == "closed by client":
            self.reason = "broken by client"
        self._web.clients.forget(self, self.reason)

    def pause_writing(self) -> None:
        """Note that the client reads too slowly: serve none of its requests for now."""
        self._blocked_since = self._web.clients.loop.time()

    def resume_writing(self) -> None:
        """Note that the client has read, and more can be written."""
        self._blocked_since = None
        self._serve_all()

    # Calls from aiohttp's parser, which would pause for bodies beyond its limit: they are refused before. -----

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self, *, resume_parser: bool = True) -> None:
        """Do nothing."""

    # Calls from a turn. --------------------------------------------------------------------------------------

    @property
    def gone(self) -> bool:
        """Whether the client is no longer there to get answers."""
        return self._transport is None

    def take(self, most: int, _: float) -> list[bytes | Overlong]:
        """Return lines to answer now."""
        lines = self._exchanges.take(most)
        if self._exchanges.more:
            self._web.clients.turn.client_said(self)
        return lines

    def answer(self, answers: list[bytes]) -> None:
        """Do nothing: a turn passes the answers with their replies, because something is always owed."""

    def release(self) -> list[tuple[bytes | Overlong, Reply]]:
        """Answer the request if all replies are there; return the commands whose replies are."""
        released = self._exchanges.release()
        if finished := self._exchanges.finished():
            self._finish(finished[0])
            self._serve_all()
        return released

    def give_up(self, _: str) -> list[tuple[bytes | Overlong, Reply]]:
        """Answer that the server cannot do it now; return the commands without a reply."""
        unanswered = self._exchanges.give_up()
        if self._served is not None:
            self._refuse(Problem(problems.NOT_TAKEN, "The table is not available now."))
        return unanswered

    def fail(self) -> None:
        """End the connection at once, and forget it: work for it has raised an exception."""
        if (transport := self._transport) is not None:
            self.reason = "internal error"
            self.connection_lost(None)
            transport.abort()

    # Calls from `Clients`. -----------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Close if the client is idle, slow, or has waited for too long."""
        transport, waited = self._transport, now - self._since
        assert transport is not None
        if self._blocked_since is not None:
            unsent = transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._blocked_since = now
            self._unsent = unsent
            if now - self._blocked_since > self._web.clients.limits.slow_reader_seconds:
                self.end("slow reader")
        elif self._served is not None:
            if waited > self._web.answer_seconds:
                self._refuse(Problem(problems.NOT_TAKEN, "The server is not ready, or waits for others."))
        elif self._body is not None:
            if waited > BODY_SECONDS:
                self._refuse(Problem(problems.SLOW, f"A body has {BODY_SECONDS:g} seconds."))
        elif waited > IDLE_SECONDS:
            self.end("idle")

    def drain(self) -> None:
        """Serve no more requests; close behind the answer to the present one."""
        self.reason = "server stops"
        self._requests.clear()
        self._hears, self._close = False, True
        if self._served is None and self._transport is not None:
            self._transport.close()

    def end(self, reason: str) -> None:
        """End the connection at once."""
        self.reason = reason
        if self._transport is not None:
            self._transport.abort()

    # Requests. -----------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        try:
            messages, is_upgraded, self._tail = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self._refuse_unread(error)
            return
        self._requests.extend(messages)
        self._stalled = len(self._requests) >= _MOST_WAITING  # then the parser keeps the rest
        if is_upgraded:
            self._hears, self._upgrades = False, True  # the last of these wants another protocol from here on

    def _read_or_pause(self) -> None:
        """Read no more while as many requests wait as may, or while the body of one that must wait is on its way."""
        requests, transport = self._requests, self._transport
        waits = len(requests) > 1 or self._served is not None or self._blocked_since is not None
        is_whole = not requests or requests[-1][1].is_eof()
        reads = not (self._stalled or self._upgrades) and (is_whole or not waits)
        if reads is not self._reading and transport is not None and not transport.is_closing():
            self._reading = reads
            if reads:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _serve_all(self) -> None:
        """Serve the requests that are complete, until one waits for a turn."""
        while self._requests and self._served is None and self._blocked_since is None:
            message, payload = self._requests[0]
            if not self._has_whole(message, payload):
                break
            self._requests.popleft()
            self._parser.message_consumed()
            self._serve(message)
            if self._stalled:
                self._parse(b"")
        self._read_or_pause()
        if self._ended and self._served is None and self._transport is not None:
            self._transport.close()

    def _has_whole(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Take in the body of a request, as far as it has come; return whether it is all there."""
        if self._body is None:
            self._body, self._since = bytearray(), self._web.clients.loop.time()
            if (problem := self._expects(message, payload)) is not None:
                self._refuse(problem, message)
                return False
        if payload.exception() is not None:
            self._refuse(Problem(problems.REQUEST, "The body is not in the form of its headers."), message)
            return False
        self._body += payload.read_nowait(-1)
        if len(self._body) > BODY_BYTES:
            self._refuse(_TOO_LARGE, message)
            return False
        return payload.is_eof()

    def _expects(self, message: RawRequestMessage, payload: StreamReader) -> Problem | None:
        """Tell a client to send its body, if it waits for that. Return what is wrong with the headers about it."""
        headers = message.headers
        if "Content-Length" in headers and int(headers["Content-Length"]) > BODY_BYTES:
            return _TOO_LARGE
        if expect := headers.get("Expect"):
            if expect.lower() != "100-continue":
                return Problem(problems.REQUEST, "Only 100-continue can be expected.")
            if not payload.is_eof() and message.version != HttpVersion10:
                self._write(CONTINUE)
        return None

    def _serve(self, message: RawRequestMessage) -> None:
        """Answer a request, or begin the exchange that will."""
        body, self._body = bytes(self._body or b""), None
        self._served = message
        self._since = self._web.clients.loop.time()
        try:
            request = WebRequest(message.method, message.path, message.headers, body)
            self._origin = ""
            self._origin = self._web.routes.admit(request)
            found = self._web.routes.find(request, time.time_ns())
        except Problem as problem:
            self._respond(of_problem(problem))
            return
        except Exception as error:  # noqa: BLE001 - a fault of ours, for the log and not for whoever asks
            self._fault(error)
            return
        if isinstance(found, WebExchange):
            self._begin(found)
        elif isinstance(found, Upgrade):
            self._upgrade(found)
        else:
            self._respond(found)

    def _begin(self, exchange: WebExchange) -> None:
        self.label = label(self._named(), exchange.via)
        for reason, count in exchange.consumed.items():
            self._web.clients.observer.web.consumed(exchange.via, reason, count)
        if exchange.lines:
            self._exchanges.add(exchange)
            self._web.clients.turn.client_said(self)
        else:
            self._finish(exchange)

    def _named(self) -> str:
        """Return the name of the client that has sent the request: a trusted proxy knows it."""
        proxies, message = self._web.proxies, self._served
        if proxies is None or message is None:
            return self.name
        forwarded = message.headers.getall("X-Forwarded-For", [])
        peer = self.name.rpartition(":")[0].strip("[]")
        address = proxies.client_address(peer, forwarded)
        return self.name if address == peer else spell_address((address, 0))

    def _upgrade(self, upgrade: Upgrade) -> None:
        """Let a WebSocket have the transport from here on."""
        transport, clients = self._transport, self._web.clients
        if transport is None:
            return
        self.reason = "became a WebSocket"
        self.connection_lost(None)
        session: Session = (
            JsonSocket(self._web) if upgrade.protocol == JSON_PROTOCOL else LinesOverWebSocket(clients)
        )
        socket = WebSocket(transport, session, clients.loop)
        transport.set_protocol(socket)
        transport.write(upgraded(upgrade))
        session.connection_made(socket)
        if not self._reading:
            transport.resume_reading()
        if self._tail:
            socket.data_received(self._tail)

    def _finish(self, exchange: WebExchange) -> None:
        try:
            answer = exchange.finish(exchange.replies)
        except Problem as problem:
            answer = of_problem(problem)
        except Exception as error:  # noqa: BLE001 - as above
            self._fault(error)
            return
        self._respond(answer)

    # Answers. ------------------------------------------------------------------------------------------------

    def _respond(self, answer: WebAnswer) -> None:
        """Send the answer to the request that is served."""
        message, self._served = self._served, None
        if message is None or self._transport is None:
            return
        now = self._web.clients.loop.time()
        self._since = now
        close = self._close or message.should_close or message.upgrade or (self._ended and not self._requests)
        self._web.clients.observer.web.answered(answer.status)
        headers = self._web.routes.origins.headers(self._origin)
        self._write(spelled_answer(answer, message, headers, close=close))
        if close:
            self._hears = False
            self._requests.clear()
            self._transport.close()

    def _refuse(self, problem: Problem, message: RawRequestMessage | None = None) -> None:
        """Answer with a problem, and close: this connection cannot go on."""
        self._hears = False
        self._requests.clear()
        self._write(spelled_answer(of_problem(problem), message or self._served, {}, close=True))
        self._served, self._body = None, None
        self._linger()

    def _refuse_unread(self, error: HttpProcessingError) -> None:
        """Refuse what is no request in HTTP."""
        large = isinstance(error, LineTooLong)
        text = "The request line or a header is too long." if large else "This is not a request in HTTP/1.1."
        if self._served is None:
            self._refuse(Problem(problems.REQUEST, text))
        else:
            self._hears, self._close = False, True

    def _fault(self, error: Exception) -> None:
        self._web.clients.observer.fault("a request cannot be answered", error)
        self._respond(of_problem(Problem(problems.FAULT, "The server's log says what is wrong.")))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _linger(self) -> None:
        """Close behind what was sent, but read on for a while."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
        self._since = self._web.clients.loop.time()
        self._web.clients.loop.call_later(REFUSED_SECONDS, transport.close)
