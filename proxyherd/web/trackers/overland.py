"""Overland: GeoJSON, longitude first, up to 1,000 points at once, and the `current` one, which is newer.

A point without `device_id` is the subject's of the token. The app keeps a batch for ever, unless the answer is
`{"result":"ok"}`.

https://github.com/aaronpk/Overland-iOS#api
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw, Struct

from proxyherd.web.documents import DocumentReader
from proxyherd.web.problems import Problem
from proxyherd.web.trackers.points import TrackerRequest, TrackPoints, is_object, scalar, text


class _Batch(Struct):
    locations: Raw = Raw()
    current: Raw = Raw()


class _Feature(Struct):
    geometry: Raw = Raw()
    properties: Raw = Raw()


class _Geometry(Struct):
    type: Raw = Raw()
    coordinates: Raw = Raw()


class _Properties(Struct):
    timestamp: Raw = Raw()
    horizontal_accuracy: Raw = Raw()
    device_id: Raw = Raw()


_BATCH: Final = DocumentReader(_Batch)
_LIST: Final = DocumentReader(list[Raw])
_FEATURE: Final = DocumentReader(_Feature)
_GEOMETRY: Final = DocumentReader(_Geometry)
_PROPERTIES: Final = DocumentReader(_Properties)


def read_overland(request: TrackerRequest, points: TrackPoints) -> None:
    """Add the locations of a request."""
    try:
        batch = _BATCH.read_document(request.body)
        features = _LIST.decode(bytes(batch.locations) or b"[]")
    except Problem as problem:
        points.consume_body(problem)
        return
    current = [batch.current] if is_object(batch.current) else []
    for some in (features, current):
        points.read_each(some, lambda one: _add_feature(one, request.user, points))


def _add_feature(value: bytes, subject: str, points: TrackPoints) -> None:
    if not is_object(value):  # without a Problem, which costs more: a small packed body has a thousand
        points.consume("unreadable")
        return
    feature = _FEATURE.decode(value)
    if not is_object(feature.geometry) or not is_object(feature.properties):
        points.consume("no_location")
        return
    geometry = _GEOMETRY.decode(bytes(feature.geometry))
    properties = _PROPERTIES.decode(bytes(feature.properties))
    if text(geometry.type) != "Point":
        points.consume("no_location")
        return
    longitude, latitude, *_ = [*_LIST.decode(bytes(geometry.coordinates)), Raw(), Raw()]
    points.add(
        text(properties.device_id) or subject,
        scalar(latitude),
        scalar(longitude),
        scalar(properties.timestamp),
        scalar(properties.horizontal_accuracy),
    )
