"""The OpenAPI document of the web port, which `GET /v1/openapi.json` answers. Tests hold it to the code."""

from __future__ import annotations

from typing import Final

import msgspec

from proxyherd import __version__
from proxyherd.web.bodies import BODY_BYTES
from proxyherd.web.openapi_areas import AREA_PATHS, AREA_SCHEMAS
from proxyherd.web.openapi_events import EVENT_PATHS
from proxyherd.web.openapi_parts import (
    JSON_TYPE,
    LATITUDE_FORM,
    LONGITUDE_FORM,
    PROBLEM_ANSWER,
    RADIUS_FORM,
    SECONDS_FORM,
    SINCE_1970_FORM,
    UNAVAILABLE_ANSWER,
    ApiObject,
    api_answers,
    api_body,
    api_parameter,
    degrees_schema,
    object_schema,
    schema_named,
)
from proxyherd.web.problems import KINDS
from proxyherd.web.queries import LIMIT, RADIUS_KM
from proxyherd.web.reports import MOST_REPORTS
from proxyherd.web.trackers.apps import APPS, App
from proxyherd.web.trackers.points import MOST_TRACK_POINTS

_CLIENT: Final = {"type": "string", "minLength": 1, "description": "The name of a client."}
_AT: Final = {"type": "string", "description": "The AT line, as the line protocol has it."}
_OUTCOME: Final = {"enum": ["stored", "stale"], "description": "`stale`: the server has a later report."}
_POSITION: Final = {
    "lat": degrees_schema(90, LATITUDE_FORM, "The latitude"),
    "lon": degrees_schema(180, LONGITUDE_FORM, "The longitude"),
    "time": {
        "description": "POSIX seconds with at most nine decimals, or a date and time of RFC 3339. Without it: now.",
        "anyOf": [
            {"type": "number", "minimum": 0, "exclusiveMaximum": 10**12},
            {"type": "string", "pattern": SECONDS_FORM},
            {"type": "string", "format": "date-time", "pattern": SINCE_1970_FORM},
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
    "Position": object_schema(_POSITION, optional=("time",)),
    "Report": object_schema({"client": _CLIENT, **_POSITION}, optional=("time",)),
    "Reported": object_schema(
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
    "Erased": object_schema(
        {
            "erased_at": {
                "type": "string",
                "pattern": SECONDS_FORM,
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
    "ReportedInBatch": object_schema({"outcome": _OUTCOME, "at": _AT}),
    "Location": object_schema(
        {
            "client": _CLIENT,
            "lat": {"type": "number", "minimum": -90, "maximum": 90},
            "lon": {"type": "number", "minimum": -180, "maximum": 180},
            "time": {
                "type": "string",
                "pattern": SECONDS_FORM,
                "description": "POSIX seconds. A string, because of its digits.",
            },
            "server": {"type": "string", "description": "The server that took the report."},
            "received": {"type": "string", "description": "When it did, in POSIX seconds by its clock."},
            "at": _AT,
        }
    ),
    **AREA_SCHEMAS,
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

_ID: Final = api_parameter(
    "path", "id", {"type": "string", "minLength": 1}, "The name of the client, percent-encoded."
)

_CLIENTS: Final = {
    "parameters": [_ID],
    "get": {
        "operationId": "locate",
        "summary": "The last location of a client",
        "responses": api_answers("The location.", {JSON_TYPE: schema_named("Location")}),
    },
    "put": {
        "operationId": "report",
        "summary": "Reports where a client is",
        "requestBody": api_body("The location.", {JSON_TYPE: schema_named("Position")}),
        "responses": api_answers(
            "The report was stored, or is stale.", {JSON_TYPE: schema_named("Reported")}
        ),
    },
    "delete": {
        "operationId": "erase",
        "summary": "Erases a client, herd-wide",
        "description": "What servers have received of the client is gone, and does not come back. Later reports count.",
        "parameters": [
            api_parameter(
                "query",
                "before",
                {
                    "anyOf": [
                        {"type": "string", "pattern": SECONDS_FORM},
                        {"type": "string", "format": "date-time", "pattern": SINCE_1970_FORM},
                    ]
                },
                "Erase only what was received up to this moment: POSIX seconds, or a date and time of RFC 3339. "
                "Without it: up to now.",
            )
        ],
        "responses": api_answers("The client is erased.", {JSON_TYPE: schema_named("Erased")}, status=202),
    },
}

_PLACES: Final = {
    "parameters": [_ID],
    "get": {
        "operationId": "places",
        "summary": "What is near a client",
        "parameters": [
            api_parameter(
                "query",
                "radius_km",
                {
                    "type": "string",
                    "pattern": RADIUS_FORM,
                    "maxLength": 20,
                    "default": RADIUS_KM.decode(),
                },
                "The radius in kilometres, from 0 to 50.",
            ),
            api_parameter(
                "query",
                "limit",
                {"type": "integer", "minimum": 0, "maximum": 20, "default": int(LIMIT)},
                "The most places.",
            ),
        ],
        "responses": api_answers(
            "The places, in the JSON of a Google Places Nearby Search, byte for byte.",
            {
                JSON_TYPE: {
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
        "requestBody": api_body(
            f"At most {MOST_REPORTS:,} reports, as an array or one a line.",
            {
                JSON_TYPE: {"type": "array", "maxItems": MOST_REPORTS, "items": schema_named("Report")},
                "application/x-ndjson": {"type": "string"},
            },
        ),
        "responses": api_answers(
            "What became of each report, in the same order.",
            {
                JSON_TYPE: {
                    "type": "array",
                    "items": {"anyOf": [schema_named("ReportedInBatch"), schema_named("Problem")]},
                }
            },
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
            "4XX": PROBLEM_ANSWER,
            "5XX": UNAVAILABLE_ANSWER,
        },
    }
}


_REVOCATION: Final = {
    "parameters": [
        api_parameter("path", "sub", {"type": "string", "minLength": 1}, "The subject, percent-encoded.")
    ],
    "delete": {
        "operationId": "revoke",
        "summary": "Revokes the tokens of a subject",
        "description": "Those that were made up to now are not good any more, on all servers. It needs the right `operate`.",
        "responses": {
            "202": {
                "description": "They are revoked.",
                "content": {
                    JSON_TYPE: {
                        "schema": object_schema({"revoked_at": {"type": "string", "pattern": SECONDS_FORM}})
                    }
                },
            },
            "4XX": PROBLEM_ANSWER,
            "5XX": UNAVAILABLE_ANSWER,
        },
    },
}


def _page(operation: str, summary: str, media_type: str, schema: ApiObject) -> ApiObject:
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "responses": api_answers(f"{summary}.", {media_type: schema}),
        }
    }


def _app(app: App) -> ApiObject:
    """Return the path of an app on phones: it sends what it sends, and is answered the same."""
    content = (
        {app.media_type: {"type": "string"}}
        if app.media_type != JSON_TYPE
        else {JSON_TYPE: {"enum": [msgspec.json.decode(app.answer)]}}
    )
    operations: ApiObject = {}
    for method in app.methods:
        operations[method.lower()] = {
            "operationId": f"{app.name}{method.title()}",
            "summary": f"Locations from the app {app.name}",
            "description": "What cannot be used is answered like all other payloads, and counted; but for a body that is "
            f"larger than {BODY_BYTES:,} bytes as it arrives. Of several points, the last {MOST_TRACK_POINTS:,} are used.",
            "responses": api_answers("The payload was taken, or consumed.", content if app.answer else {}),
        }
        if method == "POST":
            operations["post"]["requestBody"] = api_body("What the app sends.", {"*/*": {}}, required=False)
    return operations


def openapi_document(*, tokens: bool = False) -> bytes:
    """Return the document, as JSON. `tokens`: whether clients need them."""
    paths = {
        "/v1/": _page("help", "A page that says what there is", "text/html", {"type": "string"}),
        "/v1/openapi.json": _page("openapi", "This document", JSON_TYPE, {"type": "object"}),
        "/v1/clients/{id}": _CLIENTS,
        "/v1/clients/{id}/places": _PLACES,
        "/v1/reports": _REPORTS,
        **AREA_PATHS,
        **EVENT_PATHS,
        "/v1/ws": _WEBSOCKET,
        **{f"/{app.name}": _app(app) for app in APPS},
    }
    secured: ApiObject = {"security": [{name: []} for name in _TOKENS]} if tokens else {}
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
