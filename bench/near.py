"""What it costs to find who is near: CPU of a search of the table's index, against GEOSEARCH of Redis, on the same data.

    .venv/bin/python bench/near.py [--clients 200000] [--rounds 3]

200,000 clients are spread over one city. Each round asks both sides the same questions, in turns, for the 20 nearest
clients within 1, 5, 10 and 50 km: Redis in one pipeline over a Unix socket, and the index by calls, with the answers
spelled as JSON. CPU is what the operating system counts, user and system. Prints JSON. Exit code 1 where a figure, the
median over the rounds, is past its bound.

- ratio: CPU of ours for each of Redis.
- bytes_a_client: memory of the index. unasked_bytes: what is left of it after it was dropped.
- build_us, moved_us: CPU for each client, to make the index, and to take in that it has moved by some metres. Nothing of
  this is spent while nobody asks; reports cost the same in all cases (tests/support/cost.py).
- slice_ms: the longest slice of work while the index was made, in CPU. search_slice_ms: that of a search for 1,000 clients.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/support"))

import redis
from cpu import usage

from proxyherd.base.earth import EARTH_METRES
from proxyherd.core.area_queries import AreaReply
from proxyherd.core.messages import NANOSECONDS, Entry
from proxyherd.core.spatial.areas import Circle
from proxyherd.core.spatial.index import SpatialIndex
from proxyherd.core.spatial.search import MOST_FOUND, Question, SearchResult, search
from proxyherd.core.spatial.searches import BEHIND
from proxyherd.core.spatial.sphere import RADIANS
from proxyherd.core.table import Table
from proxyherd.web.nearby import near_request

RATIOS: Final = dict.fromkeys((1, 5, 10, 50), 1.0)
"""How many times the CPU of Redis ours may need, by the radius in kilometres. The goals were 1.5, 2, 2 and 3."""

QUESTIONS: Final = {1: 400, 5: 60, 10: 30, 50: 10}
"""Questions of a round: as many as take Redis some tenths of a second."""

MOST: Final = {
    "bytes_a_client": 150.0,
    "unasked_bytes": 1.0,
    "moved_us": 2.0,
    "slice_ms": 2.0,  # in three of them, room for all clients is made
    "search_slice_ms": 1.0,
}
RESULTS: Final = 20
CITY: Final = (34.05, -118.25)
CITY_METRES: Final = 30_000.0
NOW: Final = 1_600_000_000

REQUEST: Final = near_request({"lat": b"34", "lon": b"-118"}, (NOW + 60) * NANOSECONDS, "Clark")

City = list[tuple[float, float]]


def city(clients: int, spread: str) -> City:
    """Return positions in a city: evenly within 30 km, or more of them in its middle."""
    random = Random(1)
    places = []
    for _ in range(clients):
        if spread == "even":
            metres, angle = CITY_METRES * math.sqrt(random.random()), random.uniform(0, 2 * math.pi)
            x, y = metres * math.cos(angle), metres * math.sin(angle)
        else:
            x, y = random.gauss(0, CITY_METRES / 4), random.gauss(0, CITY_METRES / 4)
        latitude = CITY[0] + y / EARTH_METRES / RADIANS
        longitude = CITY[1] + x / EARTH_METRES / RADIANS / math.cos(CITY[0] * RADIANS)
        places.append((round(latitude, 6), round(longitude, 6)))
    return places


def name(number: int) -> bytes:
    return b"client%06d.example.com" % number


def entry(number: int, latitude: float, longitude: float, moment: int = NOW) -> Entry:
    line = b"AT Clark +0.263873386 %b %+.6f%+.6f %d.959498503" % (name(number), latitude, longitude, moment)
    return Entry(line, moment * 10**9 + 959_498_503)


def put(table: Table, number: int, one: Entry) -> None:
    client = name(number)
    table.put(client, one, table.leaf(client))


def table_of(places: City) -> Table:
    table = Table(bytes(32))
    for number, place in enumerate(places):
        put(table, number, entry(number, *place))
    return table


def ask(index: SpatialIndex, place: tuple[float, float], kilometres: float) -> SearchResult:
    for answer in search(index, Question(Circle(*place, kilometres * 1e3), RESULTS)):
        if answer is not None:
            return answer
    raise AssertionError


def spell(answer: SearchResult) -> bytes:
    """Return an answer as `GET /v1/near` has it."""
    return REQUEST.answer(AreaReply("near", "answered", result=answer, complete=True))


def catch_up(index: SpatialIndex) -> float:
    """Take in all changes. Return the CPU seconds of the longest slice."""
    return longest_slice(index.catch_up())


def longest_slice(steps: Iterator[object]) -> float:
    """Go all steps. Return the CPU seconds of the longest one."""
    longest, before = 0.0, time.thread_time()
    while True:
        ended = next(steps, "ended") == "ended"
        now = time.thread_time()
        longest, before = max(longest, now - before), now
        if ended:
            return longest


def search_slice(index: SpatialIndex, places: City) -> float:
    """Return the CPU seconds of the longest slice of some searches: half of the times it was at most that."""
    asked = Random(4).sample(places, 15)
    return statistics.median(
        longest_slice(search(index, Question(Circle(*place, 50_000.0), MOST_FOUND))) for place in asked
    )


def measure_index(places: City) -> tuple[SpatialIndex, dict[str, float]]:
    """Return an index, and what it costs."""
    table = table_of(places)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    index = SpatialIndex(table)
    catch_up(index)
    ask(index, CITY, 50)
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0] - before
    index.close()
    del index
    gc.collect()
    left = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    gc.freeze()  # as a server does
    began = time.thread_time()
    index = SpatialIndex(table)
    longest = catch_up(index)
    built = time.thread_time() - began
    return index, {
        "bytes_a_client": round(kept / len(places), 1),
        "unasked_bytes": round(left / len(places), 2),
        "build_us": round(built / len(places) * 1e6, 2),
        "slice_ms": round(longest * 1e3, 2),
        "search_slice_ms": round(search_slice(index, places) * 1e3, 2),
        "moved_us": round(statistics.median(moves(table, index, places)) * 1e6, 2),
        "moved_far_us": round(statistics.median(moves(table, index, places, 0.3)) * 1e6, 2),
    }


def moves(table: Table, index: SpatialIndex, places: City, degrees: float = 2e-4) -> Iterator[float]:
    """Let clients move by some 20 metres, as many as a server lets wait, again and again; yield the CPU seconds to take in
    one move.
    """
    random, moving = Random(2), min(BEHIND, len(places))
    for turn in range(1, 200):
        for number in random.sample(range(len(places)), moving):
            latitude, longitude = places[number]
            moved = (
                latitude + random.uniform(-degrees, degrees),
                longitude + random.uniform(-degrees, degrees),
            )
            put(table, number, entry(number, *moved, NOW + turn))
        began = time.thread_time()
        catch_up(index)
        yield (time.thread_time() - began) / moving
    for number, place in enumerate(places):
        put(table, number, entry(number, *place, NOW + 200))
    catch_up(index)


@contextmanager
def running_redis() -> Iterator[tuple[int, redis.Redis]]:
    """Start a Redis that writes nothing to disk. Yields its process ID, and a connection."""
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/redis.sock"
        process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        try:
            connection = redis.Redis(unix_socket_path=socket)
            deadline = time.monotonic() + 20
            while True:
                try:
                    connection.ping()
                    break
                except redis.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
            yield process.pid, connection
        finally:
            process.terminate()
            process.wait()


def fill(connection: redis.Redis, places: City) -> None:
    for first in range(0, len(places), 1_000):
        values: list[float | bytes] = []
        for number, (latitude, longitude) in enumerate(places[first : first + 1_000], first):
            values += (longitude, latitude, name(number))
        connection.geoadd("city", values)


def redis_asks(connection: redis.Redis, asked: City, kilometres: float) -> list[Any]:
    pipeline = connection.pipeline(transaction=False)
    for latitude, longitude in asked:
        pipeline.geosearch(
            *("city", None, longitude, latitude, "km", kilometres),
            sort="ASC",
            count=RESULTS,
            withdist=True,
            withcoord=True,
        )
    return pipeline.execute()


def check_alike(theirs: list[Any], ours: list[SearchResult]) -> None:
    """Both must find clients at the same distances: Redis rounds positions to half a metre."""
    for found, answer in zip(theirs, ours, strict=True):
        distances = [float(one[1]) * 1e3 for one in found]
        assert abs(len(distances) - len(answer.found)) <= 1  # one may be at the edge
        for metres, one in zip(distances, answer.found, strict=False):
            assert abs(metres - one.metres) < 2.0 + one.metres * 1e-5


def compare(
    pid: int, connection: redis.Redis, index: SpatialIndex, places: City, rounds: int
) -> dict[str, dict[str, float]]:
    """Return CPU in microseconds for a question, and the ratio, by radius."""
    random = Random(3)
    ratios: dict[int, list[tuple[float, float]]] = {kilometres: [] for kilometres in RATIOS}
    for _ in range(rounds):
        for kilometres, questions in QUESTIONS.items():
            asked = random.sample(places, questions)
            before = usage([pid])
            theirs = redis_asks(connection, asked, kilometres)
            redis_cpu = usage([pid]).since(before).cpu
            began = time.process_time()
            ours = [(answer := ask(index, place, kilometres), spell(answer)) for place in asked]
            own_cpu = time.process_time() - began
            check_alike(theirs, [answer for answer, _ in ours])
            ratios[kilometres].append((redis_cpu / questions * 1e6, own_cpu / questions * 1e6))
    return {
        f"{kilometres} km": {
            "redis_us": round(statistics.median(redis for redis, _ in pairs), 1),
            "own_us": round(statistics.median(own for _, own in pairs), 1),
            "ratio": round(statistics.median(own / redis for redis, own in pairs), 3),
        }
        for kilometres, pairs in ratios.items()
    }


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    past = []
    for spread in ("even", "dense"):
        places = city(options.clients, spread)
        index, costs = measure_index(places)
        past += [f"{spread}: {key}" for key, most in MOST.items() if costs[key] > most]
        with running_redis() as (pid, connection):
            fill(connection, places)
            figures = compare(pid, connection, index, places, options.rounds)
        past += [
            f"{spread}: {kilometres} km"
            for kilometres, most in RATIOS.items()
            if figures[f"{kilometres} km"]["ratio"] > most
        ]
        print(json.dumps({spread: {**costs, **figures}}, indent=2), flush=True)
    for what in past:
        print(f"{what} is past its bound", file=sys.stderr)
    return 1 if past else 0


if __name__ == "__main__":
    sys.exit(main())
