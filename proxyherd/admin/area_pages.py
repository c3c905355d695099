"""What the admin port answers about single clients on the map: who is near a place, and a stream of who is in a circle or
where a client is. Only for those who may see positions, and only where this server has the table.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import hdrs, web

from proxyherd.admin.follow_viewer import FollowViewer
from proxyherd.admin.listener import HEADERS, AdminConnection
from proxyherd.admin.status_page.herd import MAX_VIEWERS
from proxyherd.core.area_searches import AreaSearches
from proxyherd.core.follows.follows import Follows
from proxyherd.core.spatial.areas import Circle
from proxyherd.core.spatial.index import degrees
from proxyherd.core.spatial.search import SearchResult
from proxyherd.web.ids import id_of, name_of
from proxyherd.web.problems import Problem

MOST_KILOMETRES: Final = 2_000.0
"""The largest radius: as far as a pixel of the map of the world needs, and a circle that is drawn there."""

_MOST_NEAR: Final = 200
"""Clients that `/near` answers with, at most."""

_STUCK_SECONDS: Final = 5.0
"""How long a viewer may take for an update, besides what the system buffers for it."""

_NO_TABLE: Final = "Only the engine herd knows where clients are.\n"


class AreaPages:
    """The answers. `withheld` says why an asker may not see positions; "" if it may."""

    def __init__(
        self,
        areas: AreaSearches | None,
        follows: Follows | None,
        withheld: Callable[[web.Request], str],
    ) -> None:
        self._areas, self._follows = areas, follows
        self._withheld = withheld
        self._viewers: set[FollowViewer] = set()

    async def end(self) -> None:
        """Remove all viewers, because the server stops."""
        for viewer in self._viewers:
            viewer.end()

    async def near(self, request: web.Request) -> web.Response:
        """Answer with the clients that are nearest to a place."""
        areas, _ = self._permit(request)
        result = await search_circle(areas, _circle(request), _count(request))
        if result is None:
            return web.Response(status=503, text="Too many searches go on now; try again.\n")
        clients = [
            {"client": name_of(one.client), "lat": latitude, "lon": longitude, "metres": round(one.metres, 1)}
            for one in result.found
            for latitude, longitude in [degrees(one.entry.line)]
        ]
        return web.Response(body=msgspec.json.encode({"clients": clients}), content_type="application/json")

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """Send what changes of a client, or in a circle, as long as the viewer reads it."""
        _, follows = self._permit(request)
        name = request.query.get("client")
        try:
            clients = () if name is None else (id_of(name),)
        except Problem as problem:
            raise web.HTTPBadRequest(reason=problem.detail) from None
        area = _circle(request) if name is None else None
        response = web.StreamResponse(headers={**HEADERS, hdrs.CONTENT_TYPE: "text/event-stream"})
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        if len(self._viewers) >= MAX_VIEWERS:
            return web.Response(status=503, text="As many follow clients here as may; try again later.\n")
        viewer = FollowViewer(follows, clients, area)
        self._viewers.add(viewer)
        try:
            await response.prepare(request)
            if isinstance(request.protocol, AdminConnection):
                request.protocol.views(viewer)
            await response.write(b"retry: 1000\n\n")
            while data := await viewer.read():
                async with asyncio.timeout(_STUCK_SECONDS):
                    await response.write(data)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            viewer.close()
            self._viewers.discard(viewer)
            if request.transport is not None:
                request.transport.abort()  # nothing is left to send, and the viewer may not read
        return response

    def _permit(self, request: web.Request) -> tuple[AreaSearches, Follows]:
        """Raises HTTPForbidden if the asker may not see clients, or HTTPNotImplemented if there are none here."""
        if why := self._withheld(request):
            raise web.HTTPForbidden(reason=f"Not shown: {why}")
        if self._areas is None or self._follows is None:
            raise web.HTTPNotImplemented(reason=_NO_TABLE.strip())
        return self._areas, self._follows


def _circle(request: web.Request) -> Circle:
    """Return the circle that is asked for. Raises HTTPBadRequest."""
    try:
        latitude, longitude, kilometres = (float(request.query.get(key, "")) for key in ("lat", "lon", "km"))
    except ValueError:
        raise web.HTTPBadRequest(reason="lat, lon and km are numbers") from None
    if not all(map(math.isfinite, (latitude, longitude, kilometres))) or not (
        abs(latitude) <= 90 and abs(longitude) <= 180 and 0 < kilometres <= MOST_KILOMETRES
    ):
        raise web.HTTPBadRequest(
            reason=f"lat is within 90, lon within 180, km above 0 and at most {MOST_KILOMETRES:.0f}"
        )
    return Circle(latitude, longitude, kilometres * 1_000)


def _count(request: web.Request) -> int:
    spelled = request.query.get("most", "20")
    if not (spelled.isascii() and spelled.isdigit() and len(spelled) < 5 and 0 < int(spelled) <= _MOST_NEAR):
        raise web.HTTPBadRequest(reason=f"most is between 1 and {_MOST_NEAR}")
    return int(spelled)


async def search_circle(areas: AreaSearches, circle: Circle, most: int) -> SearchResult | None:
    """Search a circle, in the server's turns; None if too many searches go on. Raises what the search raises."""
    answer: asyncio.Future[SearchResult | Exception] = asyncio.get_running_loop().create_future()

    def answered(result: SearchResult | Exception) -> None:
        if not answer.done():
            answer.set_result(result)

    if not areas.search(circle, most, answered):
        return None
    try:
        result = await answer
    finally:
        areas.cancel(answered)
    if isinstance(result, Exception):
        raise result
    return result
