"""The provider `google` against real HTTP, the secrecy of its key, and where the key is found."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_google import PATH, FakeGoogle, Reply, nearby_answer
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyherd import config
from proxyherd.config import ConfigError
from proxyherd.places import KEY_CREDENTIAL, KEY_VARIABLE, Answer, Query, find_key, open_places
from proxyherd.places.answers import cut, no_results, squeeze
from proxyherd.places.google import THREAD_BYTES, Google, scrubber

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "AIzaSy-throwaway_0123456789"
QUERY = Query("+34.068930", "-118.445127", Decimal("10000.0"), 20)


@pytest.fixture
def google() -> Iterator[FakeGoogle]:
    with FakeGoogle() as fake:
        yield fake


def ask(
    url: str, *, query: Query = QUERY, key: str = KEY, deadline_seconds: float = 5.0, max_bytes: int = 65_536
) -> Answer:
    async def run() -> Answer:
        places = config.Places(
            base_url=url, deadline_seconds=deadline_seconds, max_answer_bytes=max_bytes, provider="google"
        )
        opened = open_places(places, config.Limits(), key=key, gazetteer=Path("/nowhere"))
        assert opened.name == "google"
        try:
            return await opened.nearby(query)
        finally:
            await opened.close()

    return asyncio.run(run())


def message(answer: Answer) -> str:
    document = json.loads(answer.body)
    assert (document["results"], document["status"]) == ([], answer.status)
    return str(document["error_message"])


def test_an_answer_within_the_bound_goes_on_as_it_came(google: FakeGoogle) -> None:
    answer = ask(google.url)
    assert answer == Answer(squeeze(nearby_answer(20)), "OK", 20)
    assert b"\n\n" not in answer.body


def test_an_answer_past_the_bound_loses_only_results(google: FakeGoogle) -> None:
    answer = ask(google.url, query=Query("+0", "+0", Decimal(1), 3))
    assert answer == cut(nearby_answer(20), 3)
    assert answer.body == squeeze(nearby_answer(3))


@pytest.mark.parametrize("status", ["ZERO_RESULTS", "OVER_QUERY_LIMIT", "REQUEST_DENIED", "SOMETHING_NEW"])
def test_what_google_says_itself_goes_on_under_its_own_status(google: FakeGoogle, status: str) -> None:
    google.reply = Reply(nearby_answer(0, status=status))
    assert ask(google.url) == Answer(squeeze(nearby_answer(0, status=status)), status, 0)


@pytest.mark.parametrize(
    ("query", "location", "radius"),
    [
        (QUERY, "34.068930,-118.445127", "10000"),
        (Query("+5.5", "-6", Decimal("0.5"), 1), "5.5,-6", "0.5"),
        (Query("-00", "+180.0", Decimal("5E+4"), 1), "-00,180.0", "50000"),
        (Query("+1." + "3" * 4_000, "+2", Decimal("1E-9"), 1), "1." + "3" * 12 + ",2", "0.000000001"),
    ],
)
def test_google_is_asked_in_its_own_terms(
    google: FakeGoogle, query: Query, location: str, radius: str
) -> None:
    ask(google.url + "?language=de", query=query, key=(key := "odd+key&with=%41/signs"))
    (request,) = google.requests
    assert request.path == PATH
    assert request.query == {"location": location, "radius": radius, "key": key, "language": "de"}
    assert request.headers["Accept-Encoding"] == "gzip"
    assert "Cookie" not in request.headers


@pytest.mark.parametrize(
    ("reply", "status", "words"),
    [
        (Reply(status=400), "INVALID_REQUEST", "HTTP 400"),
        (Reply(status=401), "REQUEST_DENIED", "HTTP 401"),
        (Reply(status=403), "REQUEST_DENIED", "HTTP 403"),
        (Reply(status=429), "OVER_QUERY_LIMIT", "quota"),
        (Reply(status=500), "UNKNOWN_ERROR", "HTTP 500"),
        (Reply(b"", status=204), "UNKNOWN_ERROR", "HTTP 204"),
        (Reply(status=302, headers={"Location": PATH}), "UNKNOWN_ERROR", "redirect"),
        (Reply(b"<html>"), "UNKNOWN_ERROR", "nonsense"),
        (Reply(b""), "UNKNOWN_ERROR", "nonsense"),
        (Reply(b" " * 65_537), "UNKNOWN_ERROR", "longer than 65536 bytes"),
        (
            Reply(gzip.compress(b" " * (1 << 24)), headers={"Content-Encoding": "gzip"}),
            "UNKNOWN_ERROR",
            "longer",
        ),
        (Reply(b"{}", headers={"Content-Encoding": "gzip"}), "UNKNOWN_ERROR", "not gzip"),
        (Reply(gzip.compress(b"{}")[:-9], headers={"Content-Encoding": "gzip"}), "UNKNOWN_ERROR", "cut off"),
        (Reply(b"{}", headers={"Content-Encoding": "br"}), "UNKNOWN_ERROR", "packed"),
        (Reply(b"{}", headers={"Content-Length": "x"}), "UNKNOWN_ERROR", "failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_failure_has_its_status(google: FakeGoogle, reply: Reply, status: str, words: str) -> None:
    google.reply = reply
    answer = ask(google.url)
    assert answer.status == status
    assert words in message(answer)
    assert len(google.requests) == 1


def test_an_answer_is_waited_for_until_the_deadline_and_no_longer(google: FakeGoogle) -> None:
    google.reply = Reply(hold=True)
    assert "within 0.05 s" in message(ask(google.url, deadline_seconds=0.05))


def test_a_refused_connection_is_an_answer() -> None:
    with socket.socket() as taken:  # bound but not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}{PATH}"
        assert "could not be reached" in message(ask(url))
    assert "InvalidUrl" in message(ask("http://"))


def test_a_packed_answer_and_a_long_one_are_read(google: FakeGoogle) -> None:
    body = nearby_answer(900)
    google.reply = Reply(gzip.compress(body), headers={"Content-Encoding": "gzip"})
    assert ask(google.url, max_bytes=len(body)) == cut(body, 20)
    assert "longer" in message(ask(google.url, max_bytes=len(body) - 1))


def test_many_queries_share_connections(google: FakeGoogle) -> None:
    async def run() -> list[Answer]:
        provider = Google(config.Places(base_url=google.url, max_connections=4), KEY)
        answers = await asyncio.gather(*(provider.nearby(QUERY) for _ in range(50)))
        await provider.close()
        return [*answers, await provider.nearby(QUERY)]

    *answers, closed = asyncio.run(run())
    assert answers == [Answer(squeeze(nearby_answer(20)), "OK", 20)] * 50
    assert closed.status == "UNKNOWN_ERROR"


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
    answer = ask(google.url)
    shown = f"{answer!r} {json.loads(answer.body)} {caplog.text}"
    assert KEY not in shown
    assert spelling not in shown
    assert (b"key=*** is bad" in answer.body) == (status == 200)


@pytest.mark.parametrize(
    "reply",
    [Reply(hold=True), Reply(b"", headers={"Content-Length": "9", "Connection": "close"}), Reply(b"x")],
)
def test_no_failure_shows_the_key(google: FakeGoogle, caplog: pytest.LogCaptureFixture, reply: Reply) -> None:
    caplog.set_level(logging.DEBUG)
    google.reply = reply
    provider = Google(config.Places(base_url=google.url), KEY)
    assert KEY not in f"{ask(google.url, deadline_seconds=0.2)!r} {provider!r} {caplog.text}"


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8), st.data())
def test_a_scrubber_finds_every_mix_of_spellings(key: str, data: st.DataObject) -> None:
    forms = ["{0}", "%{1:02x}", "%{1:02X}", "%25{1:02X}", "\\u{1:04x}", "\\u0025{1:02x}"]
    spelled = "".join(data.draw(st.sampled_from(forms)).format(letter, ord(letter)) for letter in key)
    assert scrubber(key).sub(b"***", b"\0" + spelled.encode() + b"\0") == b"\0***\0"


def test_the_key_is_looked_for_in_the_file_then_the_credential_then_the_environment(tmp_path: Path) -> None:
    places, herd = config.Places(key_file="secret/key"), tmp_path / "herd.toml"
    (tmp_path / "secret").mkdir()
    file, credential = tmp_path / "secret" / "key", tmp_path / KEY_CREDENTIAL
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), KEY_VARIABLE: " from-environment\n"}
    assert find_key(config.Places(), herd, {}) is None
    file.write_text("")
    assert find_key(places, herd, environ) == "from-environment"
    credential.write_text("\tfrom-credential\r\n")
    assert find_key(places, herd, environ) == "from-credential"
    file.write_text(" from-file ")
    assert find_key(places, herd, environ) == "from-file"


@pytest.mark.parametrize("bad", ["two words", "schlüssel", "bell\a", "x" * 5_000])
def test_what_is_no_key_is_an_error_that_does_not_show_it(tmp_path: Path, bad: str) -> None:
    (tmp_path / "key").write_text(bad)
    for places, environ, where in (
        (config.Places(key_file="key"), {}, str(tmp_path / "key")),
        (config.Places(), {KEY_VARIABLE: bad}, KEY_VARIABLE),
    ):
        with pytest.raises(ConfigError, match="write the key alone") as caught:
            find_key(places, tmp_path / "herd.toml", environ)
        assert where in str(caught.value)
        assert bad not in str(caught.value)


def test_a_key_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / KEY_CREDENTIAL).mkdir()
    with pytest.raises(ConfigError, match=r"credential: .*Is a directory"):
        find_key(config.Places(), tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"herd\.toml: key places\.key_file: .*gone: No such file.*write"):
        find_key(config.Places(key_file="gone"), tmp_path / "herd.toml", {})


def test_google_without_a_key_answers_what_is_missing() -> None:
    async def run() -> Answer:
        places = config.Places(provider="google")
        return await open_places(places, config.Limits(), key=None, gazetteer=Path("/nowhere")).nearby(QUERY)

    answer = asyncio.run(run())
    assert answer == no_results("REQUEST_DENIED", message(answer))
    assert KEY_VARIABLE in message(answer)


def test_large_answers_are_read_one_at_a_time_since_each_keeps_the_interpreter_to_itself(
    google: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    google.reply = Reply(nearby_answer(20) + b" " * THREAD_BYTES)
    reading, most = 0, 0
    read = Google._answer

    def watched(provider: Google, body: bytes, wanted: int) -> Answer:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        try:
            time.sleep(0.01)  # so that others would come in between
            return read(provider, body, wanted)
        finally:
            reading -= 1

    monkeypatch.setattr(Google, "_answer", watched)

    async def body() -> list[Answer]:
        provider = Google(config.Places(base_url=google.url), KEY)
        try:
            return await asyncio.gather(*(provider.nearby(QUERY) for _ in range(8)))
        finally:
            await provider.close()

    assert [answer.status for answer in asyncio.run(body())] == ["OK"] * 8
    assert most == 1
