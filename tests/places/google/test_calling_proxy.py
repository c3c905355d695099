"""An HTTP proxy on the way to Google: asked for a tunnel where the herd's file names it, and else not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fake_google import Ledger
from yarl import URL

from proxyherd.config import herd_file, schema
from proxyherd.config.errors import ConfigError
from proxyherd.places.failures import FailedError
from proxyherd.places.google.calling import Caller, HttpRequest

KEY = "AIzaSyTheKeyOfATestWhichNobodyHasEverHad0"
GOOGLE = URL("https://maps.googleapis.com/maps/api/place/nearbysearch/json?location=34,-118")


class Proxy:
    """Takes one request after the other, and answers each with the same; keeps what it was sent."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.url = ""
        self.heads: list[bytes] = []
        self.tunnelled = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self._answer)
        if b" 200 " in self._answer:
            self.tunnelled += await reader.read(65_536)
        writer.close()


@asynccontextmanager
async def proxy_that(answer: bytes) -> AsyncIterator[Proxy]:
    proxy = Proxy(answer)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield proxy


async def call(proxy: str | None) -> tuple[str, Ledger]:
    """Make a call that fails; return what a client is told of it, and the record of calls."""
    ledger = Ledger()
    caller = Caller(schema.PlacesSettings(proxy=proxy), KEY, ledger, ledger)
    try:
        with pytest.raises(FailedError) as failure:
            await caller.call("google", HttpRequest("GET", GOOGLE, "query", lambda _: "answered"), 2.0)
    finally:
        await caller.close()
    return failure.value.answer.body.decode(), ledger


def test_it_is_asked_for_a_tunnel_and_sees_neither_key_nor_location() -> None:
    async def scenario() -> None:
        async with proxy_that(b"HTTP/1.1 200 OK\r\n\r\n") as proxy:
            await call(proxy.url)
            assert proxy.heads[0].startswith(b"CONNECT maps.googleapis.com:443 HTTP/1.1\r\n")
            assert proxy.tunnelled[:1] == b"\x16", "a TLS handshake"
            assert b"maps.googleapis.com" in proxy.tunnelled
            for sent in (*proxy.heads, proxy.tunnelled):
                assert KEY.encode() not in sent
                assert b"-118" not in sent

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"403 Forbidden"])
def test_a_proxy_that_refuses_is_told_and_costs_nothing(status: bytes) -> None:
    async def scenario() -> None:
        answer = b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status
        async with proxy_that(answer) as proxy:
            said, ledger = await call(proxy.url)
            assert "Google Places could not be reached (ClientHttpProxyError)" in said
            assert KEY not in said
            assert ledger.outcomes == ["unreachable"]
            assert ledger.given_back == [1]

    asyncio.run(scenario())


def test_what_the_environment_names_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with proxy_that(b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
            for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY", "http_proxy"):
                monkeypatch.setenv(name, proxy.url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            said, _ = await call(None)
            assert "Proxy" not in said
            assert proxy.heads == []

    asyncio.run(scenario())


SERVERS = (
    '[servers]\nClark = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }\n[places]\n'
)


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ('proxy = "proxy.example:3128"', "is no HTTP proxy; write it like"),
        ('proxy = "https://proxy.example"', "is no HTTP proxy; write it like"),
        ('proxy = "http://proxy.example/path"', "is no HTTP proxy; write it like"),
        ('proxy = "http://me:password@proxy.example"', "is no HTTP proxy; write it like"),
        ('proxy = "http://p:3128"\nbase_url = "http://127.0.0.1:1"', "the proxy would see the key; drop one"),
    ],
)
def test_a_proxy_that_cannot_be_or_would_see_the_key_is_an_error(places: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"herd.toml: key places.proxy: .*{told}"):
        herd_file.parse(f"{SERVERS}{places}\n", Path("herd.toml"))


@pytest.mark.parametrize("places", ['proxy = "http://p:3128"', 'proxy = "http://p"\nbase_url = "https://g"'])
def test_a_proxy_in_front_of_tls_is_none(places: str) -> None:
    assert herd_file.parse(f"{SERVERS}{places}\n", Path("herd.toml")).places.proxy is not None
