"""The admin port on real sockets in this process: how many connections, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from admin_port import Working, connected, exchange, get, get_and_close, serving
from aiohttp import web

from proxyherd.admin.listener import MAX_CONNECTIONS, REQUEST_SECONDS, AdminListener


def test_who_has_gone_while_its_answer_was_made_is_not_counted_as_open() -> None:
    async def body() -> None:
        began, may_end = asyncio.Event(), asyncio.Event()

        async def slow(_: web.Request) -> web.Response:
            began.set()
            await may_end.wait()
            return web.Response()

        app = web.Application()
        app.router.add_get("/slow", slow)
        admin = AdminListener(app)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            await admin.listen(listening)
            _, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await began.wait()
            assert len(admin.open) == 1
            writer.transport.abort()
            while admin.open:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            may_end.set()
            for _ in range(100):
                await asyncio.sleep(0)
            assert not admin.open
            await admin.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["nothing", "a piece", "headers without end", "a request, and then nothing"],
)
def test_a_slow_scraper_is_let_go_after_its_time(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr("proxyherd.admin.listener.REQUEST_SECONDS", 0.2)
    assert REQUEST_SECONDS <= 30

    async def scenario() -> None:
        async with serving([]) as port:
            with contextlib.suppress(ConnectionError):
                await exchange(port, sent)

    asyncio.run(scenario())


def test_a_scraper_that_trickles_is_let_go_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.admin.listener.REQUEST_SECONDS", 0.2)

    async def scenario() -> None:
        async with serving([]) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(10):
                    while not reader.at_eof():
                        writer.write(b"X")
                        await writer.drain()
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(reader.read(1), 0.02)
            writer.close()

    asyncio.run(scenario())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.admin.listener.REQUEST_SECONDS", 86_400.0)


async def has_ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server has ended a connection by now."""
    for _ in range(20):
        await asyncio.sleep(0)
    return reader.at_eof() or reader.exception() is not None


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: loc"], ids=["nothing", "a piece"])
def test_the_oldest_silent_connection_makes_room_for_the_next(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, in the order in which they came; none of the others ends."""
    monkeypatch.setattr("proxyherd.admin.listener.MAX_CONNECTIONS", 4)

    async def scenario() -> None:
        async with (
            serving([], Working()) as port,
            connected(port, 4, sent) as first,
            contextlib.AsyncExitStack() as stack,
        ):
            for gone in range(1, 5):
                [probe] = await stack.enter_async_context(connected(port, 1, get("/healthz")))
                assert (await probe.readline()).startswith(b"HTTP/1.1 200 ")
                assert [await has_ended(one) for one in first] == [True] * gone + [False] * (4 - gone)

    asyncio.run(scenario())


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("silent", [0.0, 86_400.0], ids=["for long", "since a moment ago"])
def test_connections_are_bounded_whoever_they_are(silent: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.admin.listener.SILENT_SECONDS", silent)

    async def scenario() -> None:
        async with serving([], Working()) as port, connected(port, 3 * MAX_CONNECTIONS) as all_of_them:
            ended = [await has_ended(one) for one in all_of_them]
            assert ended == [True] * 2 * MAX_CONNECTIONS + [False] * MAX_CONNECTIONS

    asyncio.run(scenario())


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize(
    ("request_", "number"),
    [
        (b"", MAX_CONNECTIONS),
        (get("/metrics")[:-2], MAX_CONNECTIONS),
        (get("/metrics"), MAX_CONNECTIONS),
        (get("/metrics") * 30, MAX_CONNECTIONS),
        (get("/healthz"), MAX_CONNECTIONS),
        (get("/events"), 40),
    ],
    ids=["silent", "slow", "waiting for metrics", "greedy", "kept open", "viewers"],
)
def test_a_probe_is_answered_whatever_else_is_open(request_: bytes, number: int, path: str) -> None:
    async def scenario() -> None:
        # Beside each of them all that may be silent.
        async with (
            serving([], Working(0.001)) as port,
            connected(port, number, request_),
            connected(port, MAX_CONNECTIONS - number % MAX_CONNECTIONS),
        ):
            for _ in range(10):
                answer = await exchange(port, get_and_close(path))
                assert answer.endswith((b"ok\n", b"ready\n"))

    asyncio.run(scenario())


@pytest.mark.usefixtures("patient")
def test_a_scraper_that_waits_for_metrics_goes_after_those_that_say_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxyherd.admin.listener.SILENT_SECONDS", 0.0)
    monkeypatch.setattr("proxyherd.admin.listener.MAX_CONNECTIONS", 4)

    async def scenario() -> None:
        metrics = Working(0.02)  # so long, and ten times as long until the next
        async with (
            serving([], metrics) as port,
            connected(port, 1, get("/metrics") * 2),
            connected(port, 1, get("/metrics")) as [waiting],
        ):
            while not metrics.refreshed:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            async with connected(port, 20):
                assert (await waiting.readline()).startswith(b"HTTP/1.1 200 ")

    asyncio.run(scenario())
