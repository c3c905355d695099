"""Areas as clients describe them: circles and boxes by their numbers, and polygons as GeoJSON (RFC 7946).

The numbers of a circle or a box have the forms and bounds of those in a report and in a query of places. GeoJSON has a
Polygon or a MultiPolygon, perhaps in a Feature, or in several of a FeatureCollection, as drawing tools write them: then it
is all of their polygons together. Heights, properties and members that GeoJSON does not know are ignored.

Whether a polygon crosses itself takes long to find out. So a search finds out, and reports it as `Misdrawn`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Raw

from proxyherd.core.messages import metres
from proxyherd.core.spatial.areas import Area, Box, Circle, Misdrawn
from proxyherd.core.spatial.polygons import Polygon, Ring
from proxyherd.web import locations
from proxyherd.web.documents import (
    DocumentReader,
    MemberReader,
    ObjectReader,
    check_size,
    number_text,
    string_text,
)
from proxyherd.web.lines import check_radius
from proxyherd.web.problems import DEGREES, MEANING, QUERY, Problem

MOST_AREA_COMMAS: Final = 16_384
"""Commas in the GeoJSON of an area: 1,000 positions have 3,000, and properties may have some too."""

_Position: TypeAlias = Annotated[list[float], Meta(min_length=2)]
_Rings: TypeAlias = list[list[_Position]]
_T = TypeVar("_T")

_AREAS: Final = (
    "A Polygon or a MultiPolygon of GeoJSON belongs here, perhaps in a Feature or a FeatureCollection."
)
_BOX: Final = ("west", "south", "east", "north")
_CIRCLE: Final = ("lat", "lon", "radius_km")

_MEMBERS: Final = MemberReader(_AREAS)
_FEATURES: Final = DocumentReader(list[Raw], "An array of features belongs here.")
_polygon = msgspec.json.Decoder(_Rings).decode
_multi_polygon = msgspec.json.Decoder(list[_Rings]).decode
_CIRCLE_OBJECT: Final = ObjectReader(_CIRCLE)
_BOX_OBJECT: Final = ObjectReader(_BOX)

_place = re.compile(r"at `\$([0-9\[\]]+)`").search
"""Where a document is not as it must be, in what msgspec says."""


def read_circle(lat: bytes, lon: bytes, radius_km: bytes) -> Circle:
    """Return the circle with this centre and radius, as text. Raises Problem."""
    return Circle(_degrees(lat, "lat"), _degrees(lon, "lon"), read_radius(radius_km))


def read_radius(radius_km: bytes) -> float:
    """Return the metres of a radius in kilometres, as text. Raises Problem."""
    check_radius(radius_km)
    return float(metres(radius_km))


def read_box(west: bytes, south: bytes, east: bytes, north: bytes) -> Box:
    """Return the box between these degrees, as text; it crosses the date line if `west` is greater than `east`. Raises
    Problem.
    """
    box = Box(*(_degrees(*one) for one in zip((west, south, east, north), _BOX, strict=True)))
    if box.south > box.north:
        raise Problem(QUERY, "south is greater than north: exchange them.", "south")
    return box


def read_geojson(document: bytes) -> Polygon:
    """Return the area of a GeoJSON document. Raises Problem; not yet if it crosses itself."""
    check_size(document, MOST_AREA_COMMAS)
    try:
        return Polygon(_polygons(document))
    except Misdrawn as reason:
        raise misdrawn_problem(str(reason)) from None


def misdrawn_problem(reason: str) -> Problem:
    """Return what is wrong with a request whose area cannot be one."""
    return Problem(MEANING, f"This is no area: {reason}.", "coordinates")


def read_near(document: bytes) -> Circle:
    """Return the circle that a JSON object describes, as in `{"lat": 34, "lon": -118, "radius_km": 2}`. Raises Problem."""
    values = _CIRCLE_OBJECT.read_object(document)
    return read_circle(*_texts(values, _CIRCLE))


def read_within(document: bytes) -> Area:
    """Return the area that a JSON object describes: a box, as in `{"west": …, "south": …, "east": …, "north": …}`, or
    GeoJSON. Raises Problem.
    """
    check_size(document, MOST_AREA_COMMAS)
    if "type" in _MEMBERS.read_members(document):
        return read_geojson(document)
    return read_box(*_texts(_BOX_OBJECT.read_object(document), _BOX))


def read_near_parameter(text: str) -> Circle:
    """Return the circle that a parameter `near` describes: latitude, longitude and kilometres. Raises Problem."""
    return read_circle(*_parts(text, "near", _CIRCLE))


def read_within_parameter(text: str) -> Area:
    """Return the area that a parameter `within` describes: west, south, east and north of a box, or GeoJSON. Raises Problem."""
    if text.lstrip().startswith("{"):
        return read_geojson(_bytes(text))
    return read_box(*_parts(text, "within", _BOX))


def _degrees(text: bytes, name: str) -> float:
    """Return degrees of latitude or longitude, as the name of the field says. Raises Problem."""
    is_latitude = name in ("lat", "south", "north")
    spelled = locations.latitude(text) if is_latitude else locations.longitude(text)
    if spelled is None:
        raise Problem(DEGREES, locations.expected_degrees(90 if is_latitude else 180), name)
    return float(spelled)


def _texts(values: Sequence[bytes], names: Sequence[str]) -> list[bytes]:
    return [number_text(value, name) for value, name in zip(values, names, strict=True)]


def _parts(text: str, field: str, names: Sequence[str]) -> list[bytes]:
    """Return the numbers of a parameter. Raises Problem."""
    parts = text.split(",", len(names))
    if len(parts) != len(names):
        raise Problem(
            QUERY, f"These numbers belong here, with commas between them: {', '.join(names)}.", field
        )
    return [*map(_bytes, parts)]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _polygons(document: bytes) -> list[list[Ring]]:
    """Return the polygons of a GeoJSON document. Raises Problem."""
    members = _MEMBERS.read_members(document)
    kind = _kind(members)
    if kind == "FeatureCollection":
        features = _FEATURES.decode(_member(members, "features"))
        return [
            polygon for feature in features for polygon in _of_feature(_MEMBERS.read_members(bytes(feature)))
        ]
    return _of_feature(members) if kind == "Feature" else _of_geometry(members)


def _of_feature(members: dict[str, bytes]) -> list[list[Ring]]:
    if _kind(members) != "Feature":
        raise Problem(MEANING, "A FeatureCollection has features.", "type")
    return _of_geometry(_MEMBERS.read_members(_member(members, "geometry")))


def _of_geometry(members: dict[str, bytes]) -> list[list[Ring]]:
    kind = _kind(members)
    if kind not in ("Polygon", "MultiPolygon"):
        raise Problem(MEANING, _AREAS, "type")
    coordinates = _member(members, "coordinates")
    polygons = (
        [_coordinates(_polygon, coordinates)]
        if kind == "Polygon"
        else _coordinates(_multi_polygon, coordinates)
    )
    return [[[(one[0], one[1]) for one in ring] for ring in rings] for rings in polygons]


def _coordinates(decode: Callable[[bytes], _T], coordinates: bytes) -> _T:
    """Return the coordinates of a geometry. Raises Problem, which names the place. They are JSON: that has been seen."""
    try:
        return decode(coordinates)
    except msgspec.ValidationError as error:
        where = _place(str(error))
        text = "Rings of positions belong here; a position is two numbers, longitude and latitude."
        raise Problem(MEANING, text, f"coordinates{where[1] if where is not None else ''}") from None


def _kind(members: dict[str, bytes]) -> str:
    return string_text(_member(members, "type"), "type")


def _member(members: dict[str, bytes], name: str) -> bytes:
    if name not in members:
        raise Problem(MEANING, "This key is missing.", name)
    return members[name]
