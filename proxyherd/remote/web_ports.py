"""Requests to the web port of a running server: a connection, who asks, and why a server does not answer what was asked.

Whatever a port sends, the result is an answer, `Unreachable` or `NotAnswered`, never a traceback.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Final

import msgspec

from proxyherd.base.escapes import escaped
from proxyherd.base.words import shorten_text
from proxyherd.client.rules.errors import MOST_SHOWN, Unreachable
from proxyherd.client.sockets import connect
from proxyherd.remote.ask import MAX_ANSWER_BYTES
from proxyherd.web.ids import id_of
from proxyherd.web.problems import Problem

if TYPE_CHECKING:
    from proxyherd.config.herd_file import Server

CONNECT_SECONDS: Final = 5.0
WEB_ANSWER_SECONDS: Final = 30.0
"""For each part of an answer."""

LATER: Final = frozenset((HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE))
"""The statuses with which a request may be sent again after a while."""

NO_RIGHT: Final = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))
_MISTAKES: Final = frozenset((HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY))
_TYPED: Final = {
    "lat": "LAT",
    "lon": "LNG",
    "radius_km": "KM",
    "client": "CLIENT",
    "limit": "--limit",
    "max_age_s": "--max-age",
    "buffer_m": "--buffer",
    "near": "--near",
    **dict.fromkeys(("within", "west", "south", "east", "north"), "--within"),
}
"""The parameters of the web port, as they are typed to commands."""

_LONGEST_PAUSE_SECONDS: Final = 2.0


class NotAnswered(Exception):  # noqa: N818 - an answer of a server
    """A server refuses what it was asked; the text says why, and what to do. `mistaken`: the question itself is wrong."""

    def __init__(self, message: str, *, mistaken: bool = False) -> None:
        super().__init__(message)
        self.mistaken = mistaken


class PortConnection(HTTPConnection):
    """A connection to the web port of a server, wherever it listens. `seconds`: for each part of an answer."""

    def __init__(self, server: Server, seconds: float = WEB_ANSWER_SECONDS) -> None:
        super().__init__("localhost", timeout=seconds)
        self._server = server
        self._seconds = seconds

    def connect(self) -> None:
        """Connect. Raises Unreachable."""
        self.sock, _ = connect(self._server.web, time.monotonic() + CONNECT_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(self._seconds)

    def get(self, target: str, token: str, accept: str) -> HTTPResponse:
        """Ask for what is at a target, and return the beginning of the answer. Raises Unreachable."""
        try:
            self.request("GET", target, headers={**request_headers(token), "Accept": accept})
            return self.getresponse()
        except (OSError, HTTPException) as error:
            raise unreachable(self._server, error) from error


def unreachable(server: Server, error: Exception) -> Unreachable:
    """Return what is raised for a connection that broke."""
    return Unreachable(f"{server.web[0]}: {str(error) or type(error).__name__}")


def request_headers(token: str) -> dict[str, str]:
    """Return the headers of a request. `token`: says who asks; "" for nobody in particular."""
    # The port's check of Host is against browsers. Loopback's name is always accepted.
    return {"Host": "localhost", **({"Authorization": f"Bearer {token}"} if token else {})}


def shown_id(name: str) -> str:
    """Return the ID of the client with this name, as commands show it."""
    try:
        return escaped(id_of(name))
    except Problem:  # whatever it is that says so
        return escaped(name)


def read_object(body: bytes) -> dict[str, object]:
    """Return the object in an answer; an empty one if there is none."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return said if isinstance(said, dict) else {}


def pause_of(answer: HTTPResponse) -> float:
    """Return after how many seconds a server wants to be asked again."""
    wait = answer.getheader("Retry-After") or "1"
    return float(wait) if wait.isdecimal() else 1.0


def see(server: Server, token: Callable[[], str], target: str, patience: float) -> bytes:
    """Return the whole answer to a question about where clients are. A server that is not ready is asked again for
    `patience` seconds. Raises NotAnswered, Unreachable.
    """
    deadline = time.monotonic() + patience
    connection = PortConnection(server)
    try:
        while True:
            answer = connection.get(target, token(), "application/json")
            body = whole(server, answer)
            if answer.status == HTTPStatus.OK:
                return body
            if answer.status not in LATER or time.monotonic() >= deadline:
                raise not_answered(server, answer.status, body)
            time.sleep(min(pause_of(answer), _LONGEST_PAUSE_SECONDS))
    finally:
        connection.close()


def whole(server: Server, answer: HTTPResponse) -> bytes:
    """Return the rest of an answer. Raises Unreachable."""
    try:
        return answer.read(MAX_ANSWER_BYTES)
    except (OSError, HTTPException) as error:
        raise unreachable(server, error) from error


def not_answered(server: Server, status: int, body: bytes) -> NotAnswered:
    """Return why a server does not answer a question about where clients are."""
    problem = read_object(body)
    said = ". ".join(str(problem[key]) for key in ("title", "detail") if problem.get(key))
    if field := str(problem.get("field") or ""):
        said = f"{_TYPED.get(field, field)}: {said}"
    said = shorten_text(said, MOST_SHOWN)
    where = f"{server.name} at {server.web[0]}"
    if status in NO_RIGHT:
        return NotAnswered(
            f"{where} says that you may not see this ({said}); name a token that may with --token-file, as "
            "`proxyherd token new --may see` makes it"
        )
    if status in _MISTAKES:
        return NotAnswered(said or f"{where} answers {status}", mistaken=True)
    if status == HTTPStatus.NOT_FOUND and field:
        return NotAnswered(said)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        return NotAnswered(f"{where} does not know this question; upgrade it, or see whose port that is")
    if status == HTTPStatus.NOT_IMPLEMENTED:
        return NotAnswered(f"{where}: {said}")
    return NotAnswered(
        f"{where} does not answer now ({said or status}); see `proxyherd status`, then try again"
    )
