"""`proxyherd grade`: full marks for herds that keep the protocol, each fault named of those that do not.

Herds are real processes: ours on every topology, started by deploy/grading/server.py as a stranger's script starts it,
and a small one of another make, whole and broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Self
from xml.etree import ElementTree as ET

import engines
import msgspec
import psutil
import pytest
from broken_cases import BROKEN
from click.testing import CliRunner
from gazetteer_file import gazetteer_file
from herd_process import (
    PATIENCE_SECONDS,
    ROOT,
    RunningHerd,
    free_port,
    herd_of,
    read_log,
    running_herd,
    wait_until,
)
from redis_cluster import Cluster

from proxyherd import cli
from proxyherd.base import holders
from proxyherd.cli import grade_marks
from proxyherd.config import herd_file
from proxyherd.grading import guard, judging, keeping, processes, rubric
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.keeping import Started
from proxyherd.grading.rubric import PROFILES
from proxyherd.grading.servers import GradedServer

TOPOLOGIES = sorted((ROOT / "deploy/topologies").glob("*.toml"))
EDGES = [["Ann", "Bob"], ["Bob", "Cid"], ["Cid", "Dan"], ["Dan", "Ann"], ["Ann", "Cid"]]
STRICT_POINTS = rubric.profile("strict", judging.all_checks()).possible
NAMES = ["Ann", "Bob", "Cid", "Dan"]
ENVIRON = {
    name: value
    for name, value in os.environ.items()
    if not re.match("PROXYHERD_|GOOGLE_|[A-Z]+_DIRECTORY$", name)
}


def grade(*arguments: object, folder: Path, seconds: float = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxyherd", "grade", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=folder,
        env=ENVIRON,
    )


def moved(source: Path, file: Path) -> herd_file.Herd:
    """Write a herd's file with every port replaced by a free one."""
    text = re.sub(r"127\.0\.0\.1:\d+", lambda _: f"127.0.0.1:{free_port()}", source.read_text())
    file.write_text(text)
    return herd_file.load(file)


def write_graph(file: Path, names: list[str], edges: list[list[str]]) -> None:
    """Write a herd's file with ports where nobody listens."""
    lines = [f"edges = {json.dumps(edges)}", "[servers]"]
    for number, name in enumerate(names):
        at = [f'"127.0.0.1:{3 * number + place}"' for place in (1, 2, 3)]
        lines.append(f"{name} = {{ clients = {at[0]}, peers = {at[1]}, admin = {at[2]} }}")
    file.write_text("\n".join(lines))


def faults(done: subprocess.CompletedProcess[str]) -> set[str]:
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {one["id"] for one in json.loads(done.stdout)["checks"] if one["outcome"] == "fault"}


# --- our herd


@pytest.mark.parametrize("profile", PROFILES)
def test_our_herd_scores_in_full_started_as_a_strangers_script_starts_it(
    profile: str, tmp_path: Path
) -> None:
    """From a folder with nothing in it but server.py and the herd's file; with a server lost and regained. By the
    assignment, which has fewer checks, it is a small herd.
    """
    shutil.copy(ROOT / "deploy/grading/server.py", tmp_path)
    source = ROOT / "deploy/herd.toml"
    if profile == "assignment":
        source = tmp_path / "small.toml"
        write_graph(
            source, ["Bona", "Clark", "Jaquez"], [["Bona", "Clark"], ["Clark", "Jaquez"], ["Bona", "Jaquez"]]
        )
    herd = moved(source, tmp_path / "herd.toml")
    done = grade(
        *("--config", "herd.toml", "--start", f"{sys.executable} server.py {{name}}"),
        *("--logs", "var/log/{name}.log", "--json", "-", "--env", f"PROXYHERD_GAZETTEER={gazetteer_file()}"),
        *("--profile", profile),
        folder=tmp_path,
    )
    assert faults(done) == set(), done.stdout
    document = json.loads(done.stdout)
    assert [one["id"] for one in document["checks"] if one["outcome"] != "passed"] == []
    assert document["points"] == document["possible"] == {"strict": STRICT_POINTS, "assignment": 100}[profile]
    assert set(document["servers"]) == set(herd.servers)
    for name in herd.servers:
        events = read_log(tmp_path / f"var/log/{name}.log")
        assert events[-1]["event"] == "stopped"
        assert not [one for one in events if one["level"] == "error"]


