"""The provider `google-new`: how the Places API (New) is asked, and its answers and errors in the old format."""

from __future__ import annotations

import json
import re
import sys
from decimal import Decimal
from typing import Any

import pytest
from fake_google import KEY, NEW_PATH, QUERY, FakeGoogle, Reply, ask, message
from hypothesis import given, settings
from hypothesis import strategies as st
from places_sim import simulator_in_thread

from proxyherd.config import schema
from proxyherd.places import STATUSES, Answer, Query
from proxyherd.places.answers import NonsenseError, made_here, read_answer
from proxyherd.places.google.new import translate

PRO = frozenset(
    """
    accessibilityOptions addressComponents addressDescriptor adrFormatAddress attributions businessStatus
    containingPlaces displayName formattedAddress googleMapsLinks googleMapsUri iconBackgroundColor iconMaskBaseUri id
    location movedPlace movedPlaceId name openingDate photos plusCode postalAddress primaryType primaryTypeDisplayName
    pureServiceAreaBusiness shortFormattedAddress subDestinations timeZone types utcOffsetMinutes viewport
    """.split()  # noqa: SIM905 — a list of thirty would be thirty lines
)
"""Fields of a place that bill no more than Nearby Search Pro:
https://developers.google.com/maps/documentation/places/web-service/nearby-search#fieldmask"""


@pytest.fixture
def google(google: FakeGoogle) -> FakeGoogle:
    """As for all tests of Places, but this API's answer without results."""
    google.reply = Reply(b"{}")
    return google


def ask_new(google: FakeGoogle, query: Query = QUERY, **keys: Any) -> Answer:
    return ask(google.host, query=query, provider="google-new", **keys)


# The request. ----------------------------------------------------------------------------------------------------


def test_the_request_is_the_one_google_documents(google: FakeGoogle) -> None:
    assert ask_new(google).status == "ZERO_RESULTS"
    (request,) = google.requests
    assert (request.method, request.path, request.raw_query) == ("POST", NEW_PATH, "")
    assert request.headers["X-Goog-Api-Key"] == KEY
    assert request.headers["X-Goog-FieldMask"] == schema.PlacesSettings().field_mask
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Accept-Encoding"] == "gzip"
    assert not {"Cookie", "Authorization", "Referer", "Transfer-Encoding"} & set(request.headers)
    assert json.loads(request.body) == {
        "locationRestriction": {
            "circle": {"center": {"latitude": 34.06893, "longitude": -118.445127}, "radius": 10_000}
        },
        "maxResultCount": 20,
    }


def test_language_and_mask_are_those_of_the_herds_file(google: FakeGoogle) -> None:
    ask_new(google, language="zh-TW", field_mask="places.id,places.rating")
    (request,) = google.requests
    assert json.loads(request.body)["languageCode"] == "zh-TW"
    assert request.headers["X-Goog-FieldMask"] == "places.id,places.rating"


@pytest.mark.parametrize(
    ("query", "latitude", "longitude", "radius"),
    [
        (Query("+5.5", "-6", Decimal("0.5"), 1), 5.5, -6, 0.5),
        (Query("-00", "+180.0", Decimal("5E+4"), 7), 0, 180, 50_000),
        (Query("-90", "-0179.999", Decimal("1E-9"), 20), -90, -179.999, 1e-9),
        (Query("+1." + "3" * 4_000, "+2.", Decimal(1), 1), 1.333333333333, 2, 1),
    ],
)
def test_numbers_of_a_query_are_numbers_of_the_body(
    google: FakeGoogle, query: Query, latitude: float, longitude: float, radius: float
) -> None:
    ask_new(google, query)
    body = json.loads(google.requests[0].body)
    circle = body["locationRestriction"]["circle"]
    assert circle == {"center": {"latitude": latitude, "longitude": longitude}, "radius": radius}
    assert body["maxResultCount"] == query.most
    assert all(isinstance(number, int | float) for number in (*circle["center"].values(), circle["radius"]))


def test_the_mask_asks_for_nothing_that_costs_more_than_pro() -> None:
    names = schema.PlacesSettings().field_mask.split(",")
    assert len(names) == len(set(names))
    assert {name.removeprefix("places.") for name in names} <= PRO
    assert all(name.startswith("places.") and " " not in name for name in names)


# The answer. -----------------------------------------------------------------------------------------------------

