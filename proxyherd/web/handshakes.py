"""The request by which a WebSocket begins (RFC 6455)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from msgspec import Struct

from proxyherd.web.access import TokenProblem
from proxyherd.web.answers import WebAnswer, of_problem
from proxyherd.web.problems import REQUEST, Problem
from proxyherd.web.requests import Headers, ReadRequest
from proxyherd.web.rights import Grant

LINES_PROTOCOL: Final = "proxyherd.lines.v1"
JSON_PROTOCOL: Final = "proxyherd.json.v1"

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16
_VERSION: Final = "13"


class Upgrade(Struct, frozen=True):
    """The answer that lets a WebSocket begin: the subprotocol, and the proof that the request was understood. `grant`: what
    its token grants, None if none is needed. `refusal`: why it is closed at once, because its token is not good: a page
    learns nothing else of a WebSocket that does not begin.
    """

    protocol: str
    accept: str
    grant: Grant | None = None
    refusal: TokenProblem | None = None


def upgrade(headers: Headers) -> Upgrade | WebAnswer:
    """Return the answer to a request with these headers: one that names the version, if it asks for another. Raises
    Problem.
    """
    if (
        headers.get("Upgrade", "").strip().lower() != "websocket"
        or headers.get("Sec-WebSocket-Version", "") != _VERSION
    ):
        problem = Problem(
            REQUEST, "A WebSocket begins here, with Upgrade: websocket and Sec-WebSocket-Version: 13."
        )
        return of_problem(problem, ("Sec-WebSocket-Version", _VERSION))
    key = ",".join(headers.getall("Sec-WebSocket-Key", []))  # several are none
    try:
        size = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != _KEY_BYTES:
        raise Problem(REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64.")
    names = [name.strip() for name in ",".join(headers.getall("Sec-WebSocket-Protocol", [])).split(",")]
    protocol = next((name for name in names if name in (LINES_PROTOCOL, JSON_PROTOCOL)), None)
    if protocol is None:
        raise Problem(REQUEST, f"A WebSocket here names a subprotocol: {LINES_PROTOCOL} or {JSON_PROTOCOL}.")
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    return Upgrade(protocol, base64.b64encode(digest).decode())


def check_upgrade(request: ReadRequest) -> None:
    """Check that a WebSocket can begin behind this request. Raises Problem."""
    if request.method != "GET" or request.body or request.is_old or not request.upgrades:
        text = "A WebSocket begins with GET of HTTP/1.1, the header Connection: Upgrade, and no body."
        raise Problem(REQUEST, text)
