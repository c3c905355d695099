"""What the admin port serves: metrics, health and the status page. GET and HEAD only.

The Host header must be a loopback name or a configured one, so that a page in an operator's browser cannot read this
port under its own name (DNS rebinding). Client IDs, commands and positions are shown only at addresses where
`positions` of the herd's file allows it. No answer has a traceback.

aiohttp takes long to import, so this module is imported after the server listens.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from proxyherd import __version__
from proxyherd.admin.area_pages import AreaPages
from proxyherd.admin.listener import HEADERS, AdminConnection, AdminListener
from proxyherd.admin.pace import Pace
from proxyherd.admin.status_page.herd import HerdWatch, event
from proxyherd.admin.status_page.own_state import StatusSource
from proxyherd.admin.status_page.state import write_state
from proxyherd.base.page_files import PageFile, page_files
from proxyherd.config.herd_file import Herd
from proxyherd.config.schema import AdminSettings
from proxyherd.core.area_searches import AreaSearches
from proxyherd.core.follows.follows import Follows
from proxyherd.core.table import Table
from proxyherd.net import http
from proxyherd.telemetry.observer import Observer

_FILES: Final = {
    "/" if name == "index.html" else f"/{name}": file
    for name, file in page_files("admin/status_page/page").items()
}
"""The files of the page, by path."""

_STUCK_SECONDS: Final = 5.0
"""How long a viewer may take for an update, besides what the system buffers for it."""


class ClientSource(Protocol):
    """What searches all clients, and tells of their changes; None: this server does not have that."""

    @property
    def table(self) -> Table | None:
        """The last location of every client."""

    @property
    def areas(self) -> AreaSearches | None:
        """What searches the table."""

    @property
    def follows(self) -> Follows | None:
        """What tells followers of changes of the table."""


def open_admin(
    herd: Herd,
    server: str,
    status: StatusSource,
    observer: Observer,
    clients: ClientSource,
) -> AdminListener:
    """Return the admin port of a server, which does not listen yet."""
    watch = HerdWatch(herd, server, status, observer, clients.table)
    return AdminListener(
        make_app(status, observer.metrics.registry, herd.admin, watch, observer.fault, clients)
    )


def make_app(
    status: StatusSource,
    registry: CollectorRegistry,
    configured: AdminSettings,
    watch: HerdWatch,
    failed: Callable[[str, Exception], None],
    clients: ClientSource,
) -> web.Application:
    """Return the application. `failed` is called for bugs in the program."""
    pace = Pace()

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
    for path, file in _FILES.items():
        app.router.add_get(path, partial(_file, file))
    withheld = partial(_withheld, configured)
    pages = _Pages(watch, withheld, follows=clients.areas is not None, maps=clients.table is not None)
    app.router.add_get("/state", pages.state)
    app.router.add_get("/events", pages.events)
    of_areas = AreaPages(clients.areas, clients.follows, withheld)
    app.router.add_get("/near", partial(_of_this_site, of_areas.near))
    app.router.add_get("/follow", partial(_of_this_site, of_areas.follow))
    app.on_startup.append(partial(_start, watch))
    app.on_shutdown.append(lambda _: watch.end())
    app.on_shutdown.append(lambda _: of_areas.end())
    return app


async def _start(watch: HerdWatch, _: web.Application) -> None:
    watch.start()


async def _file(file: PageFile, _: web.Request) -> web.Response:
    return web.Response(body=file.body, content_type=file.media_type, charset="utf-8")


class _Pages:
    """The answers for the status page, about this server and, through it, about others."""

    def __init__(
        self, watch: HerdWatch, withheld: Callable[[web.Request], str], *, follows: bool, maps: bool
    ) -> None:
        self._watch = watch
        self._withheld = withheld
        self._follows = follows  # whether clients can be followed
        self._maps = maps  # whether this server knows where clients are

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
        """Send the herd's updates as long as the viewer reads them."""
        _refuse_other_sites(request)
        withheld = self._withheld(request)
        response = web.StreamResponse(headers={**HEADERS, hdrs.CONTENT_TYPE: "text/event-stream"})
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        viewer = await self._watch.open(personal=not withheld)
        if viewer is None:
            return web.Response(status=503, text="As many look at this page as may; try again later.\n")
        try:
            await response.prepare(request)
            connection = request.protocol
            if isinstance(connection, AdminConnection):
                connection.views(viewer)
            hello = {
                "version": __version__,
                "withheld": withheld,
                "follows": self._follows and not withheld,
                "map": self._maps,
            }
            await response.write(b"retry: 1000\n" + event("hello", hello))
            while data := await viewer.next():
                async with asyncio.timeout(_STUCK_SECONDS):
                    await response.write(data)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            await self._watch.close(viewer)
            if request.transport is not None:
                request.transport.abort()  # nothing is left to send, and the viewer may not read
        return response


def _withheld(configured: AdminSettings, request: web.Request) -> str:
    """Return why the asker may not see commands and positions; "" if it may."""
    positions = configured.positions
    if positions == "never":
        return 'positions = "never" in [admin] of the herd\'s file switches them off.'
    if positions == "loopback" and not getattr(request.protocol, "loopback", False):
        return (
            "they are personal data, and this address is not loopback's. Ask a loopback address of this server, "
            'through ssh -L for example, or set positions = "always" in [admin] of the herd\'s file.'
        )
    return ""


def _refuse_other_sites(request: web.Request) -> None:
    """Refuse requests of other sites' pages: they could not read the answer, but would take up viewers' places. Raises
    HTTPForbidden.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise web.HTTPForbidden


async def _of_this_site(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], request: web.Request
) -> web.StreamResponse:
    _refuse_other_sites(request)
    return await handler(request)


def _guard(hosts: Iterable[str], failed: Callable[[str, Exception], None]) -> Any:
    """Return the middleware before every handler: it checks Host and method, and answers failures without a
    traceback.
    """

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if isinstance(request.protocol, AdminConnection):
            request.protocol.has_asked()
        asked = request.headers.getall(hdrs.HOST, [])
        if len(asked) != 1 or not http.accepts(asked[0], hosts):
            text = "This Host is not served here; add it to hosts in [admin] of the herd's file.\n"
            return web.Response(status=403, text=text, headers=HEADERS)
        if request.method not in {"GET", "HEAD"}:
            return web.Response(status=405, text="GET only.\n", headers={**HEADERS, "Allow": "GET"})
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f"{error.reason}\n")
        except Exception as error:  # noqa: BLE001 - a fault of ours, for the log and not for whoever asks
            failed(f"the admin port cannot answer {request.path}", error)
            response = web.Response(status=500, text="The server's log says what is wrong.\n")
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    return guard
