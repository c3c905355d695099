"""The connections of the admin port: their number, their deadlines, and the headers of every answer.

Clients of this port can be slow, greedy or many. So there are few connections, each has a deadline for a request and
its answer, and headers are small. A new connection is always accepted, and the oldest silent one is closed for it. So
a health check is always answered, whatever else is open. Viewers of the status page stay connected, so they have a
limit of their own, and no deadline; a viewer that does not read is disconnected.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from functools import partial
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

from proxyherd.admin.status_page.herd import Viewer

MAX_CONNECTIONS: Final = 64
"""Connections at once; beyond that the oldest is closed. A scraper, health checks and some browsers need a dozen."""

SILENT_SECONDS: Final = 1.0
"""A connection without a request for this long is closed before one that waits for its answer, and before
newer ones."""

REQUEST_SECONDS: Final = 10.0
"""The time from the beginning of a connection, or from its last answer, to the next answer; then it is closed. Scrapers
simply connect again."""

_HEADER_BYTES: Final = 8_190
"""Bytes of a header's name or value, and of the request line."""

_HEADERS_MOST: Final = 64
"""The maximum number of headers in a request."""

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The headers of every answer."""

# aiohttp would log strangers' bytes to stderr, by the standard library's logging.
_SILENT: Final = logging.getLogger("proxyherd.admin.listener")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class AdminConnection(RequestHandler):
    """One connection: aiohttp's, which would wait for a request forever, with a deadline and without its
    default texts.
    """

    __slots__ = ("_deadline", "_listener", "_silent_since", "_viewer", "loopback")

    def __init__(
        self, listener: AdminListener, server: web.Server, *, loopback: bool, **settings: Any
    ) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **settings)
        self.loopback = loopback  # only this machine can have connected
        self._listener = listener
        self._deadline: asyncio.TimerHandle | None = None
        self._silent_since: float | None = None  # None: it has a request, and waits for the answer
        self._viewer: Viewer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._listener.make_room()
        self.has_answered()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._listener.open.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._viewer is not None:
            self._viewer.end()

    def has_asked(self) -> None:
        """Note that it waits for an answer now."""
        self._silent_since = None

    def has_answered(self) -> None:
        """Start its time for the next request, and make it the newest open one."""
        if self.transport is None:  # it has ended while its answer was made
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(REQUEST_SECONDS, self.give_up)
        self._silent_since = self._loop.time()
        self._listener.open.pop(self, None)
        self._listener.open[self] = None

    def is_silent(self, now: float) -> bool:
        """Whether it has had no request for so long that it is closed first."""
        return self._silent_since is not None and now - self._silent_since >= SILENT_SECONDS

    def views(self, viewer: Viewer) -> None:
        """Keep it, and stop counting it: it is a viewer now, and viewers are counted elsewhere. A viewer that leaves
        gives up its place at once, not only at the next update.
        """
        self._listener.open.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
        self._viewer = viewer
        if self.transport is None:
            viewer.end()

    def give_up(self) -> None:
        """Close it at once."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - what aiohttp calls it with
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 - likewise
        message: str | None = None,  # noqa: ARG002 - likewise
    ) -> web.StreamResponse:
        response = _Refusal(status=status, text="No request that is served here.\n", headers=HEADERS)
        response.force_close()
        return response


class _Refusal(web.Response):
    """An answer from before the application has seen a request; it also has no versions of the software."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        _hide_versions(self)


def _hide_versions(response: web.StreamResponse) -> None:
    response.headers.popall(hdrs.SERVER, None)


class AdminListener:
    """The admin port of one server."""

    def __init__(self, app: web.Application) -> None:
        # The first is the one whose last answer, or beginning, is longest ago.
        self.open: dict[AdminConnection, None] = {}
        app.on_response_prepare.append(self._answers)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._servers: list[asyncio.Server] = []

    async def listen(self, sock: socket.socket) -> None:
        """Serve on a bound socket."""
        if self._runner.server is None:
            await self._runner.setup()
        loop = asyncio.get_running_loop()
        make = partial(
            self._make_connection, loopback=ipaddress.ip_address(sock.getsockname()[0]).is_loopback
        )
        self._servers.append(await loop.create_server(make, sock=sock, backlog=64))

    def make_room(self) -> None:
        """If as many connections are open as allowed, close the oldest silent one, or else the oldest."""
        now = asyncio.get_running_loop().time()
        while len(self.open) >= MAX_CONNECTIONS:
            oldest = next((one for one in self.open if one.is_silent(now)), None) or next(iter(self.open))
            del self.open[oldest]
            oldest.give_up()

    async def close(self) -> None:
        """Stop serving."""
        for server in self._servers:
            server.close()
        await self._runner.cleanup()

    def _make_connection(self, *, loopback: bool) -> AdminConnection:
        server = self._runner.server
        assert server is not None
        return AdminConnection(
            self,
            server,
            loopback=loopback,
            keepalive_timeout=REQUEST_SECONDS,
            access_log=None,
            logger=_SILENT,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
            max_headers=_HEADERS_MOST,
            lingering_time=1.0,
            read_bufsize=4_096,
            auto_decompress=False,
        )

    async def _answers(self, request: web.Request, response: web.StreamResponse) -> None:
        _hide_versions(response)
        if isinstance(request.protocol, AdminConnection):
            request.protocol.has_answered()
