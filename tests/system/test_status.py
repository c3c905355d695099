"""`proxyherd status`: as JSON, and again and again, of a herd of which servers hang, end and come back."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from herd_process import RunningHerd, now, running_herd, wait_until
from states import a_state

from proxyherd import cli
from proxyherd.cli.status import _clocks, _lost_lines, _other_keys

ROOT = Path(__file__).parents[2]
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def herd() -> Iterator[RunningHerd]:
    """Ann, linked with Bob, linked with Cid."""
    with running_herd([("Ann", "Bob"), ("Bob", "Cid")], more="[web]\n") as herd:
        yield herd


def command(herd: RunningHerd, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "proxyherd", "status", "--config", str(herd.file), *arguments]


def run(herd: RunningHerd, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(herd, *arguments), capture_output=True, text=True, timeout=600, check=False, cwd=herd.folder
    )


def status(herd: RunningHerd) -> tuple[int, dict[str, Any]]:
    done = run(herd, "--json")
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


@contextlib.contextmanager
def cut(herd: RunningHerd, name: str) -> Iterator[None]:
    """Kill a server, and have the herd whole again behind."""
    herd[name].kill()
    try:
        yield
    finally:
        herd[name].start()
        herd.wait_until_whole()


@contextlib.contextmanager
def frozen(herd: RunningHerd, name: str) -> Iterator[None]:
    herd[name].freeze()
    try:
        yield
    finally:
        herd[name].thaw()
        herd.wait_until_whole()


# JSON. -------------------------------------------------------------------------------------------------------


def test_json_says_what_each_server_says_of_itself(herd: RunningHerd) -> None:
    herd["Ann"].hears(b"kiwi")
    herd["Cid"].ask(b"FOO")
    wait_until(lambda: herd["Cid"].knows(b"kiwi"), "Cid knows")
    code, told = status(herd)
    assert code == 0
    assert told["whole"] is True
    assert told["herd"] == str(herd.file)
    ann, bob, cid = told["servers"]
    assert (ann["server"], ann["state"], ann["reason"]) == ("Ann", "ready", "")
    assert (bob["neighbours"], bob["unlinked"]) == (["Ann", "Cid"], [])
    assert ann["addresses"] == {
        "clients": [f"127.0.0.1:{herd['Ann'].client_port}"],
        "peers": [f"127.0.0.1:{herd['Ann'].peer_port}"],
        "web": [f"127.0.0.1:{herd['Ann'].web_port}"],
        "admin": [f"127.0.0.1:{herd['Ann'].admin_port}"],
    }
    assert (ann["clients"], ann["commands"], ann["journal_failing"], ann["rates"]) == (1, 1, False, None)
    assert ann["connections"] == {"lines": 0, "http": 0, "websocket": 0, "stream": 0}
    assert (ann["floods_in"], ann["floods_out"], bob["floods_in"], bob["floods_out"]) == (0, 1, 1, 1)
    assert cid["commands"] >= 2
    assert (ann["file"], ann["process"]) == (str(herd.file.resolve()), herd["Ann"].pid)


def test_a_herd_of_another_folder_with_the_same_ports_is_told(herd: RunningHerd, tmp_path: Path) -> None:
    """All looks well there, too well."""
    copy = tmp_path / "herd.toml"
    copy.write_text(herd.file.read_text())

    def told(*arguments: str) -> list[str]:
        return CliRunner().invoke(cli.main, arguments).stderr.splitlines()

    processes = ", ".join(f"{server.name} (process {server.pid})" for server in herd.values())
    file = herd.file.resolve()
    assert told("status", "--config", str(copy)) == [
        f"{processes}: of another herd; use --config {file}, not {copy}"
    ]
    head, *lines = told("check-config", "--ports", "--config", str(copy))
    assert head.startswith(
        f"Error: the herd of {file} runs on 12 of the 12 addresses in {copy}; stop that first"
    )
    assert [re.sub(r": [\d, ]+: .*(?=process)", " (", line) for line in lines] == [
        f"  {one}" for one in processes.split(", ")
    ]
    head, *_ = told("check-config", "--ports", "--config", str(herd.file))
    assert head.startswith("Error: this herd runs already, on 12 of the 12 addresses")


def test_connections_are_told_by_protocol(herd: RunningHerd) -> None:
    ann = herd["Ann"]

    def connections() -> dict[str, int]:
        told: dict[str, int] = status(herd)[1]["servers"][0]["connections"]
        return told

    with ann.connect() as client, socket.create_connection(("127.0.0.1", ann.web_port)):
        client.ask(b"FOO")
        wait_until(
            lambda: connections() == {"lines": 1, "http": 1, "websocket": 0, "stream": 0}, "both are told"
        )
        head, row, *_ = run(herd).stdout.splitlines()
    assert head.split()[4:] == [*("web", "state", "links", "known", "connections", "commands", "mended")]
    assert re.search(r" ready +1/1 +\d+ +2 \(1 http\) +\d+ +\d+$", row), row


def test_json_of_a_server_that_does_not_answer_is_unknown_and_exit_1(herd: RunningHerd) -> None:
    with cut(herd, "Cid"):
        # What a server says of itself is kept for a moment, so it may be a moment old.
        wait_until(lambda: status(herd)[1]["servers"][1]["unlinked"] == ["Cid"], "Bob has lost Cid")
        code, told = status(herd)
        done = run(herd)
    assert (code, told["whole"]) == (1, False)
    ann, bob, cid = told["servers"]
    assert (ann["state"], bob["unlinked"]) == ("ready", ["Cid"])
    assert cid["state"] == "unknown"
    assert "Connection refused" in cid["reason"]
    assert all(cid[name] is None for name in ("unlinked", "clients", "commands", "mended", "journal_failing"))
    assert done.returncode == 1
    assert re.search(r"^Cid .* unknown  - ", done.stdout, re.MULTILINE)
    assert re.search(r"^Cid cannot be asked: .*Connection refused", done.stderr, re.MULTILINE)


def test_what_to_do_with_a_server_that_hangs_is_told(herd: RunningHerd) -> None:
    with frozen(herd, "Cid"):
        done = run(herd)
    remark = r"^Cid cannot be asked: \S+ timed out \(0 bytes read\), so it hangs or is very busy: if that does not end, restart it"
    assert re.search(remark, done.stderr, re.MULTILINE)


def test_every_field_of_the_json_is_documented_and_no_other(herd: RunningHerd) -> None:
    told = json.loads(run(herd, "--json").stdout)
    server = {**told["servers"][0], "rates": None}
    rates = ("seconds", "commands", "floods_in", "floods_out", "lag_p99_seconds")
    names = [*told, *(f"servers[].{name}" for name in server), *(f"servers[].rates.{name}" for name in rates)]
    section = (ROOT / "docs/tools.md").read_text().partition("\n## status\n")[2]
    table = section.partition("\n| field | value |\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) == names


# Again and again. --------------------------------------------------------------------------------------------


def test_what_happens_is_seen_as_it_happens(herd: RunningHerd) -> None:
    with watching(herd, "--json", "--interval", "0.1") as lines, herd["Ann"].connect() as connection:
        assert json.loads(next(lines))["servers"][0]["rates"] is None
        for line in lines:
            connection.ask(b"FOO")
            connection.ask(b"IAMAT kiwi +1+1 %b" % now())
            ann, bob, cid = (one["rates"] for one in json.loads(line)["servers"])
            if ann and bob and cid and ann["commands"] > 0 and bob["floods_in"] > 0 and bob["floods_out"] > 0:
                break
        assert 0 < ann["seconds"] < 10
        assert cid["commands"] == 0
        assert {"lag_p99_seconds"} <= cid.keys()


@contextlib.contextmanager
def watching(herd: RunningHerd, *arguments: str) -> Iterator[Iterator[str]]:
    """Read along what `status --watch` prints into a pipe; Ctrl-C at the end is a good one."""
    with subprocess.Popen(
        command(herd, "--watch", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield iter(process.stdout)
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            assert "\x1b" not in rest
            assert process.wait(20) in (0, 1)
            assert process.stderr.read() == ""
        finally:
            process.kill()


def table(lines: Iterator[str]) -> dict[str, list[str]]:
    """Return the cells of the next whole table, by server."""
    rows: dict[str, list[str]] = {}
    for line in lines:
        if line == "\n" and rows:
            return rows
        cells = re.split(r"  +", line.strip())
        rows[cells[0]] = cells[1:]
    raise AssertionError("the table ended")


def test_a_table_that_goes_into_a_pipe_is_repeated_plainly(herd: RunningHerd) -> None:
    with watching(herd, "--interval", "0.1") as lines:
        for _ in range(3):
            rows = table(lines)
            assert rows["server"] == [
                *(
                    "state",
                    "links",
                    "known",
                    "cmds/s",
                    "in/s",
                    "out/s",
                    "lag p99",
                    "mended",
                    "journal",
                    "remark",
                )
            ]
        # A busy machine may make a server late for one table.
        tables = (table(lines) for _ in range(1_000))
        rows = next(rows for rows in tables if {rows["Ann"][0], rows["Bob"][0]} == {"ready"})
        assert rows["Bob"][:3] == ["ready", "2/2", rows["Ann"][2]]
        assert rows["Ann"][8] == "ok"


def test_a_server_that_hangs_holds_up_no_other(herd: RunningHerd) -> None:
    """In ten tables with less time between them than its deadline, the others have fresh figures all the while."""

    def seconds(state: str) -> float:
        """Return how long ten fresh figures of Ann take, while Cid is in this state."""
        with watching(herd, "--json", "--interval", "0.1") as lines, herd["Ann"].connect() as client:
            shown: set[int] = set()
            began = 0.0
            for line in lines:
                ann, _, cid = json.loads(line)["servers"]
                began = began or time.monotonic()
                assert cid["state"] == "unknown" or state != "unknown"
                shown.add(ann["commands"])
                if len(shown) == 11:
                    break
                client.ask(b"FOO")  # so that fresh figures are others
            return time.monotonic() - began

    usual = seconds("ready")
    with frozen(herd, "Cid"):
        # One that waited for Cid each time would take twelve seconds more.
        assert seconds("unknown") < usual + 6


def test_a_server_that_is_lost_becomes_unknown_and_comes_back(herd: RunningHerd) -> None:
    with watching(herd, "--interval", "0.1") as lines:
        assert table(lines)["Cid"][0] == "ready"
        with cut(herd, "Cid"):
            rows = next(
                rows for _ in range(1_000) if "Connection refused" in (rows := table(lines))["Cid"][-1]
            )
            assert rows["Cid"][0] == "unknown"
            rows = next(rows for _ in range(1_000) if (rows := table(lines))["Bob"][1] == "1/2")
            assert rows["Bob"][-1] == "has no link with Cid"
        states = (table(lines)["Cid"][0] for _ in range(1_000))
        assert "ready" in states


# On a terminal. ----------------------------------------------------------------------------------------------


class Terminal:
    """A terminal of so many lines on which `status --watch` runs."""

    def __init__(self, herd: RunningHerd, height: int) -> None:
        self._mine, its = pty.openpty()
        ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", height, 60, 0, 0))
        environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command(herd, "--watch", "--interval", "0.1"), stdin=its, stdout=its, stderr=its, env=environ
        )
        os.close(its)
        self.shown = ""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # so a terminal ends
            while some := os.read(self._mine, 65_536):
                self.shown += some.decode()

    def frames(self) -> list[str]:
        """Return what was drawn from the upper left corner each time, whole frames."""
        return self.shown.split("\x1b[H")[1:-1]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(20)
        finally:
            self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join()
        os.close(self._mine)


@contextlib.contextmanager
def terminal(herd: RunningHerd, height: int) -> Iterator[Terminal]:
    one = Terminal(herd, height)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_terminal_is_drawn_over_without_being_cleared_and_left_as_it_was(
    herd: RunningHerd, number: signal.Signals
) -> None:
    with terminal(herd, 24) as screen:
        wait_until(lambda: len(screen.frames()) >= 3, "frames")
        assert screen.end(number) == 0
    assert screen.shown.count("\x1b[2J") == 1
    for frame in screen.frames():
        *lines, rest = frame.split("\r\n")
        assert rest == "\x1b[J"
        assert all(line.endswith("\x1b[K") for line in lines)
        assert [ANSI.sub("", line).split()[0] for line in lines[1:]] == ["server", "Ann", "Bob", "Cid"]
    assert screen.shown.startswith("\x1b[?25l\x1b[?7l")
    assert screen.shown.endswith("\x1b[?7h\x1b[?25h")


def test_a_table_that_is_higher_than_its_terminal_is_cut_and_says_so(herd: RunningHerd) -> None:
    with terminal(herd, 5) as screen:
        wait_until(screen.frames, "frames")
        screen.end(signal.SIGINT)
    lines = [ANSI.sub("", line) for line in screen.frames()[0].split("\r\n")]
    assert [line.split(" ")[0] for line in lines[1:3]] == ["server", "Ann"]
    assert lines[3:] == ["and 2 more: make the window higher", ""]


def test_an_interval_without_watching_is_bad_usage(herd: RunningHerd) -> None:
    done = run(herd, "--interval", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--interval goes with --watch" in done.stderr


def test_neighbours_whose_clocks_differ_by_more_than_a_second_are_named() -> None:
    told = a_state(clocks={"Cid": -61.5, "Bob": 2.25, "Dan": 1.0, "Eve": -1.0, "Fay": 3_456_000.2})
    assert _clocks(told) == (
        "the clock of Bob is 2.25 s ahead, the clock of Cid is 61.5 s behind, the clock of Fay is 40 d ahead"
    )
    assert _clocks(a_state()) == _clocks(None) == ""


def test_lost_lines_of_the_log_are_told() -> None:
    assert _lost_lines(a_state(log_failing=True)) == "cannot write its log: lines are lost"
    assert _lost_lines(a_state()) == _lost_lines(None) == ""


def test_neighbours_whose_tables_have_another_key_are_named() -> None:
    assert _other_keys(a_state(other_keys=["Bob", "Cid"])) == "the key of its table is not that of Bob, Cid"
    assert _other_keys(a_state()) == _other_keys(None) == ""
