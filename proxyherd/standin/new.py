"""The Nearby Search of the Places API (New) in Google's form: a POST with a field mask, errors by HTTP status.

Pure. Forms and messages are those of Google's documentation, and of answers that people have published:
https://developers.google.com/maps/documentation/places/web-service/nearby-search
"""

from __future__ import annotations

import zlib
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

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

_Tree = dict[str, Any]  # of field names, each with the tree below it; an empty one is all of a field

_LAT_LNG: Final[_Tree] = {"latitude": {}, "longitude": {}}

_HERE: Final[_Tree] = {
    "attributions": {"provider": {}, "providerUri": {}},
    "businessStatus": {},
    "displayName": {"languageCode": {}, "text": {}},
    "formattedAddress": {},
    "iconBackgroundColor": {},
    "iconMaskBaseUri": {},
    "id": {},
    "location": _LAT_LNG,
    "name": {},
    "primaryType": {},
    "rating": {},
    "shortFormattedAddress": {},
    "types": {},
    "userRatingCount": {},
    "viewport": {"high": _LAT_LNG, "low": _LAT_LNG},
}
"""The fields of a place that are returned, if requested."""

_ELSEWHERE: Final = frozenset(
    """
    accessibilityOptions addressComponents addressDescriptor adrFormatAddress allowsDogs consumerAlert
    containingPlaces curbsidePickup currentOpeningHours currentSecondaryOpeningHours delivery dineIn
    editorialSummary evChargeAmenitySummary evChargeOptions fuelOptions generativeSummary goodForChildren
    goodForGroups goodForWatchingSports googleMapsLinks googleMapsTypeLabel googleMapsUri
    internationalPhoneNumber liveMusic menuForChildren movedPlace movedPlaceId nationalPhoneNumber
    neighborhoodSummary openingDate outdoorSeating parkingOptions paymentOptions photos plusCode postalAddress
    priceLevel priceRange primaryTypeDisplayName pureServiceAreaBusiness regularOpeningHours
    regularSecondaryOpeningHours reservable restroom reviewSummary reviews servesBeer servesBreakfast
    servesBrunch servesCocktails servesCoffee servesDessert servesDinner servesLunch servesVegetarianFood
    servesWine subDestinations takeout timeZone utcOffsetMinutes websiteUri
    """.split()  # noqa: SIM905 - a list of seventy would be seventy lines
)
"""Other fields of Google's: they may be requested, but no place here has them."""

_LANGUAGE_LENGTH: Final = (
    35  # of the longest tag that RFC 5646 wants to be taken; none Google knows is longer
)

_SERVICE: Final = "places.googleapis.com"
_PROJECT: Final = "123456789012"
_CONSOLE: Final = f"https://console.developers.google.com/apis/api/{_SERVICE}/overview?project={_PROJECT}"
_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_FAILURES: Final = {
    429: "Resource has been exhausted (e.g. check quota).",
    500: "Internal error encountered.",
    503: "The service is currently unavailable.",
}


class _Center(Struct):
    latitude: float = 0.0
    longitude: float = 0.0


class _Circle(Struct):
    center: _Center | None = None
    radius: float = 0.0


class _Restriction(Struct):
    circle: _Circle | None = None


class _Body(Struct, rename="camel", forbid_unknown_fields=True):
    """A SearchNearbyRequest. Missing fields are 0 or empty, as always in proto3."""

    location_restriction: _Restriction | None = None
    max_result_count: int = 0
    rank_preference: Literal["RANK_PREFERENCE_UNSPECIFIED", "POPULARITY", "DISTANCE"] = "POPULARITY"
    language_code: str = ""
    region_code: str = ""
    included_types: list[str] = []
    excluded_types: list[str] = []
    included_primary_types: list[str] = []
    excluded_primary_types: list[str] = []
    include_future_opening_businesses: bool = False
    routing_parameters: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(_Body, strict=False)  # proto3's JSON may have numbers as strings


