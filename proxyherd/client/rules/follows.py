"""To follow clients or an area over connections that break: what is told is what has changed, whatever comes again.

A server names at first all who are there, and then says `snapshot`. So after a new connection, whoever was known and was
not named has gone meanwhile; and what is named again as it was known is no news. If there are too many, all of them go, and
the next server names those who are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from proxyherd.base.escapes import escaped
from proxyherd.client.rules.areas import ToldProblem, box_fields, circle_fields, numbers
from proxyherd.client.rules.errors import MOST_SHOWN, FollowRefused, ForeignAnswer, NotAllowed, Unreachable
from proxyherd.client.rules.fields import Number, metres_field, name_field

_ID: Final = "follow"
_MOST_BUFFER_METRES: Final = 10_000
_MOST_KNOWN: Final = 100_000
"""Clients that are kept. A server lets one connection follow at most 10,000 in areas."""


class FollowedChange(Struct, frozen=True):
    """What has happened to a client that is followed."""

    event: str
    """`enter`: it has come into the area, or is known now; `move`; `leave`: it has left the area; `gone`: it was erased, or
    has expired; `snapshot`: all who are there have been told, after each connection.
    """
    client: str = ""
    """Its name, as in the JSON of the web port."""
    lat: Decimal | None = None
    """Degrees, as they were reported; None where it has gone. So is `lon`."""
    lon: Decimal | None = None
    time: Decimal | None = None
    """The report's time, POSIX seconds."""
    received: Decimal | None = None
    """When `server` took the report, POSIX seconds."""
    server: str = ""
    initial: bool = False
    """Whether it was there when this began."""
    complete: bool = True
    """Of a snapshot: whether the server knows all that the herd knows."""


class _Message(FollowedChange, frozen=True):
    event: str = ""
    reason: str = ""
    problem: ToldProblem | None = None


def follow_message(
    clients: tuple[str, ...],
    near: tuple[Number, Number, Number] | None,
    within: tuple[Number, Number, Number, Number] | None,
    buffer_m: float,
) -> str:
    """Return the message that begins a follow: of clients by their names; or of the circle `near` a latitude and a longitude,
    with a radius in kilometres; or of the box `within` west, south, east and north. Raises ValueError.
    """
    if [bool(clients), near is not None, within is not None].count(True) != 1:
        raise ValueError("follow clients, or one area: near or within")
    what: dict[str, Any] = {}
    if near is not None:
        what["near"] = circle_fields(*numbers(near, 3, "near is a latitude, a longitude and kilometres"))
    elif within is not None:
        what["within"] = box_fields(within)
    else:
        what["client"] = [*map(name_field, clients)]
    if metres_field("buffer_m", buffer_m, _MOST_BUFFER_METRES):
        what["buffer_m"] = buffer_m
    return msgspec.json.encode({"op": "follow", "id": _ID, **what}).decode()


class FollowState:
    """What the program has been told; over one connection after the other."""

    def __init__(self, *, is_area: bool) -> None:
        self._ending = "leave" if is_area else "gone"
        self._known: dict[str, FollowedChange] = {}
        self._named: set[str] | None = None

    def begin(self) -> None:
        """A new connection has begun."""
        self._named = set()

    def hear(self, data: bytes | str) -> Iterator[FollowedChange]:
        """Read a message of a server; yield what is news. Raises FollowRefused, NotAllowed, Unreachable,
        ForeignAnswer.
        """
        try:
            message = msgspec.json.decode(data, type=_Message, strict=False)
        except (msgspec.DecodeError, UnicodeError):
            shown = escaped(data[:MOST_SHOWN])
            raise ForeignAnswer(f"sends what is no event of a herd's server: {shown}") from None
        if (problem := message.problem) is not None:
            refused = NotAllowed if problem.is_about_rights else FollowRefused
            raise (Unreachable if problem.is_for_later else refused)(str(problem))
        if message.event == "ended":
            raise FollowRefused(message.reason)
        if message.event in ("enter", "move"):
            yield from self._told(message)
        elif message.event in ("leave", "gone"):
            if self._named is not None:
                self._named.discard(message.client)
            if self._known.pop(message.client, None) is not None:
                yield _change(message, message.event)
        elif message.event == "snapshot":
            yield from self._completed(message)

    def _told(self, message: _Message) -> Iterator[FollowedChange]:
        if self._named is not None:
            self._named.add(message.client)
        known = self._known.get(message.client)
        change = _change(message, "move" if known is not None else "enter")
        if known is None or (known.lat, known.lon, known.time, known.received) != (
            *(change.lat, change.lon),
            *(change.time, change.received),
        ):
            if known is None and len(self._known) >= _MOST_KNOWN:
                yield from self._end([*self._known])  # they may be inventions
                raise ForeignAnswer(f"tells of more than {_MOST_KNOWN:,} clients")
            self._known[message.client] = change
            yield change

    def _completed(self, message: _Message) -> Iterator[FollowedChange]:
        # A server that does not know all clients yet names the others as it learns of them, before another snapshot.
        if message.complete and self._named is not None:
            missing, self._named = self._known.keys() - self._named, None
            yield from self._end(sorted(missing))
        yield _change(message, "snapshot")

    def _end(self, clients: list[str]) -> Iterator[FollowedChange]:
        for client in clients:
            del self._known[client]
            yield FollowedChange(self._ending, client)


def _change(message: _Message, kind: str) -> FollowedChange:
    return FollowedChange(
        kind,
        message.client,
        message.lat,
        message.lon,
        message.time,
        message.received,
        message.server,
        message.initial,
        message.complete,
    )
