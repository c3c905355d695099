"""HTTP to Google: every call is within its budget and told, every failure has a status, and the key goes nowhere else."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import socket
import threading
import time
import traceback
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from email.utils import format_datetime, formatdate
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from fake_google import (
    KEY,
    PATH,
    QUERY,
    Called,
    FakeGoogle,
    Ledger,
    Reply,
    ask,
    message,
    nearby_answer,
    opened,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.tracebacks import ExceptionDictTransformer
from yarl import URL

from proxyherd.config import schema
from proxyherd.places import Answer, CallOutcome, Places, Query
from proxyherd.places.answers import cut, squeeze
from proxyherd.places.failures import FailedError
from proxyherd.places.google.calling import THREAD_BYTES, Caller, coordinate, retry_after, scrubber
from proxyherd.places.google.new import GoogleNew
from proxyherd.places.google.old import Google
from proxyherd.places.limits.budget import Budget

BOTH = ["google", "google-new"]
MOST = 65_536
CENT = 0.25
"""What a call costs here: a number that no default is."""


def answer_of(provider: str, results: int = 1) -> bytes:
    if provider == "google":
        return nearby_answer(results)
    return json.dumps({"places": [{"id": f"ChIJ{number}"} for number in range(results)]}).encode()


def packed(body: bytes, encoding: str = "gzip") -> Reply:
    return Reply(body, headers={"Content-Encoding": encoding})


# Each failure: what the client gets, whether it is worth another call, what is told of it. -----------------------

FAILURES: list[tuple[Reply, str, str, bool, CallOutcome]] = [
    (Reply(b"", status=204), "UNKNOWN_ERROR", "HTTP 204", False, "denied"),
    (Reply(status=301, headers={"Location": PATH}), "UNKNOWN_ERROR", "redirect", False, "denied"),
    (Reply(status=302, headers={"Location": PATH}), "UNKNOWN_ERROR", "redirect", False, "denied"),
    (Reply(status=307, headers={"Location": PATH}), "UNKNOWN_ERROR", "redirect", False, "denied"),
    (Reply(status=308, headers={"Location": PATH}), "UNKNOWN_ERROR", "redirect", False, "denied"),
    (Reply(status=400), "INVALID_REQUEST", "HTTP 400", False, "denied"),
    (Reply(status=401), "REQUEST_DENIED", "HTTP 401", False, "denied"),
    (Reply(status=403), "REQUEST_DENIED", "HTTP 403", False, "denied"),
    (Reply(status=404), "UNKNOWN_ERROR", "HTTP 404", False, "denied"),
    (Reply(b" " * (MOST + 1), status=403), "REQUEST_DENIED", "HTTP 403", False, "denied"),
    (Reply(b"{}", 403, {"Content-Encoding": "gzip"}), "REQUEST_DENIED", "HTTP 403", False, "denied"),
    (Reply(b"{}", 400, {"Content-Encoding": "br"}), "INVALID_REQUEST", "HTTP 400", False, "denied"),
    (Reply(status=429), "OVER_QUERY_LIMIT", "quota", True, "limited"),
    (Reply(status=500), "UNKNOWN_ERROR", "HTTP 500", True, "failed"),
    (Reply(status=503), "UNKNOWN_ERROR", "HTTP 503", True, "failed"),
    (Reply(status=999), "UNKNOWN_ERROR", "HTTP 999", True, "failed"),
    (Reply(b" " * (MOST + 1)), "UNKNOWN_ERROR", f"longer than {MOST} bytes", False, "nonsense"),
    (packed(gzip.compress(b" " * (1 << 24))), "UNKNOWN_ERROR", "longer", False, "nonsense"),
    (packed(b"{}"), "UNKNOWN_ERROR", "not gzip", True, "nonsense"),
    (packed(gzip.compress(b"{}")[:-9]), "UNKNOWN_ERROR", "cut off", True, "nonsense"),
    (packed(b"{}", "br"), "UNKNOWN_ERROR", "packed", False, "nonsense"),
    (packed(b"{}", "gzip, gzip"), "UNKNOWN_ERROR", "packed", False, "nonsense"),
    (Reply(b"{}", headers={"Content-Length": "x"}), "UNKNOWN_ERROR", "failed", True, "broken"),
    (Reply(drop=True), "UNKNOWN_ERROR", "", True, "broken"),
    (
        Reply(b"{", headers={"Content-Length": "9", "Connection": "close"}),
        "UNKNOWN_ERROR",
        "failed",
        True,
        "broken",
    ),
    (Reply(hold=True), "UNKNOWN_ERROR", "within 0.2 s", True, "late"),
]
BILLED = {"broken", "late", "nonsense"}


@pytest.mark.parametrize("provider", BOTH)
@pytest.mark.parametrize(("reply", "status", "words", "again", "outcome"), FAILURES, ids=range(len(FAILURES)))
def test_each_failure_has_its_status_and_is_told(
    google: FakeGoogle,
    provider: str,
    reply: Reply,
    status: str,
    words: str,
    again: bool,
    outcome: CallOutcome,
) -> None:
    google.reply, ledger = reply, Ledger()
    answer = ask(
        google.host,
        ledger,
        provider=provider,
        attempts=2,
        attempt_seconds=0.2 if reply.hold else 2.5,
        max_answer_bytes=MOST,
        dollars_per_call=CENT,
    )
    assert answer.status == status
    assert words in message(answer)
    calls = 2 if again else 1
    assert len(google.requests) == ledger.spent == calls
    dollars = CENT if outcome in BILLED else 0.0
    assert [Called(call.provider, call.outcome, 0.0, call.dollars) for call in ledger.called] == [
        Called(provider, outcome, 0.0, dollars)
    ] * calls
    assert all(0 < call.seconds < 2.5 for call in ledger.called)
    assert ledger.given_back == []


@pytest.mark.parametrize("provider", BOTH)
def test_an_answer_is_told_with_what_it_cost(google: FakeGoogle, provider: str) -> None:
    google.reply, ledger = Reply(answer_of(provider)), Ledger()
    assert ask(google.host, ledger, provider=provider, dollars_per_call=CENT).status == "OK"
    (call,) = ledger.called
    assert (call.provider, call.outcome, call.dollars) == (provider, "answered", CENT)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("REQUEST_DENIED", "denied"),
        ("INVALID_REQUEST", "denied"),
        ("OVER_QUERY_LIMIT", "limited"),
        ("ZERO_RESULTS", "answered"),
        ("UNKNOWN_ERROR", "answered"),
    ],
)
def test_what_the_old_api_refuses_in_its_body_costs_nothing(
    google: FakeGoogle, status: str, outcome: CallOutcome
) -> None:
    google.reply, ledger = Reply(nearby_answer(0, status=status)), Ledger()
    assert ask(google.host, ledger, attempts=1, dollars_per_call=CENT).status == status
    (call,) = ledger.called
    assert (call.outcome, call.dollars) == (outcome, CENT if outcome == "answered" else 0.0)


def test_a_refused_connection_is_an_answer_and_costs_nothing() -> None:
    with socket.socket() as taken:  # bound but not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        ledger = Ledger()
        answer = ask(f"http://127.0.0.1:{taken.getsockname()[1]}", ledger, attempts=2)
    assert "could not be reached" in message(answer)
    assert [(call.outcome, call.dollars) for call in ledger.called] == [("unreachable", 0.0)] * 2
    assert ledger.given_back == [1, 2], "nobody was there to take the calls"


@pytest.mark.parametrize("url", ["http://", "nonsense", "ftp://127.0.0.1", "http://no.such.host.invalid"])
@pytest.mark.parametrize("provider", BOTH)
def test_a_base_that_leads_nowhere_is_an_answer(url: str, provider: str) -> None:
    assert ask(url, provider=provider).status == "UNKNOWN_ERROR"


def test_an_answer_is_waited_for_until_the_attempt_ends_and_no_longer(google: FakeGoogle) -> None:
    google.reply = Reply(hold=True)
    began = time.monotonic()
    assert "within 0.05 s" in message(ask(google.host, attempt_seconds=0.05))
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("seconds", [0.0, -0.001, -9.0])
@pytest.mark.parametrize("provider", [Google, GoogleNew])
def test_no_call_is_made_when_no_time_is_left(
    google: FakeGoogle, provider: type[Google | GoogleNew], seconds: float
) -> None:
    async def run(ledger: Ledger) -> FailedError:
        places = schema.PlacesSettings(base_url=google.host)
        upstream = provider(places, Caller(places, KEY, ledger, ledger))
        with pytest.raises(FailedError) as caught:
            await upstream.nearby(QUERY, seconds)
        await upstream.close()
        return caught.value

    ledger = Ledger()
    error = asyncio.run(run(ledger))
    assert (error.answer.status, error.again) == ("UNKNOWN_ERROR", False)
    assert (google.requests, ledger.spent, ledger.called) == ([], 0, [])


PACKS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "packed": gzip.compress,
    "packed into more": partial(gzip.compress, compresslevel=0),
}


@pytest.mark.long
@pytest.mark.parametrize("provider", BOTH)
@pytest.mark.parametrize("pack", PACKS)
def test_the_longest_body_is_read_and_no_longer_one(google: FakeGoogle, provider: str, pack: str) -> None:
    """What counts is the longer of what came and what was unpacked."""
    body = answer_of(provider, 900)
    sent = PACKS[pack](body)
    google.reply = Reply(sent, headers={} if pack == "plain" else {"Content-Encoding": "gzip"})
    most = max(len(body), len(sent))
    assert ask(google.host, provider=provider, max_answer_bytes=most).results == 20
    assert "longer" in message(ask(google.host, provider=provider, max_answer_bytes=most - 1))
    if provider == "google":
        assert ask(google.host, max_answer_bytes=most) == cut(body, 20)


def test_a_failure_of_the_last_second_is_that_of_a_stopping_server(google: FakeGoogle) -> None:
    async def run() -> Answer:
        async with opened(google.host) as places:
            await places.close()
            return await places.nearby(QUERY)

    assert "stopping" in message(asyncio.run(run()))
    assert google.requests == []


# Connections. ----------------------------------------------------------------------------------------------------


def test_as_many_calls_as_connections_are_under_way_at_once(google: FakeGoogle) -> None:
    google.reply = Reply(hold=True)

    async def run() -> None:
        patient: dict[str, Any] = {"attempt_seconds": 60.0, "deadline_seconds": 60.0}
        async with opened(google.url, max_connections=3, **patient) as places:
            queries = [Query("+1", "+1", Decimal(number), 5) for number in range(1, 6)]
            asked = [asyncio.create_task(places.nearby(query)) for query in queries]
            await asyncio.to_thread(google.wait_for, 3)
            assert len(google.requests) == 3
            google.release()
            assert {answer.status for answer in await asyncio.gather(*asked)} == {"OK"}
            assert len({request.port for request in google.requests}) == 3

    asyncio.run(run())


def test_many_queries_share_connections(google: FakeGoogle) -> None:
    async def run() -> list[Answer]:
        places, ledger = schema.PlacesSettings(base_url=google.host, max_connections=4), Ledger()
        provider = Google(places, Caller(places, KEY, ledger, ledger))
        try:
            return await asyncio.gather(*(provider.nearby(QUERY, 10.0) for _ in range(50)))
        finally:
            await provider.close()

    answers = asyncio.run(run())
    assert [(answer.body, answer.status, answer.results) for answer in answers] == [
        (squeeze(nearby_answer(20)), "OK", 20)
    ] * 50
    assert len({request.port for request in google.requests}) <= 4


@pytest.mark.parametrize("provider", BOTH)
def test_a_redirect_gets_neither_the_key_nor_a_request(google: FakeGoogle, provider: str) -> None:
    with FakeGoogle(Reply(answer_of(provider))) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            google.reply = Reply(b"", status=status, headers={"Location": elsewhere.url})
            answer = ask(google.host, provider=provider, attempts=2)
            assert answer.status == "UNKNOWN_ERROR"
            assert elsewhere.host not in message(answer)
        assert elsewhere.requests == []
    assert len(google.requests) == 5


@pytest.mark.parametrize("provider", BOTH)
def test_a_proxy_of_the_environment_is_not_asked(
    google: FakeGoogle, provider: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    google.reply = Reply(answer_of(provider))
    with FakeGoogle() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.host)
            monkeypatch.setenv(name.upper(), proxy.host)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert ask(google.host, provider=provider).status == "OK"
        assert proxy.requests == []
    assert "Authorization" not in google.requests[0].headers


@pytest.mark.parametrize("provider", BOTH)
def test_a_cookie_is_not_kept(google: FakeGoogle, provider: str) -> None:
    google.reply = Reply(answer_of(provider), headers={"Set-Cookie": "who=me; Path=/"})
    ask(google.host, provider=provider, times=2)
    assert ["Cookie" in request.headers for request in google.requests] == [False, False]


# The budget. -----------------------------------------------------------------------------------------------------

ROUNDS: dict[str, list[Reply]] = {
    "answers": [Reply()] * 3,
    "fails": [Reply(status=500)] * 3,
    "drops the first": [Reply(drop=True), Reply(), Reply()],
    "drops a kept connection": [Reply(), Reply(drop=True), Reply()],
    "drops every connection": [Reply(drop=True)] * 3,
    "closes behind each answer": [Reply(headers={"Connection": "close"})] * 3,
    "breaks off": [Reply(headers={"Content-Length": "99999", "Connection": "close"})] * 3,
}


@pytest.mark.parametrize("provider", BOTH)
@pytest.mark.parametrize("replies", ROUNDS.values(), ids=ROUNDS)
def test_a_call_is_recorded_before_it_is_on_the_wire_and_no_more_often(
    google: FakeGoogle, provider: str, replies: list[Reply]
) -> None:
    ledger, seen = Ledger(), list[int]()
    google.replies.extend(replies)
    google.on_request = lambda: seen.append(ledger.spent)
    ask(google.host, ledger, provider=provider, times=3)
    assert seen == [1, 2, 3]
    assert ledger.spent == len(ledger.called) == len(google.requests) == 3


def test_what_aiohttp_would_send_again_by_itself_waits_for_its_turn_as_any_other_attempt(
    google: FakeGoogle,
) -> None:
    """It repeats a GET whose connection was closed, at once, and so would double the calls to who is in trouble."""
    google.reply, ledger = Reply(drop=True), Ledger()
    assert ask(google.host, ledger, attempts=3).status == "UNKNOWN_ERROR"
    assert len(google.requests) == ledger.spent == 3
    google.replies.extend([Reply(), Reply(drop=True), Reply()])
    assert ask(google.host, ledger, attempts=2, times=2).status == "OK", (
        "a connection closed meanwhile is no failure"
    )
    first, second, third = google.requests[3:]
    assert first.port == second.port != third.port


@pytest.mark.parametrize("provider", [*BOTH, "auto"])
@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_past_the_budget_no_call_is_made(google: FakeGoogle, provider: str, allowed: int) -> None:
    google.reply, ledger = Reply(status=500), Ledger(allowed)
    answer = ask(google.host, ledger, provider=provider, attempts=3)
    assert answer.status == "OVER_QUERY_LIMIT"
    assert "share" in message(answer)
    assert len(google.requests) == len(ledger.called) == allowed
    assert ledger.spared == ["budget"]


def test_a_real_budget_bounds_the_calls_of_both_apis_over_a_restart(
    google: FakeGoogle, tmp_path: Path
) -> None:
    class Recorded(Ledger):
        def __init__(self) -> None:
            super().__init__()
            self.budget = Budget(tmp_path / "budget", 1_000, 5)

        def spend(self, asker: str | None = None) -> int:
            super().spend(asker)
            return self.budget.spend(asker)

        def close(self) -> None:
            self.budget.close()

    statuses = [
        ask(google.host, Recorded(), provider=provider, times=2).status for provider in (*BOTH, "google")
    ]
    assert len(google.requests) == 5
    assert statuses[-1] == "OVER_QUERY_LIMIT"
    google.reply = Reply(b"{}")
    assert ask(google.host, Recorded(), provider="google-new").status == "OVER_QUERY_LIMIT"
    assert len(google.requests) == 5


@pytest.mark.parametrize("provider", [*BOTH, "auto"])
def test_the_budgets_file_is_closed_with_places_whether_a_call_was_made_or_not(
    google: FakeGoogle, provider: str
) -> None:
    async def run(ledger: Ledger, calls: int) -> None:
        async with opened(google.host, ledger, provider=provider) as places:
            for _ in range(calls):
                await places.nearby(QUERY)
            assert ledger.closed == 0
        assert ledger.closed >= 1

    for calls in (0, 1):
        asyncio.run(run(Ledger(), calls))


@pytest.mark.parametrize("provider", BOTH)
def test_a_call_that_is_given_up_may_have_cost_something(google: FakeGoogle, provider: str) -> None:
    google.reply, ledger = Reply(hold=True), Ledger()

    async def run() -> None:
        async with opened(google.host, ledger, provider=provider, dollars_per_call=CENT) as places:
            query = asyncio.create_task(places.nearby(QUERY))
            await asyncio.to_thread(google.wait_for, 1)
            query.cancel()
            with pytest.raises(asyncio.CancelledError):
                await query

    asyncio.run(asyncio.wait_for(run(), 10))
    (call,) = ledger.called
    assert (call.outcome, call.dollars, ledger.spent) == ("abandoned", CENT, 1)


# Small parts. ----------------------------------------------------------------------------------------------------

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5.0),
        (" 007 ", 7.0),
        ("0", 0.0),
        ("9" * 400, float("inf")),
        (formatdate(NOW + 7, usegmt=True), 7.0),
        (formatdate(NOW - 7, usegmt=True), 0.0),
        (time.strftime("%A, %d-%b-%y %H:%M:%S GMT", time.gmtime(NOW + 7)), 7.0),
        (time.asctime(time.gmtime(NOW + 7)), 7.0),
        (format_datetime(datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=7)), 7.0),
        (format_datetime(datetime.fromtimestamp(NOW + 7, timezone(timedelta(hours=2)))), 7.0),
        ("", 0.0),
        ("-5", 0.0),
        ("1.5", 0.0),
        ("1e9", 0.0),
        ("٣", 0.0),
        ("soon", 0.0),
        ("Wed, 99 Oct 99999 99:99:99 GMT", 0.0),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Kolkata"])
def test_retry_after_is_read_in_each_form_http_has(
    value: str, seconds: float, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        assert retry_after(value, NOW) == seconds
    time.tzset()


@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Z][a-z]{2}, ?\d{0,3} [A-Z][a-z]{2} \d{0,6} [\d:]{0,9}( \S{0,5})?")
)
def test_no_retry_after_raises_anything_or_is_in_the_past(value: str) -> None:
    assert retry_after(value, NOW) >= 0


@given(st.from_regex(r"[+-][0-9]{1,3}(\.[0-9]{0,40})?", fullmatch=True))
def test_a_coordinate_keeps_its_place_and_gets_short(text: str) -> None:
    spelled = coordinate(text)
    assert "+" not in spelled
    assert not spelled.endswith(".")
    assert len(spelled) <= 4 + 1 + 12
    assert float(spelled) == pytest.approx(float(text), abs=1e-11)


def test_large_answers_are_read_one_at_a_time_since_each_keeps_the_interpreter_to_itself() -> None:
    reading, most = 0, 0

    def parse(body: bytes) -> int:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        try:
            time.sleep(0.005)  # so that others would come in between
            return len(body)
        finally:
            reading -= 1

    async def run() -> list[int]:
        ledger = Ledger()
        caller = Caller(schema.PlacesSettings(), KEY, ledger, ledger)
        return await asyncio.gather(*(caller.read(parse, b" " * (THREAD_BYTES + 1)) for _ in range(8)))

    assert asyncio.run(run()) == [THREAD_BYTES + 1] * 8
    assert most == 1


def test_the_session_is_a_servers_and_not_as_aiohttp_comes() -> None:
    async def run() -> None:
        ledger = Ledger()
        caller = Caller(schema.PlacesSettings(max_connections=7), KEY, ledger, ledger)
        session = caller._open_session()
        assert caller._open_session() is session
        connector: Any = session.connector
        assert (connector.limit, connector.limit_per_host) == (7, 0)
        assert (connector._keepalive_timeout, connector._cached_hosts._ttl) == (60.0, 60)
        assert not session.trust_env
        assert not session.auto_decompress
        await caller.close()
        assert session.closed

    asyncio.run(run())


@pytest.mark.parametrize(("size", "elsewhere"), [(65_536, False), (65_537, True)])
def test_a_long_answer_is_read_in_another_thread(size: int, elsewhere: bool) -> None:
    async def run() -> int:
        ledger = Ledger()
        return await Caller(schema.PlacesSettings(), KEY, ledger, ledger).read(
            lambda _: threading.get_ident(), bytes(size)
        )

    assert (asyncio.run(run()) != threading.get_ident()) == elsewhere


# The key. --------------------------------------------------------------------------------------------------------

ODD_KEY = "AIzaSy-Th1s+is/the=key%for&these~tests"
"""With all that URLs, forms and JSON spell in their own way."""

SPELLINGS = [
    KEY,
    "".join(f"%{byte:02X}" for byte in KEY.encode()),
    "".join(f"%25{byte:02x}" for byte in KEY.encode()),
    "".join(f"\\u{byte:04x}" for byte in KEY.encode()),
    KEY.replace("-", "\\u002D").replace("_", "%5f"),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("status", [200, 403])
def test_a_key_that_google_echoes_is_shown_to_nobody(
    google: FakeGoogle, caplog: pytest.LogCaptureFixture, spelling: str, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    body = b'{"results":[],"status":"%b","error_message":"key=%b is bad"}' % ((spelling.encode(),) * 2)
    google.reply = Reply(body, status=status)
    answer = ask(google.host)
    shown = f"{answer!r} {json.loads(answer.body)} {caplog.text}"
    assert KEY not in shown
    assert spelling not in shown
    assert (b"key=*** is bad" in answer.body) == (status == 200)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("status", [200, 400, 403])
def test_a_key_that_the_new_api_echoes_is_shown_to_nobody(
    google: FakeGoogle, spelling: str, status: int
) -> None:
    place = '{"id":"%s","displayName":{"text":"a %s b"},"attributions":[{"provider":"%s","providerUri":"http://%s"}]}'
    error = '{"error":{"status":"%s","details":[{"reason":"%s"}]}}'
    body = (
        error.replace("%s", spelling) if status != 200 else f'{{"places":[{place.replace("%s", spelling)}]}}'
    )
    google.reply = Reply(body.encode(), status=status)
    answer = ask(google.host, provider="google-new")
    for text in (
        answer.body.decode(),
        json.dumps(json.loads(answer.body)),
        urllib.parse.unquote(answer.body.decode()),
    ):
        assert KEY not in text
        assert spelling not in text
    assert (answer.status == "OK") == (status == 200)


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8), st.data())
def test_a_scrubber_finds_every_mix_of_spellings(key: str, data: st.DataObject) -> None:
    forms = ["{0}", "%{1:02x}", "%{1:02X}", "%25{1:02X}", "\\u{1:04x}", "\\u0025{1:02x}"]
    spelled = "".join(data.draw(st.sampled_from(forms)).format(letter, ord(letter)) for letter in key)
    assert scrubber(key).sub(b"***", b"\0" + spelled.encode() + b"\0") == b"\0***\0"


def spellings_of(key: str) -> set[str]:
    quoted = {urllib.parse.quote(key), urllib.parse.quote(key, safe=""), urllib.parse.quote_plus(key)}
    quoted |= {
        str(URL("http://h").with_query(key=key)).partition("key=")[2],
        str(URL.build(path=f"/{key}"))[1:],
    }
    plain = {key, *quoted}
    return plain | {json.dumps(one)[1:-1] for one in plain} | {repr(one)[1:-1] for one in plain}


def chained(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that anybody may find behind it, suppressed or not."""
    while error is not None:
        yield error
        if error.__cause__ is not None:
            yield from chained(error.__cause__)
        error = error.__context__


