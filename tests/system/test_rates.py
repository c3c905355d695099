"""One address, or one connection, that takes all it can get: it is held back, and nobody else notices. Loopback addresses
stand for those of a network, and are counted.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attackers import MOST_P99_SECONDS, Reporter, attack
from click.testing import CliRunner
from herd_process import (
    Connection,
    ServerProcess,
    Stopwatch,
    herd_of,
    now,
    raise_descriptor_limit,
    running_server,
    wait_until,
    write_secret,
)

from proxyherd import cli

RATES = """
[limits]
max_connections = 4000
[rates]
exempt = []
new_connections_per_address = 0
burst_seconds = 1
"""

EVE = "127.0.6.66"
CONNECTIONS_PER_ADDRESS = 2_000
A_SECOND, BURST = 500, 500
SLACK = 64 + 2 * 64
"""Lines of a connection that are taken before they are paid for, and in the turn in which the server counts them."""

REFUSED = 'proxyherd_client_connections_refused_total{reason="connections_per_address"}'
OPEN = "proxyherd_client_connections"
OVER = "proxyherd_clients_over_rate"


@pytest.fixture(scope="module")
def clark() -> Iterator[ServerProcess]:
    raise_descriptor_limit(6_000)
    with running_server(more=RATES) as server:
        yield server
        assert not server.events("internal_error")
        assert server.stderr() == ""


def asked(server: ServerProcess, reports: int) -> Stopwatch:
    """Return the times of answers to clients that behave."""
    watch = Stopwatch(server.pid)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(server.client_port)) for _ in range(10)]
        for number in range(reports):
            line = b"IAMAT behaved%d +34.068930-118.445127 %b" % (number % 50, now())
            assert watch.ask(connections[number % 10], line).startswith(b"AT Clark ")
            time.sleep(0.001)  # leaves the attack its turns
    return watch


def status(server: ServerProcess) -> str:
    """Return what `proxyherd status` prints."""
    command = [sys.executable, "-m", "proxyherd", "status", "--config", str(server.herd.file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.stderr == ""
    return done.stdout


def test_five_thousand_connections_of_one_address_with_a_line_now_and_then_leave_room_for_all_others(
    clark: ServerProcess,
) -> None:
    held = []
    for _ in range(5_000):
        sock = socket.create_connection(("127.0.0.1", clark.client_port), source_address=(EVE, 0))
        held.append(sock)
    wait_until(lambda: clark.metrics()[REFUSED] == 5_000 - CONNECTIONS_PER_ADDRESS, "the rest is refused")
    assert clark.metrics()[OPEN] == CONNECTIONS_PER_ADDRESS
    assert asked(clark, 200).p99 < MOST_P99_SECONDS
    answered = 0
    for sock in held:  # what keeps a connection open for another quarter of an hour
        with contextlib.suppress(OSError):
            sock.sendall(b"\n")
            answered += sock.recv(10) == b"? \n"
    assert answered == CONNECTIONS_PER_ADDRESS
    assert asked(clark, 200).p99 < MOST_P99_SECONDS
    for sock in held:
        sock.close()
    wait_until(lambda: clark.metrics()[OPEN] == 0, "every connection is gone")


def test_a_connection_that_floods_is_held_to_its_rate_and_delays_nobody(clark: ServerProcess) -> None:
    invalid = 'proxyherd_commands_total{command="other",outcome="invalid"}'
    before, began = clark.metrics()[invalid], time.monotonic()
    with attack("one_connection", clark.client_port, EVE):
        wait_until(lambda: clark.metrics()[OVER] == 1, "it waits")
        watch = asked(clark, 400)
        taken, seconds = clark.metrics()[invalid] - before, time.monotonic() - began
        wait_until(lambda: "1 client waits, over a rate of [rates]" in status(clark), "the status has it")
    assert watch.p99 < MOST_P99_SECONDS
    assert taken <= BURST + A_SECOND * seconds + SLACK
    assert taken >= BURST
    wait_until(lambda: clark.metrics()[OVER] == clark.metrics()[OPEN] == 0, "it is gone")
    event = clark.events("client_over_rate")[-1]
    assert (event["client"].partition(":")[0], event["limit"]) == (EVE, "connection")


# One token. ----------------------------------------------------------------------------------------------------

A_TOKEN_SECOND = 50
WITH_TOKENS = f"""
[web]
[auth]
web = "jwt"
keys = ["../var/token-key"]
[rates]
exempt = []
commands_per_subject = {A_TOKEN_SECOND}
burst_seconds = 1
"""


def test_one_token_over_many_connections_and_addresses_is_held_to_its_rate_and_delays_nobody() -> None:
    with herd_of([], "Clark", more=WITH_TOKENS) as herd:
        key, clark = herd.folder / "var/token-key", herd["Clark"]
        write_secret(key)
        herd.start()
        clark.wait_until_ready()
        clark.wait_for_web()
        eve, jane = (token_of(herd.file, name) for name in ("eve", "jane"))
        began, watch = time.monotonic(), Stopwatch(clark.pid)
        with attack("one_token", clark.web_port, EVE, "127.0.6.67", "127.0.6.68", token=eve):
            wait_until(lambda: status_429(clark) > 0, "it is told when to come again")
            with Reporter(clark, "jane", jane) as client:
                for _ in range(60):
                    assert watch.ask(client, b'{"lat":1,"lon":2}') == b"HTTP/1.1 200 OK\r\n"
                    time.sleep(0.025)  # within its own rate
            taken = sum(clark.metrics("proxyherd_commands_total").values()) - 60
            seconds = time.monotonic() - began
        assert watch.p99 < MOST_P99_SECONDS
        assert A_TOKEN_SECOND <= taken <= A_TOKEN_SECOND * (1 + seconds) + 6
        assert clark.metrics()['proxyherd_client_waits_total{limit="subject"}'] > 0
        assert not clark.events("internal_error")
        assert eve not in clark.log_file.read_text()


def token_of(file: Path, name: str) -> str:
    command = ["--config", str(file), "token", "new", "--sub", name, "--may", "report"]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def status_429(server: ServerProcess) -> float:
    return server.metrics()['proxyherd_web_answers_total{status="429"}']
