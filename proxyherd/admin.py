"""The admin port: metrics, health and a status page over HTTP. GET only.

The Host header must be a loopback name or a configured one, so that a page in an operator's browser cannot read
this port under a name of its own (DNS rebinding). No client ID and no position is shown.

This room imports aiohttp, which takes long, so it is imported when the server listens already.
"""

from __future__ import annotations

import html
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'",
    "X-Content-Type-Options": "nosniff",
}
_STYLE: Final = """\
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 42rem; padding: 0 1rem; color-scheme: light dark }
table { border-collapse: collapse; width: 100% } th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left }
"""


class Status(Protocol):
    """What the admin port wants to know of its server."""

    def ready(self) -> tuple[bool, str]:
        """Return whether the server is ready, and the reason where it is not."""

    def facts(self) -> Iterable[tuple[str, str]]:
        """Return what the status page says, as pairs of a name and a value."""

    def refresh(self) -> None:
        """Bring the figures of the registry up to date that are not counted as things happen."""


def make_app(
    server: str, status: Status, registry: CollectorRegistry, hosts: Iterable[str]
) -> web.Application:
    """Return the application. `hosts` are names by which it may be asked, besides loopback's."""
    allowed = _LOOPBACK | {host.lower() for host in hosts}

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        name = request.headers.get(hdrs.HOST, "").lower()
        bare = name.rsplit(":", 1)[0] if not name.endswith("]") else name
        if name not in allowed and bare not in allowed:
            text = "This Host is not served here; add it to hosts in [admin] of the herd's file.\n"
            return web.Response(status=403, text=text, headers=_HEADERS)
        if request.method not in {"GET", "HEAD"}:
            return web.Response(status=405, text="GET only.\n", headers={**_HEADERS, "Allow": "GET"})
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f"{error.reason}\n")
        response.headers.update(_HEADERS)
        return response

    async def metrics(request: web.Request) -> web.Response:
        status.refresh()
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=encode(registry), headers={hdrs.CONTENT_TYPE: content_type})

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

    app = web.Application(middlewares=[guard], client_max_size=1024)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/", index)
    app.router.add_get("/style.css", style)
    return app


class Admin:
    """The admin listener of one server."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def listen(self, sock: socket.socket) -> None:
        """Serve on a bound socket."""
        if self._runner.server is None:
            await self._runner.setup()
        await web.SockSite(self._runner, sock, backlog=64).start()

    async def close(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()
