"""Reports as a load, one at a time, when they are due: from anywhere in a city, over connections of lines."""

from __future__ import annotations

import asyncio
import statistics
import time
from array import array
from collections.abc import Sequence
from random import Random
from typing import Final, cast

PATIENCE: Final = 60.0
"""Seconds until what must come has come."""


PLACES: Final = Random(1)


def client_name(number: int) -> bytes:
    return b"client%06d.example.com" % number


def iamat(client: int) -> bytes:
    """Return a report as a line, from anywhere in a city."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    place = PLACES.randrange(10**5), PLACES.randrange(10**5)
    return b"IAMAT %b +34.0%05d-118.2%05d %d.%09d\n" % (client_name(client), *place, seconds, rest)


class Line(asyncio.Protocol):
    """A connection of lines: what is sent, and when each answer, which is a line, has come."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.due: list[float] = []  # when each was to be sent
        self.seconds = array("d")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        now, answered = time.perf_counter(), len(self.seconds)
        self.seconds.extend(now - due for due in self.due[answered : answered + data.count(b"\n")])

    def send(self, data: bytes, due: float) -> None:
        """Send one line, which was due at this time."""
        self.due.append(due)
        self.transport.write(data)


async def at(start: float, number: int, rate: float) -> float:
    """Wait until a sending is due, and return when that was: they begin at `start`, `rate` in a second."""
    due = start + number / rate
    wait = due - time.perf_counter()
    if wait > 0:
        await asyncio.sleep(wait)
    return due


async def answered(lines: Sequence[Line], but: int = 0) -> None:
    """Wait until all that was sent has its answer, but so many."""
    deadline = time.perf_counter() + PATIENCE
    while sum(len(line.due) - len(line.seconds) for line in lines) > but:
        assert time.perf_counter() < deadline, "reports have no answer"
        await asyncio.sleep(0.005)


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    parts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": round(parts[49] * 1e3, 2), "p99_ms": round(parts[98] * 1e3, 2)}
