"""What a million clients cost: replay, catch-up, memory, the links of others, and stalls of the event loop.

    .venv/bin/python bench/million.py [--clients 1000000] [--only replay catch_up links growth]

Starts real servers, each a process of its own, on journals that are written directly, and prints JSON. Latencies are
those of a client that has one command outstanding, every few milliseconds, while the rest goes on.

- replay: one server, at the largest journal that the rewriting rule allows: a snapshot of all clients and half of its
  bytes of updates in a segment.
- catch_up: an empty server from its one neighbour.
- links: an empty server joins four others; bytes on the links that are not its own, beside those of as many idle seconds.
- growth: reports of clients never seen, until there are three times as many; what a bystander waits.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/support"))

from herd_process import Connection, RunningHerd, ServerProcess, herd_of, now, wait_until
from link_proxy import Links, proxied

from proxyherd.engines.herd.journal import record

PATIENCE_SECONDS = 600.0
JOINER = "Bona"
REPORTED = int(time.time()) - 60
"""When the journals' reports were received: a journal that is older than tombstones are kept is not used."""
EDGES = [
    ("Bailey", "Campbell"),
    ("Bona", "Bailey"),
    ("Bona", "Campbell"),
    ("Bona", "Clark"),
    ("Campbell", "Jaquez"),
    ("Clark", "Jaquez"),
]


def line(client: int, seconds: int) -> bytes:
    """Return the AT line of a client, as long as they are."""
    return b"AT Clark +0.263873386 client%07d.example.com +34.068930-118.445127 %d.959498503" % (
        client,
        seconds,
    )


def write_journal(file: Path, clients: int) -> None:
    """Write a snapshot of so many clients."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as output:
        for first in range(0, clients, 10_000):
            output.write(b"".join(record(line(client, REPORTED)) for client in range(first, first + 10_000)))


def write_updates(file: Path, clients: int, most_bytes: int) -> None:
    """Write later reports of every other client, as many as fit."""
    records = len(record(line(0, REPORTED + 1)))
    with file.open("wb") as output:
        for at in range(most_bytes // records):
            output.write(record(line(2 * at % clients, REPORTED + 1)))


class Probe:
    """A client with one command outstanding, a pause after each answer; it keeps how long answers took."""

    def __init__(self, server: ServerProcess, pause: float = 0.002) -> None:
        self.seconds: dict[str, list[float]] = {"iamat": [], "whatsat": []}
        self._server = server
        self._pause = pause
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection = wait_until(self._connect, f"{self._server.name} listens")
        name = b"probe-%b" % self._server.name.encode()
        with connection:
            while not self._ends.is_set():
                for command in ("iamat", "whatsat"):
                    text = (
                        b"IAMAT %b +1+1 %b" % (name, now())
                        if command == "iamat"
                        else b"WHATSAT %b 0 0" % name
                    )
                    began = time.perf_counter()
                    answer = connection.ask(text)
                    self.seconds[command].append(time.perf_counter() - began)
                    assert answer.startswith(b"AT "), answer
                self._ends.wait(self._pause)

    def _connect(self) -> Connection | None:
        try:
            return self._server.connect()
        except OSError:
            return None

    def end(self) -> dict[str, Any]:
        """Return what it saw, in milliseconds."""
        self._ends.set()
        self._thread.join()
        return {command: summary(seconds) for command, seconds in self.seconds.items()}


def summary(seconds: list[float]) -> dict[str, float]:
    """Return the figures of a sample, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "samples": len(seconds),
        "p50_ms": round(1e3 * statistics.median(seconds), 2),
        "p99_ms": round(1e3 * cuts[98], 2),
        "max_ms": round(1e3 * max(seconds), 2),
    }


def lag_ms(server: ServerProcess) -> float:
    """Return a bound, in milliseconds, that the event loop was never later than."""
    buckets = server.metrics("proxyherd_event_loop_lag_seconds_bucket")
    most = max(buckets.values())
    return min(1e3 * float(name.split('"')[1]) for name, count in buckets.items() if count == most)


