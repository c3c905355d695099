"""Queries of areas, which no line can say: who is near, or inside of an area; and their replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, final

from proxyherd.core.reply import Reply
from proxyherd.core.spatial.areas import Area, Circle
from proxyherd.core.spatial.search import FIRST, Rank, SearchResult
from proxyherd.core.value import Value

AreaKind: TypeAlias = Literal["near", "within"]
"""What a query is called in the log and the metrics."""


@final
class AreaQuery(Value):
    """A client's query: up to `most` clients of an area, the nearest to its centre first, that come after a place. The area
    may also be a circle of `metres` around a client. Who was last received before `received_since`, in nanoseconds of POSIX
    time, is left out, and so is who is not to be seen; `sees` None: all are.
    """

    kind: AreaKind
    most: int
    area: Area | None = None
    around: bytes = b""  # the ID of a client, if there is no area
    metres: float = 0.0
    after: Rank = FIRST
    received_since: int = 0
    sees: Callable[[bytes], bool] | None = None


class AreaReply(Reply):
    """The result of a query of an area. Its answer, once there is one, has no bytes: the clients are in `result`, if the
    outcome is `answered`. If it is `invalid`, `reason` says why the area cannot be one.
    """

    result: SearchResult | None = None
    complete: bool = False  # whether the server was ready: until then, it may not know of all clients
    reason: str = ""


def spell_query(query: AreaQuery) -> bytes:
    """Return a query of an area as the log shows it."""
    area = query.area
    where = spell_area(area) if area is not None else query.around + b" %s" % _number(query.metres, 1)
    return b"%s %s %d" % (query.kind.encode(), where, query.most)


def spell_area(area: Area) -> bytes:
    """Return an area as the log shows it: a circle, or west, south, east and north of others."""
    if isinstance(area, Circle):
        return b"%s%s %s" % (_degrees(area.latitude), _degrees(area.longitude), _number(area.metres, 1))
    bounds = area.bounds
    return b" ".join(map(_degrees, (bounds.west, bounds.south, bounds.east, bounds.north)))


def _degrees(degrees: float) -> bytes:
    return (b"+" if degrees >= 0 else b"") + _number(degrees, 7)


def _number(value: float, decimals: int) -> bytes:
    whole, point, fraction = f"{value:.{decimals}f}".partition(".")
    fraction = fraction.rstrip("0")
    return (whole + point * bool(fraction) + fraction).encode()
