"""An admin port on real sockets in this process, and who asks it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from herd_process import PATIENCE_SECONDS
from prometheus_client import CollectorRegistry

from proxyherd.admin.app import make_app
from proxyherd.admin.listener import AdminListener
from proxyherd.admin.status_page.herd import HerdWatch
from proxyherd.config.herd_file import parse
from proxyherd.core.table import Table
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

ALONE = """
[servers]
Clark = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }
"""


THIRTY = "[servers]\n" + "".join(
    f'S{number} = {{ clients = "127.0.0.1:{number}", peers = "127.0.0.2:{number}", admin = "127.0.0.3:{number}" }}\n'
    for number in range(1, 31)
)


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


class NoClients:
    """A server that does not have the table."""

    table = areas = follows = None


def make_observer(server: str = "Clark") -> Observer:
    """Return an observer whose log goes nowhere."""
    log_file = LogFile(Path(os.devnull))
    log = make_logger(log_file, server=server, level="info", max_field_bytes=1_024)
    return Observer(log, log_file, Metrics(), ())


@contextlib.asynccontextmanager
async def listening(admin: AdminListener) -> AsyncIterator[int]:
    """Listen at a port of the system's choice."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    await admin.listen(sock)
    try:
        yield sock.getsockname()[1]
    finally:
        await admin.close()


@contextlib.asynccontextmanager
async def serving(told: list[str], status: Failing | Working | None = None) -> AsyncIterator[int]:
    """The admin port of a server alone; `told` gets its faults."""
    herd, status = parse(ALONE, Path("herd.toml")), status or Failing()
    watch = HerdWatch(herd, "Clark", status, make_observer(), None)
    app = make_app(
        status,
        CollectorRegistry(),
        herd.admin,
        watch,
        lambda what, error: told.append(f"{what}: {error}"),
        NoClients(),
    )
    async with listening(AdminListener(app)) as port:
        yield port


@contextlib.asynccontextmanager
async def watching() -> AsyncIterator[tuple[int, HerdWatch, Observer]]:
    """The admin port of one of thirty servers, none of the others there; with times that a test can set."""
    herd, observer, faults = parse(THIRTY, Path("herd.toml")), make_observer("S1"), list[str]()
    watch = HerdWatch(herd, "S1", Working(), observer, Table(bytes(32)))
    app = make_app(
        Working(),
        CollectorRegistry(),
        herd.admin,
        watch,
        lambda what, error: faults.append(f"{what}: {error}"),
        NoClients(),
    )
    async with listening(AdminListener(app)) as port:
        yield port, watch, observer
    assert faults == []


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


async def exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def get_and_close(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


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
