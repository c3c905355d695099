"""How late it is told who is near, and how late reports are answered, while many move.

    .venv/bin/python bench/moving.py [--seconds 10] [--clients 200000]

Starts a real server, and prints JSON. Exit code 1 where a figure is past its bound. Of 200,000 clients in a city, 5,000 report
each second that they have moved, over ten connections. Meanwhile twenty questions a second are asked over HTTP, for the 20
nearest within 10 km.

- near_p50_ms, near_p99_ms: of the questions; answer_p50_ms, answer_p99_ms: of the reports. Latency counts from the time when
  each was due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from array import array
from random import Random
from typing import Any, Final

import uvloop
from contender import ALONE
from lineup import ProxyherdWebSocket
from reporters import PATIENCE, Line, answered, at, iamat, milliseconds

MOST: Final = {"near_p99_ms": 20.0, "answer_p99_ms": 20.0}
"""What is to be reached."""


class Asker(asyncio.Protocol):
    """Asks one question after the other over HTTP; `answers` has how long each took."""

    transport: Any

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes]
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            self._got = b""
            self.answer.set_result(head[:12] + body)

    async def ask(self, path: str) -> bytes:
        """Return the status and the body of an answer."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return await asyncio.wait_for(self.answer, PATIENCE)


async def near_while_many_move(
    seconds: float, clients: int = 200_000, rate: float = 5_000.0
) -> dict[str, float]:
    """Return how late `near`, and reports, are answered."""
    loop, asked = asyncio.get_running_loop(), array("d")
    with ProxyherdWebSocket() as server:
        ports = server.ports[ALONE], server.targets[ALONE]
        made = [await loop.create_connection(Line, "127.0.0.1", ports[0]) for _ in range(10)]
        lines = [line for _, line in made]
        for number in range(clients):
            lines[number % 10].send(iamat(number), time.perf_counter())
            if number % 1_000 == 999:
                await answered(lines, but=20_000)
        await answered(lines)
        _, asker = await loop.create_connection(Asker, "127.0.0.1", ports[1])
        question = "/v1/near?lat=34.0%05d&lon=-118.2%05d&radius_km=10&limit=20"
        random = Random(1)

        async def ask_on() -> None:
            start = time.perf_counter()
            for number in range(round(20 * seconds)):
                due = await at(start, number, 20.0)
                answer = await asker.ask(question % (random.randrange(10**5), random.randrange(10**5)))
                asked.append(time.perf_counter() - due)
                assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
                assert answer.count(b'"metres"') == 20, answer[:300]

        await asker.ask(question % (0, 0))  # the index is made
        for line in lines:
            line.due.clear()
            del line.seconds[:]
        asking, start = asyncio.ensure_future(ask_on()), time.perf_counter()
        for number in range(round(rate * seconds)):
            due = start + number / rate
            if number % 5 == 0:
                await at(start, number, rate)
            lines[number % 10].send(iamat(random.randrange(clients)), due)
        await asking
        await answered(lines)
        others = array("d")
        for line in lines:
            others.extend(line.seconds)
            line.transport.abort()
        asker.transport.abort()
    near, other = milliseconds(asked), milliseconds(others)
    return {
        **{f"near_{key}": value for key, value in near.items()},
        **{f"answer_{key}": value for key, value in other.items()},
    }


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=200_000)
    options = parser.parse_args()
    figures = uvloop.run(near_while_many_move(options.seconds, options.clients))
    print(json.dumps(figures, indent=2))
    past = [f"{key} is past its bound" for key, most in MOST.items() if figures[key] > most]
    for what in past:
        print(what, file=sys.stderr)
    return 1 if past else 0


if __name__ == "__main__":
    sys.exit(main())
