"""The provider `auto`: which of Google's two APIs a key may use, found out by asking and remembered."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

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
    opened,
)
from places_sim import simulator_in_thread

from proxyherd.config import schema
from proxyherd.places import Answer, Places, Query
from proxyherd.places.answers import squeeze
from proxyherd.places.failures import FailedError, failed
from proxyherd.places.google import auto
from proxyherd.places.google.auto import Auto
from proxyherd.places.google.calling import Caller
from proxyherd.places.google.new import GoogleNew
from proxyherd.places.google.old import Google
from proxyherd.standin.app import Faults


def refusal(words: str) -> Reply:
    document = {"error_message": words, "html_attributions": [], "results": [], "status": "REQUEST_DENIED"}
    return Reply(json.dumps(document, indent=3).encode())


NOT_ENABLED = [
    "You're calling a legacy API, which is not enabled for your project. To get newer features and more functionality, switch to the Places API (New) or Routes API. Learn more: https://developers.google.com/maps/legacy#LegacyApiNotActivatedMapError",
    "This API project is not authorized to use this API.",
    "This API project is not authorized to use this API. Please ensure that this API is activated in the APIs Console",
    "This API key is not authorized to use this service or API. Please check the API restrictions settings of your API key in the Google Cloud Console.",
    "This API is not activated on your API project. You may need to enable this API in the Google Cloud Console",
    "Places API has not been used in project 123456789012 before or it is disabled.",
]
DENIED = [
    "The provided API key is invalid. ",
    "The provided API key is expired.",
    "You must use an API key to authenticate each request to Google Maps Platform APIs.",
    "You must enable Billing on the Google Cloud Project at https://console.cloud.google.com/project/_/billing/enable",
    "This IP, site or mobile application is not authorized to use this API key. Request received from IP address 203.0.113.7, with empty referer",
    "API keys with referer restrictions cannot be used with this API.",
    "Google has disabled the use of APIs from this API project.",
]
OLD_NO = refusal(NOT_ENABLED[0])
NEW_YES = Reply(b'{"places":[{"id":"new"}]}')
NEW_NO = Reply(
    b'{"error":{"status":"PERMISSION_DENIED","details":[{"reason":"SERVICE_DISABLED"}]}}', status=403
)


def ask_auto(google: FakeGoogle, ledger: Ledger | None = None, **keys: Any) -> Answer:
    return ask(google.host, ledger, provider="auto", **keys)


def test_where_the_old_one_answers_the_new_one_is_never_asked(google: FakeGoogle) -> None:
    google.replies.extend([Reply(nearby_answer(0, status="ZERO_RESULTS")), OLD_NO])
    assert ask_auto(google, times=3).status == "OK"
    assert google.paths == [PATH] * 3, "not even when it says otherwise later"


@pytest.mark.parametrize("words", NOT_ENABLED)
def test_a_key_that_the_old_one_is_not_enabled_for_is_tried_on_the_new_one_and_stays_there(
    google: FakeGoogle, words: str
) -> None:
    google.replies.append(refusal(words))
    google.reply, ledger = NEW_YES, Ledger()
    answer = ask_auto(google, ledger, times=3)
    assert json.loads(answer.body)["results"][0]["place_id"] == "new"
    assert google.paths == [PATH, NEW_PATH, NEW_PATH, NEW_PATH]
    assert [call.provider for call in ledger.called] == ["google", *["google-new"] * 3]
    assert ledger.spent == 4


@pytest.mark.parametrize("words", DENIED)
def test_a_key_that_is_refused_for_another_reason_is_not_tried_on_the_new_one(
    google: FakeGoogle, words: str
) -> None:
    google.reply = refusal(words)
    assert ask_auto(google, times=2) == Answer(squeeze(refusal(words).body), "REQUEST_DENIED", 0)
    assert google.paths == [PATH] * 2


def test_the_name_is_that_of_the_api_that_is_asked(google: FakeGoogle) -> None:
    google.replies.append(OLD_NO)
    google.reply = NEW_YES

    async def run() -> list[str]:
        async with opened(google.host, provider="auto") as places:
            before = places.name
            await places.nearby(QUERY)
            return [before, places.name]

    assert asyncio.run(run()) == ["google", "google-new"]


def test_a_bound_is_kept_whichever_answers(google: FakeGoogle) -> None:
    """The old one is asked for all it has, and the new one takes over in the middle of a query."""
    google.replies.append(OLD_NO)
    google.reply = Reply(json.dumps({"places": [{"id": str(number)} for number in range(20)]}).encode())
    three = Query("+1", "+1", Decimal(5), 3)
    assert ask_auto(google, query=three).results == 3
    google.replies.append(OLD_NO)
    assert ask_auto(google, query=three, times=2).results == 3


def test_a_key_that_neither_takes_gets_the_old_ones_answer_and_tries_the_new_one_once_a_minute(
    google: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is that of `auto` alone."""

    class Clock:
        now = 1_000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(auto, "time", clock)

    async def run() -> None:
        async with opened(google.host, provider="auto") as places:
            google.replies.extend([OLD_NO, NEW_NO])
            google.reply = OLD_NO
            for _ in range(3):
                assert await places.nearby(QUERY) == Answer(squeeze(OLD_NO.body), "REQUEST_DENIED", 0)
            assert google.paths == [PATH, NEW_PATH, PATH, PATH]
            clock.now += 59.9
            await places.nearby(QUERY)
            assert google.paths[4:] == [PATH]
            clock.now += 0.2
            google.replies.extend([OLD_NO, NEW_YES])
            assert (await places.nearby(QUERY)).status == "OK"
            google.reply = NEW_YES
            assert (await places.nearby(QUERY)).status == "OK"
            assert google.paths[5:] == [PATH, NEW_PATH, NEW_PATH]

    asyncio.run(run())


