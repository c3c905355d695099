"""What Places costs a server in time: a client beside a crowd that asks at once, and what is added to the upstream.

    .venv/bin/python bench/places.py [--rounds 5]

Starts a real server, the stand-in for Google, and a crowd, each a process, and prints JSON. Exit code 1 where a figure,
the median over the rounds, is past its bound.

- beside_p99_ms: of a client that reports all the while that 2,000 queries are asked at once, the 99th percentile.
- added_ms: what the median query takes with 100 under way, less what the upstream takes itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/support"))

from crowd import run_crowd, warm
from herd_process import Connection, ServerProcess, now
from loaded_places import server_of
from places_sim import places_sim

BOUNDS = {"beside_p99_ms": 20.0, "added_ms": 2.0}
QUERIES = 2_000
_PATIENT = "deadline_seconds = 60.0\nattempt_seconds = 60.0\n"


class Beside:
    """A client that reports its location all the while, and how long each answer takes."""

    def __init__(self, server: ServerProcess) -> None:
        self.seconds: list[float] = []
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._report)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[-1]

    def _report(self) -> None:
        with Connection(self._server.client_port) as client:
            while not self._stop.wait(0.002):
                began = time.perf_counter()
                client.ask(b"IAMAT beside +1+1 " + now())
                self.seconds.append(time.perf_counter() - began)


def measure(rounds: int) -> dict[str, float]:
    """Return every figure of BOUNDS, in milliseconds."""
    beside, added = list[float](), list[float]()
    with places_sim("--latency", "0.2", "--quiet") as sim, server_of(sim.url, _PATIENT) as server:
        asyncio.run(warm(sim.url, QUERIES, 50))
        for _ in range(rounds):
            with Beside(server) as reporter:
                run_crowd("burst", server.client_port, QUERIES)
            beside.append(reporter.p99)
            steady = run_crowd("steady", server.client_port, 100, QUERIES // 100)
            alone = statistics.median(asyncio.run(warm(sim.url, QUERIES, 100)))
            added.append(steady["median"] - alone)
    return {
        "beside_p99_ms": round(1e3 * statistics.median(beside), 2),
        "added_ms": round(1e3 * statistics.median(added), 2),
    }


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    figures = measure(parser.parse_args().rounds)
    print(json.dumps(figures, indent=2))
    past = [name for name, most in BOUNDS.items() if figures[name] > most]
    for name in past:
        print(f"{name} is past its bound of {BOUNDS[name]}", file=sys.stderr)
    return 1 if past else 0


if __name__ == "__main__":
    sys.exit(main())
