"""The admin port: metrics, health and a status page over HTTP. GET and HEAD only.

The Host header must be a loopback name or a configured one, so that a page in an operator's browser cannot read
this port under a name of its own (DNS rebinding). Client IDs, commands and positions are shown only at addresses where
`positions` of the herd's file allows it, and no traceback anywhere.

A scraper can be slow, greedy or many: connections are few, each has so long for a request and its answer, headers
are small, and metrics, which cost most, leave the server most of its time. A new connection is always taken, and the
oldest silent one makes room for it: so a probe is answered, whatever else is open. Viewers of the status page stay, so
they have a bound of their own, and no deadline; one that does not read is cut.

This module imports aiohttp, which takes long, so it is imported when the server listens already.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDictProxy
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from proxyherd import __version__
from proxyherd.admin import status_page
from proxyherd.admin.status_page.herd import HerdWatch, Viewer, event
from proxyherd.admin.status_page.own_state import StatusSource
from proxyherd.admin.status_page.state import write_state
from proxyherd.config.schema import AdminSettings

MAX_CONNECTIONS: Final = 64
"""Connections at once; past it the oldest goes. A scraper, a supervisor's probe and some browsers need a dozen."""

SILENT_SECONDS: Final = 1.0
"""A connection that has asked nothing for so long goes before one that waits for its answer, and before newer ones."""

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
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_PAGE: Final = Path(status_page.__file__).parent / "page"
_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_FILES: Final = {
    "/" if file.name == "index.html" else f"/{file.name}": (file.read_bytes(), _TYPES[file.suffix])
    for file in sorted(_PAGE.iterdir())
    if file.suffix in _TYPES
}
"""What the page consists of, read once: it fits the version that runs."""

_STUCK_SECONDS: Final = 5.0
"""For a viewer to take an update; what the system buffers for it comes on top."""

# aiohttp would log whatever a stranger sends, by the standard library, to stderr.
_SILENT: Final = logging.getLogger("proxyherd.admin.app")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


def make_app(
    status: StatusSource,
    registry: CollectorRegistry,
    configured: AdminSettings,
    watch: HerdWatch,
    failed: Callable[[str, Exception], None],
) -> web.Application:
    """Return the application. `failed` is told of faults of the program."""
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

    app = web.Application(middlewares=[_guard(configured.hosts, failed)], client_max_size=1024)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    for path, (body, content_type) in _FILES.items():
        app.router.add_get(path, partial(_file, body, content_type))
    pages = _Pages(configured, watch)
    app.router.add_get("/state", pages.state)
    app.router.add_get("/events", pages.events)
    app.on_shutdown.append(pages.end)
    return app


async def _file(body: bytes, content_type: str, _: web.Request) -> web.Response:
    return web.Response(body=body, content_type=content_type, charset="utf-8")


