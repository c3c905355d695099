"""Google Places, Nearby Search of the Places API (New), converted into the format of the old API.

It requests only the fields of the field mask, which decides what a call costs. Fields that the new API lacks (`icon`)
are left out. A photo's reference is its resource name, which only the new API's photo service knows.
"""

from __future__ import annotations

import html
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from yarl import URL

from proxyherd.config import schema
from proxyherd.places.answers import Answer, NonsenseError, made_here, plain_word
from proxyherd.places.google.calling import Caller, HttpReply, HttpRequest, coordinate
from proxyherd.places.google.old import NEW_PATH, base, refused
from proxyherd.places.query import Query
from proxyherd.places.watch import CallOutcome

_HOST: Final = "https://places.googleapis.com"

_DENIED_REASONS: Final = {"API_KEY_INVALID", "API_KEY_EXPIRED"}
"""Reasons for which HTTP 400 is about the key, not about the query."""

_PRICE_LEVELS: Final = {
    "PRICE_LEVEL_FREE": 0,
    "PRICE_LEVEL_INEXPENSIVE": 1,
    "PRICE_LEVEL_MODERATE": 2,
    "PRICE_LEVEL_EXPENSIVE": 3,
    "PRICE_LEVEL_VERY_EXPENSIVE": 4,
}


def _judge(reply: HttpReply) -> CallOutcome:
    return "answered" if reply.status == 200 else "denied"


class GoogleNew:
    """The provider `google-new`."""

    name = "google-new"

    def __init__(self, places: schema.PlacesSettings, caller: Caller) -> None:
        self._caller = caller
        self._url = URL(base(places, _HOST) + NEW_PATH)
        self._language = {} if places.language is None else {"languageCode": places.language}
        self._headers = {"Content-Type": "application/json", "X-Goog-FieldMask": places.field_mask}

    def widened(self, query: Query) -> Query:
        """Return the query itself: Google applies the bound, and surplus results would be sent for nothing."""
        return query

    async def nearby(self, query: Query, seconds: float, asker: str | None = None) -> Answer:
        """Ask Google, for at most so many seconds. Raises FailedError if there is no useful answer."""
        center = {
            "latitude": float(coordinate(query.latitude)),
            "longitude": float(coordinate(query.longitude)),
        }
        asked = {
            "locationRestriction": {"circle": {"center": center, "radius": float(query.metres)}},
            "maxResultCount": query.most,
            **self._language,
        }
        request = HttpRequest("POST", self._url, "header", _judge, self._headers, msgspec.json.encode(asked))
        reply = await self._caller.call(self.name, request, seconds, asker)
        if reply.status != 200:
            return _refusal(reply.status, reply.body)
        return await self._caller.read(partial(translate, most=query.most), reply.body)

    async def close(self) -> None:
        """Close the session."""
        await self._caller.close()


# What the new API answers, as far as the old format has a place for it. ------------------------------------------


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not UNSET}


_Count = Annotated[int, Meta(ge=0, lt=1 << 31)]
"""An int32: JSON allows any number of digits."""


class _Camel(Struct, rename="camel"):
    pass


class _Point(_Camel):
    latitude: float = 0.0
    longitude: float = 0.0

    def old(self) -> dict[str, float]:
        return {"lat": self.latitude, "lng": self.longitude}


class _Viewport(_Camel):
    low: _Point = field(default_factory=_Point)
    high: _Point = field(default_factory=_Point)


class _Text(_Camel):
    text: str = ""


class _Attribution(_Camel):
    """The author of a place or of a photo; both have different fields for it."""

    provider: str = ""
    provider_uri: str = ""
    display_name: str = ""
    uri: str = ""

    def old(self) -> str:
        link, name = self.provider_uri or self.uri, self.provider or self.display_name
        if link.startswith("//"):
            link = f"https:{link}"
        if not link.startswith(("https://", "http://")):  # as HTML it could run a script
            return html.escape(name)
        return f'<a href="{html.escape(link)}">{html.escape(name)}</a>'


class _Photo(_Camel):
    name: str = ""
    width_px: _Count = 0
    height_px: _Count = 0
    author_attributions: tuple[_Attribution, ...] = ()

    def old(self) -> dict[str, Any]:
        return {
            "height": self.height_px,
            "html_attributions": [author.old() for author in self.author_attributions],
            "photo_reference": self.name,
            "width": self.width_px,
        }