def clients_known(server: ServerProcess) -> float:
    """Return how many clients a server knows."""
    return server.metrics("proxyherd_clients")["proxyherd_clients"]


def is_ready(server: ServerProcess) -> bool:
    """Return whether it says so; fail when it has ended."""
    assert server.process is not None
    assert server.process.poll() is None, server.stderr()
    return server.readiness()[0] == 200


def wait_ready(*servers: ServerProcess) -> None:
    """Wait until they are, however long that takes."""
    for server in servers:
        wait_until(partial(is_ready, server), f"{server.name} is ready", PATIENCE_SECONDS)


def empty_server_bytes() -> int:
    """Return the memory of a server that knows nobody."""
    with herd_of([], "Clark") as herd:
        herd.start()
        wait_ready(herd["Clark"])
        time.sleep(2)  # until what is imported late is there
        return herd["Clark"].memory()


def measure_replay(clients: int) -> dict[str, Any]:
    """One server starts at the largest journal."""
    empty = empty_server_bytes()
    with herd_of([], "Clark") as herd:
        clark = herd["Clark"]
        snapshot = clark.state / "journal/000000000001.snapshot"
        write_journal(snapshot, clients)
        size = snapshot.stat().st_size
        write_updates(snapshot.with_name("000000000002.segment"), clients, max(size // 2, 33_554_432))
        began = time.monotonic()
        clark.start()
        probe = Probe(clark)
        wait_until(lambda: probe.seconds["iamat"], "the first answer", PATIENCE_SECONDS)
        listening = time.monotonic() - began
        wait_ready(clark)
        ready = time.monotonic() - began
        latency = probe.end()
        [replayed] = clark.events("replayed")
        assert clients_known(clark) == clients + 1
        grown = clark.memory() - empty
        return {
            "replay_seconds": replayed["seconds"],
            "lines": replayed["lines"],
            "first_answer_after_seconds": round(listening, 3),
            "ready_after_seconds": round(ready, 3),
            "meanwhile": latency,
            "lag_at_most_ms": lag_ms(clark),
            "bytes_a_client": round(grown / clients, 1),
            "empty_server_mib": round(empty / 2**20, 1),
        }


def measure_catch_up(clients: int) -> dict[str, Any]:
    """An empty server joins the one that knows everybody."""
    empty = empty_server_bytes()
    with herd_of([("Ann", "Bob")]) as herd:
        ann, bob = herd.values()
        write_journal(ann.state / "journal/000000000001.snapshot", clients)
        ann.start()
        wait_ready(ann)
        probes = {"of the neighbour": Probe(ann), "of the empty server": Probe(bob)}
        began = time.monotonic()
        bob.start()
        wait_until(lambda: bob.events("caught_up"), "it has caught up", PATIENCE_SECONDS)
        seconds = time.monotonic() - began
        latencies = {name: probe.end() for name, probe in probes.items()}
        [first, *_] = bob.events("caught_up")
        known = clients_known(bob)
        assert known >= clients, known
        return {
            "catch_up_seconds": first["seconds"],
            "from_start_seconds": round(seconds, 3),
            "lines": first["lines"],
            "meanwhile": latencies,
            "lag_at_most_ms": {"of the neighbour": lag_ms(ann), "of the empty server": lag_ms(bob)},
            "bytes_a_client": round((bob.memory() - empty) / clients, 1),
        }


def measure_links(clients: int) -> dict[str, Any]:
    """An empty server joins four that know everybody."""
    with herd_of(EDGES) as herd, proxied(herd) as links:
        try:
            return _join(herd, links, clients)
        finally:
            herd.end()  # before the proxies


def _join(herd: RunningHerd, links: Links, clients: int) -> dict[str, Any]:
    joiner = herd[JOINER]
    others = [server for server in herd.values() if server is not joiner]
    snapshots = [server.state / "journal/000000000001.snapshot" for server in others]
    write_journal(snapshots[0], clients)
    for snapshot in snapshots[1:]:
        snapshot.parent.mkdir(parents=True)
        shutil.copyfile(snapshots[0], snapshot)
    for server in others:
        server.start()
    wait_ready(*others)
    for server in others:
        server.wait_until_linked(*(name for name in server.neighbours if name != JOINER))

    def checks() -> float:
        return sum(sum(server.metrics("proxyherd_checks_total").values()) for server in others)

    theirs = [name for name in links if JOINER not in name.split("-")]
    wait_until(lambda: checks() >= 2 * len(theirs), "they have compared", PATIENCE_SECONDS)

    def carried() -> dict[str, int]:
        return {name: count for name, count in links.carried().items() if name in theirs}

    began, before = time.monotonic(), carried()
    joiner.start()
    wait_until(
        lambda: len({one["neighbour"] for one in joiner.events("caught_up")}) == len(joiner.neighbours),
        "it has caught up with all",
        PATIENCE_SECONDS,
    )
    wait_until(
        lambda: all(herd[name].events("caught_up", neighbour=JOINER) for name in joiner.neighbours),
        "all have caught up with it",
        PATIENCE_SECONDS,
    )
    seconds = time.monotonic() - began
    time.sleep(2)  # for what they may still have to say to each other
    after = carried()
    return {
        "joined_after_seconds": round(seconds, 3),
        "clients": clients_known(joiner),
        "bytes": {name: after[name] - before[name] for name in theirs},
        "all_others_bytes": sum(after.values()) - sum(before.values()),
        "own_links_bytes": {name: count for name, count in links.carried().items() if name not in theirs},
    }


def report(port: int, first: int, last: int) -> None:
    """Report clients never seen, 128 outstanding."""
    with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as answers:
        for start in range(first, last, 128):
            end = min(start + 128, last)
            stamp = now()
            sock.sendall(
                b"".join(
                    b"IAMAT client%07d.example.com +34.068930-118.445127 %b\n" % (client, stamp)
                    for client in range(start, end)
                )
            )
            for _ in range(start, end):
                assert answers.readline().startswith(b"AT ")


def measure_growth(clients: int) -> dict[str, Any]:
    """One server's table grows from nothing to three times as many."""
    empty = empty_server_bytes()
    with herd_of([], "Clark", more='[log]\nlevel = "warning"\n') as herd:
        clark = herd["Clark"]
        clark.start()
        wait_ready(clark)
        probe = Probe(clark, pause=0.001)
        began = time.monotonic()
        load = multiprocessing.Process(target=report, args=(clark.client_port, 0, 3 * clients))
        load.start()
        load.join()
        assert load.exitcode == 0
        seconds = time.monotonic() - began
        latency = probe.end()
        assert clients_known(clark) == 3 * clients + 1
        return {
            "seconds": round(seconds, 1),
            "reports_a_second": round(3 * clients / seconds),
            "meanwhile": latency,
            "lag_at_most_ms": lag_ms(clark),
            "rewrites": sum(path.suffix == ".snapshot" for path in (clark.state / "journal").iterdir()),
            "bytes_a_client": round((clark.memory() - empty) / (3 * clients), 1),
        }


MEASURES: dict[str, Callable[[int], dict[str, Any]]] = {
    "replay": measure_replay,
    "catch_up": measure_catch_up,
    "links": measure_links,
    "growth": measure_growth,
}


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=1_000_000, help="a multiple of 10,000")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    options = parser.parse_args()
    machine = {"cpus": os.cpu_count(), "load_before": os.getloadavg()[0]}
    results = {name: MEASURES[name](options.clients) for name in options.only}
    print(json.dumps({"clients": options.clients, "machine": machine, **results}, indent=2))


if __name__ == "__main__":
    main()
