"""Google Places, the old Nearby Search: what it answers goes on as it came, cut at most.

Google signals in the body what others signal by HTTP: UNKNOWN_ERROR is its 5xx and OVER_QUERY_LIMIT its 429, and both
are worth another call. If they stay the last word, they go on as Google spelled them.
"""

from __future__ import annotations

import re

import msgspec
from yarl import URL

from proxyherd.config import schema
from proxyherd.places.answers import MOST_RESULTS, Answer, no_results, read_answer
from proxyherd.places.failures import FailedError
from proxyherd.places.google.calling import Caller, HttpReply, coordinate
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
"""No refusal in the body is as long as this, and an answer with results is longer: it is not searched."""

_STATUS = re.compile(rb'"status"\s*:\s*"(REQUEST_DENIED|INVALID_REQUEST|OVER_QUERY_LIMIT)"')


def _judge(reply: HttpReply) -> CallOutcome:
    """Say what became of a call, also where Google says in the body of HTTP 200 that it refuses: that costs nothing."""
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
        """Return the query that is really asked: Google answers all it has, and the bound is kept here."""
        return msgspec.structs.replace(query, most=MOST_RESULTS)

    async def nearby(self, query: Query, seconds: float) -> Answer:
        """Ask Google, for so many seconds at most. Raises FailedError if it did not get to answer."""
        location = f"{coordinate(query.latitude)},{coordinate(query.longitude)}"
        radius = f"{query.metres:f}"
        if "." in radius:
            radius = radius.rstrip("0").rstrip(".")
        url = self._url.with_query(location=location, radius=radius, **self._language)
        reply = await self._caller.call(self.name, "GET", url, seconds, key_in="query", judge=_judge)
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
    """Return what stands before the path of an API: Google's host, or whoever stands in for it."""
    url = (places.base_url or host).rstrip("/")
    return url.removesuffix(PATH).removesuffix(NEW_PATH)


def refused(status: int, why: str = "") -> Answer:
    """Make the answer for an HTTP status that is not 200, and not one to call again for; `why` is one plain word."""
    what = f"HTTP {status}, {why}" if why else f"HTTP {status}"
    if 300 <= status < 400:
        return no_results("UNKNOWN_ERROR", f"Google Places redirects elsewhere ({what}), not followed")
    name, words = _REFUSALS.get(status, ("UNKNOWN_ERROR", "Google Places failed"))
    return no_results(name, f"{words} ({what})")
