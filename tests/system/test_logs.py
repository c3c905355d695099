"""Logs of real servers while they are rotated and nobody reads them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from documented import LIFE, examples
from herd_process import herd_of, read_log, running_server, wait_until
from observed import lines_in
from redis_cluster import Cluster

WHILE_IT_STARTS = """
import os, runpy, signal, sys

class Rotator:  # uvloop is imported when the log is open and no handler stands yet
    def find_spec(self, name, path=None, target=None):
        log = sys.argv[sys.argv.index("--log-file") + 1]
        if name == "uvloop" and os.path.exists(log):
            os.rename(log, log + "-1")
            os.kill(os.getpid(), signal.SIGHUP)

sys.meta_path.insert(0, Rotator())
sys.argv[0] = "proxyherd"
runpy.run_module("proxyherd", run_name="__main__", alter_sys=True)
"""


def test_a_rotation_between_the_opening_of_the_log_and_the_first_handler_is_heard(
    cluster: Cluster | None,
) -> None:
    with herd_of([], "Clark", cluster=cluster) as herd:
        clark = herd["Clark"]
        clark.program = [sys.executable, "-c", WHILE_IT_STARTS]
        clark.start()
        clark.wait_for_event("reloaded")
        clark.wait_for_event("ready")
        clark.ask(b"FOO")
        assert clark.stop() == 0
        renamed = read_log(clark.log_file.with_name("Clark.log-1"))
        assert [event["event"] for event in renamed + clark.log()].count("started") == 1
        assert len(clark.events("command")) == 1
        assert clark.stderr() == ""


def test_hangups_while_it_stops_do_not_end_it_before_its_last_line(cluster: Cluster | None) -> None:
    with running_server(cluster=cluster) as clark:
        clark.signal(signal.SIGTERM)
        assert clark.process
        while clark.process.poll() is None:
            clark.process.send_signal(signal.SIGHUP)
        assert clark.process.returncode == 0
        assert clark.log()[-1]["event"] == "stopped"


def test_a_thousand_hangups_in_a_row_lose_no_line_and_no_client(cluster: Cluster | None) -> None:
    with running_server(cluster=cluster) as clark, clark.connect() as client:
        commands = [b"IAMAT kiwi%d +1+1 1700000000" % number for number in range(1_000)]
        for number, command in enumerate(commands):
            archived = clark.log_file.with_name(f"Clark.log-{number:03}")
            if clark.log_file.exists():
                clark.log_file.replace(archived)
            clark.signal(signal.SIGHUP)
            assert client.ask(command).startswith(b"AT Clark ")
        assert clark.stop() == 0
        files = clark.log_file.parent.glob("Clark.log*")
        events = [event for file in files for event in read_log(file) if event["event"] == "command"]
        assert sorted(event["command"] for event in events) == sorted(map(bytes.decode, commands))


STANDARD_OUTPUT = """
import os, sys
from pathlib import Path
from proxyherd.telemetry.logs import LogFile
log = LogFile(Path(sys.argv[1]), max_bytes=100)
for number in range(9):
    log.write(b"%d" % number * 60)
log.reopen()
log.close()
print(os.get_blocking(1), log.failures, log.lines_lost)
"""


def test_stdout_is_a_log_that_whoever_opened_it_rotates(tmp_path: Path) -> None:
    """Its file is not renamed; and a pipe is not made non-blocking for the others who write into it."""
    wanted = [*(b"%d" % number * 60 for number in range(9)), b"True 0 0"]
    device = tmp_path / "stdout"  # what /dev/stdout is, but not the machine's own
    device.symlink_to("/proc/self/fd/1")
    command = [sys.executable, "-c", STANDARD_OUTPUT, str(device)]
    with (tmp_path / "out").open("ab") as out:
        subprocess.run(command, check=True, stdout=out)
    assert (tmp_path / "out").read_bytes().splitlines() == wanted
    assert device.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "stdout"}
    piped = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    assert piped.stdout.splitlines() == wanted


def test_a_server_whose_log_nobody_reads_answers_and_stops(cluster: Cluster | None) -> None:
    with herd_of([], "Clark", cluster=cluster) as herd:
        clark = herd["Clark"]
        os.mkfifo(clark.log_file)
        reader = os.open(clark.log_file, os.O_RDONLY | os.O_NONBLOCK)
        clark.options += ["--log-max-bytes", "65536"]
        clark.start()
        clark.wait_until_ready()
        with clark.connect() as client:
            reports = [b"IAMAT " + b"k" * 400 + b"%d +1+1 1700000000" % number for number in range(4_000)]
            for at in range(0, len(reports), 100):
                client.send(*reports[at : at + 100])
                assert [client.line()[:8] for _ in range(100)] == [b"AT Clark"] * 100
        assert clark.metrics("proxyherd_log_lines_lost_total")["proxyherd_log_lines_lost_total"] > 0
        command = [sys.executable, "-m", "proxyherd", "status", "--config", str(herd.file)]

        def told() -> str:
            return subprocess.run(command, capture_output=True, text=True, check=True).stderr

        assert told() == (
            "Clark: cannot write its log: lines are lost; look with df -h and df -i at the log's folder\n"
        )
        assert len(lines_in(reader)) > 1
        clark.signal(signal.SIGHUP)
        assert clark.ask(b"FOO") == b"? FOO\n"
        wait_until(lambda: told() == "", "nothing is lost any more")  # a state is kept for a moment
        assert clark.stop() == 0
        assert clark.log_file.is_fifo()
        assert lines_in(reader)[-1].startswith(b'{"timestamp"')
        os.close(reader)


def test_a_life_logs_these_events_with_the_fields_of_the_page() -> None:
    with running_server(more="[limits]\nmax_connections = 100\n") as clark:
        clark.wait_for_event("places_opened")
        clark.wait_for_event("replayed")
        clark.wait_for_event("ready")
        clark.signal(signal.SIGHUP)
        clark.wait_for_event("reloaded")
        with clark.connect() as client:
            client.send_raw(b"\n" * 1_500)
            assert [client.line() for _ in range(1_500)] == [b"? \n"] * 1_500
        assert clark.stop() == 0
        log = clark.log()
    of_clients = ("client_opened", "client_closed", "command", "commands_left_out")
    events = [event for event in log if event["event"] not in of_clients]
    counts = [event["commands"] for event in log if event["event"] == "commands_left_out"]
    assert sum(event["event"] == "command" for event in log) + sum(counts) == 1_500
    assert counts, "what was left out is told when the server stops, at the latest"
    assert sorted(event["event"] for event in events) == sorted(LIFE)
    order = [event["event"] for event in events if event["event"] != "places_opened"]
    assert order == [name for name in LIFE if name != "places_opened"]
    for event in events:
        (example,) = examples()[event["event"]]
        assert (event["level"], *list(event)[4:]) == (example["level"], *list(example)[4:]) or event[
            "event"
        ] == "ready"
    (ready,) = (event for event in events if event["event"] == "ready")
    assert (ready["clients"], ready["links"]) == (0, 0)


def test_how_many_clients_have_made_room_is_told_when_the_server_stops_at_the_latest() -> None:
    with running_server(more='[limits]\nmax_clients = 100\non_full = "evict"\n') as clark:
        with clark.connect() as client:
            client.send(*[b"IAMAT kiwi%d +1+1 1700000000" % number for number in range(150)])
            assert [client.line()[:8] for _ in range(150)] == [b"AT Clark"] * 150
        assert clark.stop() == 0
        told = [event for event in clark.log() if event["event"] == "clients_evicted"]
    assert told
    assert sum(event["evicted"] for event in told) + told[-1]["clients"] == 150
