"""Attacks on the client port, beside clients that behave: those are answered in time, and memory has a bound.

PROXYHERD_ATTACK_ANSWERS makes each attack longer; the table that is printed (`-rP`) says what was measured before,
during and after.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path

import engines
from attackers import MOST_P99_SECONDS as HERD_P99_SECONDS
from attackers import attack
from attacks import ATTACKS
from fake_google import FakeGoogle
from herd_process import (
    Connection,
    ServerProcess,
    Stopwatch,
    herd_of,
    now,
    raise_descriptor_limit,
    running_server,
    wait_until,
)
from loaded_places import KEY
from redis_cluster import Cluster

from proxyherd.config.schema import Limits
from proxyherd.core.messages import received

ANSWERS = int(os.environ.get("PROXYHERD_ATTACK_ANSWERS", "150"))
"""Reports of clients that behave while an attack goes on; a third of them with Redis, where each takes longer."""

MIB = 1 << 20
MOST_P99_SECONDS = {engines.HERD: HERD_P99_SECONDS, engines.REDIS: 0.2}
"""What the design promises, for each process that a report waits for: with Redis also a master and its replica."""

BEHIND_FRAMING = ["never_reads", "invalid_lines", "new_clients"]
"""Those whose commands come to the engine; of the others it hears nothing."""

LIMITS = """
[limits]
max_connections = 1000
slow_reader_seconds = 1.0
"""

TABLE_LIMIT = "max_clients = 2000\n"  # the herd's alone: Redis has its maxmemory

MOST_MEMORY = 400 * MIB
"""What the limits above add up to: an empty server, and for each of a thousand connections what it may make a
server hold: one read ahead (64 KiB and what one read brings), its answers (`write_buffer_bytes` and one turn's)."""


class Behaved:
    """Clients that report, one after the other, and whose answers are timed."""

    def __init__(self, server: ServerProcess, cluster: Cluster | None) -> None:
        self.server = server
        self.connections = [server.connect() for _ in range(10)]
        self.reports = 0
        self._nodes = [] if cluster is None else [node.pid for node in cluster.nodes if node.runs]

    def ask(self, number: int) -> tuple[Stopwatch, int]:
        """Report so often; return the times of the answers, and the most memory that the server had meanwhile."""
        watch, memory = Stopwatch(self.server.pid, self._nodes), 0
        for _ in range(number):
            connection = self.connections[self.reports % len(self.connections)]
            self.reports += 1
            line = b"IAMAT behaved%d +34.068930-118.445127 %b" % (self.reports % 50, now())
            answer = watch.ask(connection, line)
            assert answer.startswith(b"AT Clark ")
            assert answer.endswith(line[6:] + b"\n")
            memory = max(memory, self.server.memory())
            time.sleep(0.001)  # leaves the attack its turns; nothing waits for it
        return watch, memory

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


@engines.on("name", ATTACKS, BEHIND_FRAMING)
def test_clients_that_behave_are_answered_in_time_whatever_others_do(
    name: str, cluster: Cluster | None
) -> None:
    raise_descriptor_limit(4_000)
    with running_server(more=LIMITS + TABLE_LIMIT * (cluster is None), cluster=cluster) as clark:
        behaved, rows = Behaved(clark, cluster), {}
        opened = "proxyherd_client_connections_opened_total"
        try:
            rows["before"] = behaved.ask(100)
            with attack(name, clark.client_port):
                wait_until(lambda: clark.metrics()[opened] >= 10 + 4, "the attack has begun")
                rows["during"] = behaved.ask(ANSWERS if cluster is None else ANSWERS // 3)
            rows["after"] = behaved.ask(100)
        finally:
            behaved.close()
        for phase, (watch, memory) in rows.items():
            print(
                f"{name:17} {phase:7} {len(watch.seconds):6} answers, "
                f"p50 {watch.p50 * 1e3:6.2f} ms, p99 {watch.p99 * 1e3:6.2f} ms, {memory / MIB:6.1f} MiB"
            )
        watch, memory = rows["during"]
        assert watch.p99 < MOST_P99_SECONDS[engines.HERD if cluster is None else engines.REDIS]
        assert memory < MOST_MEMORY
        # Nothing of it stays: connections are let go, and new ones are taken.
        wait_until(lambda: clark.metrics()["proxyherd_client_connections"] == 0, "every connection is let go")
        with clark.connect() as connection:
            assert connection.ask(b"FOO") == b"? FOO\n"
        assert not clark.events("internal_error")
        assert clark.stderr() == ""


def test_past_max_clients_only_new_clients_are_refused() -> None:
    # Not with Redis: see TABLE_LIMIT.
    with running_server(more="[limits]\nmax_clients = 2\n") as clark, clark.connect() as connection:
        for client in (b"one", b"two"):
            assert connection.ask(b"IAMAT %b +1+1 %b" % (client, now())).startswith(b"AT ")
        line = b"IAMAT three +1+1 5"
        assert connection.ask(line) == b"? " + line + b"\n"
        assert connection.ask(b"IAMAT one +2+2 %b" % now()).startswith(b"AT ")


def test_one_connection_that_asks_for_places_all_the_time_leaves_others_their_part_of_the_budget() -> None:
    with (
        FakeGoogle() as google,
        running_server(
            more=f'[places]\nprovider = "google"\nbase_url = "{google.host}"\ncalls_per_minute = 200\n',
            environ=KEY,
        ) as clark,
        contextlib.closing(Behaved(clark, None)) as behaved,
    ):
        clark.hears(b"known")
        with attack("all_places", clark.client_port):
            spared = 'proxyherd_places_spared_total{why="share"}'
            wait_until(lambda: clark.metrics()[spared] >= 100, "its share is spent")
            wait_until(lambda: len(google.requests) == 100, "all of it has arrived")
            watch, _ = behaved.ask(ANSWERS)
            for _ in range(5):
                with clark.connect() as other:
                    answers = [other.ask(b"WHATSAT known 6.%d 5" % number) for number in range(5)]
                assert all(b'"OK"' in answer for answer in answers), answers
        assert len(google.requests) == 125
        assert watch.p99 < MOST_P99_SECONDS[engines.HERD]
        assert not clark.events("internal_error")


def test_one_connection_that_fills_the_table_with_long_ids_keeps_nobody_out_if_the_table_makes_room() -> None:
    with (
        running_server(more='[limits]\nmax_table_bytes = 20_000_000\non_full = "evict"\n') as clark,
        contextlib.closing(Behaved(clark, None)) as behaved,
    ):
        with attack("long_ids", clark.client_port):
            wait_until(lambda: clark.metrics()["proxyherd_clients_evicted_total"] > 0, "the table is full")
            watch, memory = behaved.ask(ANSWERS)
            for number in range(20):
                assert clark.knows(clark.hears(b"new%d" % number).split()[3])
        assert clark.metrics()["proxyherd_clients"] * 2 * 512 < 20_000_000
        assert clark.wait_for_event("clients_evicted")["clients"] > 0
        assert watch.p99 < MOST_P99_SECONDS[engines.HERD]
        assert memory < MOST_MEMORY
        assert not clark.events("internal_error")


def test_one_connection_that_reports_a_client_far_in_the_future_all_the_time_locks_it_out_only_as_long_as_it_does() -> (
    None
):
    with running_server() as clark, contextlib.closing(Behaved(clark, None)) as behaved:
        with attack("victim_of_the_future", clark.client_port):
            wait_until(lambda: clark.knows(b"victim").endswith(b" 999999999999\n"), "the attack has begun")
            watch, _ = behaved.ask(ANSWERS)
        left = len(behaved.connections)
        wait_until(lambda: clark.metrics()["proxyherd_client_connections"] == left, "the attacker is gone")
        free = received(clark.knows(b"victim")[:-1]) + Limits().clock_lead
        wait_until(lambda: time.time_ns() > free, "max_clock_lead_seconds have passed")
        at_line = clark.hears(b"victim")
        assert clark.knows(b"victim") == at_line
        assert watch.p99 < MOST_P99_SECONDS[engines.HERD]
        assert not clark.events("internal_error")


def test_connections_past_the_limit_are_refused_until_there_is_room_and_harm_nobody(
    cluster: Cluster | None,
) -> None:
    with running_server(more="[limits]\nmax_connections = 3\n", cluster=cluster) as clark:
        inside = [clark.connect() for _ in range(3)]
        for connection in inside:
            assert connection.ask(b"FOO") == b"? FOO\n"
        outside = clark.connect()
        wait_until(outside.is_ended, "one too many is let go")
        clark.wait_for_event("client_refused")
        assert clark.metrics()['proxyherd_client_connections_closed_total{reason="refused"}'] == 1
        for connection in inside:
            assert connection.ask(b"BAR") == b"? BAR\n"
        inside.pop().close()
        wait_until(lambda: clark.metrics()["proxyherd_client_connections"] == 2, "one has gone")
        with Connection(clark.client_port) as new:
            assert new.ask(b"BAZ") == b"? BAZ\n"
        for connection in (outside, *inside):
            connection.close()


def test_out_of_descriptors_clients_inside_are_unharmed_it_is_told_and_there_is_room_again_at_once(
    cluster: Cluster | None,
) -> None:
    with running_server(cluster=cluster) as clark, clark.connect() as inside:
        assert inside.ask(b"FOO") == b"? FOO\n"
        held = len(list(Path(f"/proc/{clark.pid}/fd").iterdir()))
        before = resource.prlimit(clark.pid, resource.RLIMIT_NOFILE)
        began = time.monotonic()
        resource.prlimit(clark.pid, resource.RLIMIT_NOFILE, (held + 5, before[1]))
        outside = [clark.connect() for _ in range(40)]
        wait_until(
            lambda: any("Too many open files" in one["reason"] for one in clark.events("client_refused")),
            "it is told",
        )
        for _ in range(200):  # turns of its loop, in each of which it could try in vain
            assert inside.ask(b"BAR") == b"? BAR\n"
        resource.prlimit(clark.pid, resource.RLIMIT_NOFILE, before)
        for connection in outside:  # they waited in the kernel's queue, and none was turned away
            assert connection.ask(b"BAZ") == b"? BAZ\n"
            connection.close()
        refused = clark.metrics()['proxyherd_client_connections_closed_total{reason="refused"}']
        assert 0 < refused <= 2 + (time.monotonic() - began) / 0.1, "ten attempts a second"
        assert not clark.events("internal_error")


def test_a_limit_that_the_system_does_not_allow_is_lowered_at_start_and_told(cluster: Cluster | None) -> None:
    with herd_of([], "Clark", cluster=cluster) as herd:
        clark = herd["Clark"]
        clark.program = ["prlimit", "--nofile=700:700", *clark.program]
        clark.start()
        lowered = clark.wait_for_event("limit_lowered", limit="max_connections", wanted=20_000)
        assert 0 < lowered["now"] < 700
        assert "700 file descriptors" in lowered["reason"]
        clark.wait_until_ready()
        inside = [clark.connect() for _ in range(lowered["now"])]
        for connection in inside:
            assert connection.ask(b"FOO") == b"? FOO\n"
        with clark.connect() as outside:
            wait_until(outside.is_ended, "one too many is let go")
        for connection in inside:
            connection.close()
