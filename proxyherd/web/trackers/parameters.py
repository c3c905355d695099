"""Points as parameters of a query or a form, which OsmAnd and GPSLogger send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxyherd.web.problems import Problem
from proxyherd.web.queries import split_query
from proxyherd.web.trackers.points import TrackerRequest, TrackPoints

FORM_BYTES: Final = 8_192
"""Bytes of a form: as many as a query can have."""

_NO: Final = frozenset({"false", "0", "no"})


def read_parameters_point(request: TrackerRequest, points: TrackPoints) -> None:
    """Add the point of a query and a form. If a parameter occurs twice, the first one counts."""
    if len(request.body) > FORM_BYTES:
        points.consume("unreadable")
        return
    try:
        form = request.body.decode("ascii")
        found = [*split_query(request.query), *split_query(form)]
    except (UnicodeDecodeError, Problem):
        points.consume("unreadable")
        return
    add_parameters(dict(reversed(found)), points)


def add_parameters(values: Mapping[str, str], points: TrackPoints) -> None:
    """Add the point that these parameters describe."""

    def first(*names: str) -> bytes | None:
        """Return the first that is there and not empty."""
        found = next(filter(None, map(values.get, names)), None)
        return None if found is None else found.strip().encode("utf-8", "surrogateescape")

    lat, lon = first("lat", "latitude"), first("lon", "lng", "longitude")
    if lat is None and lon is None and (both := first("location")) is not None:
        lat, _, lon = both.partition(b",")
        lon = lon.lstrip()
    if values.get("valid", "").lower() in _NO:
        points.consume("no_fix")
        return
    client = values.get("id") or values.get("deviceid") or ""
    points.add(client, lat, lon, first("timestamp", "time") or points.now(), first("accuracy", "acc"))
