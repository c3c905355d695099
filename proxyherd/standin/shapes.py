"""What the two simulated APIs have in common: a search, a reply, and the area that a map shows of a place.

Pure. The rule of these modules: a key comes with a request and goes nowhere, neither into a reply nor into a line for
the operator.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from typing import Any, Final, Protocol

from msgspec import Struct

MAX_METRES: Final = 50_000.0
"""The largest radius of both APIs."""

MAX_RESULTS: Final = 20
"""The maximum number of results in one answer of either API."""

ICON_BACKGROUND: Final = "#7B9EB0"
ICON_MASK: Final = "https://maps.gstatic.com/mapfiles/place_api/icons/v2/generic_pinlet"

_VIEWPORT_DEGREES: Final = 0.0013489802915
"""Half the height and width of the viewport that Google gives a place without an extent."""


class SimulatedQuery(Struct, frozen=True):
    """A request as it was received; its path has no query."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Search(Struct, frozen=True):
    """A parsed request: degrees, metres, and at most `most` results.

    `language` and `mask` say how the new API writes the answer; the old one has neither.
    """

    latitude: float
    longitude: float
    metres: float
    most: int
    by_distance: bool = False
    language: str = ""
    mask: str = ""


class SimulatedReply(Struct):
    """An answer to send. `outcome` is its name in `/stats`."""

    body: bytes
    outcome: str
    status: int = 200
    results: int = 0
    content_type: str = "application/json; charset=UTF-8"
    _packed: bytes | None = None

    def packed(self) -> bytes:
        """Return the body as gzip; it is compressed only once."""
        if self._packed is None:
            self._packed = gzip.compress(self.body, 1, mtime=0)
        return self._packed


class RefusedError(Exception):
    """The request can't be executed as it is; `reply` says so in Google's form."""

    def __init__(self, reply: SimulatedReply) -> None:
        super().__init__(reply.outcome)
        self.reply = reply


class Api(Protocol):
    """One of Google's two APIs, as far as the simulator needs it."""

    name: str
    method: str
    path: str
    no_key: SimulatedReply
    bad_key: SimulatedReply
    disabled: SimulatedReply
    over_quota: SimulatedReply

    def key(self, asked: SimulatedQuery) -> str:
        """Return the key of a request; empty if it has none."""

    def read(self, asked: SimulatedQuery) -> Search:
        """Parse a request. Raises RefusedError."""

    def answer(self, search: Search, found: list[dict[str, Any]], attributions: list[str]) -> SimulatedReply:
        """Write an answer with places of the gazetteer; `found` has one more than requested, if there are more."""

    def failure(self, status: int) -> SimulatedReply:
        """Write the answer with HTTP status 429, 500 or 503 for a fault."""


def viewport(latitude: float, longitude: float) -> tuple[float, float, float, float]:
    """Return south, west, north and east of the area that a map shows of a place."""
    return (
        round(max(latitude - _VIEWPORT_DEGREES, -90.0), 13),
        _around(longitude - _VIEWPORT_DEGREES),
        round(min(latitude + _VIEWPORT_DEGREES, 90.0), 13),
        _around(longitude + _VIEWPORT_DEGREES),
    )


def _around(longitude: float) -> float:
    """Continue on the other side of the date line."""
    return round((longitude + 180) % 360 - 180, 13)


def nearness(search: Search, place: Mapping[str, Any]) -> float:
    """Return a number that grows with the great-circle distance of a place of the gazetteer."""
    location = place["geometry"]["location"]
    phi, phi2 = math.radians(search.latitude), math.radians(location["lat"])
    across = math.sin(math.radians(location["lng"] - search.longitude) / 2) ** 2
    return math.sin((phi2 - phi) / 2) ** 2 + math.cos(phi) * math.cos(phi2) * across