class _Pages:
    """What the status page asks for, of this server and, by it, of others."""

    def __init__(self, configured: AdminSettings, watch: HerdWatch) -> None:
        self._configured = configured
        self._watch = watch

    async def state(self, request: web.Request) -> web.Response:
        """Answer with this server's own state."""
        _refuse_other_sites(request)
        own = self._watch.own
        if self._withheld(request) or request.query.get("commands") == "no":
            return web.Response(body=write_state(own.state()), content_type="application/json")
        self._watch.want_commands()
        life, after = request.query.get("life", ""), request.query.get("after", "0")
        number = int(after) if re.fullmatch("[0-9]{1,16}", after) else 0
        return web.Response(
            body=write_state(own.with_commands(life, number)), content_type="application/json"
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send what is new in the herd for as long as it is read."""
        _refuse_other_sites(request)
        withheld = self._withheld(request)
        response = web.StreamResponse(headers={**_HEADERS, hdrs.CONTENT_TYPE: "text/event-stream"})
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        viewer = await self._watch.open(personal=not withheld)
        if viewer is None:
            return web.Response(status=503, text="As many look at this page as may; try again later.\n")
        try:
            await response.prepare(request)
            scraper = request.protocol
            if isinstance(scraper, _Scraper):
                scraper.views(viewer)
            hello = {"version": __version__, "withheld": withheld}
            await response.write(b"retry: 1000\n" + event("hello", hello))
            while data := await viewer.next():
                async with asyncio.timeout(_STUCK_SECONDS):
                    await response.write(data)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            await self._watch.close(viewer)
            if request.transport is not None:
                request.transport.abort()  # there is nothing to say at the end, and it may not be read
        return response

    async def end(self, _: web.Application) -> None:
        """Let all viewers go."""
        await self._watch.end()

    def _withheld(self, request: web.Request) -> str:
        """Return why whoever asks may not see commands and positions; "" if they may."""
        positions = self._configured.positions
        if positions == "never":
            return 'positions = "never" in [admin] of the herd\'s file switches them off.'
        if positions == "loopback" and not getattr(request.protocol, "loopback", False):
            return (
                "they are personal data, and this address is not loopback's. Ask a loopback address of this server, "
                'through ssh -L for example, or set positions = "always" in [admin] of the herd\'s file.'
            )
        return ""


def _refuse_other_sites(request: web.Request) -> None:
    """Let no page of another site take up viewers' places; it could not read what it gets. Raises HTTPForbidden."""
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise web.HTTPForbidden


def _guard(hosts: Iterable[str], failed: Callable[[str, Exception], None]) -> Any:
    """Return what stands before every handler: Host, method, and an answer to failures without a traceback."""
    allowed = _LOOPBACK | {host.lower() for host in hosts}

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if isinstance(request.protocol, _Scraper):
            request.protocol.has_asked()
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
        if not response.prepared:
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

    __slots__ = ("_admin", "_deadline", "_silent_since", "_viewer", "loopback")

    def __init__(self, admin: Admin, server: web.Server, *, loopback: bool, **settings: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **settings)
        self.loopback = loopback  # nobody but this machine could have come in
        self._admin = admin
        self._deadline: asyncio.TimerHandle | None = None
        self._silent_since: float | None = None  # None: it has asked, and waits for its answer
        self._viewer: Viewer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._admin.make_room()
        self.has_answered()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._admin.open.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._viewer is not None:
            self._viewer.end()

    def has_asked(self) -> None:
        """Note that it waits for an answer now."""
        self._silent_since = None

    def has_answered(self) -> None:
        """Give it its time for the next request, and make it the newest that is open."""
        if self.transport is None:  # it has gone while its answer was made
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(REQUEST_SECONDS, self.give_up)
        self._silent_since = self._loop.time()
        self._admin.open.pop(self, None)
        self._admin.open[self] = None

    def is_silent(self, now: float) -> bool:
        """Whether it has asked nothing for so long that it may go first."""
        return self._silent_since is not None and now - self._silent_since >= SILENT_SECONDS

    def views(self, viewer: Viewer) -> None:
        """Let it stay, and count it no more: it has become a viewer, and those are counted elsewhere. One that goes
        gives up its place at once, and not when there is something to send.
        """
        self._admin.open.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
        self._viewer = viewer
        if self.transport is None:
            viewer.end()

    def give_up(self) -> None:
        """End it at once."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - what aiohttp calls it with
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 - likewise
        message: str | None = None,  # noqa: ARG002 - likewise
    ) -> web.StreamResponse:
        response = _Refusal(status=status, text="No request that is served here.\n", headers=_HEADERS)
        response.force_close()
        return response


class _Refusal(web.Response):
    """What is answered before the application has seen a request: also without the versions of what serves."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        _hide_versions(self)


def _hide_versions(response: web.StreamResponse) -> None:
    response.headers.popall(hdrs.SERVER, None)


class Admin:
    """The admin listener of one server."""

    def __init__(self, app: web.Application) -> None:
        self.open: dict[_Scraper, None] = {}  # the one first whose last answer, or beginning, is longest ago
        app.on_response_prepare.append(self._answers)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._servers: list[asyncio.Server] = []

    async def listen(self, sock: socket.socket) -> None:
        """Serve on a bound socket."""
        if self._runner.server is None:
            await self._runner.setup()
        loop = asyncio.get_running_loop()
        make = partial(self._make_scraper, loopback=ipaddress.ip_address(sock.getsockname()[0]).is_loopback)
        self._servers.append(await loop.create_server(make, sock=sock, backlog=64))

    def make_room(self) -> None:
        """Let the oldest silent connection go, or else the oldest, where as many are open as may be."""
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

    def _make_scraper(self, *, loopback: bool) -> _Scraper:
        server = self._runner.server
        assert server is not None
        return _Scraper(
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
        if isinstance(request.protocol, _Scraper):
            request.protocol.has_answered()