class Kept:
    """Ends and starts servers of a herd that runs; what graders call a keeper."""

    def __init__(self, running: RunningHerd) -> None:
        self._running = running

    async def lose(self, server: GradedServer) -> None:
        self._running[server.name].kill()

    async def regain(self, server: GradedServer) -> None:
        self._running[server.name].start()
        await asyncio.to_thread(self._running[server.name].wait_until_ready)

    async def revive(self) -> None:
        """Nothing ends by itself."""

    def end_of(self, _server: GradedServer, /) -> str:
        return ""

    def deaths(self) -> list[str]:
        return [one.name for one in self._running.values() if one.process and one.process.poll() is not None]


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda path: path.stem)
def test_our_herd_scores_in_full_whoever_is_linked_with_whom(topology: Path) -> None:
    """All else is judged once, above."""
    edges = herd_file.load(topology).edges
    sections = [one for one in judging.SECTIONS if one.name in ("floods", "regained")]
    with running_herd(edges) as running:
        judged = [
            GradedServer(name, "127.0.0.1", one.client_port, log=one.log_file)
            for name, one in running.items()
        ]
        herd = GradedHerd(judged, edges, Kept(running))
        report = asyncio.run(judging.judge(herd, sections=sections, seconds=PATIENCE_SECONDS))
        logged = [event for one in running.values() for event in one.log()]
    assert {one.id: one.fault or one.left_out for one in report.results if one.outcome != "passed"} == {}
    checks = judging.all_checks()
    for profile in PROFILES:
        part = rubric.profile(profile, checks).only([one.id for one in report.results])
        marks = msgspec.structs.replace(report, rubric=part).marks()
        assert marks.made == marks.possible == part.possible > 20
    assert not [one for one in logged if one["level"] == "error"]


def test_a_herd_that_runs_is_judged_by_its_file_and_by_addresses_alone(tmp_path: Path) -> None:
    with running_herd([("Ann", "Bob"), ("Bob", "Cid")]) as herd:
        by_file = grade("--config", herd.file, "--json", "-", folder=herd.folder)
        addresses = [f"127.0.0.1:{server.client_port}" for server in herd.values()]
        by_address = grade(*addresses, "--json", "-", folder=tmp_path)
    assert faults(by_file) == faults(by_address) == set()
    for done, unseen in ((by_file, {"regained"}), (by_address, {"logs", "regained"})):
        checks = json.loads(done.stdout)["checks"]
        missing = {one["group"] for one in checks if one["outcome"] == "not seen"}
        assert unseen <= missing <= {*unseen, "floods"}
    assert set(json.loads(by_address.stdout)["servers"]) == {"Ann", "Bob", "Cid"}


@engines.ON_REDIS
def test_our_herd_scores_in_full_with_its_table_in_redis_and_what_is_about_links_does_not_apply(
    cluster: Cluster | None,
) -> None:
    with herd_of([("Ann", "Bob"), ("Bob", "Cid")], cluster=cluster) as herd:
        beside = herd.file.parent
        shutil.copy(ROOT / "deploy/grading/server.py", beside)
        done = grade(
            *("--config", herd.file, "--start", f"{sys.executable} server.py {{name}}"),
            *("--logs", "var/log/{name}.log", "--json", "-", "--junit", "report.xml"),
            folder=beside,
        )
        suites = ET.parse(beside / "report.xml").getroot()
        logged = {name: read_log(beside / f"var/log/{name}.log") for name in herd}
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    others = {one["id"]: one for one in document["checks"] if one["outcome"] != "passed"}
    assert set(others) == {"floods.end", "lost.is-logged", "regained.is-logged"}, done.stdout
    for one in others.values():
        assert (one["outcome"], one["points"]) == ("not applicable", one["possible"])
        assert "no links" in one["not_applicable"]
    assert document["points"] == document["possible"] > 200
    assert suites.get("skipped") == "3"
    for events in logged.values():
        assert events[-1]["event"] == "stopped"
        assert not [one for one in events if one["level"] == "error"]


# --- herds of another make


