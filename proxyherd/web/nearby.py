"""Who is near, and who is inside of an area: `GET /v1/near`, `GET` and `POST /v1/within`, and the ops of the same names.

    GET /v1/near?lat=34.07&lon=-118.45&radius_km=2&limit=2        or ?client=kiwi
    {"clients": [{"client": "kiwi", "lat": 34.06893, "lon": -118.445127, "metres": 455.5, "age_s": 12.25}, …],
     "server": "Clark", "complete": true, "next": "PgGY3Dk8r7ZraXdp"}

The nearest come first. `next` stands for the place of the last one in this order: with `after`, an answer begins behind it.
It is a haversine and an ID, so any server goes on from there, and a forged one only begins elsewhere.

No line can ask that, so the turn gets an `AreaQuery` in place of a line.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from proxyherd.core.area_queries import AreaKind, AreaQuery, AreaReply
from proxyherd.core.messages import NANOSECONDS, nanoseconds, received
from proxyherd.core.reply import Reply
from proxyherd.core.spatial.areas import Area
from proxyherd.core.spatial.search import FIRST, MOST_FOUND, FoundClient, Rank, SearchResult
from proxyherd.web.areas import (
    misdrawn_problem,
    read_box,
    read_circle,
    read_geojson,
    read_radius,
    read_within,
)
from proxyherd.web.documents import ObjectReader, number_text, string_text
from proxyherd.web.ids import NAME_BYTES, id_of, name_of, text_of
from proxyherd.web.locations import json_degrees
from proxyherd.web.problems import ENGINE, NOT_TAKEN, QUERY, RIGHT, Problem
from proxyherd.web.queries import read_parameters, unknown_client

NEAR_RADIUS_KM: Final = b"10"
AREA_LIMIT: Final = b"100"
"""What is asked for where nothing else is said."""

GEOJSON: Final = "application/geo+json"

_NO_INDEX: Final = (
    "The engine redis has no index of positions. Ask for single clients, as in GET /v1/clients/{id}; or ask servers with the "
    "engine herd, to which proxyherd bridge brings the clients."
)
_COMMON: Final = ("limit", "max_age_s", "after")
_BOX: Final = ("west", "south", "east", "north")
_NEAR: Final = ("client", "lat", "lon", "radius_km", *_COMMON)
_NEAR_OP: Final = ObjectReader(("op",), ("id", *_NEAR))
_WITHIN_OP: Final = ObjectReader(("op",), ("id", "within", *_BOX, *_COMMON))

_limit = re.compile(rb"[0-9]{1,20}+").fullmatch
_seconds = re.compile(rb"([0-9]{1,12}+)(?:\.([0-9]{1,9}+))?").fullmatch
_json = msgspec.json.Encoder().encode
_haversine = struct.Struct(">d")
_MOST_PLACE: Final = (_haversine.size + NAME_BYTES) * 4 // 3 + 3
_MOST_HAVERSINE: Final = 1.001
"""That of the other side of the Earth is 1. Rounding may make it a bit more."""

_at_line = re.compile(
    rb"AT [^ ]++ ([^ ]++) [^ ]++ \+?(-?)0*(?=[0-9])([0-9.]++)\+?(-?)0*(?=[0-9])([0-9.]++) "
).match
_is_plain = re.compile(rb"[!#-$&-\[\]-~]++").fullmatch
"""Whether an ID is its own name, with nothing to escape in JSON."""

_MILLISECOND: Final = NANOSECONDS // 1_000


class AreaRequest(Struct, frozen=True):
    """What a client asks about an area. `clock`: when the request has come, in nanoseconds of POSIX time; `server`: the name
    of the one that answers.
    """

    query: AreaQuery
    clock: int
    server: str

    def answer(self, reply: Reply) -> bytes:
        """Return the clients that were found, as JSON. Raises Problem."""
        result, complete = self._result(reply)
        clients, place = b",".join(map(self._spell, result.found)), _next(result)
        behind = b',"next":%b' % _json(place) if place is not UNSET else b""
        return b'{"clients":[%b],"server":%b,"complete":%b%b}' % (
            *(clients, _json(self.server), _json(complete), behind),
        )

    def collection(self, reply: Reply) -> bytes:
        """Return the clients that were found, as a FeatureCollection of GeoJSON. Raises Problem."""
        result, complete = self._result(reply)
        features = [
            _Feature(name, _Point((lon, lat)), _Properties(name, metres, age))
            for name, lat, lon, metres, age in map(self._values, result.found)
        ]
        return _json(_Collection(features, self.server, complete, _next(result)))

    def _spell(self, found: FoundClient) -> bytes:
        """Return a client that was found as JSON: what `_values` has, in half of the time. Answers have up to a thousand."""
        entry, client = found.entry, found.client
        match = _at_line(entry.line)
        assert match is not None
        difference, south, lat, west, lon = match.groups()
        if difference.startswith(b"+"):
            moment = entry.nanoseconds + int(difference.replace(b".", b""))
        else:  # the time that counts may not be the client's
            moment = received(entry.line)
        name = b'"%b"' % client if _is_plain(client) else _json(name_of(client))
        age = max(self.clock - moment, 0) // _MILLISECOND / 1_000
        return b'{"client":%b,"lat":%b%b,"lon":%b%b,"metres":%a,"age_s":%a}' % (
            *(name, south, lat, west, lon, round(found.metres, 2), age),
        )

    def _values(self, found: FoundClient) -> tuple[str, Raw, Raw, float, float]:
        """Return the name of a client that was found, its latitude and longitude, its distance, and its age in seconds. If
        its server's clock is ahead, it has age 0.
        """
        line = found.entry.line
        age = max(self.clock - received(line), 0) // _MILLISECOND / 1_000
        lat, lon = map(Raw, json_degrees(line))
        return name_of(found.client), lat, lon, round(found.metres, 2), age

    def _result(self, reply: Reply) -> tuple[SearchResult, bool]:
        """Return what was found, and whether the server knew of all clients. Raises Problem."""
        if isinstance(reply, AreaReply) and reply.result is not None:
            return reply.result, reply.complete
        is_around = self.query.area is None
        if reply.outcome == "unknown" or (reply.outcome == "denied" and is_around):  # nobody learns which
            raise unknown_client()
        if reply.outcome == "denied":
            raise Problem(RIGHT, "This token may not see clients.")
        if isinstance(reply, AreaReply) and reply.outcome == "invalid":
            raise misdrawn_problem(reply.reason)
        if reply.refusal == "no_index":
            raise Problem(ENGINE, _NO_INDEX)
        raise Problem(NOT_TAKEN, "The server cannot search now, or is asked for too many areas at once.")


class _Point(Struct, tag_field="type", tag="Point", gc=False):
    coordinates: tuple[Raw, Raw]


class _Properties(Struct, gc=False):
    client: str
    metres: float
    age_s: float


class _Feature(Struct, tag_field="type", tag="Feature", gc=False):
    id: str
    geometry: _Point
    properties: _Properties


class _Collection(Struct, tag_field="type", tag="FeatureCollection"):
    features: list[_Feature]
    server: str
    complete: bool
    next: str | UnsetType


def near_request(values: Mapping[str, bytes], clock: int, server: str) -> AreaRequest:
    """Return what is asked about a circle: around a place, or around a client. The values are text, by the names of
    parameters. Raises Problem.
    """
    radius = values.get("radius_km", NEAR_RADIUS_KM)
    if "client" not in values:
        if "lat" not in values and "lon" not in values:
            raise Problem(QUERY, "lat and lon belong here, or client.", "lat")
        circle = read_circle(_needed(values, "lat"), _needed(values, "lon"), radius)
        return AreaRequest(_query("near", values, clock, area=circle), clock, server)
    if "lat" in values or "lon" in values:
        raise Problem(QUERY, "The circle is around a client, or around lat and lon, not both.", "client")
    around, metres = id_of(text_of(values["client"])), read_radius(radius)
    return AreaRequest(_query("near", values, clock, around=around, metres=metres), clock, server)


def within_request(values: Mapping[str, bytes], area: Area | None, clock: int, server: str) -> AreaRequest:
    """Return what is asked about an area; None: it is the box that the values have. They are as above. Raises Problem."""
    shape = read_box(*(_needed(values, name) for name in _BOX)) if area is None else area
    return AreaRequest(_query("within", values, clock, area=shape), clock, server)


def read_near_query(query: str, clock: int, server: str) -> AreaRequest:
    """Return what `GET /v1/near` asks. Raises Problem."""
    return near_request(_parameters(query, _NEAR), clock, server)


def read_within_query(query: str, body: bytes | None, clock: int, server: str) -> AreaRequest:
    """Return what `GET /v1/within` asks; or `POST`, with a body. Raises Problem."""
    names = _COMMON if body is not None else (*_BOX, *_COMMON)
    values = _parameters(query, names)
    return within_request(values, read_geojson(body) if body is not None else None, clock, server)


def read_near_op(message: bytes, clock: int, server: str) -> AreaRequest:
    """Return what the op `near` asks. Raises Problem."""
    return near_request(_texts(_NEAR_OP.read_object(message)[2:], _NEAR), clock, server)


def read_within_op(message: bytes, clock: int, server: str) -> AreaRequest:
    """Return what the op `within` asks. Raises Problem."""
    area, *numbers = _WITHIN_OP.read_object(message)[2:]
    values = _texts(numbers, (*_BOX, *_COMMON))
    if area and any(name in values for name in _BOX):
        raise Problem(
            QUERY, "The area is in within, or between west, south, east and north, not both.", "within"
        )
    return within_request(values, read_within(area) if area else None, clock, server)


def _parameters(query: str, names: Sequence[str]) -> dict[str, bytes]:
    found = read_parameters(query, names)
    return {name: text.encode("utf-8", "surrogateescape") for name, text in found.items()}


def _texts(values: Sequence[bytes], names: Sequence[str]) -> dict[str, bytes]:
    """Return the texts of those values that are there. Raises Problem."""
    return {
        name: string_text(value, name).encode() if name == "client" else number_text(value, name)
        for name, value in zip(names, values, strict=True)
        if value
    }


def _needed(values: Mapping[str, bytes], name: str) -> bytes:
    if name not in values:
        raise Problem(QUERY, "This is missing.", name)
    return values[name]


def _query(
    kind: AreaKind,
    values: Mapping[str, bytes],
    clock: int,
    *,
    area: Area | None = None,
    around: bytes = b"",
    metres: float = 0.0,
) -> AreaQuery:
    """Return a query with what all have. Raises Problem."""
    limit = values.get("limit", AREA_LIMIT)
    if _limit(limit) is None or not 1 <= int(limit) <= MOST_FOUND:
        raise Problem(QUERY, f"A whole number from 1 to {MOST_FOUND:,} belongs here.", "limit")
    since = 0
    if "max_age_s" in values:
        match = _seconds(values["max_age_s"])
        if match is None:
            raise Problem(QUERY, "Seconds belong here, with at most nine decimals.", "max_age_s")
        since = max(clock - nanoseconds(match[1], match[2]), 0)
    after = _rank(values["after"]) if "after" in values else FIRST
    return AreaQuery(kind, int(limit), area, around, metres, after, since)


def _rank(place: bytes) -> Rank:
    """Return the place in the order of answers that a `next` stands for. Raises Problem if it is none."""
    try:
        data = base64.b64decode(place + b"=" * (-len(place) % 4), b"-_", validate=True)
        (haversine,) = _haversine.unpack_from(data) if len(place) <= _MOST_PLACE else (math.nan,)
    except (ValueError, struct.error):
        haversine = math.nan
    if not 0 <= haversine <= _MOST_HAVERSINE:
        raise Problem(QUERY, "What stood in next of an answer belongs here, as it was.", "after")
    return haversine, data[_haversine.size :]


def _next(result: SearchResult) -> str | UnsetType:
    """Return the text that stands for the place where an answer ends, if more clients may come behind it."""
    if result.next is None:
        return UNSET
    haversine, client = result.next
    return base64.urlsafe_b64encode(_haversine.pack(haversine) + client).rstrip(b"=").decode()