def locals_of(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        for name, value in trace.tb_frame.f_locals.items():
            yield f"{trace.tb_frame.f_code.co_qualname}: {name} = {value!r}"
        trace = trace.tb_next


def all_that_is_shown_of(error: BaseException) -> Iterator[str]:
    transform = ExceptionDictTransformer(show_locals=True, locals_max_string=10_000)
    for one in chained(error):
        yield from ("".join(traceback.format_exception(one)), repr(one), str(one), repr(one.__dict__))
        yield json.dumps(transform((type(one), one, one.__traceback__)), default=repr)
        # What a test holds in its own frames is not the program's.
        yield from (line for line in locals_of(one.__traceback__) if not line.startswith("test_"))


KINDS: dict[str, Reply] = {
    "answers": Reply(),
    "echoes": Reply(ODD_KEY.encode() * 3),
    "redirects": Reply(status=302, headers={"Location": f"/?key={ODD_KEY}"}),
    "misunderstands": Reply(ODD_KEY.encode(), status=400),
    "denies": Reply(ODD_KEY.encode(), status=403),
    "limits": Reply(ODD_KEY.encode(), 429, {"Retry-After": ODD_KEY}),
    "fails": Reply(ODD_KEY.encode(), status=500),
    "is long": Reply(ODD_KEY.encode() * 4_000),
    "is badly packed": packed(ODD_KEY.encode()),
    "is oddly packed": packed(b"", ODD_KEY),
    "says nonsense": Reply(b"<html>"),
    "says nested nonsense": Reply(b"[" * 60_000),
    "names no length": Reply(headers={"Content-Length": ODD_KEY}),
    "has an endless header": Reply(headers={"X-Long": ODD_KEY * 1_000}),
    "breaks off": Reply(headers={"Content-Length": "999999", "Connection": "close"}),
    "drops": Reply(drop=True),
    "hangs": Reply(hold=True),
}


@pytest.mark.parametrize("provider", [Google, GoogleNew])
@pytest.mark.parametrize("kind", [*KINDS, "is not there", "has no such name", "may not be asked", "is left"])
def test_no_traceback_of_a_failure_shows_the_key_not_even_by_what_its_frames_hold(
    google: FakeGoogle, provider: type[Google | GoogleNew], kind: str
) -> None:
    google.reply = KINDS.get(kind, Reply(hold=kind == "is left"))
    bases = {"is not there": "http://127.0.0.1:1", "has no such name": "http://no.such.host.invalid"}

    async def run() -> BaseException | Answer:
        places = schema.PlacesSettings(base_url=bases.get(kind, google.host), max_answer_bytes=MOST)
        ledger = Ledger(0 if kind == "may not be asked" else None)
        upstream = provider(places, Caller(places, ODD_KEY, ledger, ledger))
        task = asyncio.create_task(upstream.nearby(QUERY, 0.2 if kind == "hangs" else 5.0))
        try:
            if kind == "is left":
                await asyncio.to_thread(google.wait_for, 1)
                task.cancel()
            return await task
        except BaseException as error:  # noqa: BLE001 — cancellation too
            return error
        finally:
            await upstream.close()

    result = asyncio.run(run())
    shown = [repr(result)] if isinstance(result, Answer) else [*all_that_is_shown_of(result)]
    if kind not in {"answers", "redirects", "misunderstands", "denies"}:
        assert isinstance(result, FailedError | asyncio.CancelledError)
        assert len(shown) > 5
    for text in shown:
        for spelling in spellings_of(ODD_KEY):
            assert spelling not in text, f"{spelling} stands in {text}"


@pytest.mark.long
@pytest.mark.parametrize("provider", ["google", "google-new", "auto"])
def test_nothing_that_asyncio_or_aiohttp_logs_or_warns_of_shows_the_key(
    google: FakeGoogle, provider: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In asyncio's debug mode, every callback being a slow one: it logs them with their arguments."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []

    async def query(places: Places) -> None:
        answer = await places.nearby(QUERY)
        shown.extend((repr(answer), answer.body.decode(), json.dumps(json.loads(answer.body))))

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0.0
        loop.set_exception_handler(lambda _, context: shown.append(repr(context)))
        keys: dict[str, Any] = {"provider": provider, "attempt_seconds": 0.1, "max_answer_bytes": MOST}
        async with opened(google.host, key=ODD_KEY, **keys) as places:
            for reply in KINDS.values():
                google.reply = reply
                asking = asyncio.create_task(query(places))
                await asyncio.sleep(0)
                shown.extend(map(repr, asyncio.all_tasks()))
                await asking
        google.reply = Reply(hold=True)
        patient = keys | {"attempt_seconds": 60.0, "deadline_seconds": 60.0}
        async with opened(google.host, key=ODD_KEY, **patient) as places:
            arrived = len(google.requests)
            asking = asyncio.create_task(query(places))
            await asyncio.to_thread(google.wait_for, arrived + 1)
            asking.cancel()
            await asyncio.wait([asking])
            shown.extend(map(repr, (places, places._provider, asking)))
        async with opened("http://127.0.0.1:1", key=ODD_KEY, **keys) as places:
            await query(places)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(run())
        gc.collect()
    shown.extend(str(one.message) for one in warned)
    shown.append(caplog.text)
    shown.extend(repr(record.args) for record in caplog.records)
    sent = [request.query.get("key") or request.headers.get("X-Goog-Api-Key") for request in google.requests]
    assert set(sent) == {ODD_KEY}
    assert "Executing <" in caplog.text, "slow callbacks are told at all"
    for text in shown:
        for spelling in spellings_of(ODD_KEY):
            assert spelling not in text, f"{spelling} stands in {text[:2_000]}"
