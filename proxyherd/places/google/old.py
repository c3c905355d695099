"""Google Places, the old Nearby Search: its answers are passed on unchanged, except that they may be cut.

Google reports some errors in the body instead of by HTTP: UNKNOWN_ERROR is like 5xx, and OVER_QUERY_LIMIT like 429;
both are worth another call. If they are the last answer, they are passed on as Google wrote them.
"""

from __future__ import annotations

import re

import msgspec
from yarl import URL

from proxyherd.config import schema
from proxyherd.places.answers import MOST_RESULTS, Answer, no_results, read_answer
from proxyherd.places.failures import FailedError
from proxyherd.places.google.calling import Caller, HttpReply, HttpRequest, coordinate
from proxyherd.places.query import Query
from proxyherd.places.watch import CallOutcome

_HOST = "https://maps.googleapis.com"
PATH = "/maps/api/place/nearbysearch/json"
NEW_PATH = "/v1/places:searchNearby"

_REFUSALS = {
    400: ("INVALID_REQUEST", "Google did not understand the query"),
    401: ("REQUEST_DENIED", "Google denied the query"),
    403: ("REQUEST_DENIED", "Google denied the query"),
}

_PASSING = {"UNKNOWN_ERROR", "OVER_QUERY_LIMIT"}

_REFUSED_BYTES = 2_048
"""A refusal in the body is shorter than this, and an answer with results is longer, so longer bodies are not
searched."""

_STATUS = re.compile(rb'"status"\s*:\s*"(REQUEST_DENIED|INVALID_REQUEST|OVER_QUERY_LIMIT)"')


def _judge(reply: HttpReply) -> CallOutcome:
    """Return the outcome of a call. If Google refuses it in the body of HTTP 200, the call costs nothing."""
    if reply.status != 200:
        return "denied"
    said = _STATUS.search(reply.body) if len(reply.body) < _REFUSED_BYTES else None
    if said is None:
        return "answered"
    return "limited" if said[1] == b"OVER_QUERY_LIMIT" else "denied"


class Google:
    """The provider `google`."""

    name = "google"

    def __init__(self, places: schema.PlacesSettings, caller: Caller) -> None:
        self._caller = caller
        self._url = URL(base(places, _HOST) + PATH)
        self._language = {} if places.language is None else {"language": places.language}

    def widened(self, query: Query) -> Query:
        """Return the query that is really sent: Google answers with all results, and the bound is applied here."""
        return msgspec.structs.replace(query, most=MOST_RESULTS)

    async def nearby(self, query: Query, seconds: float, asker: str | None = None) -> Answer:
        """Ask Google, for at most so many seconds. Raises FailedError if there is no useful answer."""
        location = f"{coordinate(query.latitude)},{coordinate(query.longitude)}"
        radius = f"{query.metres:f}"
        if "." in radius:
            radius = radius.rstrip("0").rstrip(".")
        url = self._url.with_query(location=location, radius=radius, **self._language)
        reply = await self._caller.call(self.name, HttpRequest("GET", url, "query", _judge), seconds, asker)
        if reply.status != 200:
            return refused(reply.status)
        answer = await self._caller.read(read_answer, reply.body)
        if answer.status in _PASSING:
            raise FailedError(answer, again=True)
        return answer

    async def close(self) -> None:
        """Close the session."""
        await self._caller.close()


def base(places: schema.PlacesSettings, host: str) -> str:
    """Return the part of the URL before the path of an API: Google's host, or that of its replacement."""
    url = (places.base_url or host).rstrip("/")
    return url.removesuffix(PATH).removesuffix(NEW_PATH)


def refused(status: int, why: str = "") -> Answer:
    """Make the answer for an HTTP status that is neither 200 nor worth another call; `why` is one plain word."""
    what = f"HTTP {status}, {why}" if why else f"HTTP {status}"
    if 300 <= status < 400:
        return no_results("UNKNOWN_ERROR", f"Google Places redirects elsewhere ({what}), not followed")
    name, words = _REFUSALS.get(status, ("UNKNOWN_ERROR", "Google Places failed"))
    return no_results(name, f"{words} ({what})")