class _PlusCode(_Camel):
    global_code: str | UnsetType = UNSET
    compound_code: str | UnsetType = UNSET

    def old(self) -> dict[str, Any]:
        return _given({"compound_code": self.compound_code, "global_code": self.global_code})


class _Hours(_Camel):
    open_now: bool | UnsetType = UNSET


class _Place(_Camel):
    attributions: tuple[_Attribution, ...] = ()
    business_status: str | UnsetType = UNSET
    current_opening_hours: _Hours | UnsetType = UNSET
    display_name: _Text | UnsetType = UNSET
    formatted_address: str | UnsetType = UNSET
    icon_background_color: str | UnsetType = UNSET
    icon_mask_base_uri: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    location: _Point | UnsetType = UNSET
    photos: tuple[_Photo, ...] = ()
    plus_code: _PlusCode | UnsetType = UNSET
    price_level: str | UnsetType = UNSET
    rating: float | UnsetType = UNSET
    short_formatted_address: str | UnsetType = UNSET
    types: tuple[str, ...] | UnsetType = UNSET
    user_rating_count: _Count | UnsetType = UNSET
    viewport: _Viewport | UnsetType = UNSET

    def old(self) -> dict[str, Any]:
        """Return the place as a result of the old API."""
        geometry: dict[str, Any] = {}
        if self.location is not UNSET:
            geometry["location"] = self.location.old()
        if self.viewport is not UNSET:
            geometry["viewport"] = {
                "northeast": self.viewport.high.old(),
                "southwest": self.viewport.low.old(),
            }
        hours = self.current_opening_hours
        result: dict[str, Any] = {
            "business_status": self.business_status,
            "geometry": geometry or UNSET,
            "icon_background_color": self.icon_background_color,
            "icon_mask_base_uri": self.icon_mask_base_uri,
            "name": UNSET if self.display_name is UNSET else self.display_name.text,
            "opening_hours": UNSET if hours is UNSET else _given({"open_now": hours.open_now}),
            "photos": [photo.old() for photo in self.photos] or UNSET,
            "place_id": self.id,
            "plus_code": UNSET if self.plus_code is UNSET else self.plus_code.old(),
            "price_level": UNSET if self.price_level is UNSET else _PRICE_LEVELS.get(self.price_level, UNSET),
            "rating": self.rating,
            "reference": self.id,
            "scope": "GOOGLE",
            "types": self.types,
            "user_ratings_total": self.user_rating_count,
            "vicinity": self.formatted_address
            if self.short_formatted_address is UNSET
            else self.short_formatted_address,
        }
        return _given(result)


class _Found(_Camel):
    places: tuple[_Place, ...] = ()
    error: msgspec.Raw | UnsetType = UNSET


class _Detail(_Camel):
    reason: str = ""


class _Error(_Camel):
    status: str = ""
    details: tuple[_Detail, ...] = ()


class _Failure(_Camel):
    error: _Error = field(default_factory=_Error)


_FOUND: Final = msgspec.json.Decoder(_Found)
_FAILURE: Final = msgspec.json.Decoder(_Failure)


def translate(body: bytes, most: int) -> Answer:
    """Convert an answer of the new API into one of the old, with at most `most` results. Raises NonsenseError."""
    try:
        body.decode()  # msgspec does not check the bytes of fields that it skips
        found = _FOUND.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NonsenseError(_why(error)) from None
    if found.error is not UNSET:
        raise NonsenseError("an error with HTTP 200")
    places = found.places[:most]
    return made_here(
        {
            "html_attributions": list(
                dict.fromkeys(who.old() for place in places for who in place.attributions)
            ),
            "results": [place.old() for place in places],
            "status": "OK" if places else "ZERO_RESULTS",
        }
    )


def _why(error: Exception) -> str:
    if isinstance(error, msgspec.ValidationError):
        return "no answer of the new Places API"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    return "nested too deeply" if isinstance(error, RecursionError) else "not JSON"


def _refusal(status: int, body: bytes) -> Answer:
    """Make the answer for an error; its body says more than its HTTP status."""
    try:
        error = _FAILURE.decode(body).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return refused(status)
    reasons = [detail.reason for detail in error.details if detail.reason]
    word = plain_word(reasons[0] if reasons else error.status)
    return refused(403 if word in _DENIED_REASONS else status, word)
