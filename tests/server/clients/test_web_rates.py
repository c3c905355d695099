"""Clients of the web port that ask too fast, over real sockets: by address, by the address that a proxy names, and by
subject.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Self

import pytest
from listening import Listening, rates, run, until
from msgspec.structs import replace
from tokens import KEY, NOW, TokenClock, access_with, token
from web_talk import frame, messages, site, site_with

from proxyherd.config.rates import RateSettings
from proxyherd.core.area_queries import AreaQuery
from proxyherd.core.buckets import PAY_COMMANDS
from proxyherd.core.engine import Client
from proxyherd.core.follows.follow import Follow
from proxyherd.core.reply import Reply
from proxyherd.server.clients.http_reader import BodyRoom
from proxyherd.server.clients.web import WebConnection
from proxyherd.web.conversations import http_waits
from proxyherd.web.conversations.base import SIGN_OF_LIFE_SECONDS, Site
from proxyherd.web.frames import Opcode
from proxyherd.web.origins import Proxies
from proxyherd.web.rights import revocation

HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: proxyherd.lines.v1\r\n"
)


class Web:
    """A web port, behind which proxies with these addresses are trusted. Call `close` at the end."""

    def __init__(self, listening: Listening, *proxies: str, at: Site | None = None) -> None:
        self._listening = listening
        self._site = at or site()
        self._proxies = Proxies(proxies)
        self._server: asyncio.Server | None = None
        self._socks: list[socket.socket] = []
        self.connections: list[WebConnection] = []

    def _make(self) -> WebConnection:
        made = WebConnection(self._listening.clients, self._site, self._proxies, BodyRoom())
        self.connections.append(made)
        return made

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(self._make, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for sock in self._socks:
            sock.close()
        await until(lambda: not self._listening.connections)

    async def connect(self) -> socket.socket:
        assert self._server is not None
        sock, number = socket.socket(), len(self.connections)
        self._socks.append(sock)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self._server.sockets[0].getsockname())
        await until(lambda: len(self.connections) > number and self.connections[number].name)
        return sock


async def get(sock: socket.socket, *headers: bytes) -> bytes:
    """Ask for what there is not; return the answer."""
    loop = asyncio.get_running_loop()
    head = b"\r\n".join([b"GET /nothing HTTP/1.1", b"Host: localhost", *headers, b"", b""])
    await loop.sock_sendall(sock, head)
    return await loop.sock_recv(sock, 4_096)


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def test_a_client_that_asks_on_is_slowed_down_first_and_then_told_when_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_waits, "PATIENCE_SECONDS", 0.05)

    async def scenario() -> None:
        with Listening(tmp_path, rates(commands_per_address=100.0)) as listening:
            async with Web(listening) as web:
                sock = await web.connect()
                now, loop = asyncio.get_running_loop().time(), asyncio.get_running_loop()
                [allowance] = [one.allowance for one in web.connections]
                assert allowance is not None
                allowance.spend(13, now)  # three too many: as others of its address do
                assert status(await get(sock)) == 404
                assert loop.time() >= now + 0.03
                assert listening.value("proxyherd_client_waits_total", limit="address") == 1
                allowance.spend(1_000, loop.time())
                refused = await get(sock)
                assert status(refused) == 429
                assert listening.value("proxyherd_commands_refused_total", reason="limit") == 1
                assert 9 <= int(refused.partition(b"Retry-After: ")[2].split()[0]) <= 11
                assert listening.value("proxyherd_client_waits_total", limit="address") == 2
            assert listening.value("proxyherd_clients_over_rate") == 0
            [event] = listening.events("client_over_rate")
            assert (event["via"], event["limit"]) == ("http", "address")

    run(scenario())


def test_behind_a_trusted_proxy_each_address_has_its_own_rate_and_the_proxy_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_waits, "PATIENCE_SECONDS", 0.01)

    async def scenario() -> None:
        few = rates(commands_per_address=1.0, connections_per_address=1, commands_per_connection=1.0)
        with Listening(tmp_path, few) as listening:
            async with Web(listening, "127.0.0.1") as web:
                socks = [await web.connect() for _ in range(3)]
                eve = [await get(sock, b"X-Forwarded-For: 192.0.2.66") for sock in socks]
                assert [status(one) for one in eve] == [404, 429, 429]
                for number in range(20):
                    answer = await get(socks[number % 3], b"X-Forwarded-For: 198.51.100.%d" % number)
                    assert status(answer) == 404
                for _ in range(3):
                    assert status(await get(socks[0])) == 404, "the proxy itself"
                    assert web.connections[0].payer == web.connections[0].name
                sites = [await get(socks[0], b"X-Forwarded-For: 2001:db8::%d" % host) for host in (1, 2)]
                assert [status(one) for one in sites] == [404, 429], "one /64"
                assert web.connections[0].payer == "address 20010db800000000"
            told = listening.events("client_over_rate")[0]
            assert told["client"].startswith("192.0.2.66"), "not the proxy"

    run(scenario())


@pytest.mark.parametrize("forwarded", [b"unknown", b"127.0.0.1", b"::1", b"_hidden", b"10.0.0.1, x", b""])
def test_no_address_that_a_proxy_names_is_exempt_and_one_that_nobody_can_read_counts_as_the_proxys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forwarded: bytes
) -> None:
    monkeypatch.setattr(http_waits, "PATIENCE_SECONDS", 0.01)

    async def scenario() -> None:
        few = replace(rates(commands_per_address=1.0), exempt=RateSettings().exempt)
        with Listening(tmp_path, few) as listening:
            async with Web(listening, "127.0.0.1") as web:
                socks = [await web.connect() for _ in range(2)]
                found = [status(await get(sock, b"X-Forwarded-For: " + forwarded)) for sock in socks]
                assert found == [404, 429]
                assert status(await get(socks[0])) == 404, "the proxy itself is exempt"

    run(scenario())


def test_a_subject_counts_at_an_exempt_address_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        few = replace(rates(commands_per_subject=1.0), exempt=("0.0.0.0/0", "::/0"))
        with Listening(tmp_path, few) as listening:
            async with Web(listening) as web:
                await web.connect()
                [connection], now = web.connections, asyncio.get_running_loop().time()
                assert listening.clients.asker(connection, "192.0.2.1", None) is None
                for host in ("192.0.2.1", ""):
                    asker = listening.clients.asker(connection, host, b"jane")
                    assert asker is not None
                    asker.use(5, now)
                    assert asker.wait(now) > 0
                    assert asker.limit == "subject"
                listening.clients.forget(connection, "became a WebSocket")
                listening.clients.enter(connection, "192.0.2.1", b"jane")
                assert connection.allowance is not None
                assert connection.allowance.wait(now) > 0
            assert not listening.clients.allowances.subjects._connected
            assert len(listening.clients.allowances.addresses) == 0

    run(scenario())


def test_a_websocket_behind_a_proxy_counts_as_a_connection_of_its_address(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Listening(tmp_path, rates(connections_per_address=2)) as listening:
            loop, found = asyncio.get_running_loop(), list[int]()
            async with Web(listening, "127.0.0.1") as web:
                for address in (b"192.0.2.66", b"192.0.2.66", b"192.0.2.66", b"192.0.2.1"):
                    sock = await web.connect()
                    await loop.sock_sendall(sock, HANDSHAKE + b"X-Forwarded-For: %b\r\n\r\n" % address)
                    found.append(status(await loop.sock_recv(sock, 4_096)))
            assert found == [101, 101, 429, 101]
            refusals = "proxyherd_client_connections_refused_total"
            assert listening.value(refusals, reason="connections_per_address") == 1
            assert len(listening.clients.allowances.addresses._connected) == 0

    run(scenario())


def test_a_websocket_over_its_rate_is_slowed_down_and_closed_after_the_grace_behind_its_answers(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        few = rates(commands_per_connection=1_000.0, grace_seconds=0.3)
        with Listening(tmp_path, few) as listening:
            loop = asyncio.get_running_loop()
            async with Web(listening) as web:
                sock = await web.connect()
                await loop.sock_sendall(sock, HANDSHAKE + b"\r\n")
                assert status(await loop.sock_recv(sock, 4_096)) == 101
                sending = loop.create_task(loop.sock_sendall(sock, frame(b"FOO") * 100_000))
                began, read = loop.time(), b""
                while (4429).to_bytes(2, "big") not in read[-200:]:
                    data = await loop.sock_recv(sock, 1 << 16)
                    assert data
                    read += data
                assert loop.time() - began > 0.3
                *answers, (_, reason) = messages_of(read)
                assert int.from_bytes(reason[:2], "big") == 4429
                assert b"".join(data for _, data in answers) == b"? FOO\n" * sum(
                    data.count(b"\n") for _, data in answers
                )
                sending.cancel()
            assert listening.events("client_closed")[-1]["reason"] == "over its rate"
            assert listening.value("proxyherd_clients_over_rate") == 0

    run(scenario())


def messages_of(data: bytes) -> list[tuple[int, bytes]]:
    """Return the whole messages, and (0, b"") for one that is cut."""
    try:
        found = messages(data)
    except IndexError:
        return [(0, b"")]
    return found if found and data.endswith(found[-1][1]) else [(0, b"")]


def test_a_subject_has_one_rate_over_all_connections_and_addresses(tmp_path: Path) -> None:
    """As the web conversation asks, once requests have tokens."""

    async def scenario() -> None:
        with Listening(tmp_path, rates(commands_per_subject=10.0)) as listening:
            async with Web(listening, "127.0.0.1") as web:
                for _ in range(2):
                    await web.connect()
                clients, now = listening.clients, asyncio.get_running_loop().time()
                for number, connection in enumerate(web.connections):
                    asker = clients.asker(connection, f"192.0.2.{number}", b"jane")
                    assert asker is not None
                    assert asker.wait(now) == 0
                    asker.spend(1, now)
                again = clients.asker(web.connections[0], "192.0.2.99", b"jane")
                other = clients.asker(web.connections[0], "192.0.2.99", b"bob")
                assert again is not None
                assert other is not None
                assert again.wait(now) > 0
                assert again.limit == "subject"
                assert other.wait(now) == 0

    run(scenario())


@pytest.mark.parametrize("end", ["expired", "revoked"])
def test_a_websocket_that_waits_for_its_rate_is_closed_too_when_its_token_is_good_no_more(
    tmp_path: Path, end: str
) -> None:
    """It may wait for a minute, because of others at its address."""

    async def scenario() -> None:
        clock, revoked = TokenClock(), dict[bytes, int]()
        bearer = token(sub="jane", may=["see"], exp=NOW + 100).encode()
        with Listening(tmp_path, rates(commands_per_address=100.0)) as listening:
            loop = asyncio.get_running_loop()
            async with Web(listening, at=site_with(access_with(revoked, KEY), clock)) as web:
                sock = await web.connect()
                await loop.sock_sendall(sock, HANDSHAKE + b"Authorization: Bearer %b\r\n\r\n" % bearer)
                assert status(await loop.sock_recv(sock, 4_096)) == 101
                [connection] = web.connections
                assert connection.allowance is not None
                connection.allowance.spend(10_000, loop.time())
                await loop.sock_sendall(sock, frame(b"FOO") * PAY_COMMANDS)
                read = b""
                while read.count(b"FOO") < PAY_COMMANDS:
                    data = await loop.sock_recv(sock, 1 << 16)
                    assert data
                    read += data
                await loop.sock_sendall(sock, frame(b"FOO"))
                await until(lambda: listening.value("proxyherd_clients_over_rate") == 1)
                listening.clients._sweep()
                assert connection.reason == "closed by client", "its token is good"
                if end == "expired":
                    clock.now += 100 * 10**9
                else:
                    revoked[revocation("jane")] = clock.now
                listening.clients._sweep()
                assert connection.reason == "bad token"
                [(_, data)] = messages(await loop.sock_recv(sock, 4_096))
                assert int.from_bytes(data[:2], "big") == 4401
            assert listening.events("client_closed")[-1]["reason"] == "bad token"

    run(scenario())


def test_a_websocket_that_waits_for_its_rate_gets_pings_and_need_not_answer_them_before_it_is_read(
    tmp_path: Path,
) -> None:
    """Otherwise some proxies would close it."""

    async def scenario() -> None:
        with Listening(tmp_path, rates(commands_per_address=100.0)) as listening:
            loop = asyncio.get_running_loop()
            async with Web(listening) as web:
                sock = await web.connect()
                [connection] = web.connections
                assert connection.allowance is not None
                await loop.sock_sendall(sock, HANDSHAKE + b"\r\n")
                assert status(await loop.sock_recv(sock, 4_096)) == 101
                connection.allowance.spend(10_000, loop.time())  # as others at its address do
                await loop.sock_sendall(sock, frame(b"FOO") * PAY_COMMANDS)
                read = b""
                while read.count(b"FOO") < PAY_COMMANDS:
                    data = await loop.sock_recv(sock, 1 << 16)
                    assert data
                    read += data
                await loop.sock_sendall(sock, frame(b"FOO"))
                await until(lambda: listening.value("proxyherd_clients_over_rate") == 1)
                now = loop.time()
                for checked in range(0, 60, 5):
                    connection.check(now + checked)
                assert messages(await loop.sock_recv(sock, 4_096)) == [(Opcode.PING, b"")] * 2
                connection._go_on()
                connection.check(now + 60)
                assert connection.reason == "closed by client", "it goes on"

    run(scenario())


def test_a_stream_says_nothing_and_so_waits_for_no_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others at its address may ask too much in the turn in which it begins."""

    async def scenario() -> None:
        with Listening(tmp_path, rates(commands_per_address=100.0)) as listening:
            loop, engine = asyncio.get_running_loop(), listening.engine
            async with Web(listening) as web:
                sock = await web.connect()
                [connection], reply = web.connections, engine._reply
                allowance = connection.allowance
                assert allowance is not None

                def with_others(client: Client, line: bytes | Follow | AreaQuery) -> Reply:
                    allowance.spend(3_000, loop.time())
                    return reply(client, line)

                monkeypatch.setattr(engine, "_reply", with_others)
                await loop.sock_sendall(
                    sock, b"GET /v1/events?client=jane HTTP/1.1\r\nHost: localhost\r\n\r\n"
                )
                assert b"retry: " in await loop.sock_recv(sock, 4_096)
                now = loop.time()
                connection.check(now)
                connection.check(now + SIGN_OF_LIFE_SECONDS)
                assert listening.value("proxyherd_clients_over_rate") == 0
                assert await loop.sock_recv(sock, 4_096) == b":\n\n"

    run(scenario())
