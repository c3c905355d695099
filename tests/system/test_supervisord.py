"""The default herd under a real supervisord, as docs/operations.md says; real logrotate besides."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import grp
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self

import pytest
from debian import PATH, needs
from herd_process import PATIENCE_SECONDS, ROOT, ServerProcess, now, read_rotated, wait_until
from reporting import ReportingClient
from supervised import Supervised, processes_in, supervised_herd

pytestmark = pytest.mark.xdist_group("supervisord")

PAGE = (ROOT / "docs/operations.md").read_text()
OTHERS = ["Bailey", "Bona", "Campbell", "Jaquez"]


def section(title: str) -> str:
    [found] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


START, TAKE_OVER = re.findall(r"^```sh\n(.*?)^```", section("Under supervisord"), re.DOTALL | re.MULTILINE)
[RULES] = re.findall(r"^```\n(.*?)^```", section("Log rotation"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def started() -> Iterator[Supervised]:
    # Bona's own rotation is to meet logrotate's; a small log makes it frequent.
    small = {
        "serve Bona --log-max-bytes 67108864 --log-backups 4": "serve Bona --log-max-bytes 65536 --log-backups 500"
    }
    with supervised_herd(small) as herd:
        yield herd


@pytest.fixture
def herd(started: Supervised) -> Supervised:
    """The herd, whole, whatever the test before has left."""
    if not started.is_well():
        started.renew()
    started.wait_until_whole()
    return started


def wait_for_state(herd: Supervised, name: str, state: str) -> None:
    wait_until(lambda: herd.states()[name] == state, f"supervisord has {name} {state}")


def wait_for_another(herd: Supervised, name: str, old: int) -> int:
    """Wait until supervisord has replaced a process, and the server is linked again; return its new id."""
    wait_until(lambda: herd.pid(name) not in {0, old}, f"{name} is started again")
    herd[name].wait_until_ready()
    herd[name].wait_until_linked()
    return herd.pid(name)


# Starting and stopping. ---------------------------------------------------------------------------------------


def test_status_has_a_line_a_server_and_is_0_while_all_run(herd: Supervised) -> None:
    done = herd.ctl("status")
    assert done.returncode == 0
    lines = [
        re.fullmatch(r"herd:(\w+) +RUNNING +pid (\d+), uptime [\d:]+", one)
        for one in done.stdout.splitlines()
    ]
    assert {line[1]: int(line[2]) for line in lines if line} == {name: herd.holder(name) for name in herd}
    assert herd.ctl("status", "herd:Nobody").returncode == 4
    assert herd.run(".venv/bin/proxyherd status").returncode == 0


def test_logs_state_and_socket_are_not_for_other_users(herd: Supervised) -> None:
    assert stat.S_IMODE((herd.folder / "var/run/supervisor.sock").stat().st_mode) == 0o700
    var = herd.folder / "var"
    for path in (*(var / "lib").rglob("*"), *(var / "log").rglob("*"), *(var / "run").rglob("*")):
        assert path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP) == 0, path


def test_group_and_single_servers_stop_start_and_restart(herd: Supervised) -> None:
    at = herd["Clark"].hears(b"kiwi")
    herd.herd.wait_until_all_know(at)
    assert herd.ctl("stop", "herd:*").returncode == 0
    assert set(herd.states().values()) == {"STOPPED"}
    assert herd.ctl("status").returncode == 3
    assert processes_in(herd.folder) == {herd.supervisord()}
    for server in herd.values():
        assert server.log()[-1]["event"] == "stopped"
    assert herd.ctl("stop", "herd:Clark").returncode == 0

    assert herd.ctl("start", "herd:Clark").returncode == 0
    assert herd.states() == {**dict.fromkeys(OTHERS, "STOPPED"), "Clark": "RUNNING"}
    assert (herd.ctl("status", "herd:Clark").returncode, herd.ctl("status").returncode) == (0, 3)
    assert herd["Clark"].knows(b"kiwi") == at

    old = herd.pid("Clark")
    assert herd.ctl("signal", "HUP", "herd:Jaquez").returncode == 7
    assert herd.ctl("signal", "HUP", "herd:*").returncode == 0
    assert herd.ctl("start", "herd:Clark").returncode == 0
    assert herd.pid("Clark") == old
    assert herd.ctl("restart", "herd:*").returncode == 0
    herd.wait_until_whole()
    assert herd.pid("Clark") != old
    herd.herd.wait_until_all_know(at)


# Servers that end. --------------------------------------------------------------------------------------------


def test_killed_or_told_to_stop_by_somebody_else_it_is_started_again(herd: Supervised) -> None:
    at = herd["Clark"].hears(b"plum")
    killed, told = herd.pid("Clark"), herd.pid("Jaquez")
    os.kill(killed, signal.SIGKILL)
    os.kill(told, signal.SIGTERM)  # exit code 0
    wait_for_another(herd, "Clark", killed)
    wait_for_another(herd, "Jaquez", told)
    assert herd["Clark"].knows(b"plum") == herd["Jaquez"].knows(b"plum") == at


@contextlib.contextmanager
def in_place_of(file: Path) -> Iterator[Path]:
    """Let something else stand in the place of a file for a while."""
    kept = file.rename(file.with_name(f"{file.name}.kept"))
    try:
        yield file
    finally:
        kept.replace(file)


@contextlib.contextmanager
def slow_to_start(herd: Supervised) -> Iterator[None]:
    """Let servers take longer than startsecs before they do anything."""
    ours = Path(sys.executable).with_name("proxyherd")
    herd.install(f"#!/bin/sh\nsleep 4\nexec '{ours}' \"$@\"\n")
    try:
        yield
    finally:
        herd.install()


def test_bad_configuration_is_told_and_tried_again_unless_it_is_found_late(herd: Supervised) -> None:
    with in_place_of(herd.herd.file) as file:
        file.write_text("edges = 5\n")
        with slow_to_start(herd):
            assert herd.ctl("restart", "herd:Clark").returncode == 0
            wait_for_state(herd, "Clark", "EXITED")
        # A second question is answered after supervisord has once more looked at what to start.
        assert herd.states()["Clark"] == "EXITED"
        assert herd.ctl("status", "herd:Clark").returncode == 3

        for _ in range(5):  # on a busy machine it may be found late here too
            assert herd.ctl("start", "herd:Clark").returncode == 7
            if herd.states()["Clark"] == "BACKOFF":
                break
    told = herd.ctl("tail", "herd:Clark", "stderr").stdout
    assert set(told.split()) >= {"Error:", "deploy/herd.toml:", "key", "edges:"}
    herd.wait_until_whole()


def test_a_server_that_ends_at_once_many_times_is_never_given_up(herd: Supervised) -> None:
    clark = herd["Clark"]
    assert herd.ctl("stop", "herd:Clark").returncode == 0
    before, so_far = clark.stderr(), herd.log_file.read_text()
    with (clark.state / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for _ in range(4):  # by default supervisord gives up after three
            herd.ctl("restart", "herd:Clark")
        assert herd.states()["Clark"] not in {"FATAL", "EXITED"}
    assert "gave up: Clark" not in herd.log_file.read_text().removeprefix(so_far)
    told = clark.stderr().removeprefix(before).splitlines()
    assert len(told) >= 4
    assert all(" is in use by process " in line for line in told)
    assert herd.ctl("restart", "herd:Clark").returncode == 0
    herd.wait_until_whole()


# supervisord that ends. ---------------------------------------------------------------------------------------


def test_a_new_supervisord_takes_over_the_servers_of_one_that_was_killed(herd: Supervised) -> None:
    orphans = {name: herd.holder(name) for name in herd}
    for server in herd.values():
        server.stderr_file.write_text("")
    os.kill(herd.supervisord(), signal.SIGKILL)
    wait_until(lambda: processes_in(herd.folder) == set(orphans.values()), "the servers are alone")
    assert herd.ctl("status").returncode == 4
    assert herd.run(START).returncode == 0
    for name, orphan in orphans.items():
        wait_until(herd[name].stderr, f"{name} says why it cannot start")
        assert herd[name].stderr().splitlines()[-1] == (
            f"proxyherd: var/lib/{name} is in use by process {orphan}, which holds var/lib/{name}/lock; "
            "stop that one, or name another directory with --state-dir"
        )
    at = herd["Clark"].hears(b"fig")
    herd.herd.wait_until_all_know(at)

    os.kill(orphans["Jaquez"], signal.SIGKILL)  # what dies is replaced without anybody's doing
    with ThreadPoolExecutor() as pool:  # one after the other would take longer
        names = [name for name in herd if name != "Jaquez"]
        for done in pool.map(herd.run, (TAKE_OVER.replace(" ".join(herd), name) for name in names)):
            assert done.returncode == 0, done.stdout + done.stderr
    herd.wait_until_whole()
    assert {name: herd.holder(name) for name in herd} == {name: herd.pid(name) for name in herd}
    assert not set(orphans.values()) & processes_in(herd.folder)
    herd.herd.wait_until_all_know(at)


# Logs. --------------------------------------------------------------------------------------------------------


class Tail:
    """`supervisorctl tail -f`, and the commands in the events that it has shown."""

    def __init__(self, herd: Supervised, name: str) -> None:
        self._program = subprocess.Popen(
            [".venv/bin/supervisorctl", "tail", "-f", f"herd:{name}"],
            cwd=herd.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._shown: list[str] = []
        self._reader = threading.Thread(target=self._read)

    def _read(self) -> None:
        assert self._program.stdout
        self._shown.extend(self._program.stdout)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._program.kill()
        self._program.wait()
        self._reader.join()
        assert self._program.stdout
        self._program.stdout.close()

    def wait_for(self, command: str) -> None:
        wait_until(
            lambda: any(f'"command":"{command}"' in line for line in self._shown), f"{command} is shown"
        )

    def commands(self) -> list[str]:
        """Return them once it has ended. The first lines are prose, and the tail of a line."""
        events = [json.loads(line) for line in self._shown if line.startswith('{"') and line.endswith("}\n")]
        return [event["command"] for event in events if event["event"] == "command"]


def test_tail_shows_events_as_they_come_and_goes_on_over_a_rotation(herd: Supervised) -> None:
    clark = herd["Clark"]
    asked = ["FIRST", "SECOND", "THIRD"]
    with Tail(herd, "Clark") as tail, clark.connect() as client:
        client.ask(b"FIRST")
        tail.wait_for("FIRST")
        clark.log_file.replace(clark.log_file.with_name("Clark.log-away"))
        client.ask(b"SECOND")  # the old file, which the tail follows still
        tail.wait_for("SECOND")
        assert herd.ctl("signal", "HUP", "herd:Clark").returncode == 0
        clark.wait_for_event("reloaded")
        client.ask(b"THIRD")
        tail.wait_for("THIRD")
    assert [command for command in tail.commands() if command in asked] == asked
    assert [event["command"] for event in clark.events("command")] == ["THIRD"]


def load_on(server: ServerProcess) -> ReportingClient:
    def batch(sent: int) -> list[bytes]:
        return [b"IAMAT load%d +1-1 %b" % (sent + each, now()) for each in range(5)]

    return ReportingClient(server.connect(), batch, pause_seconds=0.002)


def has_a_log(server: ServerProcess) -> bool:
    try:
        return server.log_file.stat().st_size > 0
    except FileNotFoundError:
        return False


def logged(server: ServerProcess) -> Counter[str]:
    """Count the commands of the load in all files of a log, whoever rotated them."""
    commands = (event.get("command", "") for event in read_rotated(server.log_file))
    return Counter(command for command in commands if command.startswith("IAMAT load"))


class Logrotate:
    """logrotate, with the rules of the documentation."""

    def __init__(self, herd: Supervised) -> None:
        self._rules = herd.folder / "rules"
        group = grp.getgrgid(os.getegid()).gr_name
        rules = RULES.replace("/srv/proxyherd", str(herd.folder))
        self._rules.write_text(rules.replace("su herd herd", f"su {getpass.getuser()} {group}"))
        self._rules.chmod(0o644)
        self._state = herd.folder / "rotated"
        self._last = 0

    def rotate(self) -> subprocess.CompletedProcess[str]:
        """Rotate now, under a name that no archive has: they bear the second."""
        # The clock that logrotate reads is some milliseconds behind.
        wait_until(lambda: time.time() > self._last + 1.05, "a second later")
        done = subprocess.run(
            ["logrotate", "--force", "--state", self._state, self._rules],
            env={**os.environ, "PATH": PATH},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        self._last = int(time.time())
        return done


@needs("logrotate")
def test_logrotate_under_load_loses_no_line_and_doubles_none(herd: Supervised) -> None:
    """At Clark it alone rotates; at Bona the server does so too, ten times a second."""
    clark, bona = herd["Clark"], herd["Bona"]
    logrotate = Logrotate(herd)
    with load_on(clark) as to_clark, load_on(bona) as to_bona:
        for _ in range(4):
            done = logrotate.rotate()
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            for server in (clark, bona):
                wait_until(partial(has_a_log, server), f"{server.name} has reopened its log")
    wait_until(lambda: logged(clark).total() >= len(to_clark.sent), "Clark has logged all")
    wait_until(lambda: logged(bona).total() >= len(to_bona.sent), "Bona has logged all")
    assert logged(clark) == Counter(map(bytes.decode, to_clark.sent))
    assert logged(bona) == Counter(map(bytes.decode, to_bona.sent))
    folder = clark.log_file.parent
    assert [path.suffix == ".gz" for path in sorted(folder.glob("Clark.log-*-*"))] == [
        True,
        True,
        True,
        False,
    ]
    assert list(folder.glob("Bona.log-*.gz"))
    own = [path.stat().st_size for path in folder.glob("Bona.log.*")]
    assert len(own) > 4
    assert min(own) > 0
    assert not list(folder.glob("*stderr.log-*"))
    assert not list(folder.glob("supervisord.log-*"))


# The end; last, as the herd would have to be started again for what followed. ---------------------------------


def test_shutdown_stops_the_servers_and_leaves_nothing_that_runs(herd: Supervised) -> None:
    assert herd.ctl("shutdown").returncode == 0
    wait_until(lambda: not processes_in(herd.folder), "all have ended")
    assert list((herd.folder / "var/run").iterdir()) == []
    for server in herd.values():
        assert server.log()[-1]["event"] == "stopped"
    assert herd.ctl("status").returncode == 4
