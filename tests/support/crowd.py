"""A crowd that asks a server what is near: a process of its own, so that who measures beside it is not held up by it.

    python tests/support/crowd.py burst PORT QUERIES           all at once, each on a connection of its own
    python tests/support/crowd.py steady PORT AT_ONCE ROUNDS   so many at any time, evenly spread

Asks about the clients that `place_crowd` has reported, and prints one JSON object: statuses and seconds of the queries.
`warm` asks an upstream directly about each of them, and returns the seconds it takes itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
from herd_process import ServerProcess, raise_descriptor_limit

KILOMETRES = 5
UPSTREAM_SECONDS = 0.2
"""What an upstream is expected to take: queries that go on steadily are spread over it."""


def position(number: int) -> tuple[float, float]:
    """A point in the middle of Europe, where places are neither rare nor thick."""
    return 46.0 + number % 50 / 10, 5.0 + number // 50 / 5


def place_crowd(server: ServerProcess, size: int) -> None:
    """Let so many clients report where they are."""
    with server.connect() as client:
        places = (position(number) for number in range(size))
        client.send(
            *(b"IAMAT crowd-%d +%.1f+%.1f 1" % (number, *place) for number, place in enumerate(places))
        )
        for _ in range(size):
            assert client.line().startswith(b"AT ")


def run_crowd(*arguments: object) -> dict[str, Any]:
    """Run this file as a process; return what it prints."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, check=True, timeout=100
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def warm(url: str, size: int, at_once: int) -> list[float]:
    """Ask the upstream about each client, `at_once` at a time and evenly spread; return the seconds of each."""
    seconds: list[float] = []
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(2)
    ) as session:

        async def one(first: int) -> None:
            await asyncio.sleep(first * UPSTREAM_SECONDS / at_once)
            for number in range(first, size, at_once):
                lat, lng = position(number)
                query: dict[str, str | int] = {
                    "location": f"{lat:.1f},{lng:.1f}",
                    "radius": KILOMETRES * 1_000,
                    "key": "any",
                }
                began = time.perf_counter()
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # some upstreams fail on purpose
                    async with session.get(
                        f"{url}/maps/api/place/nearbysearch/json", params=query
                    ) as response:
                        await response.read()
                seconds.append(time.perf_counter() - began)

        await asyncio.gather(*map(one, range(at_once)))
    return seconds


async def _ask(port: int, first: int, queries: int, pause: float) -> list[tuple[str, float]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(pause)
    found = []
    for number in range(first, first + queries):
        began = time.perf_counter()
        writer.write(b"WHATSAT crowd-%d %d 20\n" % (number, KILOMETRES))
        line = await reader.readline()
        body = await reader.readuntil(b"\n\n")
        seconds = time.perf_counter() - began
        assert line.split()[3] == b"crowd-%d" % number, line
        found.append((json.loads(body)["status"], seconds))
    writer.close()
    return found


async def _crowd(kind: str, port: int, size: int, rounds: int = 1) -> list[tuple[str, float]]:
    spread = UPSTREAM_SECONDS / size if kind == "steady" else 0.0
    asked = await asyncio.gather(
        *(_ask(port, number * rounds, rounds, number * spread) for number in range(size))
    )
    return [one for some in asked for one in some]


def main() -> None:
    raise_descriptor_limit(8_000)
    kind, port, *sizes = sys.argv[1:]
    found = asyncio.run(_crowd(kind, int(port), *map(int, sizes)))
    statuses = [status for status, _ in found]
    seconds = [seconds for _, seconds in found]
    print(
        json.dumps(
            {
                "statuses": {status: statuses.count(status) for status in set(statuses)},
                "median": statistics.median(seconds),
                "longest": max(seconds),
            }
        )
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