GETTY: dict[str, Any] = {
    "name": "places/ChIJbeuL0pi8woAR4YMkcMdUwYo",
    "id": "ChIJbeuL0pi8woAR4YMkcMdUwYo",
    "types": ["art_museum", "museum", "tourist_attraction", "point_of_interest", "establishment"],
    "nationalPhoneNumber": "(310) 440-7300",
    "internationalPhoneNumber": "+1 310-440-7300",
    "formattedAddress": "1200 Getty Center Dr, Los Angeles, CA 90049, USA",
    "addressComponents": [
        {"longText": "1200", "shortText": "1200", "types": ["street_number"], "languageCode": "en-US"}
    ],
    "plusCode": {"globalCode": "85633GHG+3M", "compoundCode": "3GHG+3M Los Angeles, CA, USA"},
    "location": {"latitude": 34.0780358, "longitude": -118.4740954},
    "viewport": {
        "low": {"latitude": 34.0759, "longitude": -118.47699},
        "high": {"latitude": 34.0791237, "longitude": -118.4722862},
    },
    "rating": 4.8,
    "googleMapsUri": "https://maps.google.com/?cid=9998888777766655",
    "websiteUri": "https://www.getty.edu/visit/center/",
    "regularOpeningHours": {
        "openNow": False,
        "periods": [
            {"open": {"day": 0, "hour": 10, "minute": 0}, "close": {"day": 0, "hour": 17, "minute": 30}}
        ],
        "weekdayDescriptions": ["Monday: Closed", "Sunday: 10:00 AM – 5:30 PM"],
    },
    "utcOffsetMinutes": -420,
    "adrFormatAddress": '<span class="street-address">1200 Getty Center Dr</span>',
    "businessStatus": "OPERATIONAL",
    "priceLevel": "PRICE_LEVEL_MODERATE",
    "userRatingCount": 26_321,
    "iconMaskBaseUri": "https://maps.gstatic.com/mapfiles/place_api/icons/v2/museum_pinlet",
    "iconBackgroundColor": "#13B5C7",
    "displayName": {"text": "The Getty — “Center” & Café", "languageCode": "en"},
    "primaryTypeDisplayName": {"text": "Art museum", "languageCode": "en-US"},
    "currentOpeningHours": {
        "openNow": True,
        "periods": [],
        "nextCloseTime": "2025-05-04T00:30:00Z",
    },
    "primaryType": "art_museum",
    "shortFormattedAddress": "1200 Getty Center Dr, Los Angeles",
    "photos": [
        {
            "name": "places/ChIJbeuL0pi8woAR4YMkcMdUwYo/photos/AUc7tXW_one",
            "widthPx": 4_032,
            "heightPx": 3_024,
            "authorAttributions": [
                {
                    "displayName": "A <b>& “B”",
                    "uri": "//maps.google.com/maps/contrib/1167?a=1&b='2'",
                    "photoUri": "//lh3.googleusercontent.com/a-/ALV",
                }
            ],
            "flagContentUri": "https://www.google.com/local/imagery/report/?cb_client=x",
            "googleMapsUri": "https://www.google.com/maps/place//data=!3m4",
        },
        {"name": "places/ChIJbeuL0pi8woAR4YMkcMdUwYo/photos/AUc7tXW_two", "widthPx": 800, "heightPx": 600},
    ],
    "accessibilityOptions": {"wheelchairAccessibleParking": True},
    "attributions": [{"provider": "Listings & Co", "providerUri": "http://example.com/?a=1&b=2"}],
    "pureServiceAreaBusiness": False,
}

