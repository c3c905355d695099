"""The stand-in for Google that `proxyherd places-sim` serves, for tests: as a process, or in a thread of the test's own.

    with places_sim("--latency", "0.2") as sim:
        herd.places(base_url=sim.url)

    with simulator_in_thread(Faults(errors=1.0)) as sim:
        ...
        sim.faults = Faults(drop=0.5)
        assert sim.requests[-1].path == "/v1/places:searchNearby"

Both serve at a free port, and answer from the real gazetteer unless told otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from gazetteer_file import gazetteer_file
from herd_process import PATIENCE_SECONDS

from proxyherd.places.gazetteer.provider import Gazetteer
from proxyherd.standin.app import Faults, Simulator, Source
from proxyherd.standin.shapes import SimulatedQuery

_OURS = re.compile(r"PROXYHERD_|GOOGLE_PLACES_|CREDENTIALS_DIRECTORY")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "proxyherd", "places-sim", *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    """Return the test's own environment, less what would reach into a simulator."""
    return {name: value for name, value in os.environ.items() if not _OURS.match(name)} | variables


class PlacesSim:
    """A running `proxyherd places-sim`."""

    def __init__(self, process: subprocess.Popen[str], stderr: IO[str]) -> None:
        self.process = process
        self._stderr = stderr
        self._printed = threading.Condition()
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.url = self._first_line()
        self._thread.start()

    @property
    def lines(self) -> list[str]:
        """What it has printed since its URL."""
        with self._printed:
            return [*self._lines]

    @property
    def stderr(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()

    def stats(self) -> dict[str, Any]:
        return stats(self.url)

    def wait_for_lines(self, count: int) -> list[str]:
        """Return the first lines behind the URL, once there are so many."""
        with self._printed:
            there = self._printed.wait_for(lambda: len(self._lines) >= count, PATIENCE_SECONDS)
            assert there, f"{len(self._lines)} of {count} lines: {self._lines}"
            return self._lines[:count]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end, and return its exit code once it has."""
        self.process.send_signal(number)
        try:
            code = self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self._thread.join(PATIENCE_SECONDS)
        return code

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_SECONDS)
        line = self.process.stdout.readline().strip() if ready else ""
        if not line.startswith("http://"):
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no URL but {line!r}; stderr: {self.stderr}")
        return line

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._printed:
                self._lines.append(line.rstrip("\n"))
                self._printed.notify_all()


@contextlib.contextmanager
def places_sim(
    *arguments: str | Path,
    gazetteer: Path | None = None,
    env: Mapping[str, str] | None = None,
    soft_limit: int | None = None,
) -> Iterator[PlacesSim]:
    """Run the command at a free port until the block ends; `env` comes on top of what `environment` leaves, and
    `soft_limit` of descriptors in place of the test's own.
    """
    limited = [] if soft_limit is None else ["sh", "-c", f'ulimit -Sn {soft_limit}; exec "$@"', "sh"]
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            [
                *limited,
                *command(
                    "--address", "127.0.0.1:0", "--gazetteer", gazetteer or gazetteer_file(), *arguments
                ),
            ],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment(**(env or {})),
        )
        assert process.stdout is not None
        with process.stdout:
            sim = PlacesSim(process, stderr)
            try:
                yield sim
            finally:
                if process.poll() is None:
                    sim.end()


class InThread:
    """A simulator in a thread with its own event loop."""

    def __init__(self, faults: Faults, source: Source, key: str | None, seed: int | None) -> None:
        self.requests: list[SimulatedQuery] = []
        self.url = ""
        self._arrived = threading.Condition()
        self._started = threading.Event()
        self._simulator = Simulator(source, key=key, faults=faults, seed=seed, on_request=self._record)
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    @property
    def faults(self) -> Faults:
        return self._simulator.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._simulator.faults = faults

    def stats(self) -> dict[str, Any]:
        return stats(self.url)

    def wait_for(self, requests: int) -> None:
        """Wait until so many requests have arrived in all; from a test with a loop, in `to_thread`."""
        with self._arrived:
            there = self._arrived.wait_for(lambda: len(self.requests) >= requests, PATIENCE_SECONDS)
        assert there, f"{len(self.requests)} of {requests} requests arrived"

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(PATIENCE_SECONDS)
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the simulator does not end"

    def _record(self, asked: SimulatedQuery) -> None:
        with self._arrived:
            self.requests.append(asked)
            self._arrived.notify_all()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            self.url = await self._simulator.start("127.0.0.1", 0)
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        await self._ended.wait()
        await self._simulator.close()


@contextlib.contextmanager
def simulator_in_thread(
    faults: Faults | None = None,
    *,
    source: Source | None = None,
    key: str | None = None,
    seed: int | None = 1,
) -> Iterator[InThread]:
    """Serve until the block ends. `faults` may be replaced meanwhile; `requests` is all that has arrived."""
    sim = InThread(faults or Faults(), source or Gazetteer(gazetteer_file()), key, seed)
    sim.start()
    try:
        yield sim
    finally:
        sim.stop()


def stats(url: str) -> dict[str, Any]:
    """Return what GET /stats says."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", "/stats")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
