"""What each path of the web port does: requests become answers, or exchanges for a turn.

Every request passes the same door first: its Host, and its Origin if it has one. Then, where tokens are needed, its token;
only pages and the description of the API are for everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from msgspec.structs import replace

from proxyherd.core.reply import Reply
from proxyherd.web import problems
from proxyherd.web.access import Access, TokenProblem
from proxyherd.web.answers import EVENT_STREAM, WebAnswer, of_problem
from proxyherd.web.bodies import BODY_BYTES, unpacked
from proxyherd.web.erasures import erase_answer, read_erasure
from proxyherd.web.exchanges import WebExchange
from proxyherd.web.follows import StreamRequest, read_stream_query
from proxyherd.web.handshakes import Upgrade, upgrade
from proxyherd.web.ids import id_of, path_names
from proxyherd.web.lines import LineWriter
from proxyherd.web.nearby import GEOJSON, AreaRequest, read_near_query, read_within_query
from proxyherd.web.negotiation import prefers
from proxyherd.web.openapi import openapi_document
from proxyherd.web.origins import Origins
from proxyherd.web.pages import Pages
from proxyherd.web.problems import Problem
from proxyherd.web.queries import (
    LIMIT,
    RADIUS_KM,
    header_value,
    locate_answer,
    places_answer,
    read_parameters,
)
from proxyherd.web.reports import batch_answer, check_taken, read_batch, read_position, report_answer
from proxyherd.web.requests import EVERYTHING, WebRequest
from proxyherd.web.revocations import read_revocation, revocation_answer
from proxyherd.web.rights import permitted
from proxyherd.web.trackers.apps import APPS, App
from proxyherd.web.trackers.points import TrackerRequest, TrackPoints

Routed: TypeAlias = WebAnswer | WebExchange | Upgrade | StreamRequest
_Handler: TypeAlias = Callable[[WebRequest, list[str], int], Routed]

_SLASH_IN_NAME: Final = "In a path, a / of a client's name is %2F: /v1/clients/jane%2Fphone."

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
"""All methods that some path has."""

_JSON: Final = frozenset(["application/json", ""])
_NDJSON: Final = frozenset(["application/x-ndjson", "application/ndjson", "application/jsonl"])
_NO_PAGES: Final = Pages({})


class WebRoutes:
    """The paths of one server. `server`: its name."""

    def __init__(
        self,
        writer: LineWriter,
        origins: Origins,
        max_accuracy_m: float,
        pages: Pages = _NO_PAGES,
        access: Access | None = None,
        server: str = "",
    ) -> None:
        self.origins = origins
        self.access = access
        self.server = server
        self._pages = pages
        self._writer = writer
        self._max_accuracy_m = max_accuracy_m
        self._apps = {app.name: {method: self._handler(app) for method in app.methods} for app in APPS}
        self._client: dict[str, _Handler] = {
            "GET": self._locate,
            "PUT": self._put,
            "DELETE": self._erase,
        }
        self._places: dict[str, _Handler] = {"GET": self._get_places}
        self._token: dict[str, _Handler] = {"DELETE": self._revoke}
        self._document = openapi_document(tokens=access is not None)
        self._openapi: dict[str, _Handler] = {"GET": self._get_openapi}
        self._page: dict[str, _Handler] = {"GET": self._get_page}
        self._websocket: dict[str, _Handler] = {"GET": self._get_websocket}
        self._named: dict[str, dict[str, _Handler]] = {
            "near": {"GET": self._get_near},
            "within": {"GET": self._get_within, "POST": self._post_within},
            "reports": {"POST": self._post_reports},
            "events": {"GET": self._get_events},
            "ws": self._websocket,
            "openapi.json": self._openapi,
        }

    def admit(self, request: WebRequest) -> str:
        """Return the Origin of a request, or "" if it needs no permission; for `Origins.headers`. Raises Problem if it
        may not be served.
        """
        headers = request.headers
        host = self.origins.check_host(request.hosts)
        fetch_site, referer = headers.get("Sec-Fetch-Site", ""), headers.get("Referer", "")
        page = request.method in ("GET", "HEAD") and self._pages.is_page(request.path)
        return self.origins.check_origin(host, headers.getall("Origin", []), fetch_site, referer, page=page)

    def find(self, request: WebRequest, clock: int) -> Routed:
        """Return the answer to a request, or the exchange that makes it. `clock`: nanoseconds of POSIX time. Raises
        Problem.
        """
        if request.target == EVERYTHING and request.method == "OPTIONS":
            return WebAnswer(204, headers=(("Allow", ", ".join(_METHODS)),))
        path = request.path
        if not path.startswith("/"):
            raise Problem(problems.REQUEST, "The target of a request is a path here.")
        names = path_names(path)
        handlers = self._handlers(names)
        if handlers is None:
            is_cut = names[:2] == ["v1", "clients"] and len(names) > len(("v1", "clients", "name"))
            raise Problem(problems.UNKNOWN, _SLASH_IN_NAME if is_cut else "GET /v1/ tells what there is.")
        is_app = names[0] in self._apps  # what apps cannot unpack, they consume
        method = "GET" if request.method == "HEAD" and not is_app else request.method
        if (handler := handlers.get(method)) is None:
            allow = ", ".join([*handlers, "OPTIONS"])
            if method == "OPTIONS":
                origin = request.headers.get("Origin", "")
                return WebAnswer(
                    204, headers=(("Allow", allow), *self.origins.preflight(origin, handlers).items())
                )
            return of_problem(Problem(problems.METHOD, f"Served here: {allow}."), ("Allow", allow))
        if self.access is None or handlers is self._openapi or handlers is self._page:
            return handler(request if is_app else _unpacked(request), names, clock)
        try:
            grant = self.access.grant(request, clock)
        except TokenProblem as refusal:
            found = self._get_websocket(request, names, clock) if handlers is self._websocket else None
            if not isinstance(found, Upgrade):
                raise
            return replace(found, refusal=refusal)
        request = replace(request, grant=grant)
        found = handler(request if is_app else _unpacked(request), names, clock)
        if isinstance(found, WebExchange):
            found.lines, found.grant = permitted(found.lines, grant), grant
        return replace(found, grant=grant) if isinstance(found, (Upgrade, StreamRequest)) else found

    def _handlers(self, names: list[str]) -> dict[str, _Handler] | None:
        match names:
            case ["v1", "clients", _]:
                return self._client
            case ["v1", "clients", _, "places"]:
                return self._places
            case ["v1", "tokens", _] if self.access is not None:
                return self._token
            case ["v1", name] if name in self._named:
                return self._named[name]
            case [name] | [name, ""] if name in self._apps:  # who types an address may add a slash
                return self._apps[name]
        return self._page if self._pages.has(names) else None

    def _handler(self, app: App) -> _Handler:
        """Return what answers the requests of an app."""

        def handle(request: WebRequest, _: list[str], clock: int) -> WebExchange:
            subject = request.grant.client if request.grant is not None else ""
            points = TrackPoints(self._writer, clock, self._max_accuracy_m, subject)
            headers = {name: request.headers.get(name, "") for name in ("X-Limit-U", "X-Limit-D")}
            try:
                body = _unpacked(request).body
            except Problem as problem:
                points.consume_body(problem)
            else:
                app.read(TrackerRequest(body, request.query, headers, request.user), points)

            def finish(replies: Sequence[Reply]) -> WebAnswer:
                for reply in replies:
                    if reply.refusal == "long_id":
                        points.consume("no_client")
                    elif reply.outcome == "denied":
                        points.consume("denied")
                    else:
                        check_taken(reply)
                return WebAnswer(200, app.answer, app.media_type)

            return WebExchange(app.name, points.lines, finish, consumed=points.consumed)

        return handle

    def _get_openapi(self, request: WebRequest, _: list[str], __: int) -> WebAnswer:
        read_parameters(request.query, ())
        return WebAnswer(200, self._document)

    def _get_page(self, request: WebRequest, names: list[str], _: int) -> WebAnswer:
        return self._pages.answer(names, request.headers.get("If-None-Match", ""))

    def _put(self, request: WebRequest, names: list[str], clock: int) -> WebExchange:
        _check_type(request, _JSON)
        line = read_position(id_of(names[2]), request.body, clock, self._writer)
        return WebExchange("http", [line], lambda replies: WebAnswer(200, report_answer(replies[0])))

    def _locate(self, request: WebRequest, names: list[str], _: int) -> WebExchange:
        read_parameters(request.query, ())
        line = self._writer.locate(id_of(names[2]))
        return WebExchange("http", [line], lambda replies: WebAnswer(200, locate_answer(replies[0])))

    def _erase(self, request: WebRequest, names: list[str], clock: int) -> WebExchange:
        forget = read_erasure(names[2], request.query, clock)
        return WebExchange("http", [forget], lambda replies: WebAnswer(202, erase_answer(replies[0])))

    def _revoke(self, request: WebRequest, names: list[str], _: int) -> WebExchange:
        forget = read_revocation(names[2], request.query)
        return WebExchange("http", [forget], lambda replies: WebAnswer(202, revocation_answer(replies[0])))

    def _get_places(self, request: WebRequest, names: list[str], _: int) -> WebExchange:
        wanted = read_parameters(request.query, ("radius_km", "limit"))
        radius, limit = wanted.get("radius_km"), wanted.get("limit")
        line = self._writer.places(
            id_of(names[2]),
            RADIUS_KM if radius is None else radius.encode("utf-8", "surrogateescape"),
            LIMIT if limit is None else limit.encode("utf-8", "surrogateescape"),
        )

        def finish(replies: Sequence[Reply]) -> WebAnswer:
            at, places = places_answer(replies[0])
            return WebAnswer(200, places, headers=(("Proxyherd-At", header_value(at)),))

        return WebExchange("http", [line], finish)

    def _get_near(self, request: WebRequest, _: list[str], clock: int) -> WebExchange:
        return _area_exchange(request, read_near_query(request.query, clock, self.server))

    def _get_within(self, request: WebRequest, _: list[str], clock: int) -> WebExchange:
        return _area_exchange(request, read_within_query(request.query, None, clock, self.server))

    def _post_within(self, request: WebRequest, _: list[str], clock: int) -> WebExchange:
        _check_type(request, _JSON | {GEOJSON})
        return _area_exchange(request, read_within_query(request.query, request.body, clock, self.server))

    def _get_events(self, request: WebRequest, _: list[str], __: int) -> Routed:
        wanted = read_stream_query(request.query)
        return wanted if request.method == "GET" else WebAnswer(200, b"", EVENT_STREAM)

    def _get_websocket(self, request: WebRequest, _: list[str], __: int) -> Routed:
        return upgrade(request.headers)

    def _post_reports(self, request: WebRequest, _: list[str], clock: int) -> WebExchange:
        _check_type(request, _JSON | _NDJSON)
        batch = read_batch(request.body, clock, self._writer, ndjson=request.content_type in _NDJSON)
        lines = [line for line in batch if isinstance(line, bytes)]

        def finish(replies: Sequence[Reply]) -> WebAnswer:
            return WebAnswer(200, batch_answer(batch, replies))

        return WebExchange("http", lines, finish)


def _area_exchange(request: WebRequest, asked: AreaRequest) -> WebExchange:
    """Return the exchange that asks about an area. Its answer is GeoJSON if the client prefers that."""
    is_geojson = prefers(request.headers.getall("Accept", []), GEOJSON, "application/json")

    def finish(replies: Sequence[Reply]) -> WebAnswer:
        if is_geojson:
            return WebAnswer(200, asked.collection(replies[0]), GEOJSON)
        return WebAnswer(200, asked.answer(replies[0]))

    return WebExchange("http", [asked.query], finish)


def _unpacked(request: WebRequest) -> WebRequest:
    """Return a request with what is in its body. Raises Problem."""
    encoding = request.headers.get("Content-Encoding", "")
    if not encoding and len(request.body) <= BODY_BYTES:
        return request
    return replace(request, body=unpacked(request.body, encoding))


def _check_type(request: WebRequest, types: frozenset[str]) -> None:
    """Check the type of a body. Raises Problem."""
    if request.content_type not in types:
        raise Problem(problems.MEDIA_TYPE, f"A body here is {' or '.join(sorted(filter(None, types)))}.")
