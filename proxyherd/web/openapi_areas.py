"""What the OpenAPI document says about who is near, and who is inside of an area."""

from __future__ import annotations

from typing import Final

from proxyherd.core.spatial.polygons import MOST_POSITIONS
from proxyherd.core.spatial.search import MOST_FOUND
from proxyherd.web.nearby import AREA_LIMIT, GEOJSON, NEAR_RADIUS_KM
from proxyherd.web.openapi_parts import (
    JSON_TYPE,
    LATITUDE_FORM,
    LONGITUDE_FORM,
    RADIUS_FORM,
    SECONDS_FORM,
    ApiObject,
    api_answers,
    api_body,
    api_parameter,
    object_schema,
    schema_named,
)

_NAME: Final = {"type": "string", "description": "The name of a client."}
_METRES: Final = {"type": "number", "minimum": 0, "description": "The distance from the centre of the area."}
_AGE: Final = {
    "type": "number",
    "minimum": 0,
    "description": "Seconds since a server has received the location, by the clocks of both servers.",
}
_AROUND: Final = {
    "server": {"type": "string", "description": "The server that has answered."},
    "complete": {
        "type": "boolean",
        "description": "Whether the server has caught up with the herd. Until then it may not know of all clients.",
    },
    "next": {
        "type": "string",
        "description": "There may be more clients: `after` with this text brings them.",
    },
}
_POSITION: Final = {"type": "array", "items": {"type": "number"}, "minItems": 2}
_RINGS: Final = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "array", "items": _POSITION, "minItems": 4, "maxItems": MOST_POSITIONS},
}


def _geojson(kind: str, properties: dict[str, ApiObject]) -> ApiObject:
    """Return the schema of a kind of GeoJSON, which may have other members too."""
    return {
        "type": "object",
        "properties": {"type": {"enum": [kind]}, **properties},
        "required": ["type", *properties],
    }


AREA_SCHEMAS: Final[dict[str, ApiObject]] = {
    "Found": object_schema(
        {
            "client": _NAME,
            "lat": {"type": "number", "minimum": -90, "maximum": 90},
            "lon": {"type": "number", "minimum": -180, "maximum": 180},
            "metres": _METRES,
            "age_s": _AGE,
        }
    ),
    "FoundClients": object_schema(
        {"clients": {"type": "array", "items": schema_named("Found")}, **_AROUND}, optional=("next",)
    ),
    "FoundFeature": object_schema(
        {
            "type": {"enum": ["Feature"]},
            "id": _NAME,
            "geometry": object_schema({"type": {"enum": ["Point"]}, "coordinates": _POSITION}),
            "properties": object_schema({"client": _NAME, "metres": _METRES, "age_s": _AGE}),
        }
    ),
    "FoundFeatures": object_schema(
        {
            "type": {"enum": ["FeatureCollection"]},
            "features": {"type": "array", "items": schema_named("FoundFeature")},
            **_AROUND,
        },
        optional=("next",),
    ),
    "Area": {
        "description": f"GeoJSON (RFC 7946) with at most {MOST_POSITIONS:,} positions.",
        "anyOf": [
            _geojson("Polygon", {"coordinates": _RINGS}),
            _geojson("MultiPolygon", {"coordinates": {"type": "array", "items": _RINGS, "minItems": 1}}),
            _geojson("Feature", {"geometry": _geojson("Polygon", {"coordinates": _RINGS})}),
        ],
    },
}


def _number(name: str, pattern: str, text: str) -> ApiObject:
    return api_parameter("query", name, {"type": "string", "pattern": pattern}, text)


_COMMON: Final = [
    api_parameter(
        "query",
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MOST_FOUND, "default": int(AREA_LIMIT)},
        "The most clients.",
    ),
    _number(
        "max_age_s", SECONDS_FORM, "Leave out clients whose location was received longer ago, in seconds."
    ),
    _number("after", r"^[A-Za-z0-9_-]{11,}$", "The `next` of the answer before: go on behind it."),
]
_SIDES: Final = [
    _number(
        "west",
        LONGITUDE_FORM,
        "The western longitude. If it is greater than `east`, the box crosses the date line.",
    ),
    _number("south", LATITUDE_FORM, "The southern latitude."),
    _number("east", LONGITUDE_FORM, "The eastern longitude."),
    _number("north", LATITUDE_FORM, "The northern latitude, not less than `south`."),
]
_ANSWERS: Final = api_answers(
    "The clients, the nearest to the centre first.",
    {JSON_TYPE: schema_named("FoundClients"), GEOJSON: schema_named("FoundFeatures")},
)

AREA_PATHS: Final[dict[str, ApiObject]] = {
    "/v1/near": {
        "get": {
            "operationId": "near",
            "summary": "Which clients are near",
            "description": "Within a radius of a place, or of another client: either `lat` and `lon`, or `client`.",
            "parameters": [
                _number("lat", LATITUDE_FORM, "The latitude of the centre."),
                _number("lon", LONGITUDE_FORM, "The longitude of the centre."),
                api_parameter(
                    "query",
                    "client",
                    {"type": "string", "minLength": 1},
                    "The name of the client in the centre. It is in the answer too.",
                ),
                api_parameter(
                    "query",
                    "radius_km",
                    {
                        "type": "string",
                        "pattern": RADIUS_FORM,
                        "maxLength": 20,
                        "default": NEAR_RADIUS_KM.decode(),
                    },
                    "The radius in kilometres, from 0 to 50.",
                ),
                *_COMMON,
            ],
            "responses": _ANSWERS,
        }
    },
    "/v1/within": {
        "get": {
            "operationId": "within",
            "summary": "Which clients are between two meridians and two parallels",
            "parameters": [{**side, "required": True} for side in _SIDES] + _COMMON,
            "responses": _ANSWERS,
        },
        "post": {
            "operationId": "withinPolygon",
            "summary": "Which clients are inside of a polygon",
            "parameters": _COMMON,
            "requestBody": api_body(
                "The area.", {JSON_TYPE: schema_named("Area"), GEOJSON: schema_named("Area")}
            ),
            "responses": _ANSWERS,
        },
    },
}