GETTY_IN_OLD: dict[str, Any] = {
    "business_status": "OPERATIONAL",
    "geometry": {
        "location": {"lat": 34.0780358, "lng": -118.4740954},
        "viewport": {
            "northeast": {"lat": 34.0791237, "lng": -118.4722862},
            "southwest": {"lat": 34.0759, "lng": -118.47699},
        },
    },
    "icon_background_color": "#13B5C7",
    "icon_mask_base_uri": "https://maps.gstatic.com/mapfiles/place_api/icons/v2/museum_pinlet",
    "name": "The Getty — “Center” & Café",
    "opening_hours": {"open_now": True},
    "photos": [
        {
            "height": 3_024,
            "html_attributions": [
                '<a href="https://maps.google.com/maps/contrib/1167?a=1&amp;b=&#x27;2&#x27;">A &lt;b&gt;&amp; “B”</a>'
            ],
            "photo_reference": "places/ChIJbeuL0pi8woAR4YMkcMdUwYo/photos/AUc7tXW_one",
            "width": 4_032,
        },
        {
            "height": 600,
            "html_attributions": [],
            "photo_reference": "places/ChIJbeuL0pi8woAR4YMkcMdUwYo/photos/AUc7tXW_two",
            "width": 800,
        },
    ],
    "place_id": "ChIJbeuL0pi8woAR4YMkcMdUwYo",
    "plus_code": {"compound_code": "3GHG+3M Los Angeles, CA, USA", "global_code": "85633GHG+3M"},
    "price_level": 2,
    "rating": 4.8,
    "reference": "ChIJbeuL0pi8woAR4YMkcMdUwYo",
    "scope": "GOOGLE",
    "types": ["art_museum", "museum", "tourist_attraction", "point_of_interest", "establishment"],
    "user_ratings_total": 26_321,
    "vicinity": "1200 Getty Center Dr, Los Angeles",
}


def spell(*places: Any) -> bytes:
    """Lay an answer out as the new API does."""
    return json.dumps({"places": places}, indent=2, ensure_ascii=False).encode() + b"\n"


def only(**fields: Any) -> dict[str, Any]:
    """Return the result that a place of these fields becomes."""
    results = json.loads(translate(spell(fields), 20).body)["results"]
    assert len(results) == 1
    found: dict[str, Any] = results[0]
    return found


def in_order(document: Any) -> Any:
    """Make the order of keys part of what is compared."""
    if isinstance(document, dict):
        return [(key, in_order(value)) for key, value in document.items()]
    return [in_order(one) for one in document] if isinstance(document, list) else document


def test_every_field_gets_its_old_name_and_place_in_the_old_order(google: FakeGoogle) -> None:
    google.reply = Reply(spell(GETTY, {"id": "two"}))
    answer = ask_new(google)
    assert (answer.status, answer.results) == ("OK", 2)
    assert in_order(json.loads(answer.body)) == in_order(
        {
            "html_attributions": ['<a href="http://example.com/?a=1&amp;b=2">Listings &amp; Co</a>'],
            "results": [GETTY_IN_OLD, {"place_id": "two", "reference": "two", "scope": "GOOGLE"}],
            "status": "OK",
        }
    )
    assert list(GETTY_IN_OLD) == sorted(GETTY_IN_OLD), "Google's own order"


def test_an_answer_is_fit_for_the_wire_and_for_being_cut() -> None:
    answer = translate(spell(*[GETTY] * 20), 20)
    again = read_answer(answer.body)
    assert (again.body, again.status, again.results) == (answer.body, "OK", 20)
    assert b"\n\n" not in answer.body
    assert answer.body.startswith(b'{\n   "html_attributions": [')


@pytest.mark.parametrize("field", sorted(GETTY))
def test_a_field_that_is_missing_is_left_out_and_no_other(field: str) -> None:
    names = {
        "attributions": set[str](),
        "currentOpeningHours": {"opening_hours"},
        "displayName": {"name"},
        "id": {"place_id", "reference"},
        "location": set[str](),
        "name": set[str](),
        "viewport": set[str](),
        "userRatingCount": {"user_ratings_total"},
        "shortFormattedAddress": set[str](),
        "formattedAddress": set[str](),
    }
    snake = re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), field)
    gone = names.get(field, {snake} & set(GETTY_IN_OLD))
    document = json.loads(translate(spell({key: GETTY[key] for key in GETTY if key != field}), 20).body)
    (found,) = document["results"]
    assert set(found) == set(GETTY_IN_OLD) - gone
    if field == "location":
        assert set(found["geometry"]) == {"viewport"}
    elif field == "viewport":
        assert set(found["geometry"]) == {"location"}
    elif field == "shortFormattedAddress":
        assert found["vicinity"] == GETTY["formattedAddress"]
    elif field == "attributions":
        assert document["html_attributions"] == []
    assert "null" not in json.dumps(found)


def test_what_an_empty_part_of_an_answer_says_is_empty_or_zero() -> None:
    answer = translate(b'{"places":[{"displayName":{},"photos":[{}],"attributions":[{}]}]}', 20)
    document = json.loads(answer.body)
    assert document["html_attributions"] == [""]
    assert document["results"][0]["name"] == ""
    photo = {"height": 0, "html_attributions": [], "photo_reference": "", "width": 0}
    assert document["results"][0]["photos"] == [photo]