class New:
    """The API that `places.provider = "google-new"` calls."""

    name = "new"
    method = "POST"
    path = "/v1/places:searchNearby"

    def __init__(self) -> None:
        self.no_key = _error(
            403,
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key "
            "or other form of API consumer identity to call this API.",
        )
        message = "API key not valid. Please pass a valid API key."
        info = _error_info("API_KEY_INVALID", {"service": _SERVICE})
        self.bad_key = _error(400, message, info, _localized(message))
        message = (
            f"Places API (New) has not been used in project {_PROJECT} before or it is disabled. Enable it by "
            f"visiting {_CONSOLE} then retry. If you enabled this API recently, wait a few minutes for the action "
            "to propagate to our systems and retry."
        )
        about = {
            "activationUrl": _CONSOLE,
            "consumer": f"projects/{_PROJECT}",
            "containerInfo": _PROJECT,
            "service": _SERVICE,
            "serviceTitle": "Places API (New)",
        }
        self.disabled = _error(403, message, _error_info("SERVICE_DISABLED", about), _localized(message))
        metric, limit = "SearchNearbyRequest", "SearchNearbyRequest per minute"
        about = {
            "consumer": f"projects/{_PROJECT}",
            "quota_limit": "SearchNearbyRequestPerMinutePerProject",
            "quota_metric": f"{_SERVICE}/search_nearby_requests",
            "service": _SERVICE,
        }
        self.over_quota = _error(
            429,
            f"Quota exceeded for quota metric '{metric}' and limit '{limit}' of service '{_SERVICE}' for consumer "
            f"'project_number:{_PROJECT}'.",
            _error_info("RATE_LIMIT_EXCEEDED", about),
        )

    def key(self, asked: SimulatedQuery) -> str:
        return asked.headers.get("X-Goog-Api-Key") or asked.query.get("key", "")

    def read(self, asked: SimulatedQuery) -> Search:
        """Read field mask and body. Filters by type are accepted and ignored."""
        query = asked.query
        mask = asked.headers.get("X-Goog-FieldMask") or query.get("$fields") or query.get("fields", "")
        read_mask(mask)
        try:
            body = _DECODER.decode(asked.body or b"{}")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _refused(f"Invalid JSON payload received. {error}") from None
        circle = body.location_restriction.circle if body.location_restriction else None
        if circle is None or circle.center is None:
            raise _refused("location_restriction.circle with a center is required.")
        latitude, longitude = circle.center.latitude, circle.center.longitude
        if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
            raise _refused("location_restriction.circle.center is not on the Earth.")
        if not 0 < circle.radius <= MAX_METRES:
            raise _refused(f"location_restriction.circle.radius must be above 0 and at most {MAX_METRES:g}.")
        if not 0 <= body.max_result_count <= MAX_RESULTS:
            raise _refused(f"max_result_count must be between 1 and {MAX_RESULTS}.")
        return Search(
            latitude,
            longitude,
            circle.radius,
            body.max_result_count or MAX_RESULTS,
            by_distance=body.rank_preference == "DISTANCE",
            language=body.language_code if 0 < len(body.language_code) <= _LANGUAGE_LENGTH else "en",
            mask=mask,
        )

    def answer(self, search: Search, found: list[dict[str, Any]], attributions: list[str]) -> SimulatedReply:  # noqa: ARG002 - they are the places' own here
        wanted = read_mask(search.mask).get("places")
        found = found[: search.most]
        document = {}
        if found and wanted is not None:
            document["places"] = [_project(_place(place, search.language), wanted) for place in found]
        return SimulatedReply(_spell(document), "OK" if found else "ZERO_RESULTS", results=len(found))

    def failure(self, status: int) -> SimulatedReply:
        reply = _error(status, _FAILURES[status])
        reply.outcome = f"HTTP_{status}"
        return reply


