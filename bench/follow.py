"""What it costs to tell followers of a report, and how late they are told.

    .venv/bin/python bench/follow.py [--rounds 3] [--seconds 5] [--quick]

Starts real servers, and prints JSON. Exit code 1 where a figure, the median over the rounds, is past its bound, or somebody
was not told of a report.

- one, all: 1,000 followers, each on a WebSocket, of one client, and of 1,000 clients, ten reports a second in all: 10,000
  frames a second. Ours, the broadcast of `websockets`, and nats-server take turns. cpu_us: CPU of the server for each frame,
  user and system, with all that it does for the report; its share while nothing is reported is in it. p50_ms, p99_ms: from
  sending the report to receiving each frame. Reports and followers share one process: late frames are late because of it too.
- ratio: CPU of ours for each of `websockets`, the median over the rounds.
- propagation: from a report on one server of the herd of five to the frame on the server that is farthest away, at 500
  reports a second of 500 clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from typing import Any, Final

import uvloop
from broadcasters import ALL_FOLLOWED, Followed, Ours, follow
from cpu import settle, usage
from graphs import FIVE, farthest
from lineup import ProxyherdWebSocket
from reporters import Line, at, iamat, milliseconds
from sockets import Crowd, frame

MOST: Final = {
    "one: ratio": 0.7,
    "all: ratio": 0.7,
    "propagation: p99_ms": 10.0,
}
"""What is to be reached."""

FOLLOWERS: Final = 1_000
RATE: Final = 10.0
SPREADS: Final = {"one": 1, "all": 1_000}
"""How many clients are followed."""

Figures = dict[str, float]


async def fan_out(one: Followed, clients: int, seconds: float, followers: int) -> Figures:
    """Let many follow, report, and return what each frame has cost."""
    loop = asyncio.get_running_loop()
    crowd = Crowd(one.port, one.opening, one.said(clients), one.welcome, one.mark)
    await crowd.open(followers)
    transport, _ = await loop.create_connection(Line, "127.0.0.1", one.report_port)
    try:
        transport.write(one.first_said())
        await asyncio.sleep(0.2)
        before, start = await asyncio.to_thread(settle, one.pids), time.perf_counter()
        for number in range(round(RATE * seconds)):
            await at(start, number, RATE)
            report = one.report(number % clients)
            crowd.sent.append(time.perf_counter())
            transport.write(report)
        told = await crowd.all_told()
        used = (await asyncio.to_thread(usage, one.pids)).since(before)
    finally:
        transport.abort()
        crowd.close()
    frames = len(crowd.seconds)
    assert frames, f"{one.name} told nothing"
    return {
        "cpu_us": round(used.cpu / frames * 1e6, 2),
        **milliseconds(crowd.seconds),
        "untold": 0 if told else len(crowd.sent) * followers - frames,
    }


async def compare(rounds: int, seconds: float, followers: int) -> dict[str, Any]:
    """Return the figures of all, by what is followed and by name; each is the median over the rounds."""
    taken: dict[str, dict[str, list[Figures]]] = {spread: {} for spread in SPREADS}
    for number in range(rounds):
        there = [one for one in ALL_FOLLOWED if not one.missing()]
        for kind in there[number % len(there) :] + there[: number % len(there)]:
            with kind() as one:
                for spread, clients in SPREADS.items():
                    figures = await fan_out(one, clients, seconds, followers)
                    taken[spread].setdefault(kind.name, []).append(figures)
    results: dict[str, Any] = {}
    for spread, by_name in taken.items():
        results[spread] = {name: medians(figures) for name, figures in by_name.items()}
        pairs = zip(by_name["proxyherd"], by_name["websockets"], strict=True)
        results[spread]["ratio"] = round(
            statistics.median(own["cpu_us"] / other["cpu_us"] for own, other in pairs), 2
        )
    return results


def medians(figures: list[Figures]) -> Figures:
    return {key: round(statistics.median(one[key] for one in figures), 2) for key in figures[0]}


async def propagation(seconds: float, rate: float = 500.0, clients: int = 500) -> Figures:
    """Return how late the farthest server tells."""
    first, last, hops = farthest(FIVE)
    with ProxyherdWebSocket(FIVE) as herd:
        crowd = Crowd(herd.targets[last], Ours.opening, [frame(follow(clients))], Ours.welcome, Ours.mark)
        await crowd.open(1)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(Line, "127.0.0.1", herd.ports[first])
        start = time.perf_counter()
        for number in range(round(rate * seconds)):
            await at(start, number, rate)
            crowd.sent.append(time.perf_counter())  # all come on one way, so in this order
            transport.write(iamat(number % clients))
        told = await crowd.all_told()
        transport.abort()
        crowd.close()
    return {"hops": hops, **milliseconds(crowd.seconds), "untold": 0 if told else 1}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    followers, seconds = (50, 1.0) if options.quick else (FOLLOWERS, options.seconds)
    results = await compare(1 if options.quick else options.rounds, seconds, followers)
    results["propagation"] = await propagation(seconds)
    results["left_out"] = {one.name: why for one in ALL_FOLLOWED if (why := one.missing())}
    return results


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--quick", action="store_true", help="only check that this works")
    options = parser.parse_args()
    results = uvloop.run(measure(options))
    print(json.dumps(results, indent=2))
    past = [
        f"{part}: {key}"
        for part, key in (what.split(": ") for what in MOST)
        if results[part][key] > MOST[f"{part}: {key}"]
    ]
    untold = [
        f"{part}: {name} has not told all"
        for part in (*SPREADS, "propagation")
        for name, figures in {**results[part], "": results[part]}.items()
        if isinstance(figures, dict) and figures.get("untold")
    ]
    for what in [f"{one} is past its bound" for one in past] + untold:
        print(what, file=sys.stderr)
    return 1 if untold or (past and not options.quick) else 0


if __name__ == "__main__":
    sys.exit(main())
