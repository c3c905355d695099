"""The OpenAPI document of the web port, which `GET /v1/openapi.json` answers. Tests hold it to the code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from proxyherd import __version__
from proxyherd.web.bodies import BODY_BYTES, PACKED_BYTES
from proxyherd.web.locations import MOST_DECIMALS
from proxyherd.web.problems import CONTENT_TYPE, KINDS, NOT_TAKEN
from proxyherd.web.queries import LIMIT, RADIUS_KM
from proxyherd.web.reports import MOST_REPORTS
from proxyherd.web.trackers.apps import APPS, App
from proxyherd.web.trackers.points import MOST_TRACK_POINTS

_Object: TypeAlias = dict[str, Any]

_JSON: Final = "application/json"
_SMALL: Final = r"[0-9](\.[0-9]{1,20})?[eE]-0?[1-9]"
_LATITUDE: Final = rf"^[+-]?([0-8]?[0-9](\.[0-9]+)?|90(\.0+)?|{_SMALL})$"
_LONGITUDE: Final = rf"^[+-]?((1[0-7][0-9]|0?[0-9]?[0-9])(\.[0-9]+)?|180(\.0+)?|{_SMALL})$"
_SECONDS: Final = r"^[0-9]{1,12}(\.[0-9]{1,9})?$"
_SINCE_1970: Final = r"^(19[7-9][0-9]|[2-9][0-9]{3})-[^.]+(\.[0-9]{1,9})?([Zz]|[+-][0-9:]+)$"


def _ref(name: str) -> _Object:
    return {"$ref": f"#/components/schemas/{name}"}


def _degrees(most: int, pattern: str, what: str) -> _Object:
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


def _object(properties: Mapping[str, _Object], *, optional: tuple[str, ...] = ()) -> _Object:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


_CLIENT: Final = {"type": "string", "minLength": 1, "description": "The name of a client."}
_AT: Final = {"type": "string", "description": "The AT line, as the line protocol has it."}
_OUTCOME: Final = {"enum": ["stored", "stale"], "description": "`stale`: the server has a later report."}
_POSITION: Final = {
    "lat": _degrees(90, _LATITUDE, "The latitude"),
    "lon": _degrees(180, _LONGITUDE, "The longitude"),
    "time": {
        "description": "POSIX seconds with at most nine decimals, or a date and time of RFC 3339. Without it: now.",
        "anyOf": [
            {"type": "number", "minimum": 0, "exclusiveMaximum": 10**12},
            {"type": "string", "pattern": _SECONDS},
            {"type": "string", "format": "date-time", "pattern": _SINCE_1970},
        ],
    },
}
_SCHEMAS: Final = {
    "Problem": {
        "type": "object",
        "description": "What is wrong with a request (RFC 9457).",
        "properties": {
            "type": {
                "enum": [kind.type for kind in KINDS],
                "description": "The kind of the problem, from a closed list.",
            },
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What to change."},
            "field": {"type": "string", "description": "Where."},
        },
        "required": ["type", "title", "status", "detail"],
        "additionalProperties": False,
    },
    "Position": _object(_POSITION, optional=("time",)),
    "Report": _object({"client": _CLIENT, **_POSITION}, optional=("time",)),
    "Reported": _object(
        {
            "outcome": _OUTCOME,
            "at": _AT,
            "server": {"type": "string", "description": "The server that took the report."},
            "difference": {
                "type": "string",
                "pattern": r"^[+-][0-9]+\.[0-9]{9}$",
                "description": "Seconds by which the server's clock was ahead of the report's time.",
            },
        }
    ),
    "Erased": _object(
        {
            "erased_at": {
                "type": "string",
                "pattern": _SECONDS,
                "description": "What servers have received up to this moment is gone. POSIX seconds, a string because of its "
                "digits.",
            },
            "stayed": {
                "type": "boolean",
                "description": "True if a server has received something of the client since the moment in `before`: it "
                "stays. Otherwise left out.",
            },
        },
        optional=("stayed",),
    ),
    "ReportedInBatch": _object({"outcome": _OUTCOME, "at": _AT}),
    "Location": _object(
        {
            "client": _CLIENT,
            "lat": {"type": "number", "minimum": -90, "maximum": 90},
            "lon": {"type": "number", "minimum": -180, "maximum": 180},
            "time": {
                "type": "string",
                "pattern": _SECONDS,
                "description": "POSIX seconds. A string, because of its digits.",
            },
            "server": {"type": "string", "description": "The server that took the report."},
            "received": {"type": "string", "description": "When it did, in POSIX seconds by its clock."},
            "at": _AT,
        }
    ),
}

_TOKENS: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token, where the server wants one. It may also stand in the path, before all others: "
        "`/t/{token}/v1/reports`. Without a good one, the answer is 401; 403 if it does not allow what was asked; and 404 "
        "for a client that it does not allow to see, as for an unknown one.",
    },
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The same token, as the password.",
    },
}

_PROBLEM: Final = {
    "description": "What is wrong, and what to change.",
    "content": {CONTENT_TYPE: {"schema": _ref("Problem")}},
}
_UNAVAILABLE: Final = {
    **_PROBLEM,
    "description": "The server has failed, or cannot do that now.",
    "headers": {
        "Retry-After": {
            "schema": {"type": "integer"},
            "description": f"With {NOT_TAKEN.status}: seconds until it is worth trying again.",
        }
    },
}


def _answers(
    description: str,
    content: Mapping[str, _Object],
    headers: Mapping[str, _Object] | None = None,
    status: int = 200,
) -> _Object:
    """Return the answers of an operation that succeeds with this status."""
    success: _Object = {"description": description}
    if content:
        success["content"] = {media_type: {"schema": schema} for media_type, schema in content.items()}
    if headers:
        success["headers"] = dict(headers)
    return {str(status): success, "4XX": _PROBLEM, "5XX": _UNAVAILABLE}


def _body(description: str, content: Mapping[str, _Object], *, required: bool = True) -> _Object:
    return {
        "description": f"{description} At most {BODY_BYTES:,} bytes; if packed with gzip, {PACKED_BYTES:,}.",
        "required": required,
        "content": {media_type: {"schema": schema} for media_type, schema in content.items()},
    }


def _parameter(place: str, name: str, schema: _Object, description: str) -> _Object:
    return {
        "in": place,
        "name": name,
        "required": place == "path",
        "schema": schema,
        "description": description,
    }


_ID: Final = _parameter(
    "path", "id", {"type": "string", "minLength": 1}, "The name of the client, percent-encoded."
)

_CLIENTS: Final = {
    "parameters": [_ID],
    "get": {
        "operationId": "locate",
        "summary": "The last location of a client",
        "responses": _answers("The location.", {_JSON: _ref("Location")}),
    },
    "put": {
        "operationId": "report",
        "summary": "Reports where a client is",
        "requestBody": _body("The location.", {_JSON: _ref("Position")}),
        "responses": _answers("The report was stored, or is stale.", {_JSON: _ref("Reported")}),
    },
    "delete": {
        "operationId": "erase",
        "summary": "Erases a client, herd-wide",
        "description": "What servers have received of the client is gone, and does not come back. Later reports count.",
        "parameters": [
            _parameter(
                "query",
                "before",
                {
                    "anyOf": [
                        {"type": "string", "pattern": _SECONDS},
                        {"type": "string", "format": "date-time", "pattern": _SINCE_1970},
                    ]
                },
                "Erase only what was received up to this moment: POSIX seconds, or a date and time of RFC 3339. "
                "Without it: up to now.",
            )
        ],
        "responses": _answers("The client is erased.", {_JSON: _ref("Erased")}, status=202),
    },
}

_PLACES: Final = {
    "parameters": [_ID],
    "get": {
        "operationId": "places",
        "summary": "What is near a client",
        "parameters": [
            _parameter(
                "query",
                "radius_km",
                {
                    "type": "string",
                    "pattern": r"^0*([0-4]?[0-9](\.[0-9]+)?|50(\.0+)?)$",
                    "maxLength": 20,
                    "default": RADIUS_KM.decode(),
                },
                "The radius in kilometres, from 0 to 50.",
            ),
            _parameter(
                "query",
                "limit",
                {"type": "integer", "minimum": 0, "maximum": 20, "default": int(LIMIT)},
                "The most places.",
            ),
        ],
        "responses": _answers(
            "The places, in the JSON of a Google Places Nearby Search, byte for byte.",
            {
                _JSON: {
                    "type": "object",
                    "properties": {"status": {"type": "string"}},
                    "required": ["results", "status"],
                }
            },
            {
                "Proxyherd-At": {
                    "schema": {"type": "string"},
                    "description": "The AT line of the client; all but visible ASCII is percent-encoded.",
                }
            },
        ),
    },
}

_REPORTS: Final = {
    "post": {
        "operationId": "reportBatch",
        "summary": "Reports where many clients are",
        "description": "The reports are stored in order. A bad one does not spoil the others.",
        "requestBody": _body(
            f"At most {MOST_REPORTS:,} reports, as an array or one a line.",
            {
                _JSON: {"type": "array", "maxItems": MOST_REPORTS, "items": _ref("Report")},
                "application/x-ndjson": {"type": "string"},
            },
        ),
        "responses": _answers(
            "What became of each report, in the same order.",
            {_JSON: {"type": "array", "items": {"anyOf": [_ref("ReportedInBatch"), _ref("Problem")]}}},
        ),
    }
}

_WEBSOCKET: Final = {
    "get": {
        "operationId": "webSocket",
        "summary": "A WebSocket",
        "description": "Its subprotocol is `proxyherd.lines.v1` (the line protocol) or `proxyherd.json.v1`.",
        "responses": {
            "101": {"description": "The connection is a WebSocket from here on."},
            "4XX": _PROBLEM,
            "5XX": _UNAVAILABLE,
        },
    }
}


_REVOCATION: Final = {
    "parameters": [
        _parameter("path", "sub", {"type": "string", "minLength": 1}, "The subject, percent-encoded.")
    ],
    "delete": {
        "operationId": "revoke",
        "summary": "Revokes the tokens of a subject",
        "description": "Those that were made up to now are not good any more, on all servers. It needs the right `operate`.",
        "responses": {
            "202": {
                "description": "They are revoked.",
                "content": {
                    _JSON: {"schema": _object({"revoked_at": {"type": "string", "pattern": _SECONDS}})}
                },
            },
            "4XX": _PROBLEM,
            "5XX": _UNAVAILABLE,
        },
    },
}


def _page(operation: str, summary: str, media_type: str, schema: _Object) -> _Object:
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "responses": _answers(f"{summary}.", {media_type: schema}),
        }
    }


def _app(app: App) -> _Object:
    """Return the path of an app on phones: it sends what it sends, and is answered the same."""
    content = (
        {app.media_type: {"type": "string"}}
        if app.media_type != _JSON
        else {_JSON: {"enum": [msgspec.json.decode(app.answer)]}}
    )
    operations: _Object = {}
    for method in app.methods:
        operations[method.lower()] = {
            "operationId": f"{app.name}{method.title()}",
            "summary": f"Locations from the app {app.name}",
            "description": "What cannot be used is answered like all other payloads, and counted; but for a body that is "
            f"larger than {BODY_BYTES:,} bytes as it arrives. Of several points, the last {MOST_TRACK_POINTS:,} are used.",
            "responses": _answers("The payload was taken, or consumed.", content if app.answer else {}),
        }
        if method == "POST":
            operations["post"]["requestBody"] = _body("What the app sends.", {"*/*": {}}, required=False)
    return operations


def openapi_document(*, tokens: bool = False) -> bytes:
    """Return the document, as JSON. `tokens`: whether clients need them."""
    paths = {
        "/v1/": _page("help", "A page that says what there is", "text/html", {"type": "string"}),
        "/v1/openapi.json": _page("openapi", "This document", _JSON, {"type": "object"}),
        "/v1/clients/{id}": _CLIENTS,
        "/v1/clients/{id}/places": _PLACES,
        "/v1/reports": _REPORTS,
        "/v1/ws": _WEBSOCKET,
        **{f"/{app.name}": _app(app) for app in APPS},
    }
    secured: _Object = {"security": [{name: []} for name in _TOKENS]} if tokens else {}
    if tokens:
        paths["/v1/tokens/{sub}"] = _REVOCATION
    return msgspec.json.encode(
        {
            **secured,
            "openapi": "3.1.0",
            "info": {
                "title": "proxyherd",
                "version": __version__,
                "description": "Clients report where they are, and ask what is near.",
            },
            "paths": paths,
            "components": {"schemas": _SCHEMAS, "securitySchemes": _TOKENS if tokens else {}},
        }
    )
