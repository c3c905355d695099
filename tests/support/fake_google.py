"""A stand-in for Google Places that says what it is told, byte for byte, and what it takes to ask it.

`FakeGoogle` is real HTTP on a free loopback port, served by threads of its own. It works for tests with and without an
event loop, and for servers in other processes: point `places.base_url` at `url`. A request is answered with the next of
`replies`, and with `reply` as it is set then when there are none left; each is kept in `requests`. What a client of a
Google in good health sees is told better by the simulator in `places_sim`.

`Ledger` stands for the budget and the metrics; `opened` and `ask` are a server's way to a provider.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from proxyherd.config import schema
from proxyherd.places import Answer, BreakerState, CallOutcome, Places, Query, Spared, open_places
from proxyherd.places.failures import failed

if TYPE_CHECKING:
    from types import TracebackType

PATH = "/maps/api/place/nearbysearch/json"
NEW_PATH = "/v1/places:searchNearby"

KEY = "AIzaSy-throwaway_0123456789"
QUERY = Query("+34.068930", "-118.445127", Decimal("10000.0"), 20)


def nearby_answer(results: int, *, status: str = "OK") -> bytes:
    """Spell an answer as Google does: its layout, a blank line here and there, LFs at the end."""
    document = {
        "html_attributions": [],
        "next_page_token": "Aap_uEA7vb0DDYVJWEaX3O-AtYp77AaswQKSGtDaimt3gt7QCNpdjp1BkdM6acJ96xTec3tsV_ZJNL",
        "results": [
            {
                "geometry": {"location": {"lat": 34.0689 + number, "lng": -118.4451}},
                "name": f"Café № {number}",
                "rating": 4.0,
                "place_id": f"ChIJ{number}",
            }
            for number in range(results)
        ],
        "status": status,
    }
    text = json.dumps(document, indent=3, separators=(",", " : "), ensure_ascii=False)
    return text.replace('"status"', '\n\n"status"').encode() + b"\n\n\n"


@dataclass
class Reply:
    """What a request gets. With `hold` nothing comes back before `FakeGoogle.release` is called; with `drop` the
    connection is closed instead.
    """

    body: bytes = field(default_factory=lambda: nearby_answer(20))
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hold: bool = False
    drop: bool = False


@dataclass
class HttpRequest:
    path: str
    query: dict[str, str]
    raw_query: str
    headers: dict[str, str]
    method: str = "GET"
    body: bytes = b""
    port: int = 0
    """The client's, and so which connection it came by."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class FakeGoogle:
    """`with FakeGoogle() as google:`; set `google.reply`, look at `google.requests`.

    `on_request` is called in the server's thread when a request has arrived, before it is in `requests`.
    """

    def __init__(self, reply: Reply | None = None, *, replies: Iterable[Reply] = ()) -> None:
        self.reply = reply or Reply()
        self.replies = deque(replies)
        self.requests: list[HttpRequest] = []
        self.on_request: Callable[[], None] | None = None
        self._arrived = threading.Condition()
        self._released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True  # an idle kept-alive connection must not hold up the end
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def host(self) -> str:
        """What stands before the paths of both APIs."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return self.host + PATH

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def wait_for(self, requests: int, timeout_seconds: float = 10) -> None:
        """Wait until so many requests have arrived in all; from a test with a loop, in `to_thread`."""
        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(self.requests) >= requests, timeout_seconds)
        assert arrived, f"{len(self.requests)} of {requests} requests arrived"

    def release(self) -> None:
        """Let held replies go."""
        self._released.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        google = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                google._serve(self)

            def do_POST(self) -> None:
                google._serve(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — http.server's name
                pass

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        headers = dict(handler.headers.items())
        request = HttpRequest(
            url.path, query, url.query, headers, handler.command, body, handler.client_address[1]
        )
        if self.on_request is not None:
            self.on_request()
        with self._arrived:
            reply = self.replies.popleft() if self.replies else self.reply
            self.requests.append(request)
            self._arrived.notify_all()
        if reply.hold:
            self._released.wait()
        if reply.drop:
            handler.close_connection = True
            return
        try:
            handler.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(reply.body)
        except OSError:  # whoever asked has gone
            handler.close_connection = True


@dataclass
class Called:
    provider: str
    outcome: CallOutcome
    seconds: float
    dollars: float


class Ledger:
    """Counts as a server does, and allows `calls` calls; None: all."""

    def __init__(self, calls: int | None = None) -> None:
        self.calls = calls
        self.spent = 0
        self.payers: list[str | None] = []
        self.given_back: list[int] = []
        self.called: list[Called] = []
        self.spared: list[Spared] = []
        self.states: list[BreakerState] = []
        self.closed = 0

    @property
    def outcomes(self) -> list[CallOutcome]:
        return [call.outcome for call in self.called]

    def spend(self, asker: str | None = None) -> int:
        self.payers.append(asker)
        if self.calls is not None and self.spent >= self.calls:
            raise failed("OVER_QUERY_LIMIT", "this server's share of places.calls_per_day is used up")
        self.spent += 1
        return self.spent

    def give_back(self, spent: int, asker: str | None = None) -> None:
        self.given_back.append(spent)

    def close(self) -> None:
        self.closed += 1

    def count_call(self, provider: str, outcome: CallOutcome, seconds: float, dollars: float) -> None:
        self.called.append(Called(provider, outcome, seconds, dollars))

    def count_spared(self, why: Spared) -> None:
        self.spared.append(why)

    def note_breaker(self, state: BreakerState) -> None:
        self.states.append(state)


@asynccontextmanager
async def opened(
    url: str,
    ledger: Ledger | None = None,
    *,
    key: str | None = KEY,
    limits: schema.Limits | None = None,
    **keys: Any,
) -> AsyncIterator[Places]:
    """Open Places as a server does, with these keys of [places]: by default the old API, and one attempt."""
    ledger = ledger or Ledger()
    places = schema.PlacesSettings(**{"base_url": url, "provider": "google", "attempts": 1, **keys})
    provider = open_places(
        places, limits or schema.Limits(), ledger, key=key, gazetteer=Path("/nowhere"), budget=ledger
    )
    try:
        yield provider
    finally:
        await provider.close()


def ask(
    url: str,
    ledger: Ledger | None = None,
    *,
    query: Query = QUERY,
    times: int = 1,
    key: str | None = KEY,
    **keys: Any,
) -> Answer:
    """Ask so many times, one after another, and return the last answer."""

    async def run() -> Answer:
        async with opened(url, ledger, key=key, **keys) as places:
            for _ in range(times - 1):
                await places.nearby(query)
            return await places.nearby(query)

    return asyncio.run(run())


def message(answer: Answer) -> str:
    """Return what an answer made here says went wrong."""
    document = json.loads(answer.body)
    assert (document["results"], document["status"]) == ([], answer.status)
    return str(document["error_message"])
