"""Questions who is in an area, in the subprotocol `proxyherd.json.v1`, and what their answers mean.

A message and its answer are one line each here, so a `Pipeline` takes them like any command.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from proxyherd.base.escapes import escaped
from proxyherd.client.rules.commands import ClientCommand
from proxyherd.client.rules.errors import (
    MOST_SHOWN,
    AreaRefused,
    ForeignAnswer,
    HerdError,
    NotAllowed,
    Postponed,
    UnknownClient,
)
from proxyherd.client.rules.fields import Number, age_field, location_texts, radius_field

N = TypeVar("N", bound=tuple[Number, ...])

_LATER: Final = (429, 500, 503)
_NO_RIGHT: Final = (401, 403)
_UNKNOWN: Final = 404
_MOST_FOUND: Final = 1_000
_ID: Final = "area"


class ToldProblem(Struct):
    """Why a server does not do what is asked (RFC 9457)."""

    status: int = 0
    title: str = ""
    detail: str = ""

    @property
    def is_for_later(self) -> bool:
        """Whether another server, or the same one later, may do what is asked."""
        return self.status in _LATER

    @property
    def is_about_rights(self) -> bool:
        """Whether the token is missing, or does not allow this."""
        return self.status in _NO_RIGHT

    def __str__(self) -> str:
        return ": ".join(escaped(text)[:MOST_SHOWN] for text in (self.title, self.detail) if text)


class NearbyClient(Struct, frozen=True):
    """A client that is in the area. `lat`, `lon`: degrees, as they were reported; `metres`: from the centre; `age_s`: seconds
    since a server has received the report.
    """

    client: str
    lat: Decimal
    lon: Decimal
    metres: float
    age_s: float


class NearbyClients(Struct, frozen=True):
    """Who is in an area, the nearest to its centre first. `complete`: whether the server knows all that the herd knows.
    `next`: empty, or what to give to `after` for those behind the last one.
    """

    clients: list[NearbyClient]
    server: str
    complete: bool
    next: str = ""


class _Answer(Struct):
    id: Any = None
    problem: ToldProblem | None = None


def near_command(
    centre: tuple[Number, Number] | str, radius_km: Number, limit: int, max_age_s: Number | None, after: str
) -> ClientCommand[NearbyClients]:
    """Return the question who is within a radius of a latitude and a longitude, or of a client. Raises ValueError."""
    where: dict[str, Any]
    if isinstance(centre, str):
        where = {"client": centre, "radius_km": msgspec.Raw(radius_field(radius_km))}
    else:
        lat, lon = numbers(centre, 2, "the centre is a latitude and a longitude, or the name of a client")
        where = circle_fields(lat, lon, radius_km)
    return _command("near", where, limit, max_age_s, after)


def within_command(
    box: tuple[Number, Number, Number, Number], limit: int, max_age_s: Number | None, after: str
) -> ClientCommand[NearbyClients]:
    """Return the question who is in a box. Raises ValueError."""
    return _command("within", box_fields(box), limit, max_age_s, after)


def circle_fields(lat: Number, lon: Number, radius_km: Number) -> dict[str, Any]:
    """Return a circle as a message has it. Raises ValueError."""
    latitude, longitude = location_texts(lat, lon)
    return {"lat": latitude, "lon": longitude, "radius_km": msgspec.Raw(radius_field(radius_km))}


def box_fields(box: tuple[Number, Number, Number, Number]) -> dict[str, Any]:
    """Return a box as a message has it. Raises ValueError."""
    west, south, east, north = numbers(box, 4, "within is west, south, east and north")
    low, high = location_texts(south, west), location_texts(north, east)
    return {"west": low[1], "south": low[0], "east": high[1], "north": high[0]}


def numbers(area: N, size: int, what: str) -> N:
    """Return the numbers of an area, if there are so many. Raises ValueError."""
    if not isinstance(area, tuple | list) or len(area) != size:
        raise ValueError(f"{area!r} is no area: {what}")
    return area


def _command(
    op: str, where: dict[str, Any], limit: int, max_age_s: Number | None, after: str
) -> ClientCommand[NearbyClients]:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _MOST_FOUND:
        raise ValueError(f"limit is {limit!r}: a whole number from 1 to {_MOST_FOUND:,} belongs here")
    message = {"op": op, "id": _ID, **where, "limit": limit}
    if max_age_s is not None:
        message["max_age_s"] = msgspec.Raw(age_field(max_age_s))
    if after:
        message["after"] = after
    line = msgspec.json.encode(message)

    def read(answer: bytes) -> NearbyClients:
        try:
            said = msgspec.json.decode(answer, type=_Answer)
            if (problem := said.problem) is None and said.id == _ID:
                return msgspec.json.decode(answer, type=NearbyClients)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            problem = None
        if problem is None:
            raise ForeignAnswer(f"sends what is no answer of a herd's server: {escaped(answer[:MOST_SHOWN])}")
        raise _refusal(problem, line)

    return ClientCommand(line, read)


def _refusal(problem: ToldProblem, line: bytes) -> HerdError:
    """Return the error that a problem means."""
    if problem.is_for_later:
        return Postponed(f"does not answer now: {problem}")
    if problem.is_about_rights:
        return NotAllowed(str(problem))
    if problem.status == _UNKNOWN:
        return UnknownClient(line, "the herd has no report of this client")
    return AreaRefused(str(problem))
