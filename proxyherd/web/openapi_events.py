"""What the OpenAPI document says about streams of events, as far as it can."""

from __future__ import annotations

from typing import Final

from proxyherd.web.answers import EVENT_STREAM
from proxyherd.web.follows import MOST_BUFFER_M
from proxyherd.web.openapi_parts import ApiObject, api_answers, api_parameter

_DESCRIPTION: Final = (
    "Server-sent events, as browsers read them with EventSource: either of clients, by their names, or of the area `near` or "
    "`within`. First comes who is there (`enter`), then `snapshot`, then each change: `enter`, `move`, `leave` and `gone`. An "
    "event has its kind as its type, and as its data an object in JSON. The stream ends when the server stops, when the token is "
    "not good any more, and when the client reads too slowly: connect again, and whoever is not named up to `snapshot` is gone."
)

EVENT_PATHS: Final[dict[str, ApiObject]] = {
    "/v1/events": {
        "get": {
            "operationId": "events",
            "summary": "What happens to clients, or in an area, as a stream",
            "description": _DESCRIPTION,
            "parameters": [
                {
                    **api_parameter(
                        "query",
                        "client",
                        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
                        "The name of a client. It may occur more than once.",
                    ),
                    "style": "form",
                    "explode": True,
                },
                api_parameter(
                    "query",
                    "near",
                    {"type": "string"},
                    "A circle: latitude, longitude and the radius in kilometres (0 to 50), with commas between them.",
                ),
                api_parameter(
                    "query",
                    "within",
                    {"type": "string"},
                    "A box: west, south, east and north, with commas between them; it crosses the date line if west is greater "
                    "than east. Or a polygon of GeoJSON.",
                ),
                api_parameter(
                    "query",
                    "buffer_m",
                    {"type": "number", "minimum": 0, "maximum": MOST_BUFFER_M, "default": 0},
                    "A client that is inside leaves the area only when it is more than so many metres outside.",
                ),
            ],
            "responses": api_answers("The stream.", {EVENT_STREAM: {"type": "string"}}),
        }
    }
}