FAILING = {
    "drop": Reply(drop=True),
    "429": Reply(status=429),
    "500": Reply(status=500),
    "nonsense": Reply(b"<html>"),
    "unknown": Reply(nearby_answer(0, status="UNKNOWN_ERROR")),
    "over limit": Reply(nearby_answer(0, status="OVER_QUERY_LIMIT")),
    "late": Reply(hold=True),
    "redirect of a captive portal": Reply(b"", status=302, headers={"Location": "http://portal.example/"}),
    "404": Reply(status=404),
    "403 of a proxy": Reply(status=403),
    "400 of a proxy": Reply(status=400),
    "204": Reply(b"", status=204),
}


def patience(failing: Reply) -> float:
    """Return the seconds of an attempt: what is late is given up soon, the others are answered however busy this machine is."""
    return 0.5 if failing.hold else 2.5


@pytest.mark.parametrize("failing", FAILING.values(), ids=FAILING)
def test_nothing_is_remembered_of_a_failure_of_the_old_one(google: FakeGoogle, failing: Reply) -> None:
    google.replies.extend([failing, OLD_NO, NEW_YES])
    assert ask_auto(google, times=2, attempt_seconds=patience(failing)).status == "OK"
    assert google.paths == [PATH, PATH, NEW_PATH]


@pytest.mark.parametrize("kind", sorted(FAILING.keys() - {"unknown", "over limit"}))
def test_nothing_is_remembered_of_a_failure_of_the_new_one(google: FakeGoogle, kind: str) -> None:
    """But of a refusal that looks like Google's: it is not asked again within a minute."""
    google.replies.extend([OLD_NO, FAILING[kind]])
    assert ask_auto(google, times=2, attempt_seconds=patience(FAILING[kind])).status == "OK"
    assert google.paths == [PATH, NEW_PATH, PATH]


def test_a_failure_of_the_new_one_is_told_and_tried_again(google: FakeGoogle) -> None:
    google.replies.extend([OLD_NO, Reply(status=503), OLD_NO, NEW_YES])
    assert ask_auto(google, attempts=2).status == "OK"
    assert google.paths == [PATH, NEW_PATH] * 2
    google.replies.extend([OLD_NO, Reply(status=503)])
    assert "HTTP 503" in message(ask_auto(google))


def test_a_budget_that_ends_between_the_two_is_told_and_nothing_is_remembered(google: FakeGoogle) -> None:
    google.reply, ledger = OLD_NO, Ledger(1)
    assert ask_auto(google, ledger, attempts=3).status == "OVER_QUERY_LIMIT"
    assert (google.paths, ledger.spared) == ([PATH], ["budget"])


def test_first_queries_that_come_together_are_all_answered(google: FakeGoogle) -> None:
    """Some hear from the old one when the new one is known to work: they go there too."""

    async def run(places: Places) -> list[Answer]:
        queries = [Query("+1", "+1", Decimal(number), 5) for number in range(1, 31)]
        return await asyncio.gather(*map(places.nearby, queries))

    async def all_of_it(key: str) -> tuple[list[Answer], list[Answer]]:
        async with opened(sim.url, provider="auto", key=key, max_connections=8) as places:
            return await run(places), await run(places)

    with simulator_in_thread(Faults(disable="old", jitter=0.02), key=KEY) as sim:
        first, second = asyncio.run(all_of_it(KEY))
        assert {answer.status for answer in first + second} <= {"OK", "ZERO_RESULTS"}
        assert [asked.path for asked in sim.requests[-30:]] == [NEW_PATH] * 30
        sim.faults = Faults(disable="new", jitter=0.02)
        asked = len(sim.requests)
        first, second = asyncio.run(all_of_it(KEY))
        assert {answer.status for answer in first + second} <= {"OK", "ZERO_RESULTS"}
        assert {one.path for one in sim.requests[asked:]} == {PATH}
        asked = len(sim.requests)
        first, second = asyncio.run(all_of_it("another"))
        assert {answer.status for answer in first + second} == {"REQUEST_DENIED"}
        assert {one.path for one in sim.requests[asked:]} == {PATH}


