"""Five real processes under real supervisord: floods, and servers that are killed.

What clients of several servers see holds with the table in Redis too, so that is tried on both; kills there are
deploy/redis/'s and the cluster's, with tests of their own, and links there are none.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from xmlrpc.client import ServerProxy

import psutil
import pytest
from herd_process import (
    PATIENCE_SECONDS,
    ROOT,
    RunningHerd,
    ServerProcess,
    Stopwatch,
    now,
    running_herd,
    short_folder,
    wait_until,
)
from redis_cluster import Cluster
from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

from proxyherd.config import herd_file

NAMES = ("Bailey", "Bona", "Campbell", "Clark", "Jaquez")
DEFAULT_EDGES = herd_file.load(ROOT / "deploy/herd.toml").edges
NEIGHBOURS = [b if a == "Clark" else a for a, b in DEFAULT_EDGES if "Clark" in (a, b)]
_numbers = itertools.count()

pytestmark = pytest.mark.xdist_group("herd")  # they share one supervised herd


# --- a herd under supervisord, as `make run` starts it


class Supervised:
    """The repository's supervisord.conf and default herd at work in a folder and on ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.herd = RunningHerd(folder, DEFAULT_EDGES, [], "")
        shutil.copy(ROOT / "supervisord.conf", folder)
        (folder / ".venv").symlink_to(sys.prefix)
        self._supervisord: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "var/log/supervisord.out").open("ab") as out:
            self._supervisord = subprocess.Popen(
                [self.folder / ".venv/bin/supervisord", "-n", "-c", "supervisord.conf"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env={name: value for name, value in os.environ.items() if not name.startswith("GOOGLE_")},
            )

    def end(self) -> None:
        """End supervisord and its servers, by their ids, also when it hangs."""
        if self._supervisord is None:
            return
        try:
            servers = psutil.Process(self._supervisord.pid).children()
        except psutil.NoSuchProcess:
            servers = []
        self._supervisord.terminate()
        try:
            self._supervisord.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._supervisord.kill()
            self._supervisord.wait()
        for server in servers:
            with contextlib.suppress(
                psutil.NoSuchProcess
            ):  # it looks whether the id is still the same process
                server.kill()

    def control(self, *arguments: str) -> str:
        """Return what supervisorctl says."""
        done = subprocess.run(
            [self.folder / ".venv/bin/supervisorctl", "-c", "supervisord.conf", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return done.stdout + done.stderr

    def told(self) -> list[dict[str, Any]]:
        """Return what supervisord tells of its programs, asked as supervisorctl asks, but without a new interpreter."""
        transport = SupervisorTransport(serverurl=f"unix://{self.folder}/var/run/supervisor.sock")
        with ServerProxy("http://127.0.0.1", transport) as supervisord:
            return cast("list[dict[str, Any]]", supervisord.supervisor.getAllProcessInfo())

    def pid(self, name: str) -> int:
        """Return the process of a server; 0 while there is none."""
        return next(int(one["pid"]) for one in self.told() if one["name"] == name)

    def wait_until_running(self) -> None:
        """Wait until the herd is whole, and supervisord so sure of each server that it restarts it at once."""
        self.herd.wait_until_whole()
        wait_until(lambda: all(one["statename"] == "RUNNING" for one in self.told()), "all are RUNNING")

    def kill(self, *names: str) -> dict[str, int]:
        """End servers as `kill -9` does; return the ids they had."""
        pids = {name: self.pid(name) for name in names}
        for pid in pids.values():
            assert pid
            os.kill(pid, signal.SIGKILL)
        return pids

    def wait_until_restarted(self, killed: dict[str, int]) -> None:
        wait_until(
            lambda: all(self.pid(name) not in (0, pid) for name, pid in killed.items()),
            f"{', '.join(killed)} restarted",
        )
        self.herd.wait_until_whole()


@pytest.fixture(scope="module")
def started() -> Iterator[Supervised]:
    with short_folder() as folder:
        supervised = Supervised(folder)
        try:
            supervised.start()
            supervised.wait_until_running()
            yield supervised
        finally:
            supervised.end()


@pytest.fixture
def supervised(started: Supervised) -> Supervised:
    """The herd, whole again whatever the test before did to it."""
    started.control("start", "herd:*")
    started.wait_until_running()
    return started


@pytest.fixture(scope="module")
def with_redis(running_redis: Cluster) -> Iterator[RunningHerd]:
    with running_herd(DEFAULT_EDGES, cluster=running_redis) as herd:
        yield herd


@pytest.fixture
def herd(shared_cluster: Cluster | None, request: pytest.FixtureRequest) -> RunningHerd:
    """Five servers on either engine."""
    found: RunningHerd = (
        request.getfixturevalue("supervised").herd
        if shared_cluster is None
        else request.getfixturevalue("with_redis")
    )
    return found


def new_client() -> bytes:
    return b"client%d-%d" % (os.getpid(), next(_numbers))


def test_report_to_any_server_is_known_to_all_byte_for_byte(herd: RunningHerd) -> None:
    for server in herd.values():
        at = server.hears(new_client())
        herd.wait_until_all_know(at)


def test_neighbour_asked_right_after_the_answer_already_knows(herd: RunningHerd) -> None:
    for _ in range(50):
        client = new_client()
        at = herd["Clark"].hears(client)
        for neighbour in NEIGHBOURS:
            assert herd[neighbour].knows(client) == at


def test_equal_times_taken_by_two_servers_end_the_same_everywhere(herd: RunningHerd) -> None:
    client, when = new_client(), now()
    with herd["Bailey"].connect() as one, herd["Jaquez"].connect() as two:
        one.send(b"IAMAT %b +1+1 %b" % (client, when))
        two.send(b"IAMAT %b +2+2 %b" % (client, when))
        lines = {one.line(), two.line()}
    wait_until(lambda: len({server.knows(client) for server in herd.values()}) == 1, "all hold the same")
    assert herd["Clark"].knows(client) in lines


def test_at_from_a_client_is_an_invalid_command_and_teaches_nobody(herd: RunningHerd) -> None:
    client = new_client()
    line = b"AT Bailey +0.100000000 %b +34.068930-118.445127 %b" % (client, now())
    for server in herd.values():
        assert server.ask(line) == b"? " + line + b"\n"
        assert server.knows(client) == b""


@pytest.mark.parametrize("name", NAMES)
def test_killed_server_is_restarted_and_catches_up_and_the_others_never_notice(
    supervised: Supervised, name: str
) -> None:
    herd = supervised.herd
    before = herd[name].hears(new_client())
    herd.wait_until_all_know(before)
    others = [other for other in NAMES if other != name]
    with answering(supervised, others):
        killed = supervised.kill(name)
        missed = [herd[other].hears(new_client()) for other in others]
        supervised.wait_until_restarted(killed)
        for at in (before, *missed):
            client = at.split()[3]
            assert herd[name].knows(client) == at
    life = events_since_start(herd[name])
    first_link = next(one for one in life if one["event"] == "peer_opened")
    caught_up = next(one for one in life if one["event"] == "caught_up")
    assert life.index(first_link) < life.index(caught_up)
    for other in herd[name].neighbours:
        assert herd[other].events("peer_closed", neighbour=name)[-1]["reason"]


def events_since_start(server: ServerProcess) -> list[dict[str, Any]]:
    """Return the events of the process that runs now."""
    log = server.log()
    start = max(n for n, one in enumerate(log) if one["event"] == "started")
    return log[start:]


@contextlib.contextmanager
def answering(supervised: Supervised, names: list[str]) -> Iterator[None]:
    """Keep a client busy with each of these servers. Each of its commands must be answered within a second, beside the
    time for which the kernel kept the server or the client from running.
    """
    ends = threading.Event()
    faults: list[str] = []
    counts = dict.fromkeys(names, 0)

    def keep_asking(server: ServerProcess) -> None:
        watch = Stopwatch(supervised.pid(server.name))
        try:
            with server.connect() as connection:
                while not ends.is_set():
                    answer = watch.ask(connection, b"IAMAT busy-%b +1+1 %b" % (server.name.encode(), now()))
                    if not answer.startswith(b"AT "):
                        faults.append(f"{server.name} answered {answer!r}")
                        return
                    if (took := watch.seconds.pop()) > 1:
                        faults.append(f"{server.name} took {took:.2f} s")
                    counts[server.name] += 1
                    ends.wait(0.01)
        except OSError as error:
            faults.append(f"{server.name}: {error}")

    clients = [threading.Thread(target=keep_asking, args=[supervised.herd[name]]) for name in names]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        ends.set()
        for client in clients:
            client.join()
    assert faults == []
    assert all(counts.values()), counts


PAIRS = [("Clark", "Jaquez"), ("Bona", "Campbell"), ("Bailey", "Clark"), ("Campbell", "Clark")]
"""Linked or not, and the others still linked with each other or not: one of each kind."""


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_pair_killed_at_once_comes_back_and_knows_everything(
    supervised: Supervised, pair: tuple[str, str]
) -> None:
    herd = supervised.herd
    others = [herd[name] for name in NAMES if name not in pair]
    before = herd[pair[0]].hears(new_client())
    herd.wait_until_all_know(before)
    with answering(supervised, [other.name for other in others]):
        killed = supervised.kill(*pair)
        missed = [other.hears(new_client()) for other in others]
        supervised.wait_until_restarted(killed)
    for at in (before, *missed):
        herd.wait_until_all_know(at)


def test_report_answered_before_all_were_killed_is_known_to_all_again(supervised: Supervised) -> None:
    reports = [server.hears(new_client()) for server in supervised.herd.values()]
    supervised.wait_until_restarted(supervised.kill(*NAMES))
    for at in reports:
        supervised.herd.wait_until_all_know(at)


def test_supervisorctl_restarts_one_server_and_it_drains(supervised: Supervised) -> None:
    clark = supervised.herd["Clark"]
    at = clark.hears(new_client())
    before = supervised.pid("Clark")
    starts = len(clark.events("started"))
    said = supervised.control("restart", "herd:Clark")
    assert said == "herd:Clark: stopped\nherd:Clark: started\n"
    assert supervised.pid("Clark") not in (0, before)
    supervised.herd.wait_until_whole()
    clark.wait_until_knows(at)
    assert len(clark.events("started")) == starts + 1
    assert clark.events("stopped")


def test_supervisorctl_stops_and_starts_the_whole_herd(supervised: Supervised) -> None:
    said = supervised.control("stop", "herd:*")
    assert sorted(said.splitlines()) == [f"herd:{name}: stopped" for name in NAMES]
    for server in supervised.herd.values():
        assert server.log()[-1]["event"] == "stopped"
        with pytest.raises(ConnectionRefusedError):
            server.connect()
    said = supervised.control("start", "herd:*")
    assert sorted(said.splitlines()) == [f"herd:{name}: started" for name in NAMES]
    supervised.herd.wait_until_whole()


def test_supervisorctl_tail_shows_the_json_log(supervised: Supervised) -> None:
    clark = supervised.herd["Clark"]
    line = b"a command that nobody knows %b" % new_client()
    clark.ask(line)
    clark.wait_for_event("command", command=line.decode())
    shown = supervised.control("tail", "herd:Clark").splitlines()
    events = [json.loads(one) for one in shown[1:] if one]  # the first may be cut
    assert line.decode() in [one.get("command") for one in events]
    assert {one["server"] for one in events} == {"Clark"}


def test_a_herd_prints_nothing_but_its_logs(herd: RunningHerd) -> None:
    for server in herd.values():
        assert server.stderr() == ""
    names = {one["event"] for server in herd.values() for one in server.log()}
    assert "internal_error" not in names
