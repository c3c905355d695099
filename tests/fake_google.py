"""A stand-in for Google Places: real HTTP on a free loopback port, served by threads of its own.

Works for tests with and without an event loop, and for servers in other processes: point `places.base_url`
at `url`. Each request is answered with `reply` as it is set then, and is kept in `requests`.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from types import TracebackType

PATH = "/maps/api/place/nearbysearch/json"


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
    """What a request gets. With `hold` nothing comes back before `FakeGoogle.release` is called."""

    body: bytes = field(default_factory=lambda: nearby_answer(20))
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hold: bool = False


@dataclass
class Request:
    path: str
    query: dict[str, str]
    raw_query: str
    headers: dict[str, str]


class FakeGoogle:
    """`with FakeGoogle() as google:`; set `google.reply`, look at `google.requests`."""

    def __init__(self, reply: Reply | None = None) -> None:
        self.reply = reply or Reply()
        self.requests: list[Request] = []
        self._arrived = threading.Condition()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True  # an idle kept-alive connection must not hold up the end
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{PATH}"

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

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — http.server's name
                pass

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        reply = self.reply
        with self._arrived:
            self.requests.append(Request(url.path, query, url.query, dict(handler.headers.items())))
            self._arrived.notify_all()
        if reply.hold:
            self._released.wait()
        try:
            handler.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(reply.body)
        except OSError:  # whoever asked has gone
            handler.close_connection = True