class Scripted:
    """An API that says when it answers, and what."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[tuple[float, asyncio.Future[Answer]]] = []
        self._arrived = asyncio.Condition()

    def widened(self, query: Query) -> Query:
        return query

    async def nearby(self, query: Query, seconds: float, asker: str | None = None) -> Answer:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        async with self._arrived:
            self.asked.append((seconds, answer))
            self._arrived.notify_all()
        return await answer

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(5), self._arrived:
            await self._arrived.wait_for(lambda: len(self.asked) >= times)

    async def close(self) -> None:
        pass


OLD_REFUSES = Answer(OLD_NO.body, "REQUEST_DENIED", 0)
FOUND = Answer(b"new", "OK", 1)


def test_a_query_that_hears_no_from_the_old_one_when_the_new_one_works_goes_there() -> None:
    async def run() -> None:
        old, new = Scripted("google"), Scripted("google-new")
        both = Auto(old, new)  # type: ignore[arg-type]  # whatever answers
        one = asyncio.create_task(both.nearby(QUERY, 5.0))
        other = asyncio.create_task(both.nearby(QUERY, 5.0))
        await old.until_asked(2)
        old.asked[0][1].set_result(OLD_REFUSES)
        await new.until_asked(1)
        new.asked[0][1].set_result(FOUND)
        assert await one == FOUND
        old.asked[1][1].set_result(OLD_REFUSES)
        await new.until_asked(2)
        new.asked[1][1].set_result(FOUND)
        assert await other == FOUND
        assert both.name == "google-new"

    asyncio.run(run())


def test_a_refusal_that_comes_late_does_not_outweigh_that_the_new_one_works() -> None:
    async def run() -> None:
        old, new = Scripted("google"), Scripted("google-new")
        both = Auto(old, new)  # type: ignore[arg-type]  # likewise
        tasks = [asyncio.create_task(both.nearby(QUERY, 5.0)) for _ in range(3)]
        await old.until_asked(3)
        for _, answer in old.asked[:2]:
            answer.set_result(OLD_REFUSES)
        await new.until_asked(2)
        new.asked[0][1].set_result(FOUND)
        new.asked[1][1].set_result(OLD_REFUSES)
        assert [await task for task in tasks[:2]] == [FOUND, OLD_REFUSES]
        old.asked[2][1].set_result(OLD_REFUSES)
        await new.until_asked(3)
        new.asked[2][1].set_result(FOUND)
        assert await tasks[2] == FOUND
        assert both.name == "google-new"

    asyncio.run(run())


def test_both_together_take_no_longer_than_one_attempt() -> None:
    async def run() -> None:
        old, new = Scripted("google"), Scripted("google-new")
        query = asyncio.create_task(Auto(old, new).nearby(QUERY, 5.0))  # type: ignore[arg-type]  # likewise
        await old.until_asked(1)
        await asyncio.sleep(0.05)  # what the old one takes
        old.asked[0][1].set_result(OLD_REFUSES)
        await new.until_asked(1)
        assert 4.0 < new.asked[0][0] <= 4.95
        new.asked[0][1].set_exception(failed("UNKNOWN_ERROR", "late"))
        with pytest.raises(FailedError):
            await query

    asyncio.run(run())


def test_both_share_one_session_and_its_end(google: FakeGoogle) -> None:
    google.replies.extend([OLD_NO, NEW_YES])

    async def run() -> None:
        ledger, places = Ledger(), schema.PlacesSettings(base_url=google.host)
        caller = Caller(places, KEY, ledger, ledger)
        both = Auto(Google(places, caller), GoogleNew(places, caller))
        assert (await both.nearby(QUERY, 5.0)).status == "OK"
        await both.close()
        with pytest.raises(FailedError):
            await both.nearby(QUERY, 5.0)

    asyncio.run(run())
    assert len({request.port for request in google.requests}) == 1, (
        "one connection, here where both have one host"
    )
