"""The provider `google`: how the old Nearby Search is asked, and that its answers go on as they came."""

from __future__ import annotations

import gzip
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from fake_google import (
    KEY,
    NEW_PATH,
    PATH,
    QUERY,
    FakeGoogle,
    Ledger,
    Reply,
    ask,
    message,
    nearby_answer,
)

from proxyherd.config import schema
from proxyherd.places import Answer, NoBudget, Query
from proxyherd.places.answers import cut, squeeze
from proxyherd.places.google import calling
from proxyherd.places.google.new import GoogleNew
from proxyherd.places.google.old import Google, _judge

if TYPE_CHECKING:
    pass


def test_an_answer_within_the_bound_goes_on_as_it_came(google: FakeGoogle) -> None:
    answer = ask(google.host)
    assert answer == Answer(squeeze(nearby_answer(20)), "OK", 20)
    assert b"\n\n" not in answer.body


def test_an_answer_past_the_bound_loses_only_results(google: FakeGoogle) -> None:
    answer = ask(google.host, query=Query("+0", "+0", Decimal(1), 3))
    assert answer == cut(nearby_answer(20), 3)
    assert answer.body == squeeze(nearby_answer(3))


def test_a_packed_answer_is_the_same_answer(google: FakeGoogle) -> None:
    plain = ask(google.host)
    google.reply = Reply(gzip.compress(nearby_answer(20)), headers={"Content-Encoding": "gzip"})
    assert ask(google.host) == plain


@pytest.mark.parametrize("attempts", [1, 2])
@pytest.mark.parametrize(
    "status",
    [
        "ZERO_RESULTS",
        "OVER_QUERY_LIMIT",
        "REQUEST_DENIED",
        "INVALID_REQUEST",
        "UNKNOWN_ERROR",
        "SOMETHING_NEW",
    ],
)
def test_what_google_says_itself_goes_on_under_its_own_status(
    google: FakeGoogle, status: str, attempts: int
) -> None:
    google.reply = Reply(nearby_answer(0, status=status))
    said = Answer(squeeze(nearby_answer(0, status=status)), status, 0)
    assert ask(google.host, attempts=attempts) == said
    again = status in {"OVER_QUERY_LIMIT", "UNKNOWN_ERROR"}
    assert len(google.requests) == (attempts if again else 1)


@pytest.mark.parametrize(
    ("query", "location", "radius"),
    [
        (QUERY, "34.068930,-118.445127", "10000"),
        (Query("+5.5", "-6", Decimal("0.5"), 1), "5.5,-6", "0.5"),
        (Query("-00", "+180.0", Decimal("5E+4"), 1), "-00,180.0", "50000"),
        (Query("+1." + "3" * 4_000, "+2", Decimal("1E-9"), 1), "1." + "3" * 12 + ",2", "0.000000001"),
        (Query("+1.", "-.5", Decimal(100), 1), "1,-.5", "100"),
    ],
)
def test_google_is_asked_in_its_own_terms(
    google: FakeGoogle, query: Query, location: str, radius: str
) -> None:
    ask(google.host, query=query, key=(key := "odd+key&with=%41/signs"), language="zh-TW")
    (request,) = google.requests
    assert (request.method, request.path, request.body) == ("GET", PATH, b"")
    assert request.query == {"location": location, "radius": radius, "key": key, "language": "zh-TW"}
    assert request.headers["Accept-Encoding"] == "gzip"
    assert not {"Cookie", "Authorization", "X-Goog-Api-Key", "Referer"} & set(request.headers)


def test_google_chooses_the_language_where_none_is_configured(google: FakeGoogle) -> None:
    ask(google.host)
    assert set(google.requests[0].query) == {"location", "radius", "key"}


@pytest.mark.parametrize(("size", "outcome"), [(2_000, "denied"), (2_100, "answered")])
def test_only_a_body_as_short_as_a_refusal_is_searched_for_one(size: int, outcome: str) -> None:
    body = b'{"html_attributions":[],"results":[],"status" : "REQUEST_DENIED"}'
    assert _judge(calling.HttpReply(200, body.ljust(size))) == outcome


@pytest.mark.parametrize("after", ["", "/", PATH])
@pytest.mark.parametrize("before", ["", "/proxy", "/X"])
def test_the_base_is_what_stands_before_the_path_and_a_whole_url_of_before_still_works(
    google: FakeGoogle, before: str, after: str
) -> None:
    assert ask(google.host + before + after).status == "OK"
    ask(google.host + before + after, provider="google-new")
    assert google.paths == [before + PATH, before + NEW_PATH]


@pytest.mark.parametrize("most", [1, 20])
def test_queries_that_differ_in_their_bound_only_are_one_request(google: FakeGoogle, most: int) -> None:
    ask(google.host, query=Query("+1", "+2", Decimal(3), most))
    assert google.requests[0].query == {"location": "1,2", "radius": "3", "key": KEY}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b'{"results":null,"status":"OK"}',
        b'{"results":[],"status":0}',
        b'{"results":{},"status":"OK"}',
        b'{"results":[],"status":"OK","status":"ZERO_RESULTS"}',
        b'{"results":[],"results":[{}],"status":"OK"}',
        b'{"results":[NaN],"status":"OK"}',
        b'{"results":["\xff"],"status":"OK"}',
        b'{"results":[' + b"[" * 50_000 + b'],"status":"OK"}',
        b'{"results":[],"status":"OK"}x',
        nearby_answer(20)[:-40],
    ],
    ids=range(15),
)
def test_what_is_no_nearby_search_answer_goes_to_nobody(google: FakeGoogle, body: bytes) -> None:
    google.reply, ledger = Reply(body), Ledger()
    answer = ask(google.host, ledger)
    assert answer.status == "UNKNOWN_ERROR"
    assert "nonsense" in message(answer)
    assert ledger.called[0].dollars > 0, "Google did its work"


def test_google_itself_is_asked_where_nobody_stands_in_for_it() -> None:
    places, ledger = schema.PlacesSettings(), Ledger()
    caller = calling.Caller(places, KEY, ledger, ledger)
    assert str(Google(places, caller)._url) == f"https://maps.googleapis.com{PATH}"
    assert str(GoogleNew(places, caller)._url) == f"https://places.googleapis.com{NEW_PATH}"


def test_who_asks_by_hand_has_no_budget_to_keep() -> None:
    budget = NoBudget()
    assert budget.spend("ann") == 0
    budget.give_back(0, "ann")
    budget.close()
