"""The admin port: metrics, health and a status page over HTTP. GET and HEAD only.

The Host header must be a loopback name or a configured one, so that a page in an operator's browser cannot read
this port under a name of its own (DNS rebinding). No client ID and no position is shown, and no traceback.

A scraper can be slow, greedy or many: connections are few, each has so long for a request and its answer, headers
are small, and metrics, which cost most, leave the server most of its time.

This room imports aiohttp, which takes long, so it is imported when the server listens already.
"""

from __future__ import annotations

import asyncio
import html
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol, cast

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDictProxy
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

MAX_CONNECTIONS: Final = 64
"""Connections at once; more are closed unread. A scraper, a supervisor's probe and some browsers need a dozen."""

REQUEST_SECONDS: Final = 10.0
"""From a connection, or its last answer, to the next answer; then it is closed. Scrapers simply connect anew."""

_HEADER_BYTES: Final = 8_190
"""Bytes of a header's name or value, and of the request line."""

_HEADERS_MOST: Final = 64
"""Headers of a request."""

_SHARE: Final = 10
"""Metrics are made anew no sooner than so many times as long after the last time as that took."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]*)(?::[0-9]{1,5})?", re.IGNORECASE)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'",
    "X-Content-Type-Options": "nosniff",
}
_STYLE: Final = """\
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 42rem; padding: 0 1rem; color-scheme: light dark }
table { border-collapse: collapse; width: 100% } th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left }
"""


# aiohttp would log whatever a stranger sends, by the standard library, to stderr.
_SILENT: Final = logging.getLogger("proxyherd.admin")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class Status(Protocol):
    """What the admin port wants to know of its server."""

    def ready(self) -> tuple[bool, str]:
        """Return whether the server is ready, and the reason where it is not."""

    def facts(self) -> Iterable[tuple[str, str]]:
        """Return what the status page says, as pairs of a name and a value."""

    def refresh(self) -> None:
        """Bring the figures of the registry up to date that are not counted as things happen."""


def make_app(
    server: str,
    status: Status,
    registry: CollectorRegistry,
    hosts: Iterable[str],
    failed: Callable[[str, Exception], None],
) -> web.Application:
    """Return the application. `hosts` are names by which it may be asked, besides loopback's; `failed` is told of
    faults of the program.
    """
    pace = _Pace()

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        async with pace:
            status.refresh()
            body = encode(registry)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        ready, reason = status.ready()
        return web.Response(status=200 if ready else 503, text=f"{reason}\n")

    async def index(_: web.Request) -> web.Response:
        rows = "".join(
            f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in status.facts()
        )
        page = (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(server)} - proxyherd</title>"
            "<meta name=viewport content='width=device-width'><link rel=stylesheet href=/style.css>"
            f"<h1>{html.escape(server)}</h1><table>{rows}</table>"
            "<p><a href=/metrics>metrics</a> <a href=/healthz>health</a> <a href=/readyz>readiness</a></p></html>\n"
        )
        return web.Response(text=page, content_type="text/html")

    async def style(_: web.Request) -> web.Response:
        return web.Response(text=_STYLE, content_type="text/css")

    app = web.Application(middlewares=[_guard(hosts, failed)], client_max_size=1024)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/", index)
    app.router.add_get("/style.css", style)
    return app


def _guard(hosts: Iterable[str], failed: Callable[[str, Exception], None]) -> Any:
    """Return what stands before every handler: Host, method, and an answer to failures without a traceback."""
    allowed = _LOOPBACK | {host.lower() for host in hosts}

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not _is_allowed(request.headers, allowed):
            text = "This Host is not served here; add it to hosts in [admin] of the herd's file.\n"
            return web.Response(status=403, text=text, headers=_HEADERS)
        if request.method not in {"GET", "HEAD"}:
            return web.Response(status=405, text="GET only.\n", headers={**_HEADERS, "Allow": "GET"})
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f"{error.reason}\n")
        except Exception as error:  # noqa: BLE001 - a fault of ours, for the log and not for whoever asks
            failed(f"the admin port cannot answer {request.path}", error)
            response = web.Response(status=500, text="The server's log says what is wrong.\n")
        response.headers.update(_HEADERS)
        return response

    return guard


def _is_allowed(headers: CIMultiDictProxy[str], allowed: Iterable[str]) -> bool:
    """Whether there is one Host, and it is one of these, with a port or none."""
    hosts = headers.getall(hdrs.HOST, [])
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    return match is not None and (match[1].lower() in allowed or hosts[0].lower() in allowed)


class _Pace:
    """Lets one in at a time, and the next when `_SHARE` times as long has passed as the last one took."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._next = self._began = 0.0

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        await self._lock.acquire()
        try:
            await asyncio.sleep(self._next - loop.time())
        except BaseException:
            self._lock.release()
            raise
        self._began = time.perf_counter()

    async def __aexit__(self, *_: object) -> None:
        took = time.perf_counter() - self._began
        self._next = asyncio.get_running_loop().time() + _SHARE * took
        self._lock.release()


class _Scraper(RequestHandler):
    """One connection: aiohttp's, which waits for a request for ever, with a deadline and without words of its own."""

    __slots__ = ("_admin", "_deadline")

    def __init__(self, admin: Admin, server: web.Server, **settings: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **settings)
        self._admin = admin
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._admin.open) >= MAX_CONNECTIONS:
            cast("asyncio.Transport", transport).abort()
            return
        self._admin.open.add(self)
        self.has_answered()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._admin.open.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def has_answered(self) -> None:
        """Give it its time for the next request."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - what aiohttp calls it with
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 - likewise
        message: str | None = None,  # noqa: ARG002 - likewise
    ) -> web.StreamResponse:
        response = web.Response(status=status, text="No request that is served here.\n", headers=_HEADERS)
        response.force_close()
        return response


class Admin:
    """The admin listener of one server."""

    def __init__(self, app: web.Application) -> None:
        self.open: set[_Scraper] = set()
        app.on_response_prepare.append(self._answers)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._servers: list[asyncio.Server] = []

    async def listen(self, sock: socket.socket) -> None:
        """Serve on a bound socket."""
        if self._runner.server is None:
            await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(self._make_scraper, sock=sock, backlog=64))

    async def close(self) -> None:
        """Stop serving."""
        for server in self._servers:
            server.close()
        await self._runner.cleanup()

    def _make_scraper(self) -> _Scraper:
        server = self._runner.server
        assert server is not None
        return _Scraper(
            self,
            server,
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

    async def _answers(self, request: web.Request, _: web.StreamResponse) -> None:
        if isinstance(request.protocol, _Scraper):
            request.protocol.has_answered()
