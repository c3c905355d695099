"""`proxyherd tail` as a process: on terminals, into pipes, and while real servers write and rotate their logs."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from debian import needs
from herd_process import RunningHerd, ServerProcess, herd_of, running_server, wait_until
from tailed import enter_folder, line, numbers, tail

import proxyherd.cli.tail
from proxyherd import cli


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_folder(tmp_path, monkeypatch)


def test_client_ids_of_any_bytes_are_found_as_the_log_spells_them(folder: Path) -> None:
    (folder / "var/log/Bob.log").write_bytes(line(1, "flood_sent", clients=["a\\xff"], n=1) + b"\n")
    done = run_real("--json", "--client", b"a\xff")
    assert [json.loads(one)["n"] for one in done.stdout.splitlines()] == [1]


def run_real(*arguments: str | bytes, **environ: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "proxyherd", "tail", *arguments]
    return subprocess.run(
        command, capture_output=True, timeout=600, check=False, env={**os.environ, **environ}
    )


def test_logs_are_looked_for_as_servers_put_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "var/log").rename(folder / "elsewhere")
    monkeypatch.setattr(proxyherd.cli.tail, "INSTALLED_LOGS", folder / "none")  # this machine may have some
    assert tail().exit_code == 2
    assert numbers(tail("--logs", "elsewhere", "--json", "-n1")) == [38, 39]
    done = run_real("--json", "-n1", LOGS_DIRECTORY="elsewhere")
    assert done.stdout.count(b"\n") == 2


def test_colours_are_for_terminals_unless_told_otherwise(folder: Path) -> None:
    assert "\x1b[" not in tail().stdout
    assert "\x1b[" in CliRunner().invoke(cli.main, ["tail", "--color", "always"], color=True).stdout
    assert b"\x1b[" in on_terminal()
    assert b"\x1b[" not in on_terminal("--color", "never")
    assert b"\x1b[" not in on_terminal(NO_COLOR="1")
    assert b"\x1b[" not in on_terminal(TERM="dumb")
    assert "\x1b[" not in tail("--color", "always", "--json").stdout


def on_terminal(*arguments: str, **environ: str) -> bytes:
    """Return what it shows on a terminal."""
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "proxyherd", "tail", *arguments]
    with subprocess.Popen(command, stdout=its, env={**os.environ, "TERM": "xterm", **environ}) as process:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # so a terminal ends
            while some := os.read(mine, 65_536):
                shown += some
        assert process.wait(20) == 0
    os.close(mine)
    return shown


# The command, following. -------------------------------------------------------------------------------------


@contextlib.contextmanager
def following(*arguments: str, cwd: Path | None = None) -> Iterator[Following]:
    """Run `tail --follow --json`, and read along."""
    command = [sys.executable, "-m", "proxyherd", "tail", "--follow", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd) as process:
        try:
            yield Following(process)
        finally:
            process.kill()


class Following:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.commands: list[str] = []  # what clients of `load` have sent
        self.errors = b""
        self._threads = [
            threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for one in self.process.stdout:
            self.events.append(json.loads(one))
            command = self.events[-1].get("command", "")
            if command.startswith("IAMAT line"):
                self.commands.append(command)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for one in self.process.stderr:
            self.errors += one

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(20)
        for thread in self._threads:
            thread.join(20)
        return code


def test_following_goes_on_until_ctrl_c_which_is_a_good_end(folder: Path) -> None:
    with following("-n", "1") as tail:
        wait_until(lambda: len(tail.events) == 2, "the last lines")
        for server, n in (("Bob", 50), ("Ann", 51)):
            with (folder / f"var/log/{server}.log").open("ab") as log:
                log.write(line(n, server=server, n=n) + b"\n")
        wait_until(lambda: len(tail.events) == 4, "new lines")
        assert tail.end(signal.SIGINT) == 0
    assert [event["n"] for event in tail.events] == [38, 39, 50, 51]
    assert tail.errors == b""


def test_following_waits_for_logs_that_are_not_there_yet(folder: Path) -> None:
    (folder / "var/log").rename(folder / "elsewhere")
    (folder / "var/log").mkdir()
    with following() as tail:
        wait_until(lambda: tail.errors == b"No log of Ann, Bob in var/log\n", "it has looked for them")
        for log in (folder / "elsewhere").iterdir():
            log.rename(folder / "var/log" / log.name)
        wait_until(lambda: len(tail.events) >= 40, "all their lines")
        assert tail.end(signal.SIGTERM) == 0
    assert sorted(event["n"] for event in tail.events) == list(range(40))


@pytest.mark.parametrize("follow", ["", "--follow"])
def test_a_pipe_that_is_closed_is_a_good_end_at_once(folder: Path, follow: str) -> None:
    """While there is more than a pipe holds; and with --follow, where nothing more comes that could be written."""
    if not follow:
        with (folder / "var/log/Ann.log").open("ab") as log:
            log.writelines(line(n) + b"\n" for n in range(3_000))
    script = f"set -o pipefail; {sys.executable} -m proxyherd tail {follow or '-n 9999'} | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1


class Talk:
    """Clients that talk to a server while its log is followed and rotated. They report: each report is logged."""

    def __init__(self, server: ServerProcess, tail: Following) -> None:
        self.server = server
        self.tail = tail
        self.sent: list[str] = []

    def talk(self, goes_on: Callable[[], bool]) -> None:
        """Send batches of commands; return when all were shown."""
        with self.server.connect() as connection:
            while goes_on():
                batch = [f"IAMAT line{len(self.sent) + n} +1+1 5" for n in range(25)]
                connection.send(*(one.encode() for one in batch))
                for _ in batch:
                    connection.line()
                self.sent += batch
                self._wait_for(len(self.sent) - 500)
        self._wait_for(len(self.sent))

    def _wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.tail.commands) >= count, f"{count} of {len(self.sent)} lines are shown")


@contextlib.contextmanager
def load(server: ServerProcess) -> Iterator[Talk]:
    """Follow the log of a server; in the end, all that was sent is to have been shown once, and in order."""
    with following(
        "--config", str(server.herd.file), "--logs", str(server.log_file.parent), "-n", "0"
    ) as tail:
        # Its first line shows that it follows; how soon, nobody knows.
        wait_until(lambda: server.ask(b"HELLO") and tail.events, "the tail follows")
        talk = Talk(server, tail)
        yield talk
        assert tail.end(signal.SIGINT) == 0
        assert tail.errors == b""
        assert tail.commands == talk.sent


def test_nothing_is_lost_or_doubled_while_a_busy_server_rotates_its_log() -> None:
    """Dozens of rotations; so many files are kept that a tail which is held up finds them all."""
    with running_server("--log-max-bytes", "10000", "--log-backups", "1000") as clark, load(clark) as clients:
        clients.talk(lambda: len(clients.sent) < 4_500)
        assert len(list(clark.log_file.parent.glob("Clark.log.*"))) > 50


@needs("logrotate")
def test_nothing_is_lost_or_doubled_while_logrotate_rotates_the_log() -> None:
    """It makes the new file at once, and the server writes on into the old one until SIGHUP. As long as a tail takes
    to look there is between two rotations.
    """
    with running_server() as clark, load(clark) as clients:
        folder = clark.herd.folder
        (folder / "rotate.conf").write_text(
            f"{clark.log_file} {{\n  rotate 100\n  create 0640\n  dateext\n  dateformat -%s-{clark.pid}\n"
            f"  postrotate\n    kill -HUP {clark.pid}\n  endscript\n}}\n"
        )
        # Or logrotate says that anybody may write there.
        (folder / "rotate.conf").chmod(0o644)
        clark.log_file.parent.chmod(0o755)
        command = ["logrotate", "--force", "--state", str(folder / "state"), str(folder / "rotate.conf")]
        environ = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        rotations = 0

        def rotate() -> None:
            nonlocal rotations
            for _ in range(2):
                seen = len(clients.sent)
                wait_until(lambda seen=seen: len(clients.tail.commands) > seen, "what was just sent is shown")  # type: ignore[misc]
                # The name of a rotated file has no finer, and logrotate's clock is a few milliseconds late.
                next_second = int(time.time()) + 1.1
                wait_until(lambda then=next_second: time.time() > then, "the next second")  # type: ignore[misc]
                subprocess.run(command, check=True, env=environ)
                rotations += 1

        thread = threading.Thread(target=rotate)
        thread.start()
        clients.talk(thread.is_alive)
        thread.join()
        assert rotations == 2
        assert len(list(clark.log_file.parent.glob("Clark.log-*"))) == 2


def test_logs_of_real_servers_are_shown_with_what_strangers_sent() -> None:
    with herd_of([("Ann", "Bob")]) as herd:
        herd.start()
        herd.wait_until_whole()
        herd["Ann"].ask(b"FOO \x1b]0;title\x07 \xff \xe2\x80\xae kiwi")
        herd["Bob"].wait_until_knows(herd["Ann"].hears(b"kiwi"))
        shown = real_tail(herd, "--client", "kiwi", "--color", "never")
    told = shown.splitlines()
    assert shown.replace("\n", "").isprintable()
    commands = [one.split()[2] for one in told if " command " in one]
    assert sorted(commands) == ["Ann", "Ann", *["Bob"] * shown.count("WHATSAT")]
    assert r'command="FOO \x1b]0;title\x07 \xff \u202e kiwi"' in shown
    # Either may be first: it is written down when it is done, and microseconds apart.
    assert {one.split()[3] for one in told if "flood" in one} == {"flood_sent", "flood_received"}


def real_tail(herd: RunningHerd, *arguments: str) -> str:
    command = [sys.executable, "-m", "proxyherd", "tail", "--config", str(herd.file), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=True, cwd=herd.folder
    ).stdout
