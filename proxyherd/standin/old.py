"""The old Nearby Search in Google's form: a GET, HTTP 200 for most errors too, and Google's own layout of JSON.

Pure. Forms and messages are those of Google's documentation, and of answers that people have published:
https://developers.google.com/maps/documentation/places/web-service/legacy/search-nearby
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any, Final

import msgspec

from proxyherd.standin.shapes import (
    ICON_BACKGROUND,
    ICON_MASK,
    MAX_METRES,
    MAX_RESULTS,
    RefusedError,
    Search,
    SimulatedQuery,
    SimulatedReply,
    viewport,
)

_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{0,100})?")
_COLON = re.compile(
    rb'(?<=[a-z_]"): '
)  # behind a key only: within a string a quote has a backslash before it
_OPENED = re.compile(rb'^( *)("[a-z_]+" : )([\[{])$', re.MULTILINE)
_PAGE: Final = """\
<!DOCTYPE html>
<html lang=en>
  <meta charset=utf-8>
  <title>Error {0} ({1})!!1</title>
  <p><b>{0}.</b> <ins>That\u2019s an error.</ins>
"""
_TITLES: Final = {429: "Too Many Requests", 500: "Server Error", 503: "Service Unavailable"}


class Old:
    """The API that `places.provider = "google"` calls."""

    name = "old"
    method = "GET"
    path = "/maps/api/place/nearbysearch/json"

    def __init__(self) -> None:
        self.no_key = _refusal(
            "REQUEST_DENIED",
            "You must use an API key to authenticate each request to Google Maps Platform APIs. For additional "
            "information, please refer to http://g.co/dev/maps-no-account",
        )
        self.bad_key = _refusal("REQUEST_DENIED", "The provided API key is invalid. ")
        self.disabled = _refusal(
            "REQUEST_DENIED",
            "You're calling a legacy API, which is not enabled for your project. To get newer features and "
            "more functionality, switch to the Places API (New) or Routes API. Learn more: "
            "https://developers.google.com/maps/legacy#LegacyApiNotActivatedMapError",
        )
        self.over_quota = _refusal("OVER_QUERY_LIMIT", "You have exceeded your rate-limit for this API.")

    def key(self, asked: SimulatedQuery) -> str:
        return asked.query.get("key", "")

    def read(self, asked: SimulatedQuery) -> Search:
        """Read the query: `location` and `radius`; a `pagetoken` is refused, and everything else is ignored."""
        latitude, comma, longitude = asked.query.get("location", "").partition(",")
        lat, lng = _number(latitude), _number(longitude)
        metres = _number(asked.query.get("radius", ""))
        fits = comma and -90 <= lat <= 90 and -180 <= lng <= 180 and 0 < metres <= MAX_METRES
        if not fits or "pagetoken" in asked.query:
            raise RefusedError(_refusal("INVALID_REQUEST"))
        return Search(lat, lng, metres, MAX_RESULTS)

    def answer(self, search: Search, found: list[dict[str, Any]], attributions: list[str]) -> SimulatedReply:
        results = [_result(place) for place in found[: search.most]]
        status = "OK" if results else "ZERO_RESULTS"
        document = {"html_attributions": attributions, "results": results, "status": status}
        if len(found) > search.most:
            seed = f"{search.latitude},{search.longitude},{search.metres}".encode()
            document["next_page_token"] = "A" + hashlib.sha512(seed).hexdigest()
        return SimulatedReply(spell_json(document), status, results=len(results))

    def failure(self, status: int) -> SimulatedReply:
        page = _PAGE.format(status, _TITLES[status]).encode()
        return SimulatedReply(page, f"HTTP_{status}", status, content_type="text/html; charset=UTF-8")


def spell_json(document: dict[str, Any]) -> bytes:
    """Write JSON in the old API's layout: keys in order, a space on both sides of a colon, brackets below it."""
    text = msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=3)
    return _OPENED.sub(rb"\1\2\n\1\3", _COLON.sub(b" : ", text))


def _refusal(status: str, message: str | None = None) -> SimulatedReply:
    document: dict[str, Any] = {"html_attributions": [], "results": [], "status": status}
    if message is not None:
        document["error_message"] = message
    return SimulatedReply(spell_json(document), status)


def _number(text: str) -> float:
    """Return a number; NaN, which is in no range, if the text is not a number."""
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def _result(place: dict[str, Any]) -> dict[str, Any]:
    location = place["geometry"]["location"]
    south, west, north, east = viewport(location["lat"], location["lng"])
    icon = "geocode" if "political" in place["types"] else "generic_business"
    return {
        "business_status": "OPERATIONAL",
        "geometry": {
            "location": location,
            "viewport": {
                "northeast": {"lat": north, "lng": east},
                "southwest": {"lat": south, "lng": west},
            },
        },
        "icon": f"https://maps.gstatic.com/mapfiles/place_api/icons/v1/png_71/{icon}-71.png",
        "icon_background_color": ICON_BACKGROUND,
        "icon_mask_base_uri": ICON_MASK,
        "name": place["name"],
        "place_id": place["place_id"],
        "reference": place["place_id"],
        "scope": "GOOGLE",
        "types": place["types"],
        "vicinity": place["vicinity"],
    }
