"""What the OpenAPI document of the web port is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from proxyherd.web.bodies import BODY_BYTES, PACKED_BYTES
from proxyherd.web.locations import MOST_DECIMALS
from proxyherd.web.problems import CONTENT_TYPE, NOT_TAKEN

ApiObject: TypeAlias = dict[str, Any]
"""An object of the document."""

JSON_TYPE: Final = "application/json"
_SMALL: Final = r"[0-9](\.[0-9]{1,20})?[eE]-0?[1-9]"
LATITUDE_FORM: Final = rf"^[+-]?([0-8]?[0-9](\.[0-9]+)?|90(\.0+)?|{_SMALL})$"
LONGITUDE_FORM: Final = rf"^[+-]?((1[0-7][0-9]|0?[0-9]?[0-9])(\.[0-9]+)?|180(\.0+)?|{_SMALL})$"
RADIUS_FORM: Final = r"^0*([0-4]?[0-9](\.[0-9]+)?|50(\.0+)?)$"
SECONDS_FORM: Final = r"^[0-9]{1,12}(\.[0-9]{1,9})?$"
SINCE_1970_FORM: Final = r"^(19[7-9][0-9]|[2-9][0-9]{3})-[^.]+(\.[0-9]{1,9})?([Zz]|[+-][0-9:]+)$"


def schema_named(name: str) -> ApiObject:
    """Return a reference to one of the schemas of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def degrees_schema(most: int, pattern: str, what: str) -> ApiObject:
    """Return the schema of degrees in JSON, from -`most` to `most`."""
    text = (
        f"{what} in decimal degrees. Its digits are kept as they are spelled. Only small numbers may have an exponent, as "
        f"in `1.5e-7`, and then at most {MOST_DECIMALS} decimals without it."
    )
    return {
        "description": text,
        "anyOf": [
            {"type": "number", "minimum": -most, "maximum": most},
            {"type": "string", "pattern": pattern},
        ],
    }


def object_schema(properties: Mapping[str, ApiObject], *, optional: tuple[str, ...] = ()) -> ApiObject:
    """Return the schema of objects with these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


PROBLEM_ANSWER: Final = {
    "description": "What is wrong, and what to change.",
    "content": {CONTENT_TYPE: {"schema": schema_named("Problem")}},
}
UNAVAILABLE_ANSWER: Final = {
    **PROBLEM_ANSWER,
    "description": "The server has failed, or cannot do that now.",
    "headers": {
        "Retry-After": {
            "schema": {"type": "integer"},
            "description": f"With {NOT_TAKEN.status}: seconds until it is worth trying again.",
        }
    },
}


def api_answers(
    description: str,
    content: Mapping[str, ApiObject],
    headers: Mapping[str, ApiObject] | None = None,
    status: int = 200,
) -> ApiObject:
    """Return the answers of an operation that succeeds with this status."""
    success: ApiObject = {"description": description}
    if content:
        success["content"] = {media_type: {"schema": schema} for media_type, schema in content.items()}
    if headers:
        success["headers"] = dict(headers)
    return {str(status): success, "4XX": PROBLEM_ANSWER, "5XX": UNAVAILABLE_ANSWER}


def api_body(description: str, content: Mapping[str, ApiObject], *, required: bool = True) -> ApiObject:
    """Return the body of a request."""
    return {
        "description": f"{description} At most {BODY_BYTES:,} bytes; if packed with gzip, {PACKED_BYTES:,}.",
        "required": required,
        "content": {media_type: {"schema": schema} for media_type, schema in content.items()},
    }


def api_parameter(place: str, name: str, schema: ApiObject, description: str) -> ApiObject:
    """Return a parameter in this place: `path` or `query`."""
    return {
        "in": place,
        "name": name,
        "required": place == "path",
        "schema": schema,
        "description": description,
    }