class OtherHerd:
    """A herd of tests/support/broken_herd.py: how it is started, where it is, who is linked with whom."""

    def __init__(self, folder: Path, fault: str = "") -> None:
        self.ports = {name: free_port() for name in NAMES}
        (folder / "herd.json").write_text(json.dumps({"ports": self.ports, "edges": EDGES}))
        self.command = f"{sys.executable} {ROOT}/tests/support/broken_herd.py herd.json {{name}} {fault}"
        self.addresses = [f"{name}=127.0.0.1:{port}" for name, port in self.ports.items()]
        write_graph(folder / "graph.toml", NAMES, EDGES)

    def listening(self) -> list[str]:
        return [name for name, port in self.ports.items() if is_taken(port)]


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_whole_herd_of_another_make_scores_in_full(tmp_path: Path) -> None:
    """Also where it prints its log, and another one is named."""
    other = OtherHerd(tmp_path)
    done = grade(
        *("--start", other.command, "--topology", "graph.toml", *other.addresses, "--logs", "{name}.log"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^Score: (\d+) of \1 points \(100\.0 %\)$", done.stdout, re.MULTILINE), done.stdout
    assert done.stderr == ""
    assert other.listening() == []


def test_a_process_that_crashes_is_named_and_started_again(tmp_path: Path) -> None:
    """All other ways in which a herd may be broken are tried in test_broken_herds.py, without processes."""
    other = OtherHerd(tmp_path, "crash")
    done = grade(
        *("--start", other.command, "--topology", "graph.toml", *other.addresses, "--json", "-"),
        *("--only", "hardness"),
        folder=tmp_path,
    )
    assert faults(done) == BROKEN["crash"][1], done.stdout
    assert done.returncode == 1
    assert other.listening() == []


def test_a_log_that_is_elsewhere_is_not_seen_and_no_fault(tmp_path: Path) -> None:
    other = OtherHerd(tmp_path, "own-log")
    arguments = ("--start", other.command, *other.addresses, "--only", "logs", "--patience", "0.5")
    unnamed = grade(*arguments, "--json", "-", folder=tmp_path)
    assert unnamed.returncode == 1, unnamed.stderr
    assert "no check could be seen to pass or fail" in unnamed.stderr
    for one in json.loads(unnamed.stdout)["checks"]:
        assert "--logs" in one["not_seen"], one
    named = grade(*arguments, "--logs", "{name}.log", folder=tmp_path)
    assert named.returncode == 0, named.stdout


def test_a_name_that_cannot_be_looked_up_is_not_reached(tmp_path: Path) -> None:
    done = grade("a..b:10", folder=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("Error: a..b:10: ")


def test_what_a_server_printed_last_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    other = OtherHerd(tmp_path, "escape")
    done = grade("--start", other.command, *other.addresses, folder=tmp_path)
    assert done.returncode == 3
    assert "it printed last: \\x1b]0;pwned\\x07\\x1b[8m" in done.stderr
    assert all(" " <= one <= "~" or one == "\n" for one in done.stderr)


def test_too_few_descriptors_for_grading_are_no_fault_of_the_herd(tmp_path: Path) -> None:
    """Where the system allows no more, some checks may go unseen, and none is blamed on the herd."""
    other = OtherHerd(tmp_path)
    limited = f'ulimit -n 90; exec {sys.executable} -m proxyherd grade "$@"'
    done = subprocess.run(
        [
            *("sh", "-c", limited, "grade", "--start", other.command, "--topology", "graph.toml"),
            *(*other.addresses, "--json", "-", "--only", "hardness", "--only", "cases"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=tmp_path,
        env=ENVIRON,
    )
    assert faults(done) == set(), done.stdout
    [unseen] = [one for one in json.loads(done.stdout)["checks"] if one["outcome"] == "not seen"]
    assert "more files" in unseen["not_seen"]


def test_a_running_herd_is_stopped_and_started_by_commands(tmp_path: Path) -> None:
    other = OtherHerd(tmp_path)
    start = other.command.replace("{name}", '"$1"')
    # It keeps what it was given as stderr: nobody may wait for the end of that.
    (tmp_path / "start.sh").write_text(f"{start} >>$1.log </dev/null & echo $! >$1.pid\n")
    (tmp_path / "stop.sh").write_text("kill -9 $(cat $1.pid)\n")
    environ = {**ENVIRON, "PYTHONUNBUFFERED": "1"}
    try:
        for name in NAMES:
            subprocess.run(["sh", "start.sh", name], cwd=tmp_path, env=environ, check=True)
        wait_until(lambda: len(other.listening()) == len(NAMES), "all listen")
        command = ("--lose", "sh stop.sh {name}", "--regain", "env PYTHONUNBUFFERED=1 sh start.sh {name}")
        done = grade(
            *(*command, "--only", "regained"),
            *("--logs", "{name}.log", "--topology", "graph.toml", *other.addresses, "--json", "-"),
            folder=tmp_path,
        )
    finally:
        for name in NAMES:
            subprocess.run(["sh", "stop.sh", name], cwd=tmp_path, check=False)
    assert faults(done) == set(), done.stdout
    assert [one["id"] for one in json.loads(done.stdout)["checks"] if one["outcome"] != "passed"] == []


def test_a_report_written_three_ways_says_the_same(tmp_path: Path) -> None:
    other = OtherHerd(tmp_path, "float")
    done = grade(
        *("--start", other.command, *other.addresses, "--only", "times", "--only", "places"),
        *("--json", "report.json", "--junit", "report.xml"),
        folder=tmp_path,
    )
    document = json.loads((tmp_path / "report.json").read_text())
    suites = ET.parse(tmp_path / "report.xml").getroot()
    assert done.returncode == 1
    [failed] = [one for one in document["checks"] if one["outcome"] == "fault"]
    assert failed["id"] == "times.difference-is-exact"
    assert failed["rule"] in done.stdout
    assert failed["got"] in done.stdout
    assert f"FAULT {failed['id']}: {failed['title']} (-4)" in done.stdout
    assert [one.get("name") for one in suites.iter("testcase") if one.find("failure") is not None] == [
        failed["id"]
    ]
    assert suites.get("tests") == str(len(document["checks"]))
    assert suites.get("failures") == "1"
    assert [one.get("name") for one in suites] == ["Times and differences", "Places"]
    assert f"Score: {document['points']} of {document['possible']} points" in done.stdout


# --- nothing hangs, and nothing is left behind


@contextlib.contextmanager
def falling_silent(answered: int) -> Iterator[int]:
    """Lend the port of a server that answers so many lines, as it should, and no more."""
    left = answered

    def answer(connection: socket.socket) -> None:
        nonlocal left
        with connection, connection.makefile("rwb") as stream, contextlib.suppress(OSError):
            for line in stream:
                if (left := left - 1) < 0:
                    continue
                words = line.split()
                at = b"AT Ann +0.000000001 " + b" ".join(words[1:] if words[0] == b"IAMAT" else known)
                known[:] = words[1:] if words[0] == b"IAMAT" else known
                stream.write(at + (b"\n{}\n\n" if words[0] == b"WHATSAT" else b"\n"))
                stream.flush()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()

    known: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_server_that_never_answers_is_not_reached(tmp_path: Path) -> None:
    with falling_silent(0) as port:
        done = grade(f"127.0.0.1:{port}", "--patience", "0.3", folder=tmp_path, seconds=20)
    assert done.returncode == 3
    assert f"127.0.0.1:{port}: it takes connections, but answers no IAMAT" in done.stderr
    assert "--start" not in done.stderr, "it is up"


def test_a_started_server_that_ends_of_the_first_command_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(
        "import socket, sys\n"
        "connections = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "while not (data := connections.accept()[0].recv(100)): pass\n"
        "raise ValueError('what is ' + data.split()[0].decode())\n"
    )
    command = f"{sys.executable} server.py {{port}}"
    done = grade("--start", command, f"Ann=127.0.0.1:{free_port()}", "--json", "-", folder=tmp_path)
    assert done.returncode == 3
    assert "; Ann has ended; it printed last: ValueError: what is IAMAT" in done.stderr
    assert "is the herd up" not in done.stderr
    document = json.loads(done.stdout)
    assert "ValueError: what is IAMAT" in document["problem"]
    first, *_, last = document["last_words"]["lines"]
    assert first.startswith("Traceback (most recent call last):")
    assert last == "ValueError: what is IAMAT"


def test_a_server_that_falls_silent_costs_the_deadline_and_no_more(tmp_path: Path) -> None:
    with falling_silent(12) as port:
        began = time.monotonic()
        done = grade(
            *(f"127.0.0.1:{port}", "--patience", "0.3", "--deadline", "3", "--faults", "200"),
            folder=tmp_path,
            seconds=60,
        )
    assert done.returncode == 1, done.stdout + done.stderr
    assert time.monotonic() - began < 15
    assert "the time for all checks ran out while it was under way: --deadline" in done.stdout
    assert "end in time" not in done.stdout


def test_a_server_that_is_not_there_is_not_reached(tmp_path: Path) -> None:
    port = free_port()
    done = grade(f"Ann=127.0.0.1:{port}", folder=tmp_path)
    assert done.returncode == 3
    assert f"\nNothing could be judged: Ann at 127.0.0.1:{port}: Connection refused" in done.stdout
    assert f"Error: Ann at 127.0.0.1:{port}: Connection refused; is the herd up?" in done.stderr


def test_a_herd_is_not_started_where_another_process_listens(tmp_path: Path) -> None:
    other = OtherHerd(tmp_path)
    with socket.create_server(("127.0.0.1", other.ports["Cid"])):
        done = grade("--start", other.command, *other.addresses, folder=tmp_path)
    assert done.returncode == 3
    assert f"(process {os.getpid()}) listens at 127.0.0.1:{other.ports['Cid']} already; end it" in done.stderr
    assert other.listening() == []


def test_a_server_that_ends_at_its_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    other = OtherHerd(tmp_path)
    command = "sh -c 'test {name} != Bob || { echo no port for me >&2; exit 1; }; exec " + other.command + "'"
    done = grade("--start", command, *other.addresses, "--json", "-", folder=tmp_path)
    assert done.returncode == 3
    assert "Bob: has ended at its start; it printed last: no port for me" in done.stderr
    assert other.listening() == []
    document = json.loads(done.stdout)
    assert "Bob: has ended at its start; it printed last: no port for me" in document["problem"]
    assert document["last_words"]["server"] == "Bob"
    assert document["last_words"]["command"].startswith(
        "sh -c 'test Bob != Bob || { echo no port for me >&2; "
    )
    assert document["last_words"]["lines"] == ["no port for me"]
    assert (document["points"], document["open"]) == (0, document["possible"])
    assert {one["outcome"] for one in document["checks"]} == {"not judged"}


@pytest.mark.parametrize(
    ("number", "times", "command"),
    [
        (signal.SIGTERM, 1, "sh -c '{} & wait'"),
        (signal.SIGINT, 1, "sh -c 'setsid {} & wait'"),
        (signal.SIGINT, 2, "sh -c 'trap \"\" TERM; {} & setsid sleep 300 & while :; do sleep 1; done'"),
    ],
)
def test_a_grading_that_is_broken_off_leaves_no_process(
    number: signal.Signals, times: int, command: str, tmp_path: Path
) -> None:
    """Neither of those it has started nor of those that they have started, in whatever session, ready to end or not."""
    other = OtherHerd(tmp_path)
    command = command.format(other.command)
    process = subprocess.Popen(
        [sys.executable, "-m", "proxyherd", "grade", "--start", command, *other.addresses],
        cwd=tmp_path,
        env=ENVIRON,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: len(other.listening()) == len(NAMES), "the herd is up")
        started = psutil.Process(process.pid).children(recursive=True)
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.5 if times > 1 else 0)  # so that the second comes while the first is obeyed
        assert process.wait(PATIENCE_SECONDS) == 4
    finally:
        process.kill()
        process.wait()
    assert len(started) >= 2 * len(NAMES)
    wait_until(lambda: not any(map(lives, started)), "all have ended")


def lives(process: psutil.Process) -> bool:
    """Whether a process has not ended. Its parent may be this one by then, which does not reap it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("killed", ["the command", "its group", "the one that grades"])
def test_nothing_that_was_started_outlives_a_grading_that_is_killed(killed: str, tmp_path: Path) -> None:
    """By SIGKILL, which nobody hears: neither servers nor what they have started in sessions of its own."""
    other = OtherHerd(tmp_path)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "proxyherd", "grade", "--start"),
            *(f"sh -c 'setsid sleep 300 & setsid {other.command} & wait'", *other.addresses),
        ],
        cwd=tmp_path,
        env=ENVIRON,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started: list[psutil.Process] = []
    try:
        wait_until(lambda: len(other.listening()) == len(NAMES), "the herd is up")
        [grader] = psutil.Process(process.pid).children()
        started = grader.children(recursive=True)
        assert len(started) >= 3 * len(NAMES)
        if killed == "the one that grades":
            grader.kill()
            _, said = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode == 4
            assert "the grading was ended by SIGKILL; all that it had started has been ended too" in said
        elif killed == "its group":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate()
        wait_until(lambda: not any(map(lives, [grader, *started])), "all have ended")
    finally:
        process.kill()
        for one in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    assert other.listening() == []


def test_a_command_gets_no_more_of_the_environment_than_it_needs(tmp_path: Path) -> None:
    other = OtherHerd(tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "proxyherd", "grade", *other.addresses),
            *(
                "--start",
                "sh -c 'env -0 > {name}.part && mv {name}.part {name}.env'",
                "--env",
                "CHOSEN",
                "--env",
                "GIVEN=a=b",
            ),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "LC_TIME": "C",
            "TZ": "UTC",
            "TOKEN": "t",
            "AWS_KEY": "k",
            "CHOSEN": "c",
            "PYTHONCOERCECLOCALE": "0",
        },
    )
    assert done.returncode == 3
    ended, *_ = tmp_path.glob("*.env")  # the other one may have been ended before it had written its own
    got = dict(one.split("=", 1) for one in ended.read_text().split("\0") if one)
    assert got.pop("PWD", None) in (None, str(tmp_path))  # which the shell adds
    assert got.pop("PATH") == os.environ["PATH"]
    assert got == {"LC_TIME": "C", "TZ": "UTC", "CHOSEN": "c", "GIVEN": "a=b", "PYTHONUNBUFFERED": "1"}
    unset = grade("--env", "UNSET_HERE", folder=tmp_path)
    assert unset.returncode == 2
    assert "'UNSET_HERE' is no NAME=VALUE, nor a variable that is set here" in unset.stderr


@pytest.mark.timeout(20)
def test_what_a_server_prints_into_is_never_waited_for(tmp_path: Path) -> None:
    """Also where a stranger has put a pipe in place of it."""
    started = keeping.Started("true", tmp_path, tmp_path, signal.SIGKILL, {})
    server = GradedServer("Ann", "127.0.0.1", free_port())
    os.mkfifo(started.output(server))
    try:
        with pytest.raises(keeping.StartError, match=r"Ann: .*Ann\.out: "):
            asyncio.run(started.start([server]))
    finally:
        started.end()


def test_a_server_that_prints_without_an_end_is_ended_by_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "MOST_FILE_BYTES", 1 << 20)
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    started = keeping.Started("yes {name}", tmp_path, outputs, signal.SIGKILL, os.environ)
    server = GradedServer("Ann", "127.0.0.1", free_port())
    try:
        with pytest.raises(keeping.StartError, match="has ended at its start; it printed last: Ann"):
            asyncio.run(started.start([server]))
    finally:
        started.end()
    assert started.output(server).stat().st_size <= keeping.MOST_FILE_BYTES


ENDING: Final = """
import pathlib, socket, sys, time
held = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while not pathlib.Path("end").exists():
    time.sleep(0.01)
sys.exit(f"ValueError: {sys.argv[2]}")
"""


def test_how_a_server_has_ended_is_told_with_what_it_printed_last(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(ENDING)
    command = f"{shlex.quote(sys.executable)} server.py {{port}} {{name}}"
    started = keeping.Started(command, tmp_path, tmp_path, signal.SIGKILL, os.environ)
    server = GradedServer("Ann", "127.0.0.1", free_port())
    herd = GradedHerd([server], keeper=started)
    try:
        asyncio.run(started.start([server]))
        (tmp_path / "end").touch()
        said = asyncio.run(herd.end_of(server))
    finally:
        started.end()
    assert said == "the server has ended (status 1); it printed last: ValueError: Ann"
    assert asyncio.run(GradedHerd([server]).end_of(server)) == "nothing, and nobody listens there any more"


SLOW: Final = """
import pathlib, socket, sys, time
time.sleep(float(pathlib.Path("delay").read_text()))
held = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(10_000)
"""


class SlowHerd:
    """Servers that listen `delay` seconds after they are started."""

    def __init__(self, folder: Path, names: Sequence[str] = ("Ann",)) -> None:
        folder.mkdir()
        (folder / "server.py").write_text(SLOW)
        self._delay = folder / "delay"
        self.delay(0)
        command = f"{sys.executable} server.py {{port}}"
        self.started = Started(command, folder, folder, signal.SIGKILL, os.environ)
        self.servers = [GradedServer(name, "127.0.0.1", free_port()) for name in names]

    def delay(self, seconds: float) -> None:
        self._delay.write_text(str(seconds))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.started.end()


def test_a_restart_has_three_times_as_long_as_the_first_start_and_a_second_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allow(seconds: float) -> None:
        monkeypatch.setattr(keeping, "START_SECONDS", seconds)

    async def restart(herd: SlowHerd, first_seconds: float, delay: float) -> None:
        [server] = herd.servers
        allow(PATIENCE_SECONDS)
        await herd.started.start([server])
        allow(0.3)
        herd.started.starts[server] = first_seconds
        await herd.started.lose(server)
        herd.delay(delay)
        await herd.started.regain(server)

    with SlowHerd(tmp_path / "slow") as herd:
        asyncio.run(restart(herd, PATIENCE_SECONDS, delay=1))
    with SlowHerd(tmp_path / "never") as herd:
        why = r"Ann: has not listened at 127\.0\.0\.1:\d+ within 0\.3 s"
        with pytest.raises(keeping.StartError, match=why):
            asyncio.run(restart(herd, 0, delay=1_000))
    with SlowHerd(tmp_path / "at the second try") as herd:
        lose, losses = herd.started.lose, 0

        async def lose_and_allow(server: GradedServer) -> None:
            nonlocal losses
            losses += 1
            await lose(server)
            if losses == 2:
                herd.delay(0)
                allow(PATIENCE_SECONDS)

        monkeypatch.setattr(herd.started, "lose", lose_and_allow)
        asyncio.run(restart(herd, 0, delay=1_000))
        assert losses == 2


def test_the_graders_own_scan_of_processes_is_made_once_for_all_servers_and_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans: list[tuple[str, bool]] = []
    for module, name in ((holders, "listeners"), (processes, "families")):
        scan = getattr(module, name)

        def noted(*words: object, name: str = name, scan: Callable[..., Any] = scan) -> Any:
            scans.append((name, threading.current_thread() is threading.main_thread()))
            return scan(*words)

        monkeypatch.setattr(module, name, noted)

    async def start(herd: SlowHerd) -> None:
        strangers = psutil.Process().children(recursive=True)
        await herd.started.start(herd.servers)
        family = {*psutil.Process().children(recursive=True)} - {*strangers}
        for server in herd.servers:
            await herd.started.lose(server)
        assert len(family) == len(NAMES)
        assert not any(processes.is_alive(one.pid) for one in family), "the next one needs the port"
        assert [name for name, _ in scans].count("listeners") == 1
        assert not any(is_main for _, is_main in scans)

    with SlowHerd(tmp_path / "herd", NAMES) as herd:
        asyncio.run(start(herd))


def test_a_server_that_becomes_a_daemon_is_ended_too(tmp_path: Path) -> None:
    other = OtherHerd(tmp_path)
    done = grade("--start", f"setsid -f {other.command}", *other.addresses, folder=tmp_path)
    assert done.returncode in (0, 1, 3), done.stderr
    assert other.listening() == []
    assert not [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(tmp_path)]


# --- usage


def test_a_rubric_is_printed_changed_and_used(tmp_path: Path) -> None:
    printed = CliRunner().invoke(cli.main, ["grade", "--profile", "assignment", "--print-rubric"])
    assert printed.exit_code == 0
    (tmp_path / "own.toml").write_text(printed.stdout.replace("points = 10", "points = 11.5"))
    other = OtherHerd(tmp_path, "at")
    words = ("--start", other.command, *other.addresses, "--only", "floods", "--only", "logs")
    done = grade(*words, "--skip", "regained", "--rubric", "own.toml", "--json", "-", folder=tmp_path)
    document = json.loads(done.stdout)
    possible = {one["name"]: one["possible"] for one in document["groups"]}
    assert possible == {"floods": 20, "logs": 6.9}  # three fifths of its checks
    assert document["possible"] == 26.9
    assert (document["lost"], document["rubric"]) == (0, "The assignment, in part")


def test_a_part_of_the_herd_is_judged_by_a_group_of_the_rubric_or_by_a_section() -> None:
    def chosen(*only: str, skip: tuple[str, ...] = (), profile: str = "assignment") -> set[str]:
        options = {"rubric_file": None, "profile": profile, "only": only, "skip": skip}
        part = grade_marks.find_rubric(options, has_web=True)
        sections = {
            check for one in grade_marks.sections_of(part, options) for check in judging.checks_of([one.name])
        }
        assert part.shares.keys() <= sections
        return {*part.shares}

    logs = {"logs.iamat", "logs.whatsat", "logs.invalid"}
    assert chosen("logs") == logs | {"lost.is-logged", "regained.is-logged"}, "the group"
    assert chosen("logs", skip=("regained",)) == logs
    assert chosen("logs", profile="strict") == logs
    assert chosen("regained") == chosen("neighbours") | {"lost.is-logged", "regained.is-logged"}, "a section"
    assert chosen(skip=("floods", "neighbours", "logs")) == chosen("reports", "queries", "invalid")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "is no [NAME=]HOST:PORT"),
        (["127.0.0.1:0"], "is no [NAME=]HOST:PORT"),
        (["a=h:1", "a=h:2"], "the same name stands there twice"),
        (["a=h:1", "b=h:1"], "the same address stands there twice"),
        (["h:1", "--rubric", "nowhere.toml"], "nowhere.toml: No such file or directory; name a file with"),
        (
            ["h:1", "--rubric", "graph.toml"],
            "graph.toml: key edges: is not known; the keys here are title, groups",
        ),
        (["h:1", "--start", "x {name}"], "servers must be named"),
        (["h:1", "--logs", "{name}.log"], "servers must be named"),
        (["a=h:1", "--start", "x", "--lose", "y", "--regain", "z"], "leave out --lose and --regain"),
        (["a=h:1", "--lose", "y"], "--lose and --regain go together"),
        (["a=h:1", "--start", "'x"], "a command cannot be read"),
        (["a=h:1", "--log", "b=file"], "there is no server b"),
        (["a=h:1", "--log", "a"], "is no NAME=FILE"),
        (["a=h:1", "--logs", "nowhere/{name}.log"], "nowhere/a.log: there is no such log of a"),
        (["--topology", "graph.toml"], "--topology goes with NAME=HOST:PORT"),
        (["Ann=h:1", "--topology", "graph.toml"], "has Bob, Cid, Dan too"),
        (["Zoe=h:1", "--topology", "graph.toml"], "there is no server 'Zoe'"),
        (
            [],
            "deploy/herd.toml: No such file; name each server, and where it takes clients, as NAME=HOST:PORT",
        ),
        (["a=h:1", "--memory", "64"], "--memory does nothing without --batch; give both or neither"),
        (["a=h:1", "--unsandboxed"], "--unsandboxed does nothing without --batch"),
        (["a=h:1", "--output", "x"], "--output does nothing without --batch"),
        (["a=h:1", "--stop", "SIGTERM"], "--stop does nothing without --start"),
        (["--print-rubric", "--rubric", "graph.toml"], "--print-rubric prints that of --profile"),
        (["h:1", "--rubric", "graph.toml", "--profile", "strict"], "--rubric takes the place of --profile"),
        (
            ["h:1", "--only", "flods"],
            "'flods' is neither a group of the rubric nor a section; there are forms, times",
        ),
        (["h:1", "--only", "logs", "--skip", "logs"], "counts no check of what --only and --skip leave"),
    ],
)
def test_bad_usage_is_exit_2_and_says_what_to_do(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OtherHerd(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(guard, "split", lambda: pytest.fail("bad usage is told before anything is begun"))
    done = CliRunner().invoke(cli.main, ["grade", *arguments], env={"PROXYHERD_CONFIG": None})
    assert (done.exit_code, done.stdout) == (2, "")
    assert complaint in re.sub(r"\s+", " ", done.stderr)


def test_a_herd_that_speaks_tls_with_clients_is_not_judged(tmp_path: Path) -> None:
    file = tmp_path / "herd.toml"
    moved(ROOT / "deploy/herd.toml", file)
    file.write_text(file.read_text() + '[tls]\nclients_certificate = "c.pem"\nclients_key = "k.pem"\n')
    done = grade("--config", file, folder=tmp_path)
    assert done.returncode == 2
    assert "its servers speak TLS" in done.stderr


# --- deploy/grading/server.py


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with server.py and a herd's file."""
    shutil.copy(ROOT / "deploy/grading/server.py", tmp_path)
    moved(ROOT / "deploy/herd.toml", tmp_path / "herd.toml")
    return tmp_path


def run_server(
    *arguments: str, folder: Path, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "server.py", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=folder,
        env=ENVIRON,
    )


@pytest.mark.parametrize("arguments", [[], ["Clark", "Bona"], ["--help"]])
def test_server_without_one_name_is_bad_usage(arguments: list[str], bare: Path) -> None:
    done = run_server(*arguments, folder=bare)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "server.py: usage: python3 server.py NAME, such as: python3 server.py Clark\n"


def test_server_of_an_unknown_name_lists_the_known_and_makes_nothing(bare: Path) -> None:
    done = run_server("Nobody", folder=bare)
    assert done.returncode == 2
    assert "there is no server 'Nobody'; it has Bailey, Bona, Campbell, Clark, Jaquez" in done.stderr
    assert sorted(path.name for path in bare.iterdir()) == ["herd.toml", "server.py"]


def python_without_packages() -> str:
    python = Path(sys.base_prefix) / f"bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('msgspec') is not None)"
    if not python.exists() or subprocess.run([python, "-c", code], check=False).returncode:
        pytest.skip("there is no Python here without the herd's packages")
    return str(python)


def test_a_python_without_the_packages_is_told_what_to_install(bare: Path) -> None:
    python = python_without_packages()
    done = run_server("Clark", folder=bare, python=python)
    assert done.returncode == 2
    assert f"server.py: {python} has no proxyherd, aiohttp" in done.stderr
    assert f"{python} -m pip install" in done.stderr


class Servers:
    """Servers started by server.py in one folder; ended by id."""

    def __init__(self, folder: Path, python: str = sys.executable, script: str = "server.py") -> None:
        self.folder = folder
        self.herd = herd_file.load(folder / "herd.toml")
        self.command = [python, script]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.builds = False
        """Whether they have no gazetteer, and so build one."""

    def start(self, *names: str) -> None:
        environ = {**ENVIRON, "PROXYHERD_CONFIG": str(self.folder / "herd.toml")}
        if not self.builds:
            environ["PROXYHERD_GAZETTEER"] = str(gazetteer_file())
        for name in names:
            self.running[name] = subprocess.Popen([*self.command, name], cwd=self.folder, env=environ)
        for name in names:
            wait_until(partial(is_taken, self.port(name)), f"{name} listens")

    def port(self, name: str) -> int:
        return self.herd.servers[name].clients[0].port

    def wait_until_knows(self, name: str, client: str, at: str) -> None:
        wait_until(lambda: self.ask(name, f"WHATSAT {client} 0 0") == at, f"{name} knows {at}")

    def stop(self, *names: str, number: signal.Signals = signal.SIGTERM) -> list[int]:
        for name in names:
            self.running[name].send_signal(number)
        return [self.running[name].wait(PATIENCE_SECONDS) for name in names]

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def ask(self, name: str, line: str) -> str:
        with socket.create_connection(("127.0.0.1", self.port(name)), PATIENCE_SECONDS) as connection:
            connection.sendall(line.encode() + b"\n")
            return connection.makefile("r").readline()


@pytest.fixture
def servers(bare: Path) -> Iterator[Servers]:
    started = Servers(bare)
    try:
        yield started
    finally:
        started.end()


def test_five_started_at_once_share_one_secret_and_flood_and_end_cleanly(servers: Servers) -> None:
    servers.start(*servers.herd.servers)
    at = servers.ask("Clark", "IAMAT kiwi +1+1 5")
    assert at.startswith("AT Clark ")
    for name in servers.herd.servers:
        servers.wait_until_knows(name, "kiwi", at)
    var = servers.folder / "var"
    assert (var / "secret").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in var.iterdir()) == ["herd.lock", "lib", "log", "secret"]
    names = list(servers.herd.servers)
    assert servers.stop(*names[:3]) == [0, 0, 0]
    assert servers.stop(*names[3:], number=signal.SIGINT) == [0, 0]


def test_a_server_has_its_state_again_and_a_new_herd_has_none(servers: Servers) -> None:
    servers.start("Clark", "Bailey")  # which are not linked, so nobody tells Clark
    at = servers.ask("Clark", "IAMAT kiwi +1+1 5")
    servers.stop("Clark", number=signal.SIGKILL)
    servers.start("Clark")
    assert servers.ask("Clark", "WHATSAT kiwi 0 0") == at
    servers.stop("Clark", "Bailey", number=signal.SIGKILL)
    servers.start("Clark", "Bailey")
    assert servers.ask("Clark", "WHATSAT kiwi 0 0") == "? WHATSAT kiwi 0 0\n"


def test_a_herd_without_a_gazetteer_builds_one_and_then_finds_places(servers: Servers) -> None:
    servers.builds = True
    servers.start("Clark", "Bona")
    servers.ask("Clark", "IAMAT kiwi +34.07-118.44 5")

    def finds() -> bool:
        with socket.create_connection(("127.0.0.1", servers.port("Clark")), PATIENCE_SECONDS) as connection:
            connection.sendall(b"WHATSAT kiwi 10 5\n")
            connection.shutdown(socket.SHUT_WR)
            return '"status": "OK"' in connection.makefile().read()

    wait_until(finds, "places are found", 4 * PATIENCE_SECONDS)  # others come first: it is built aside
    var = servers.folder / "var"
    assert not list(var.glob("*.unfinished"))  # one of the two has built it
    assert servers.stop("Clark", "Bona") == [0, 0]


def test_a_clone_beside_it_is_found_though_it_is_no_package(tmp_path: Path) -> None:
    """In the folder above a clone that is called proxyherd, Python takes that folder for the package."""
    shutil.copy(ROOT / "deploy/grading/server.py", tmp_path)
    moved(ROOT / "deploy/herd.toml", tmp_path / "herd.toml")
    (tmp_path / "proxyherd").mkdir()
    for name in ("proxyherd", "deploy", "__main__.py"):
        (tmp_path / "proxyherd" / name).symlink_to(ROOT / name)
    servers = Servers(tmp_path)
    try:
        servers.start("Clark")
        assert servers.ask("Clark", "HELLO") == "? HELLO\n"
    finally:
        servers.end()
    done = subprocess.run(
        [sys.executable, "-m", "proxyherd", "serve", "Nobody", "--config", "herd.toml"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=ENVIRON,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no server 'Nobody'" in done.stderr


def test_the_virtual_environment_of_the_repository_is_found(tmp_path: Path) -> None:
    python = python_without_packages()
    grading = tmp_path / "deploy/grading"
    grading.mkdir(parents=True)
    shutil.copy(ROOT / "deploy/grading/server.py", grading)
    (tmp_path / "proxyherd").symlink_to(ROOT / "proxyherd")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    moved(ROOT / "deploy/herd.toml", tmp_path / "herd.toml")
    servers = Servers(tmp_path, python, "deploy/grading/server.py")
    try:
        servers.start("Clark")
        assert servers.ask("Clark", "HELLO") == "? HELLO\n"
        assert servers.stop("Clark") == [0]
    finally:
        servers.end()
    assert (grading / "var/log/Clark.log").exists()
