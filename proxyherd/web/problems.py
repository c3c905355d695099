"""Problems: what is wrong with a request, as RFC 9457 spells it. The list is closed.

A problem never repeats what the client has sent: it may be a secret, or a page's script. It names the field, and says
what belongs there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Struct

CONTENT_TYPE: Final = "application/problem+json"


class Kind(Struct, frozen=True):
    """A kind of problem: its name, HTTP status and title. `retry_seconds`: when to try again, at the earliest; 0: the same
    request fails again.
    """

    name: str
    status: int
    title: str
    retry_seconds: int = 0

    @property
    def type(self) -> str:
        """The URI that stands for this kind: a place on the page at `/v1/`, which lists all kinds."""
        return f"/v1/#{self.name}"


JSON: Final = Kind("json", 400, "This is not JSON")
CLIENT: Final = Kind("client", 400, "This cannot be the name of a client")
DEGREES: Final = Kind("degrees", 400, "This is not a latitude or a longitude")
TIME: Final = Kind("time", 400, "This is not a time")
QUERY: Final = Kind("query", 400, "A parameter is out of form or out of bounds")
REQUEST: Final = Kind("request", 400, "This is not a request that is served here")
ENCODING: Final = Kind("encoding", 400, "The body cannot be unpacked")
TOKEN: Final = Kind("token", 401, "A token is missing, or is not good")
RIGHT: Final = Kind("right", 403, "The token does not allow that")
HOST: Final = Kind("host", 403, "This Host is not served here")
ORIGIN: Final = Kind("origin", 403, "Pages of this origin may not ask here")
UNKNOWN: Final = Kind("unknown", 404, "There is nothing here")
METHOD: Final = Kind("method", 405, "This method is not served here")
SLOW: Final = Kind("slow", 408, "The request came too slowly")
LARGE: Final = Kind("large", 413, "This is too large")
MEDIA_TYPE: Final = Kind("media-type", 415, "A body of this type or encoding is not read here")
EXPECTATION: Final = Kind("expectation", 417, "This expectation cannot be met")
MEANING: Final = Kind("meaning", 422, "This is JSON, but not what belongs here")
RATE: Final = Kind("rate", 429, "This server is asked too often", retry_seconds=1)
FAULT: Final = Kind("fault", 500, "This server has failed")
CODING: Final = Kind("coding", 501, "This transfer coding is not read here")
ENGINE: Final = Kind("engine", 501, "The engine of this server cannot do that")
NOT_TAKEN: Final = Kind("not-taken", 503, "This server cannot do that now", retry_seconds=2)
VERSION: Final = Kind("version", 505, "This version of HTTP is not spoken here")

KINDS: Final = (
    *(JSON, CLIENT, DEGREES, TIME, QUERY, REQUEST, ENCODING, TOKEN, RIGHT, HOST, ORIGIN, UNKNOWN, METHOD),
    *(SLOW, LARGE, MEDIA_TYPE, EXPECTATION, MEANING, RATE, FAULT, CODING, ENGINE, NOT_TAKEN, VERSION),
)
"""All kinds, in the order of their status."""


class Problem(Exception):  # noqa: N818 - what RFC 9457 calls it
    """What is wrong with a request. `detail`: what to change, in a sentence; `field`: where; `retry_seconds`: when to try
    again, if that is later than for others of its kind.
    """

    def __init__(self, kind: Kind, detail: str, field: str = "", retry_seconds: int = 0) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.field = field
        self.retry_seconds = max(retry_seconds, kind.retry_seconds)

    def content(self) -> dict[str, object]:
        """Return the problem object."""
        kind = self.kind
        content: dict[str, object] = {"type": kind.type, "title": kind.title, "status": kind.status}
        return content | {"detail": self.detail} | ({"field": self.field} if self.field else {})

    def document(self) -> bytes:
        """Return the problem object as JSON, of type `CONTENT_TYPE`."""
        return _document(self.kind, self.detail, self.field)


@lru_cache(maxsize=256)
def _document(kind: Kind, detail: str, field: str) -> bytes:
    return msgspec.json.encode(Problem(kind, detail, field).content())
