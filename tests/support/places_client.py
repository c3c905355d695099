"""A client of both of Google's APIs, for the stand-in."""

from __future__ import annotations

import contextlib
import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

OLD = "/maps/api/place/nearbysearch/json"
NEW = "/v1/places:searchNearby"
WESTWOOD = {"location": "34.0689,-118.4451", "radius": "9000"}


class Response:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 20,
) -> Response:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Response(response.status, dict(response.getheaders()), response.read())


def old(url: str, **parameters: str) -> Response:
    return ask(url, "GET", f"{OLD}?{urlencode({'key': 'any', **WESTWOOD, **parameters})}")


def circle(latitude: Any = 34.0, longitude: Any = -118.0, radius: Any = 5_000) -> dict[str, Any]:
    center = {"latitude": latitude, "longitude": longitude}
    return {"locationRestriction": {"circle": {"center": center, "radius": radius}}}


def new(
    url: str, document: Any = None, *, mask: str | None = "*", key: str | None = "any", timeout: float = 20
) -> Response:
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["X-Goog-Api-Key"] = key
    if mask is not None:
        headers["X-Goog-FieldMask"] = mask
    body = document if isinstance(document, bytes) else json.dumps(document or circle()).encode()
    return ask(url, "POST", NEW, body, headers, timeout)
