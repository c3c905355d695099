"""The stand-in for Google: what a client of either API sees, how faults come, and what the operator is told."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from http.client import HTTPException, RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner, Result
from gazetteer_file import gazetteer_file
from herd_process import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from places_client import NEW, OLD, WESTWOOD, Response, ask, circle, new, old
from places_sim import InThread, environment, simulator_in_thread

from proxyherd import cli
from proxyherd.places import Query
from proxyherd.places.answers import Answer, made_here
from proxyherd.places.gazetteer.provider import Gazetteer
from proxyherd.standin.app import QUOTA_SECONDS, Faults, InjectedFault, Simulator, _Quota
from proxyherd.standin.new import New, read_mask
from proxyherd.standin.old import Old, spell_json
from proxyherd.standin.shapes import RefusedError, Search, SimulatedQuery, viewport

KINDS = ["errors", "unavailable", "too_many", "drop", "hang", "nonsense"]


class Row:
    """A gazetteer of places on a line: the nearest to 34,-118 comes last."""

    def __init__(self, places: int = 25) -> None:
        self.places = places
        self.queries: list[Query] = []

    async def nearby(self, query: Query) -> Answer:
        self.queries.append(query)
        results = [
            {
                "geometry": {"location": {"lat": 34.0, "lng": -118 + number / 1000}},
                "name": f"Café “{number}”",
                "place_id": f"geonames:{number}",
                "types": ["locality", "political"],
                "vicinity": "California",
            }
            for number in range(self.places, 0, -1)
        ]
        results = results[: query.most]
        status = "OK" if results else "ZERO_RESULTS"
        return made_here({"html_attributions": ["GeoNames"], "results": results, "status": status})

    async def close(self) -> None:
        pass


def either(api: str, url: str) -> Response:
    return old(url) if api == "old" else new(url)


def all_of(kind: str) -> Faults:
    """Every request has a fault of one kind."""
    return msgspec.convert({kind: 1.0}, Faults)


@pytest.fixture(scope="module")
def shared() -> Iterator[InThread]:
    """One simulator without faults, for tests that change nothing of it."""
    with simulator_in_thread(source=Row()) as sim:
        yield sim


# --- the old API


def test_old_answer_is_laid_out_as_googles() -> None:
    place = {
        "geometry": {"location": {"lat": 1.5, "lng": 2.5}},
        "name": 'Say ": {" [',
        "place_id": "x",
        "types": ["bar"],
        "vicinity": "Ü",
    }
    reply = Old().answer(Search(1.5, 2.5, 1.0, 20), [place], [])
    assert reply.body.decode().replace(" : \n", " :\n") == (  # whose end no editor leaves alone
        """\
{
   "html_attributions" : [],
   "results" :
   [
      {
         "business_status" : "OPERATIONAL",
         "geometry" :
         {
            "location" :
            {
               "lat" : 1.5,
               "lng" : 2.5
            },
            "viewport" :
            {
               "northeast" :
               {
                  "lat" : 1.5013489802915,
                  "lng" : 2.5013489802915
               },
               "southwest" :
               {
                  "lat" : 1.4986510197085,
                  "lng" : 2.4986510197085
               }
            }
         },
         "icon" : "https://maps.gstatic.com/mapfiles/place_api/icons/v1/png_71/generic_business-71.png",
         "icon_background_color" : "#7B9EB0",
         "icon_mask_base_uri" : "https://maps.gstatic.com/mapfiles/place_api/icons/v2/generic_pinlet",
         "name" : "Say \\": {\\" [",
         "place_id" : "x",
         "reference" : "x",
         "scope" : "GOOGLE",
         "types" :
         [
            "bar"
         ],
         "vicinity" : "Ü"
      }
   ],
   "status" : "OK"
}"""
    )


def test_old_answers_have_their_keys_in_order(shared: InThread) -> None:
    keys = ["html_attributions", "next_page_token", "results", "status"]
    assert list(old(shared.url).json) == keys
    assert list(old(shared.url, key="").json) == ["error_message", "html_attributions", "results", "status"]


@settings(max_examples=30, deadline=None)  # the first call pays for imports, on a machine that others use
@given(st.dictionaries(st.sampled_from(["a", "b_c", "status"]), st.recursive(st.text(), st.lists)))
def test_layout_never_changes_what_is_said(document: dict[str, Any]) -> None:
    assert json.loads(spell_json(document)) == document


def test_old_answer_has_the_places_of_the_gazetteer_in_its_order() -> None:
    query = Query(latitude="34.0689", longitude="-118.4451", metres=Decimal(9000), most=20)

    async def nearby() -> Answer:
        gazetteer = Gazetteer(gazetteer_file())
        answer = await gazetteer.nearby(query)
        await gazetteer.close()
        return answer

    wanted = json.loads(asyncio.run(nearby()).body)
    with simulator_in_thread() as sim:
        got = old(sim.url).json
    assert len(wanted["results"]) > 5
    for place, theirs in zip(got["results"], wanted["results"], strict=True):
        for field in ("name", "place_id", "types", "vicinity"):
            assert place[field] == theirs[field]
        assert place["geometry"]["location"] == theirs["geometry"]["location"]
        assert place["reference"] == place["place_id"]
    assert got["html_attributions"] == wanted["html_attributions"]


@pytest.mark.parametrize("places", [0, 1, 20, 21])
def test_old_answer_has_twenty_at_most_and_a_token_only_if_there_are_more(places: int) -> None:
    with simulator_in_thread(source=Row(places)) as sim:
        response = old(sim.url)
        answer = response.json
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert len(answer["results"]) == min(places, 20)
    assert ("next_page_token" in answer) == (places > 20)
    assert answer["status"] == ("OK" if places else "ZERO_RESULTS")


@pytest.mark.parametrize(
    "parameters",
    [
        {"location": ""},
        {"location": "34"},
        {"location": "34,"},
        {"location": "34,-118,2"},
        {"location": "90.1,0"},
        {"location": "0,-180.1"},
        {"location": "nan,0"},
        {"location": "1_0,0"},
        {"location": "1e1,0"},
        {"location": "Westwood"},
        {"radius": ""},
        {"radius": "0"},
        {"radius": "-1"},
        {"radius": "50000.1"},
        {"radius": "inf"},
        {"radius": "far"},
        {"pagetoken": "Aap"},
    ],
)
def test_old_api_refuses_what_it_cannot_understand(shared: InThread, parameters: dict[str, str]) -> None:
    response = old(shared.url, **parameters)
    assert response.status == 200
    assert response.json == {"html_attributions": [], "results": [], "status": "INVALID_REQUEST"}


@pytest.mark.parametrize("missing", ["location", "radius"])
def test_old_api_refuses_what_lacks_a_parameter(shared: InThread, missing: str) -> None:
    parameters = {"key": "any", **WESTWOOD}
    del parameters[missing]
    assert ask(shared.url, "GET", f"{OLD}?{urlencode(parameters)}").json["status"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    "parameters",
    [
        {"location": "+34.0689,-118.4451"},
        {"location": " 34.0689, -118.4451"},
        {"location": "-90,180"},
        {"radius": "50000"},
        {"radius": "0.5"},
        {"keyword": "coffee", "type": "cafe", "language": "de", "opennow": ""},
    ],
)
def test_old_api_takes_all_spellings_and_passes_over_the_rest(
    shared: InThread, parameters: dict[str, str]
) -> None:
    assert old(shared.url, **parameters).json["status"] == "OK"


def test_old_api_refuses_keys_in_googles_words() -> None:
    with simulator_in_thread(source=Row(), key="right") as sim:
        missing, wrong = old(sim.url, key=""), old(sim.url, key="wrong")
        assert old(sim.url, key="right").json["status"] == "OK"
    assert missing.status == wrong.status == 200
    assert missing.json["status"] == wrong.json["status"] == "REQUEST_DENIED"
    assert missing.json["error_message"].startswith("You must use an API key to authenticate each request")
    assert wrong.json["error_message"] == "The provided API key is invalid. "
    assert wrong.json["results"] == []


# --- the new API


def test_new_answer_has_all_fields_for_a_star(shared: InThread) -> None:
    response = new(shared.url, {**circle(), "maxResultCount": 1, "languageCode": "de"})
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
    [place] = response.json["places"]
    assert re.fullmatch(r"[345]\.\d", str(place.pop("rating")))
    assert 1 <= place.pop("userRatingCount") <= 5_000
    south, west, north, east = viewport(34.0, -117.975)
    assert place == {
        "id": "geonames:25",
        "name": "places/geonames:25",
        "displayName": {"text": "Café “25”", "languageCode": "de"},
        "location": {"latitude": 34.0, "longitude": -117.975},
        "viewport": {
            "low": {"latitude": south, "longitude": west},
            "high": {"latitude": north, "longitude": east},
        },
        "types": ["locality", "political"],
        "primaryType": "locality",
        "businessStatus": "OPERATIONAL",
        "formattedAddress": "Café “25”, California",
        "shortFormattedAddress": "California",
        "iconMaskBaseUri": "https://maps.gstatic.com/mapfiles/place_api/icons/v2/generic_pinlet",
        "iconBackgroundColor": "#7B9EB0",
        "attributions": [{"provider": "GeoNames", "providerUri": "https://www.geonames.org/"}],
    }


def test_new_answer_is_laid_out_as_googles(shared: InThread) -> None:
    body = new(shared.url, {**circle(), "maxResultCount": 1}, mask="places.id").body
    assert body == b'{\n  "places": [\n    {\n      "id": "geonames:25"\n    }\n  ]\n}\n'


def test_ratings_are_the_same_each_time_and_not_for_every_place(shared: InThread) -> None:
    mask = "places.id,places.rating,places.userRatingCount"
    first, second = (new(shared.url, circle(radius=radius), mask=mask).json["places"] for radius in (1, 2))
    assert first == second
    assert len({place["rating"] for place in first}) > 5
    assert len({place["userRatingCount"] for place in first}) > 15


@pytest.mark.parametrize(
    ("mask", "wanted"),
    [
        ("places.id", {"id": "geonames:25"}),
        ("places.displayName.text", {"displayName": {"text": "Café “25”"}}),
        ("places.location.latitude", {"location": {"latitude": 34.0}}),
        (
            "places.location.latitude,places.id,places.location.longitude",
            {"id": "geonames:25", "location": {"latitude": 34.0, "longitude": -117.975}},
        ),
        (
            "places.displayName.text,places.displayName",
            {"displayName": {"text": "Café “25”", "languageCode": "en"}},
        ),
        (
            "places.displayName,places.displayName.text",
            {"displayName": {"text": "Café “25”", "languageCode": "en"}},
        ),
        ("places.attributions.provider", {"attributions": [{"provider": "GeoNames"}]}),
        ("places.viewport.low.latitude", {"viewport": {"low": {"latitude": viewport(34.0, 0)[0]}}}),
        ("places.websiteUri,places.reviews.text.text", {}),
        ("places.id,places.photos", {"id": "geonames:25"}),
    ],
)
def test_only_fields_of_the_mask_come_back(shared: InThread, mask: str, wanted: dict[str, Any]) -> None:
    assert new(shared.url, {**circle(), "maxResultCount": 1}, mask=mask).json == {"places": [wanted]}


@pytest.mark.parametrize("mask", ["places", "places.*", "*", "places.id,places", "places.id,*"])
def test_a_mask_may_ask_for_all(shared: InThread, mask: str) -> None:
    assert new(shared.url, mask=mask).json == new(shared.url).json


@pytest.mark.parametrize(
    "mask",
    ["id", "places.foo", "places.displayName.foo", "places.id.foo", "places.id, places.types", "places.id,",
     "places.", ".", ",", "**", "places.displayname"],
)  # fmt: skip
def test_a_field_that_google_does_not_have_is_refused(shared: InThread, mask: str) -> None:
    response = new(shared.url, mask=mask)
    assert response.status == 400
    error = response.json["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    [detail] = error["details"]
    assert detail["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    assert "Cannot find matching fields for path" in detail["fieldViolations"][0]["description"]


def test_a_mask_that_is_not_text_is_refused_too() -> None:
    with pytest.raises(RefusedError) as caught:
        read_mask("places.\udcff")
    assert b"\\\\udcff" in caught.value.reply.body


def test_a_missing_mask_is_refused_and_a_query_may_have_it(shared: InThread) -> None:
    response = new(shared.url, mask=None)
    assert (response.status, response.json["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert response.json["error"]["message"].startswith("FieldMask is a required parameter.")
    body = json.dumps(circle()).encode()
    for name in ("$fields", "fields"):
        got = ask(shared.url, "POST", f"{NEW}?{urlencode({'key': 'any', name: 'places.id'})}", body)
        assert got.json == new(shared.url, mask="places.id").json


@pytest.mark.parametrize(("most", "results"), [(None, 20), (0, 20), (1, 1), (7, 7), (20, 20), ("5", 5)])
def test_new_answer_has_as_many_as_wanted(shared: InThread, most: Any, results: int) -> None:
    document = circle() if most is None else {**circle(), "maxResultCount": most}
    assert len(new(shared.url, document).json["places"]) == results


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        {},
        {"locationRestriction": {}},
        {"locationRestriction": {"circle": {"radius": 5}}},
        circle(latitude=90.1),
        circle(longitude=-180.1),
        circle(latitude="north"),
        circle(latitude="NaN"),
        circle(radius=0),
        circle(radius=-1),
        circle(radius=50_000.1),
        circle(radius=None),
        {**circle(), "maxResultCount": 21},
        {**circle(), "maxResultCount": -1},
        {**circle(), "maxResultCount": 1.5},
        {**circle(), "rankPreference": "NEAREST"},
        {**circle(), "location": "34,-118"},
    ],
)
def test_new_api_refuses_what_it_cannot_understand(shared: InThread, document: Any) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    response = new(shared.url, body)
    assert response.status == 400
    error = response.json["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["message"]


def test_new_api_takes_every_parameter_of_googles(shared: InThread) -> None:
    more = {
        "includedTypes": ["locality"],
        "excludedTypes": [],
        "includedPrimaryTypes": [],
        "excludedPrimaryTypes": [],
        "regionCode": "us",
        "rankPreference": "POPULARITY",
        "routingParameters": {},
    }
    assert new(shared.url, {**circle(), **more}).json == new(shared.url).json


def test_distance_ranks_by_distance_and_popularity_as_the_gazetteer(shared: InThread) -> None:
    def ids(rank: str) -> list[int]:
        document = {**circle(), "rankPreference": rank, "maxResultCount": 5}
        return [int(place["id"].split(":")[1]) for place in new(shared.url, document).json["places"]]

    assert ids("POPULARITY") == [25, 24, 23, 22, 21]
    assert ids("DISTANCE") == [1, 2, 3, 4, 5]


def test_no_places_are_an_empty_object() -> None:
    with simulator_in_thread(source=Row(0)) as sim:
        response = new(sim.url)
        assert (response.status, response.body) == (200, b"{}\n")
        assert sim.stats()["requests"]["new"] == {"ZERO_RESULTS": 1}


def test_zeros_are_left_out_as_in_proto3() -> None:
    place = {
        "geometry": {"location": {"lat": 0.0, "lng": 9.5}},
        "name": "Equator",
        "place_id": "own:1",
        "types": [],
        "vicinity": "",
    }
    reply = New().answer(Search(0.0, 9.5, 1.0, 20, mask="*"), [place], [])
    [spelled] = json.loads(reply.body)["places"]
    assert spelled["location"] == {"longitude": 9.5}
    assert spelled["formattedAddress"] == "Equator"
    assert not spelled.keys() & {"types", "primaryType", "shortFormattedAddress", "attributions"}


def test_both_apis_tell_the_same_places(shared: InThread) -> None:
    ids = [place["place_id"] for place in old(shared.url).json["results"]]
    assert [place["id"] for place in new(shared.url).json["places"]] == ids


def test_new_api_refuses_keys_as_google_does() -> None:
    with simulator_in_thread(source=Row(), key="right") as sim:
        missing, wrong = new(sim.url, key=None), new(sim.url, key="wrong")
        assert new(sim.url, key="right").status == 200
        by_query = ask(sim.url, "POST", f"{NEW}?key=right&$fields=*", json.dumps(circle()).encode())
        assert by_query.status == 200
    assert (missing.status, missing.json["error"]["status"]) == (403, "PERMISSION_DENIED")
    error = wrong.json["error"]
    assert (wrong.status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert error["message"] == "API key not valid. Please pass a valid API key."
    assert error["details"][0] == {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
        "metadata": {"service": "places.googleapis.com"},
    }


@pytest.mark.parametrize("key", ["schlüssel", "\x80", "a b"])
def test_a_strange_key_is_a_wrong_key(key: str) -> None:
    with simulator_in_thread(source=Row(), key="right") as sim:
        assert new(sim.url, key=key).status == 400


# --- not enabled, over the quota


def test_a_disabled_api_says_so_and_the_other_serves() -> None:
    with simulator_in_thread(Faults(disable="old"), source=Row(), key="right") as sim:
        denied = old(sim.url, key="right")
        assert new(sim.url, key="right").status == 200
        assert "key is invalid" in old(sim.url, key="wrong").json["error_message"], "the key comes first"
        sim.faults = Faults(disable="new")
        forbidden = new(sim.url, key="right")
        assert old(sim.url, key="right").json["status"] == "OK"
    assert (denied.status, denied.json["status"]) == (200, "REQUEST_DENIED")
    assert denied.json["error_message"].startswith(
        "You're calling a legacy API, which is not enabled for your project. To get newer features and more "
        "functionality, switch to the Places API (New) or Routes API. Learn more: "
    )
    error = forbidden.json["error"]
    assert (forbidden.status, error["code"], error["status"]) == (403, 403, "PERMISSION_DENIED")
    assert error["message"].startswith("Places API (New) has not been used in project ")
    assert error["details"][0]["reason"] == "SERVICE_DISABLED"
    assert error["details"][0]["metadata"]["service"] == "places.googleapis.com"


def test_past_the_quota_each_api_says_so() -> None:
    with simulator_in_thread(Faults(quota=2), source=Row()) as sim:
        assert [old(sim.url).json["status"] for _ in range(4)] == ["OK", "OK", *["OVER_QUERY_LIMIT"] * 2]
        assert "rate-limit" in old(sim.url).json["error_message"]
        assert [new(sim.url).status for _ in range(4)] == [200, 200, 429, 429]
        error = new(sim.url).json["error"]
        assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
        assert error["message"].startswith("Quota exceeded for quota metric")
        assert error["details"][0]["reason"] == "RATE_LIMIT_EXCEEDED"


def test_a_refused_key_costs_no_quota() -> None:
    with simulator_in_thread(Faults(quota=1), source=Row(), key="right") as sim:
        for _ in range(3):
            assert new(sim.url, key="wrong").status == 400
        assert new(sim.url, key="right").status == 200


def test_a_quota_is_whole_again_after_a_minute() -> None:
    quota = _Quota()
    assert [quota.takes(2, now) for now in (100.0, 100.0, 100.0, 100.0 + QUOTA_SECONDS - 0.1)] == [
        True, True, False, False
    ]  # fmt: skip
    assert [quota.takes(2, 100.0 + QUOTA_SECONDS) for _ in range(3)] == [True, True, False]


def test_without_a_quota_everything_is_taken() -> None:
    quota = _Quota()
    assert all(quota.takes(None, 0.0) for _ in range(1_000))
    assert not _Quota().takes(0, 0.0)


# --- faults


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        ("errors", 500, "INTERNAL"),
        ("unavailable", 503, "UNAVAILABLE"),
        ("too_many", 429, "RESOURCE_EXHAUSTED"),
    ],
)
def test_failures_come_by_http_in_each_apis_form(kind: str, status: int, name: str) -> None:
    with simulator_in_thread(all_of(kind), source=Row()) as sim:
        page, error = old(sim.url), new(sim.url)
        assert sim.stats()["requests"] == {
            "old": {f"HTTP_{status}": 1}, "new": {f"HTTP_{status}": 1}, "other": {}
        }  # fmt: skip
    assert page.status == error.status == status
    assert page.headers["Content-Type"].startswith("text/html")
    assert (error.json["error"]["code"], error.json["error"]["status"]) == (status, name)
    assert "Retry-After" not in page.headers | error.headers


@pytest.mark.parametrize("api", ["old", "new"])
def test_too_many_may_say_when_to_come_again_and_nothing_else_does(api: str) -> None:
    with simulator_in_thread(Faults(too_many=1.0, retry_after=7), source=Row()) as sim:
        assert either(api, sim.url).headers["Retry-After"] == "7"
        sim.faults = Faults(unavailable=1.0, retry_after=7)
        assert "Retry-After" not in either(api, sim.url).headers
        sim.faults = Faults(retry_after=7)
        assert "Retry-After" not in either(api, sim.url).headers


@pytest.mark.parametrize("api", ["old", "new"])
def test_a_dropped_connection_ends_without_an_answer(api: str) -> None:
    with simulator_in_thread(Faults(drop=1.0), source=Row()) as sim:
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            either(api, sim.url)
        wait_until(lambda: sim.stats()["requests"][api] == {"DROPPED": 1}, "it is counted")
        assert len(sim.requests) == 1


@pytest.mark.parametrize("api", ["old", "new"])
def test_a_hung_request_gets_nothing_until_the_client_goes(api: str) -> None:
    with simulator_in_thread(Faults(hang=1.0), source=Row()) as sim:
        with socket.create_connection(("127.0.0.1", urlsplit(sim.url).port or 0)) as client:
            client.settimeout(0.2)
            line = f"GET {OLD}?key=k" if api == "old" else f"POST {NEW}"
            client.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            sim.wait_for(1)
            with pytest.raises(TimeoutError):
                client.recv(1)
            assert sim.stats()["in_flight"] == 1
            sim.faults = Faults()
            assert either(api, sim.url).status == 200, "others are served meanwhile"
        wait_until(lambda: sim.stats()["in_flight"] == 0, "the request has ended")
        assert sim.stats()["requests"][api]["HUNG"] == 1


@pytest.mark.parametrize("api", ["old", "new"])
@pytest.mark.parametrize("places", [0, 25])
def test_nonsense_is_no_json(api: str, places: int) -> None:
    with simulator_in_thread(Faults(nonsense=1.0), source=Row(places)) as sim:
        response = either(api, sim.url)
        assert sim.stats()["requests"][api] == {"NONSENSE": 1}
    assert response.status == 200
    with pytest.raises(ValueError, match=r"line|char"):
        json.loads(response.body)


def test_faults_are_replaced_while_it_serves() -> None:
    with simulator_in_thread(source=Row()) as sim:
        assert old(sim.url).status == 200
        sim.faults = Faults(errors=1.0)
        assert old(sim.url).status == 500
        sim.faults = Faults()
        assert old(sim.url).status == 200


def test_latency_is_waited_for_by_all_at_once() -> None:
    """Two hundred requests that wait one after another would take a minute."""

    async def main(url: str) -> float:
        start = time.monotonic()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one() -> None:
                async with session.get(url + OLD, params={"key": "any", **WESTWOOD}) as response:
                    assert response.status == 200

            await asyncio.gather(*(one() for _ in range(200)))
        return time.monotonic() - start

    with simulator_in_thread(Faults(latency=0.3), source=Row()) as sim:
        assert 0.3 <= asyncio.run(main(sim.url)) < 10


def test_jitter_comes_on_top_and_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds:
            delays.append(seconds)
        await sleep(0)

    monkeypatch.setattr("proxyherd.standin.app.asyncio.sleep", noted)
    with simulator_in_thread(Faults(latency=1.0, jitter=0.5), source=Row()) as sim:
        for _ in range(20):
            old(sim.url)
    ours = [delay for delay in delays if delay >= 1.0]
    assert len(ours) == len(set(ours)) == 20
    assert all(1.0 <= delay <= 1.5 for delay in ours)


def test_a_client_that_does_not_wait_is_counted_as_gone() -> None:
    with simulator_in_thread(Faults(latency=60.0), source=Row()) as sim:
        with pytest.raises(TimeoutError):
            new(sim.url, timeout=0.1)
        wait_until(lambda: sim.stats()["requests"]["new"] == {"CLIENT_GONE": 1}, "it is counted")
        assert sim.stats()["in_flight"] == 0


def outcomes(seed: int, requests: int) -> list[str]:
    """What becomes of requests with some of every fault that answers."""
    with simulator_in_thread(
        Faults(errors=0.2, unavailable=0.2, too_many=0.2, drop=0.1, nonsense=0.1), source=Row(1), seed=seed
    ) as sim:
        found = []
        for _ in range(requests):
            try:
                response = old(sim.url)
            except (HTTPException, OSError):
                found.append("DROPPED")
            else:
                found.append(f"{response.status} {response.body[-1:]!r}")
        return found


def test_a_seed_repeats_its_faults() -> None:
    first = outcomes(7, 60)
    assert outcomes(7, 60) == first
    assert outcomes(8, 60) != first
    assert len(set(first)) == 6, "some of each, and some that are well"


def test_faults_come_as_often_as_wanted() -> None:
    faults = Faults(errors=0.1, unavailable=0.05, too_many=0.2, drop=0.15, hang=0.01, nonsense=0.3)
    numbers = random.Random(1)
    found = Counter(faults.kind(numbers.random()) for _ in range(100_000))
    for fraction, fault in faults.kinds():
        assert found[fault] == pytest.approx(100_000 * fraction, abs=700)
    assert found[None] == pytest.approx(19_000, abs=700)


@pytest.mark.parametrize("kind", KINDS)
def test_all_is_all_and_none_is_none(kind: str) -> None:
    faults = all_of(kind)
    assert {faults.kind(chance) for chance in (0.0, 0.5, 1 - 2**-53)} == {
        fault for fraction, fault in faults.kinds() if fraction
    }
    assert Faults().kind(0.0) is None
    assert len(InjectedFault) == len(KINDS)


@pytest.mark.parametrize(
    "wrong",
    [
        *({kind: value} for kind in KINDS for value in (-0.1, 1.1, float("nan"))),
        {"errors": 0.6, "drop": 0.6},
        {"latency": -1.0},
        {"latency": float("inf")},
        {"jitter": float("nan")},
        {"retry_after": -1},
        {"quota": -1},
    ],
)
def test_impossible_faults_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"errors|latency|quota"):
        Faults(**wrong)


# --- the server


def test_requests_are_kept_for_the_test(shared: InThread) -> None:
    before = len(shared.requests)
    old(shared.url, radius="77")
    new(shared.url, circle(radius=78), mask="places.id")
    first, second = shared.requests[before:]
    assert (first.path, first.query["radius"], first.body) == (OLD, "77", b"")
    assert (second.path, second.headers["x-goog-fieldmask"]) == (NEW, "places.id")
    assert json.loads(second.body) == circle(radius=78)


def test_stats_count_by_api_and_outcome() -> None:
    with simulator_in_thread(source=Row(), key="right") as sim:
        for key in ("right", "right", "wrong"):
            old(sim.url, key=key)
            new(sim.url, key=key)
        old(sim.url, key="right", radius="0")
        new(sim.url, circle(radius=0), key="right")
        sim.faults = Faults(disable="new")
        new(sim.url, key="right")
        assert ask(sim.url, "GET", "/nowhere").status == 404
        assert sim.stats() == {
            "requests": {
                "old": {"INVALID_REQUEST": 1, "OK": 2, "REQUEST_DENIED": 1},
                "new": {"INVALID_ARGUMENT": 2, "OK": 2, "PERMISSION_DENIED": 1},
                "other": {"HTTP_404": 1},
            },
            "in_flight": 0,
            "kept_answers": 2,
        }


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", OLD), ("GET", NEW), ("GET", "/"), ("GET", "/maps/api/place/nearbysearch/xml")],
)
def test_everything_else_is_not_found_and_says_what_is(shared: InThread, method: str, path: str) -> None:
    response = ask(shared.url, method, path)
    assert response.status == 404
    assert f"POST {NEW}" in response.body.decode()


@pytest.mark.parametrize("api", ["old", "new"])
def test_answers_are_packed_for_whoever_takes_it(shared: InThread, api: str) -> None:
    plain = either(api, shared.url)
    path = f"{OLD}?{urlencode({'key': 'any', **WESTWOOD})}" if api == "old" else f"{NEW}?key=any&$fields=*"
    method, body = ("GET", None) if api == "old" else ("POST", json.dumps(circle()).encode())
    for _ in range(2):
        packed = ask(shared.url, method, path, body, {"Accept-Encoding": "gzip"})
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
    assert "Content-Encoding" not in plain.headers


def test_the_same_question_is_looked_up_once() -> None:
    row = Row()
    with simulator_in_thread(source=row) as sim:
        for _ in range(3):
            old(sim.url)
            new(sim.url)
        assert len(row.queries) == 2
        old(sim.url, radius="1")
        new(sim.url, mask="places.id")
        new(sim.url, {**circle(), "rankPreference": "DISTANCE"})
        assert len(row.queries) == 5


def test_queries_keep_the_digits_that_were_asked_for() -> None:
    row = Row()
    with simulator_in_thread(source=row) as sim:
        old(sim.url, location="-0.00000012,179.99999999", radius="0.25")
        new(sim.url, circle(1e-7, -2, 50_000))
    assert [(query.latitude, query.longitude, query.metres) for query in row.queries] == [
        ("-0.00000012", "179.99999999", Decimal("0.25")),
        ("0.0000001", "-2.0", Decimal(50_000)),
    ]


def test_kept_answers_are_bounded() -> None:
    async def main() -> None:
        row = Row()
        simulator = Simulator(row, cache_bytes=100_000)
        api = Old()
        for number in range(50):
            query = {"key": "k", "location": f"{number},0", "radius": "5"}
            asked = SimulatedQuery(OLD, query, {}, b"")
            await simulator._reply(api, asked, Faults(), 0.0)
            assert simulator._answers.currsize <= 100_000
            assert 0 < simulator.stats()["kept_answers"] < 10
        assert len(row.queries) == 50

    asyncio.run(main())


def test_an_answer_too_large_to_keep_is_given_all_the_same() -> None:
    async def main() -> None:
        simulator = Simulator(Row(), cache_bytes=100)
        asked = SimulatedQuery(OLD, {"key": "k", **WESTWOOD}, {}, b"")
        _, reply = await simulator._reply(Old(), asked, Faults(), 0.0)
        assert reply.outcome == "OK"
        assert simulator.stats()["kept_answers"] == 0

    asyncio.run(main())


def test_a_lost_gazetteer_is_an_error_of_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with simulator_in_thread(source=Gazetteer(tmp_path / "none.sqlite")) as sim:
        assert old(sim.url).status == 500
        assert new(sim.url).json["error"]["status"] == "INTERNAL"
        assert sim.stats()["kept_answers"] == 0
    assert "proxyherd gazetteer build" in caplog.text


def test_a_body_that_is_too_long_is_refused(shared: InThread) -> None:
    assert new(shared.url, b" " * 65_537).status == 413
    assert new(shared.url).status == 200


def test_a_viewport_stays_on_the_map() -> None:
    south, west, north, east = viewport(90.0, 180.0)
    assert (round(south, 4), round(west, 4), north, round(east, 4)) == (89.9987, 179.9987, 90.0, -179.9987)
    assert viewport(-90.0, 0.0)[0] == -90.0


# --- the command


def refused(*arguments: str, **variables: str) -> Result:
    """Run it in this process, which what is refused before anything is served does not change."""
    ours = dict.fromkeys(os.environ.keys() - environment().keys())
    return CliRunner().invoke(cli.main, ["places-sim", *arguments], env={**ours, **variables})


def test_a_missing_gazetteer_is_exit_2_and_says_how_to_build_it(tmp_path: Path) -> None:
    file = tmp_path / "none.sqlite"
    for done in (
        refused("--address", "127.0.0.1:0", "--gazetteer", str(file)),
        refused("--address", "127.0.0.1:0", PROXYHERD_GAZETTEER=str(file)),
    ):
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"run: proxyherd gazetteer build {file}" in done.stderr


HERD = '[servers]\nAnn = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3"%s }\n'


@pytest.mark.parametrize(
    ("base_url", "options", "address"),
    [
        ("", [], ("127.0.0.1", 10_500)),
        ("http://127.0.0.1:10300", [], ("127.0.0.1", 10_300)),
        ("http://localhost:7/maps", [], ("localhost", 7)),
        ("http://127.0.0.1:10300", ["--address", "127.0.0.1:0"], ("127.0.0.1", 0)),
        ("http://192.0.2.1:10300", [], ("127.0.0.1", 10_500)),
        ("https://127.0.0.1:10300", [], ("127.0.0.1", 10_500)),  # this one serves no TLS
    ],
)
def test_it_is_where_the_herds_file_looks_for_it(
    base_url: str,
    options: list[str],
    address: tuple[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also at 10300, which was its default before servers had web ports."""
    served: list[tuple[str, int]] = []
    monkeypatch.setattr("proxyherd.cli.places_sim._run", lambda _, where, __: served.append(where))
    file = tmp_path / "herd.toml"
    file.write_text(HERD % "" + (f'[places]\nbase_url = "{base_url}"\n' if base_url else ""))
    done = refused("--gazetteer", str(gazetteer_file()), *options, PROXYHERD_CONFIG=str(file))
    assert (done.exit_code, done.output) == (0, "")
    assert served == [address]


def test_a_herds_file_in_which_a_web_port_has_its_address_is_told_with_both_keys(tmp_path: Path) -> None:
    file = tmp_path / "herd.toml"
    file.write_text(HERD % ', web = "127.0.0.1:10300"' + '[places]\nbase_url = "http://127.0.0.1:10300"\n')
    done = refused("--gazetteer", str(gazetteer_file()), PROXYHERD_CONFIG=str(file))
    assert done.exit_code == 2
    assert f"{file}: keys places.base_url and servers.Ann.web: both have port 10300" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--errors", "60", "--drop", "60"], "100 percent"),
        (["--errors", "101"], "--errors"),
        (["--hang", "-1"], "--hang"),
        (["--latency", "-1"], "--latency"),
        (["--quota", "-1"], "--quota"),
        (["--address", "127.0.0.1"], "no address"),
        (["--address", "127.0.0.1:65536"], "no address"),
        (["--disable", "both"], "--disable"),
        (["--key", "AIza"], "--key"),
        (["--key-file", "nowhere/key"], "nowhere/key: No such file"),
        (["--key-file", "/dev/null"], "not a regular file"),
    ],
)
def test_bad_usage_is_exit_2(arguments: list[str], why: str) -> None:
    done = refused(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert why in done.stderr