def test_zeros_that_proto3_leaves_out_are_zeros() -> None:
    assert only(location={})["geometry"] == {"location": {"lat": 0.0, "lng": 0.0}}
    assert only(location={"longitude": 5.5})["geometry"] == {"location": {"lat": 0.0, "lng": 5.5}}
    corner = only(viewport={"low": {"latitude": -1}})["geometry"]["viewport"]
    assert corner == {"northeast": {"lat": 0.0, "lng": 0.0}, "southwest": {"lat": -1.0, "lng": 0.0}}
    assert only(currentOpeningHours={})["opening_hours"] == {}


@pytest.mark.parametrize(
    ("level", "number"),
    [("FREE", 0), ("INEXPENSIVE", 1), ("MODERATE", 2), ("EXPENSIVE", 3), ("VERY_EXPENSIVE", 4)],
)
def test_price_levels_are_numbers(level: str, number: int) -> None:
    assert only(priceLevel=f"PRICE_LEVEL_{level}")["price_level"] == number


@pytest.mark.parametrize("level", ["PRICE_LEVEL_UNSPECIFIED", "", "OUTRAGEOUS"])
def test_a_price_level_that_says_nothing_is_left_out(level: str) -> None:
    assert "price_level" not in only(priceLevel=level)


@pytest.mark.parametrize("body", [b"{}", b"{}\n", b' {"places": []} ', b'{"routingSummaries": [{}]}'])
def test_nothing_found_is_zero_results(google: FakeGoogle, body: bytes) -> None:
    google.reply = Reply(body)
    assert ask_new(google) == made_here({"html_attributions": [], "results": [], "status": "ZERO_RESULTS"})


def test_more_places_than_asked_for_are_cut_and_their_attributions_too(google: FakeGoogle) -> None:
    places = [{"id": str(number), "attributions": [{"provider": f"P{number}"}]} for number in range(9)]
    google.reply = Reply(spell(*places))
    answer = ask_new(google, Query("+1", "+1", Decimal(5), 3))
    document = json.loads(answer.body)
    assert [place["place_id"] for place in document["results"]] == ["0", "1", "2"]
    assert document["html_attributions"] == ["P0", "P1", "P2"]
    assert answer.results == 3


def test_an_attribution_is_named_once_and_is_no_script() -> None:
    who = [
        {"provider": "A"},
        {"provider": "<script>", "providerUri": 'https://x/"onclick="y'},
        {"provider": "B & C", "providerUri": "javascript:alert(1)"},
        {"provider": "D", "providerUri": "data:text/html,<script>"},
        {"provider": "E", "providerUri": "//e.example/"},
    ]
    document = json.loads(translate(spell({"attributions": who}, {"attributions": who[:1]}), 20).body)
    assert document["html_attributions"] == [
        "A",
        '<a href="https://x/&quot;onclick=&quot;y">&lt;script&gt;</a>',
        "B &amp; C",
        "D",
        '<a href="https://e.example/">E</a>',
    ]


def test_fields_of_a_dearer_tier_are_understood_when_they_are_asked_for() -> None:
    """Against the simulator, which sends what the mask asks for and nothing else."""
    wide = Query("+34.0689", "-118.4451", Decimal(50_000), 5)
    dear = schema.PlacesSettings().field_mask + ",places.rating,places.userRatingCount,places.priceLevel"
    with simulator_in_thread() as sim:
        for mask, there in ((schema.PlacesSettings().field_mask, False), (dear, True)):
            answer = ask(sim.url, query=wide, provider="google-new", field_mask=mask)
            results = json.loads(answer.body)["results"]
            assert len(results) == 5
            assert all(("rating" in place) == ("user_ratings_total" in place) == there for place in results)
        only_ids = ask(sim.url, query=wide, provider="google-new", field_mask="places.id")
        assert {*json.loads(only_ids.body)["results"][0]} == {"place_id", "reference", "scope"}
        refused = ask(sim.url, query=wide, provider="google-new", field_mask="places.nonsense")
        assert refused.status == "INVALID_REQUEST"


# Hostile answers. ------------------------------------------------------------------------------------------------