def read_mask(mask: str) -> _Tree:
    """Parse a field mask into a tree. Raises RefusedError for a field that Google doesn't have."""
    if not mask:
        raise _refused(
            "FieldMask is a required parameter. See https://cloud.google.com/apis/docs/system-parameters on how to "
            "provide it. As an example, you can set the header 'X-Goog-FieldMask' to value "
            "'places.displayName,places.id' to ask for these two, or to '*' to ask for all."
        )
    wanted: _Tree = {}
    for path in mask.split(","):
        names = ["places"] if path == "*" else path.removesuffix(".*").split(".")
        if not _exists(names):
            raise _refused(
                "Request contains an invalid argument.",
                f"Error expanding 'fields' parameter. Cannot find matching fields for path {path!a}.",
            )
        _want(wanted, names)
    return wanted


def _exists(names: list[str]) -> bool:
    if names[0] != "places":
        return names[0] == "routingSummaries"
    below = _HERE
    for depth, name in enumerate(names[1:]):
        if depth == 0 and name in _ELSEWHERE:
            return True
        if name not in below:
            return False
        below = below[name]
    return True


def _want(tree: _Tree, names: list[str]) -> None:
    for depth, name in enumerate(names):
        last = depth == len(names) - 1
        if name in tree and not tree[name]:
            return  # all of it is wanted already
        if last:
            tree[name] = {}
        tree = tree.setdefault(name, {})


def _project(value: Any, tree: _Tree) -> Any:
    """Return the fields of a message that the tree requests; all of it for an empty tree."""
    if not tree:
        return value
    if isinstance(value, list):
        return [_project(one, tree) for one in value]
    return {name: _project(inner, tree[name]) for name, inner in value.items() if name in tree}


def _place(place: dict[str, Any], language: str) -> dict[str, Any]:
    identifier, name, vicinity = place["place_id"], place["name"], place["vicinity"]
    location = place["geometry"]["location"]
    south, west, north, east = viewport(location["lat"], location["lng"])
    chance = zlib.crc32(identifier.encode())
    document = {
        "name": f"places/{identifier}",
        "id": identifier,
        "types": place["types"],
        "formattedAddress": ", ".join(filter(None, (name, vicinity))),
        "location": _lat_lng(location["lat"], location["lng"]),
        "viewport": {"low": _lat_lng(south, west), "high": _lat_lng(north, east)},
        "rating": round(3 + chance % 21 / 10, 1),
        "businessStatus": "OPERATIONAL",
        "userRatingCount": 1 + chance // 21 % 5_000,
        "iconMaskBaseUri": ICON_MASK,
        "iconBackgroundColor": ICON_BACKGROUND,
        "displayName": {"text": name, "languageCode": language},
        "primaryType": place["types"][0] if place["types"] else "",
        "shortFormattedAddress": vicinity,
    }
    if identifier.startswith("geonames:"):  # whose licence wants its name with the data
        document["attributions"] = [{"provider": "GeoNames", "providerUri": "https://www.geonames.org/"}]
    return {field: value for field, value in document.items() if value}


def _lat_lng(latitude: float, longitude: float) -> dict[str, float]:
    """Leave zeros out: proto3's JSON omits fields with their default, and a client must handle that."""
    return {name: value for name, value in (("latitude", latitude), ("longitude", longitude)) if value}


def _spell(document: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _error(code: int, message: str, *details: dict[str, Any]) -> SimulatedReply:
    error: dict[str, Any] = {"code": code, "message": message, "status": _STATUSES[code]}
    if details:
        error["details"] = details
    return SimulatedReply(_spell({"error": error}), _STATUSES[code], code)


def _refused(message: str, violation: str | None = None) -> RefusedError:
    kind = "type.googleapis.com/google.rpc.BadRequest"
    violations = [{"description": violation or message}]
    return RefusedError(_error(400, message, {"@type": kind, "fieldViolations": violations}))


def _error_info(reason: str, about: dict[str, str]) -> dict[str, Any]:
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    return {"@type": kind, "reason": reason, "domain": "googleapis.com", "metadata": about}


def _localized(message: str) -> dict[str, Any]:
    kind = "type.googleapis.com/google.rpc.LocalizedMessage"
    return {"@type": kind, "locale": "en-US", "message": message}
