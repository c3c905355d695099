"""The web port of a server: one shell for all that is spoken there. Its conversations are in `proxyherd.web`.

aiohttp takes long to import, so this module is imported after the server listens for clients.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from proxyherd.base.page_files import page_files
from proxyherd.config.herd_file import Herd
from proxyherd.config.token_keys import TokenKey
from proxyherd.core.buckets import Allowance
from proxyherd.core.conversation import OPEN, Ending
from proxyherd.core.framing import Line
from proxyherd.core.messages import NANOSECONDS
from proxyherd.core.reply import Reply
from proxyherd.net.listening import Listener, host_of, spell_address
from proxyherd.net.tls import Contexts
from proxyherd.server.clients.clients import Clients
from proxyherd.server.clients.http_reader import BodyRoom, HttpReader
from proxyherd.server.clients.tcp import ClientConnection
from proxyherd.telemetry.frequent import label
from proxyherd.web.access import Access, TokenRefusal
from proxyherd.web.bodies import LargeReads
from proxyherd.web.conversations.base import Site, WebConversation
from proxyherd.web.conversations.http import HttpConversation
from proxyherd.web.conversations.lines import LineSocket
from proxyherd.web.conversations.ops import JsonSocket
from proxyherd.web.conversations.sockets import WebSocketConversation
from proxyherd.web.conversations.streams import EventStream
from proxyherd.web.follows import STREAM, StreamAnswer
from proxyherd.web.handshakes import JSON_PROTOCOL, Upgrade
from proxyherd.web.lines import LineWriter
from proxyherd.web.origins import Origins, Proxies
from proxyherd.web.pages import Pages
from proxyherd.web.problems import RATE
from proxyherd.web.requests import Headers
from proxyherd.web.rights import Grant
from proxyherd.web.routes import WebRoutes
from proxyherd.web.trackers.points import Reason

_SPARE_SECONDS: Final = 5.0
"""For an answer, besides what others may take for their part of it."""


class WebListener:
    """Accepts clients that speak HTTP. `erased_until`: up to which moment an ID was erased, in nanoseconds of POSIX time;
    0: never; None: it is not known yet. `server`: the name of this server.
    """

    key = "web"

    def __init__(
        self, clients: Clients, herd: Herd, erased_until: Callable[[bytes], int | None], server: str
    ) -> None:
        self._access = Access(erased_until) if herd.auth.web == "jwt" else None
        self._most_seconds = herd.erasure.tombstone_seconds
        writer = LineWriter(clients.limits.max_line_bytes)
        origins = Origins(herd.web.hosts, herd.web.allowed_origins)
        others = [herd.places.deadline_seconds, herd.redis.deadline_seconds if herd.redis else 0.0]
        pages = Pages(page_files("web/page"))
        routes = WebRoutes(writer, origins, herd.web.max_accuracy_m, pages, self._access, server)
        turn = clients.turn
        site = Site(
            *(clients.limits, routes, writer, lambda: turn.received, time.time_ns),
            *(max(others) + _SPARE_SECONDS, random.random, LargeReads(lambda: turn.received)),
        )
        proxies, room = Proxies(herd.web.trusted_proxies), BodyRoom()
        self._listener = Listener(
            lambda: WebConnection(clients, site, proxies, room),
            None,
            backlog=4_096,
            handshake_seconds=0,
            shutdown_seconds=0,
            room=lambda: 0,
            refused=clients.observer.connections.refused,
            admits=lambda peer: proxies.trusts(host_of(peer)) or clients.accepts(peer),
        )

    async def listen(self, sock: socket.socket) -> None:
        """Accept clients from a bound socket."""
        await self._listener.listen(sock)

    def renew(self, _: Contexts, keys: Sequence[TokenKey]) -> None:
        """Let clients in by tokens of other keys, if there are any. This port has no certificates."""
        if self._access is not None and keys:
            from proxyherd.web.tokens import TokenVerifier  # noqa: PLC0415 - PyJWT takes 70 ms, where there are tokens

            self._access.renew(TokenVerifier(keys, self._most_seconds))

    def close(self) -> None:
        """Accept no more clients."""
        self._listener.close()


class WebConnection(ClientConnection):
    """One connection of the web port. It begins with HTTP, and may go on as a WebSocket or a stream of events."""

    __slots__ = ("_asked", "_asker_host", "_grant", "_proxies", "_site")

    _conversation: WebConversation

    def __init__(self, clients: Clients, site: Site, proxies: Proxies, room: BodyRoom) -> None:
        reader = HttpReader(clients.loop, room)
        super().__init__(clients, HttpConversation(site, self, reader, clients.loop.time()), "http")
        self._site = site
        self._proxies = proxies
        self._asked: Allowance | None = None  # what whoever has sent it may ask
        self._asker_host = (
            ""  # its address by a trusted proxy, which is the proxy's own if that is not readable
        )
        self._grant: Grant | None = None  # of its token

    def _host(self, peer: object) -> str:
        host = host_of(peer)
        return "" if self._proxies.trusts(host) else host  # which speaks for many

    def _count(self) -> None:
        """Count nothing here: each request may come from another client."""

    @property
    def _peer(self) -> str:
        """The address of the other end, while it speaks HTTP."""
        return self.name.rpartition(":")[0].strip("[]")

    # Calls from the conversation: it watches what happens. ----------------------------------------------------

    @property
    def write(self) -> Callable[[bytes], object] | None:
        """What sends bytes at once."""
        return self._transport.write if self._transport is not None else None

    def asker(self, headers: Headers, subject: bytes | None) -> Allowance | None:
        """Return what a request may ask, by the address that a trusted proxy names, and by the subject of its token."""
        self._asker, self._asker_host, host = self.name, "", ""
        if self._proxies.any:
            peer, forwarded = self._peer, headers.getall("X-Forwarded-For", [])
            if forwarded and self._proxies.trusts(peer):
                self._asker_host = host = self._proxies.client_address(peer, forwarded)
                if host != peer:
                    self._asker = spell_address((host, 0))
        if subject is not None and not host:
            host = self._host((self._peer, 0))
        self._asked = self._clients.asker(self, host, subject, named=bool(self._asker_host))
        return self._asked

    def begins(self, via: str, grant: Grant | None) -> None:
        """Log the commands that follow with this protocol, and with the address that a trusted proxy names; and once for
        each token, that they come with it.
        """
        self.label = label(self._asker, via)
        if grant is not None and grant is not self._grant:
            expires = grant.ends // NANOSECONDS
            self._clients.observer.web.token_used(self._asker, via, grant.subject, grant.key, expires)
        self._grant = grant

    def refused(self, reason: TokenRefusal) -> None:
        """Log a token that is not good."""
        self._clients.observer.web.token_refused(self._asker, reason)

    def wait(self, allowance: Allowance, seconds: float) -> None:
        """Read and take no more for so long."""
        self._wait(allowance, seconds)

    def come_again(self, seconds: float) -> None:
        """Take again after so many seconds."""
        self._clients.loop.call_later(seconds, self._clients.turn.client_said, self)

    def may_upgrade(self) -> bool:
        """Return whether the client may have a WebSocket or a stream. One that came by a proxy is another connection of its
        address, which the proxy's was not.
        """
        return not self._asker_host or self._clients.accepts((self._asker_host, 0), named=True)

    def consumed(self, via: str, reasons: Mapping[Reason, int]) -> None:
        """Count what was of no use."""
        for reason, count in reasons.items():
            self._clients.observer.web.consumed(via, reason, count)

    def answered(self, status: int) -> None:
        """Count an answer."""
        self._clients.observer.web.answered(status)
        if status == RATE.status:
            self._clients.observer.commands.came_too_fast()

    def fault(self, error: Exception) -> None:
        """Log a fault of the program."""
        self._clients.observer.fault("a request cannot be answered", error)

    def _must_wait(self, meter: Allowance, now: float) -> bool:
        waits = super()._must_wait(meter, now)
        if waits and meter.is_over(now):
            self._wait_no_more()
            self._conversation.exceed()
            self._read_or_pause()
            return False
        return waits

    def _wait_no_more(self) -> None:
        """Let what has been read be answered without delay: the connection ends."""
        self._end_wait()
        self._meter = None

    # Calls from a turn, and from `Clients`. ------------------------------------------------------------------

    @property
    def payer(self) -> str:
        """Who pays for the queries of places: whoever has sent the request, also through a proxy."""
        return self._asker if self._asked is None else self._asked.payer

    def may_ask_places(self, now: float) -> bool:
        """Return whether a query of places may begin, and count it then."""
        return self._asked is None or self._asked.may_ask_places(now)

    @property
    def besides(self) -> int:  # type: ignore[override] # a constant there
        """What was taken in with the last lines, and needs none."""
        return self._conversation.besides

    @property
    def unpaid(self) -> int:  # type: ignore[override] # a constant there
        """What of that is no work for the client."""
        return int(self._conversation.is_put_off)

    def answer(self, answers: list[bytes]) -> None:
        """Send what is to be sent, and go on as a WebSocket if that was asked for."""
        conversation = self._conversation
        self._send(conversation.answer(answers))
        if conversation.upgrade is not None:
            self._upgrade(conversation.upgrade)
        elif conversation.more:
            self._clients.turn.client_said(self)

    def release(self) -> list[tuple[Line, Reply]]:
        """Send the answers that are ready, and go on as a stream if one of them begins one; return their commands."""
        released = super().release()
        if self._conversation.upgrade is not None:
            self._upgrade(self._conversation.upgrade)
        return released

    def push(self) -> None:
        """Send what has changed that the client follows."""
        conversation, transport = self._conversation, self._transport
        if data := conversation.push():
            if transport is not None:
                transport.write(data)
        elif conversation.stage is not OPEN:  # whoever is told something goes on
            self._follow()

    def check(self, now: float) -> None:
        """Close if the client is idle, silent, or does not read, or if its token is not good any more."""
        if self._timer is not None and self._conversation.check_unread(now):
            self._wait_no_more()
            self._clients.turn.client_said(self)
        super().check(now)
        self._send(self._conversation.flush())

    # -----------------------------------------------------------------------------------------------------------

    def _upgrade(self, found: Upgrade | StreamAnswer) -> None:
        """Go on as a WebSocket or a stream: to the log and the metrics, that is another connection."""
        clients, before, now = self._clients, self._conversation, self._clients.loop.time()
        rest, host = before.rest(), self._asker_host or self._host((self._peer, 0))
        is_stream = isinstance(found, StreamAnswer)
        clients.forget(self, f"became a {'stream' if is_stream else 'WebSocket'}")
        conversation: WebConversation = self._begun(found, now)
        if before.is_blocked:  # the transport tells it once
            conversation.pause_writing(now)
        self._conversation, self.owe, self.owed = conversation, conversation.owe, conversation.owed
        self.name, self.via = self._asker, STREAM if is_stream else "websocket"
        clients.enter(self, host, before.subject, named=bool(self._asker_host))
        if not is_stream:  # which says nothing more
            super()._count()
        self._asked = self.allowance
        self._send(conversation.flush())
        if rest:
            self.data_received(rest)
        elif conversation.reads is not self._reading:
            self._read_or_pause()

    def _begun(self, found: Upgrade | StreamAnswer, now: float) -> WebConversation:
        if isinstance(found, StreamAnswer):
            stream = EventStream(self._site, self, now)
            stream.begin(found)
            return stream
        kind = JsonSocket if found.protocol == JSON_PROTOCOL else LineSocket
        socket: WebSocketConversation = kind(self._site, self, now)
        socket.begin(found)
        return socket

    def _end(self, transport: asyncio.Transport, ending: Ending) -> None:
        if data := self._conversation.flush():
            transport.write(data)
        super()._end(transport, ending)