DEEP = {
    "deep": b'{"x":%b' % (b"[" * 100_000),
    "deep and whole": b'{"x":%b%b}' % (b"[" * 100_000, b"]" * 100_000),
    "deep objects": b'{"places":[{"x":%b1%b}]}' % (b'{"a":' * 30_000, b"}" * 30_000),
}
if sys.version_info >= (3, 14):  # which reads whatever an answer has room for
    DEEP = {}


HOSTILE = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a page": b"<html>",
    "null for places": b'{"places":null}',
    "an object for places": b'{"places":{}}',
    "null for a place": b'{"places":[null]}',
    "a list for a place": b'{"places":[[]]}',
    "null for a name": b'{"places":[{"displayName":null}]}',
    "a string for a name": b'{"places":[{"displayName":"x"}]}',
    "a number for an id": b'{"places":[{"id":1}]}',
    "a string for a coordinate": b'{"places":[{"location":{"latitude":"1"}}]}',
    "a number for types": b'{"places":[{"types":[1]}]}',
    "a number for open": b'{"places":[{"currentOpeningHours":{"openNow":1}}]}',
    "a fraction of a count": b'{"places":[{"userRatingCount":1.5}]}',
    "no int32": b'{"places":[{"userRatingCount":2147483648}]}',
    "no count": b'{"places":[{"userRatingCount":-1}]}',
    "no int64": b'{"places":[{"userRatingCount":%b}]}' % (b"9" * 40),
    "thousands of digits": b'{"places":[{"photos":[{"widthPx":%b}]}]}' % (b"9" * 9_000),
    "no double": b'{"places":[{"rating":1e999}]}',
    "NaN": b'{"places":[{"rating":NaN}]}',
    "NaN where nobody looks": b'{"x":NaN}',
    "Infinity": b'{"places":[{"location":{"latitude":-Infinity}}]}',
    "NaN as a string": b'{"places":[{"rating":"NaN"}]}',
    "not UTF-8": b'{"places":[{"id":"\xff"}]}',
    "not UTF-8 where nobody looks": b'{"places":[{"x":"\xff"}]}',
    "not UTF-8 in a key": b'{"places":[],"\xc3":1}',
    "UTF-16": '{"places":[]}'.encode("utf-16"),
    "half a surrogate": b'{"places":[{"id":"\\ud800"}]}',
    "half a surrogate in UTF-8": b'{"places":[{"id":"\xed\xa0\x80"}]}',
    **DEEP,
    "half of it": spell(GETTY)[:-20],
    "more than one": b"{}{}",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_answer_of_the_new_api_goes_to_nobody(google: FakeGoogle, body: bytes) -> None:
    google.reply = Reply(body)
    answer = ask_new(google, attempts=2)
    assert answer.status == "UNKNOWN_ERROR"
    assert "answered nonsense" in message(answer)
    assert len(google.requests) == 2, "it may be better the next time"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("not UTF-8", "not UTF-8 at byte 18"),
        ("a list", "no answer of the new Places API"),
        ("a page", "not JSON"),
        *([("deep", "nested too deeply")] if DEEP else []),
    ],
)
def test_what_is_wrong_with_an_answer_is_told(body: str, why: str) -> None:
    with pytest.raises(NonsenseError) as caught:
        translate(HOSTILE[body], 20)
    assert str(caught.value) == why


def test_of_a_key_that_stands_twice_the_last_counts_as_in_all_of_proto3() -> None:
    """Nothing of it goes on as it came, so nobody can read it in another way."""
    answer = translate(b'{"places":[{"id":"x"}],"places":[{"id":"a","id":"b"}]}', 20)
    assert json.loads(answer.body)["results"] == [{"place_id": "b", "reference": "b", "scope": "GOOGLE"}]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*GETTY, "text", "low"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(GETTY)), JSON, max_size=5), st.integers(1, 20))
def test_whatever_a_place_holds_it_is_an_answer_or_nonsense(fields: dict[str, Any], most: int) -> None:
    try:
        answer = translate(json.dumps({"places": [fields] * 3}).encode(), most)
    except NonsenseError:
        return
    assert answer.results == read_answer(answer.body).results == min(3, most)


def test_an_error_is_none_the_less_one_under_http_200() -> None:
    with pytest.raises(NonsenseError):
        translate(b'{"error": {"code": 403}}', 20)


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 2_000))
def test_no_damage_to_an_answer_raises_anything_else(noise: bytes, at: int) -> None:
    body = spell(GETTY)
    try:
        answer = translate(body[:at] + noise + body[at + len(noise) :], 20)
    except NonsenseError:
        return
    assert read_answer(answer.body).status in STATUSES


