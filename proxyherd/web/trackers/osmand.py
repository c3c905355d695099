"""Traccar Client, and other apps that speak the protocol of OsmAnd: a query or a form, or JSON since Traccar Client 9.

https://www.traccar.org/osmand/
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw, Struct

from proxyherd.web.documents import BYTE_ORDER_MARK, DocumentReader
from proxyherd.web.problems import Problem
from proxyherd.web.trackers.parameters import read_parameters_point
from proxyherd.web.trackers.points import TrackerRequest, TrackPoints, is_object, scalar, text


class _Document(Struct):
    location: Raw = Raw()
    device_id: Raw = Raw()


class _Location(Struct):
    timestamp: Raw = Raw()
    coords: Raw = Raw()


class _Coordinates(Struct):
    latitude: Raw = Raw()
    longitude: Raw = Raw()
    accuracy: Raw = Raw()


_DOCUMENT: Final = DocumentReader(_Document)
_LOCATIONS: Final = DocumentReader(list[Raw])
_LOCATION: Final = DocumentReader(_Location)
_COORDINATES: Final = DocumentReader(_Coordinates)


def read_osmand(request: TrackerRequest, points: TrackPoints) -> None:
    """Add the locations of a request."""
    body = request.body.strip()
    if not body.startswith((b"{", b"[", BYTE_ORDER_MARK)):
        read_parameters_point(request, points)
        return
    try:
        document = _DOCUMENT.read_document(body)
        client, found = text(document.device_id), bytes(document.location)
        # In batches, the library of the app sends a list.
        batch = _LOCATIONS.decode(found) if found.startswith(b"[") else [document.location]
    except Problem as problem:
        points.consume_body(problem)
    else:
        points.read_each(batch, lambda one: _add_location(one, client, points))


def _add_location(value: bytes, client: str, points: TrackPoints) -> None:
    location = _LOCATION.decode(value) if is_object(value) else _Location()
    if not is_object(location.coords):  # it tells that it is alive
        points.consume("no_location")
        return
    found = _COORDINATES.decode(bytes(location.coords))
    latitude, longitude, accuracy = map(scalar, (found.latitude, found.longitude, found.accuracy))
    points.add(client, latitude, longitude, scalar(location.timestamp) or points.now(), accuracy)
