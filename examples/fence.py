"""Fifty phones move through Los Angeles and report to the herd, and a page has a fence that lights up when one comes in.

make example        starts the default herd if it does not run, then the phones; Ctrl-C ends what it has started

Each phone keeps one WebSocket to one of the servers. When that breaks, it goes to another one: try to kill a server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import aiohttp
from journeys import Journey, journeys, measured

from proxyherd.config import herd_file

ROOT: Final = Path(__file__).parents[1]
HERD: Final = ROOT / "deploy/herd.toml"

REPORT_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 1.0
"""Before a phone tries another server, at most; each waits another while."""


def main() -> int:
    """Start what does not run, let the phones report until a signal comes, and end what was started."""
    parser = argparse.ArgumentParser(description="Fifty phones move through Los Angeles.")
    parser.add_argument(
        "--servers",
        metavar="HOST:PORT,...",
        help="web ports of a herd that runs  [default: those of the default herd]",
    )
    ports = parser.parse_args().servers
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.suppress(KeyboardInterrupt), running_herd(ports) as servers:
        print(
            f"Fifty phones report. Open http://{servers[0]}/fence in a browser; Ctrl-C ends them.", flush=True
        )
        asyncio.run(report_all(servers))
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def running_herd(ports: str | None) -> Iterator[list[str]]:
    """Give the web ports of a herd that runs: those that were named, or else those of the default herd, which is started if
    it does not run, and then stopped at the end. Ends the program if it cannot be started.
    """
    if ports:
        yield ports.split(",")
        return
    was_up = local_herd("is-up") == 0
    try:
        if not was_up:
            print("The herd does not run, and is started.", flush=True)
        if local_herd("up"):
            sys.exit(1)
        herd = herd_file.load(HERD)
        yield [str(server.web[0]) for server in herd.servers.values()]
    finally:
        if not was_up:
            local_herd("down")
            print("The herd was started for this, and has stopped.", flush=True)


def local_herd(step: str) -> int:
    """Take a step with the default herd: `is-up`, `up` or `down`. It says itself on stderr what is wrong; return its exit
    code.
    """
    module = "proxyherd" if step == "up" else "proxyherd.local"
    environ = {**os.environ, "PROXYHERD_TYPED": "make example"}
    command_line = [sys.executable, "-m", module, step]
    return subprocess.run(  # noqa: S603 - fixed words
        command_line, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, check=False
    ).returncode


async def report_all(servers: Sequence[str]) -> None:
    """Let all phones report, for ever. They begin with different servers."""
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        for number, journey in enumerate(journeys()):
            first = number % len(servers)
            tasks.create_task(keep_reporting(session, journey, [*servers[first:], *servers[:first]]))


async def keep_reporting(session: aiohttp.ClientSession, journey: Journey, servers: Sequence[str]) -> None:
    """Let one phone report to the first of the servers that it reaches, and to the next one when that is gone."""
    rng = random.Random(journey.name)  # noqa: S311 - no secret
    for server in itertools.cycle(servers):
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with session.ws_connect(f"ws://{server}/v1/ws", protocols=["proxyherd.json.v1"]) as socket:
                await report(socket, journey, rng)
        await asyncio.sleep(rng.uniform(0, PAUSE_SECONDS))


async def report(socket: aiohttp.ClientWebSocketResponse, journey: Journey, rng: random.Random) -> None:
    """Report where the phone is, again and again, until the server closes. Raises TimeoutError."""
    await asyncio.sleep(rng.uniform(0, REPORT_SECONDS))  # phones are not in step
    while True:
        now = time.time()
        latitude, longitude = measured(journey.at(now), rng)
        place = {"lat": f"{latitude:.6f}", "lon": f"{longitude:.6f}", "time": f"{now:.6f}"}
        await socket.send_str(json.dumps({"op": "report", "id": 1, "client": journey.name, **place}))
        answer = await socket.receive(ANSWER_SECONDS)
        if answer.type is not aiohttp.WSMsgType.TEXT:
            return
        await asyncio.sleep(REPORT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
