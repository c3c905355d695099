"""The admin port on real sockets in this process: its limits, and what every answer has."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from proxyherd.admin.app import MAX_CONNECTIONS, REQUEST_SECONDS, Admin, make_app
from proxyherd.admin.status_page.herd import HerdWatch
from proxyherd.config.herd_file import parse
from proxyherd.core.table import Table
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

PATHS = ("/", "/metrics", "/healthz", "/readyz", "/page.css", "/page.js", "/coast.json")


ALONE = """
[servers]
Clark = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }
"""


def status(answer: bytes) -> int:
    return int(answer.split(None, 2)[1]) if answer.startswith(b"HTTP/") else 0


class Working:
    """A server's status that costs some time to bring up to date."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.refreshed: list[tuple[float, float]] = []  # when each began and ended

    def ready(self) -> tuple[bool, str]:
        return True, "ready"

    def places_by(self) -> str:
        return "gazetteer"

    def refresh(self) -> None:
        began = time.perf_counter()
        time.sleep(self.seconds)
        self.refreshed.append((began, time.perf_counter()))


class Failing:
    """A server's status that raises what must not be shown."""

    def ready(self) -> tuple[bool, str]:
        raise RuntimeError("hunter2")

    def places_by(self) -> str:
        raise RuntimeError("hunter2")

    def refresh(self) -> None:
        raise RuntimeError("hunter2")


@contextlib.asynccontextmanager
async def serving(told: list[str], status: Failing | Working | None = None) -> AsyncIterator[int]:
    log_file = LogFile(Path(os.devnull))
    log = make_logger(log_file, server="Clark", level="info", max_field_bytes=1_024)
    herd, status = parse(ALONE, Path("herd.toml")), status or Failing()
    watch = HerdWatch(herd, "Clark", status, Observer(log, log_file, Metrics(), ()), Table(bytes(32)))
    app = make_app(
        status, CollectorRegistry(), herd.admin, watch, lambda what, error: told.append(f"{what}: {error}")
    )
    admin = Admin(app)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    await admin.listen(sock)
    try:
        yield sock.getsockname()[1]
    finally:
        await admin.close()


async def exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("debug", [False, True])
def test_a_fault_is_told_to_the_log_and_not_to_the_client(debug: bool) -> None:
    async def scenario() -> None:
        asyncio.get_running_loop().set_debug(debug)
        told: list[str] = []
        async with serving(told) as port:
            for path in ("/metrics", "/readyz", "/state", "/events"):
                get = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
                answer = await exchange(port, get.encode())
                assert status(answer) == 500
                assert b"hunter2" not in answer
                assert b"Traceback" not in answer
            assert told == [
                "the admin port cannot answer /metrics: hunter2",
                "the admin port cannot answer /readyz: hunter2",
                "the admin port cannot answer /state: hunter2",
                "the admin port cannot answer /events: hunter2",
            ]

    asyncio.run(scenario())


def test_who_has_gone_while_its_answer_was_made_is_not_counted_as_open() -> None:
    async def body() -> None:
        began, may_end = asyncio.Event(), asyncio.Event()

        async def slow(_: web.Request) -> web.Response:
            began.set()
            await may_end.wait()
            return web.Response()

        app = web.Application()
        app.router.add_get("/slow", slow)
        admin = Admin(app)
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
    monkeypatch.setattr("proxyherd.admin.app.REQUEST_SECONDS", 0.2)
    assert REQUEST_SECONDS <= 30

    async def scenario() -> None:
        async with serving([]) as port:
            with contextlib.suppress(ConnectionError):
                await exchange(port, sent)

    asyncio.run(scenario())


def test_a_scraper_that_trickles_is_let_go_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.admin.app.REQUEST_SECONDS", 0.2)

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
    monkeypatch.setattr("proxyherd.admin.app.REQUEST_SECONDS", 86_400.0)


@contextlib.asynccontextmanager
async def connected(
    port: int, number: int, request: bytes = b""
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections, made one after another, each of which sends these bytes."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
    for _, writer in opened:
        writer.write(request)
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


async def has_ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server has ended a connection by now."""
    for _ in range(20):
        await asyncio.sleep(0)
    return reader.at_eof() or reader.exception() is not None


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def get_and_close(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: loc"], ids=["nothing", "a piece"])
def test_the_oldest_silent_connection_makes_room_for_the_next(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, in the order in which they came; none of the others ends."""
    monkeypatch.setattr("proxyherd.admin.app.MAX_CONNECTIONS", 4)

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
    monkeypatch.setattr("proxyherd.admin.app.SILENT_SECONDS", silent)

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
    monkeypatch.setattr("proxyherd.admin.app.SILENT_SECONDS", 0.0)
    monkeypatch.setattr("proxyherd.admin.app.MAX_CONNECTIONS", 4)

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


def test_metrics_leave_the_server_ten_elevenths_of_its_time_however_greedy_scrapers_are() -> None:
    """By the time that each took: that a busy machine makes it longer makes the pause longer too."""
    times = 6

    async def scenario() -> None:
        metrics = Working(0.002)
        async with serving([], metrics) as port, connected(port, 16, get("/metrics") * 20):
            while len(metrics.refreshed) < times:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.001)
        for (began, ended), (next_began, _) in pairwise(metrics.refreshed):
            assert next_began - ended >= 10 * (ended - began)

    asyncio.run(scenario())


SECURITY = {
    b"cache-control": b"no-store",
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


ANSWERS = {
    **{path: (get_and_close(path), 200) for path in (*PATHS, "/state")},
    "a viewer's": (
        get("/events").replace(b"GET", b"HEAD").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        200,
    ),
    "nothing there": (get_and_close("/nowhere"), 404),
    "another host": (get_and_close("/").replace(b"localhost", b"evil.example"), 403),
    "another site": (get_and_close("/state").replace(b"Conn", b"Sec-Fetch-Site: cross-site\r\nConn"), 403),
    "another method": (get_and_close("/").replace(b"GET", b"POST"), 405),
    "no request": (b"nonsense\r\n\r\n", 400),
    "a version of its own": (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
    "a long header": (get_and_close("/").replace(b"Conn", b"X: " + b"x" * 20_000 + b"\r\nConn"), 400),
}


@pytest.mark.parametrize(("request_", "code"), ANSWERS.values(), ids=ANSWERS)
def test_every_answer_has_each_security_header_and_none_names_a_version(request_: bytes, code: int) -> None:
    async def scenario() -> None:
        async with serving([], Working()) as port:
            check_headers(await exchange(port, request_), code)

    asyncio.run(scenario())


def test_an_answer_to_a_fault_has_each_security_header_too() -> None:
    async def scenario() -> None:
        async with serving([]) as port:
            check_headers(await exchange(port, get_and_close("/metrics")), 500)

    asyncio.run(scenario())


def check_headers(answer: bytes, code: int) -> None:
    assert status(answer) == code
    head = answer.partition(b"\r\n\r\n")[0]
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert headers.items() >= {name: value.lower() for name, value in SECURITY.items()}.items()
    assert b"server" not in headers
    for word in (b"aiohttp", b"python", b"proxyherd/"):
        assert word not in head.lower()