# Errors. ---------------------------------------------------------------------------------------------------------


def error(code: int, status: str, reason: str | None = None, words: str = "Something is wrong.") -> bytes:
    details: list[dict[str, Any]] = [
        {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": words}
    ]
    if reason is not None:
        about = {"service": "places.googleapis.com", "consumer": "projects/123456789012"}
        kind = "type.googleapis.com/google.rpc.ErrorInfo"
        details.insert(0, {"@type": kind, "reason": reason, "domain": "googleapis.com", "metadata": about})
    document = {"error": {"code": code, "message": words, "status": status, "details": details}}
    return json.dumps(document, indent=2).encode()


@pytest.mark.parametrize(
    ("code", "status", "reason", "old"),
    [
        (400, "INVALID_ARGUMENT", None, "INVALID_REQUEST"),
        (400, "INVALID_ARGUMENT", "API_KEY_INVALID", "REQUEST_DENIED"),
        (400, "INVALID_ARGUMENT", "API_KEY_EXPIRED", "REQUEST_DENIED"),
        (401, "UNAUTHENTICATED", "CREDENTIALS_MISSING", "REQUEST_DENIED"),
        (403, "PERMISSION_DENIED", None, "REQUEST_DENIED"),
        (403, "PERMISSION_DENIED", "SERVICE_DISABLED", "REQUEST_DENIED"),
        (403, "PERMISSION_DENIED", "BILLING_DISABLED", "REQUEST_DENIED"),
        (403, "PERMISSION_DENIED", "CONSUMER_INVALID", "REQUEST_DENIED"),
        (403, "PERMISSION_DENIED", "API_KEY_SERVICE_BLOCKED", "REQUEST_DENIED"),
        (403, "PERMISSION_DENIED", "API_KEY_IP_ADDRESS_BLOCKED", "REQUEST_DENIED"),
        (403, "PERMISSION_DENIED", "API_KEY_HTTP_REFERRER_BLOCKED", "REQUEST_DENIED"),
        (404, "NOT_FOUND", None, "UNKNOWN_ERROR"),
        (409, "ABORTED", None, "UNKNOWN_ERROR"),
        (429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", "OVER_QUERY_LIMIT"),
        (500, "INTERNAL", None, "UNKNOWN_ERROR"),
        (501, "UNIMPLEMENTED", None, "UNKNOWN_ERROR"),
        (503, "UNAVAILABLE", None, "UNKNOWN_ERROR"),
        (504, "DEADLINE_EXCEEDED", None, "UNKNOWN_ERROR"),
    ],
)
def test_each_error_has_its_old_status_and_says_what_google_calls_it(
    google: FakeGoogle, code: int, status: str, reason: str | None, old: str
) -> None:
    google.reply = Reply(error(code, status, reason), status=code)
    answer = ask_new(google, attempts=2)
    assert answer.status == old
    again = code == 429 or code >= 500
    assert len(google.requests) == (2 if again else 1)
    if not again:
        shown = code if old != "REQUEST_DENIED" or code != 400 else 403
        assert f"(HTTP {shown}, {reason or status})" in message(answer)
    assert "Something" not in message(answer), "words of an upstream may quote anything"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"<html>",
        b"[]",
        b"{}",
        b'{"error":null}',
        b'{"error":"x"}',
        b'{"error":{"status":1}}',
        b'{"error":{"details":[null]}}',
        b'{"error":{"details":[{"reason":1}]}}',
        b'{"error":{"status":"\xff"}}',
        b'{"error":' + b"[" * 60_000,
        b'{"error":{"status":"' + b"x" * 70_000 + b'"}}',
        b'{"error":{"status":"<b>\\u0000\\n\\n","details":[]}}',
    ],
    ids=range(14),
)
@pytest.mark.parametrize(("code", "old"), [(400, "INVALID_REQUEST"), (403, "REQUEST_DENIED")])
def test_an_error_without_a_readable_body_has_its_status_all_the_same(
    google: FakeGoogle, body: bytes, code: int, old: str
) -> None:
    google.reply = Reply(body, status=code)
    answer = ask_new(google, attempts=2)
    assert answer.status == old
    assert re.search(rf"\(HTTP {code}(, \w{{1,64}})?\)$", message(answer))
    assert len(google.requests) == 1
