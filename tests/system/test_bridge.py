"""The bridge keeps a herd's table and a cluster's equal, both ways, while both take reports: real processes."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest
import warm_start
from debian import needs
from herd_process import PATIENCE_SECONDS, RunningHerd, ServerProcess, herd_of, wait_until
from redis_cluster import Cluster, running_cluster
from reporting import ReportingClient
from web_wire import WebWire, request

from proxyherd.bridge.bridge import check
from proxyherd.config import herd_file
from proxyherd.config.errors import ConfigError
from proxyherd.core.messages import Entry, parse_at
from proxyherd.engines.redis import layout

pytestmark = [needs("redis-server"), pytest.mark.xdist_group("redis-bridge")]

EDGES = [("Bona", "Clark"), ("Clark", "Jaquez")]
"""Between the other two there is nothing but the bridge."""

ALIVE = ("Bona", "Jaquez")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(replicas=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def running_fronts(cluster: Cluster) -> Iterator[RunningHerd]:
    with herd_of([], "Ann", "Zoe", more="[web]\n", cluster=cluster) as fronts:
        fronts.start()
        for front in fronts.values():
            front.wait_until_ready()
        yield fronts


@pytest.fixture
def fronts(cluster: Cluster, running_fronts: RunningHerd) -> RunningHerd:
    """Two servers in front of a cluster that is empty."""
    cluster.flush()
    return running_fronts


@contextlib.contextmanager
def herd_without_clark(more: str = "") -> Iterator[RunningHerd]:
    """Run a herd whose Clark does not run."""
    with herd_of(EDGES, more=f"[timing]\nready_seconds = 0.1\n{more}") as herd:
        for name in ALIVE:
            herd[name].start()
        for name in ALIVE:
            herd[name].wait_until_ready()
        yield herd


@pytest.fixture(scope="module")
def herd() -> Iterator[RunningHerd]:
    """The herd of those tests that leave it as it is; each calls its clients its own way."""
    with herd_without_clark("[web]\n") as herd:
        yield herd


@pytest.fixture
def own_herd() -> Iterator[RunningHerd]:
    with herd_without_clark() as herd:
        yield herd


class Bridge:
    """A bridge in Clark's place."""

    def __init__(self, herd: RunningHerd, to: Path, *options: str) -> None:
        self.output = herd.folder / f"bridge-{time.monotonic_ns()}"
        self.arguments = [
            *("bridge", "Clark", "--config", str(herd.file), "--to", str(to)),
            *("--secret-file", str(herd["Clark"].secret_file), "--log-file", str(herd["Clark"].log_file)),
            *options,
        ]

    @property
    def command(self) -> list[str]:
        return [*warm_start.PROGRAM, *self.arguments]

    def __enter__(self) -> Self:
        with self.output.open("wb") as output:
            self.process = warm_start.start(
                self.arguments, {**os.environ}, self.output.parent, stdout=output, stderr=output
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def says(self) -> str:
        return self.output.read_text()

    def wait_until_says(self, text: str) -> None:
        wait_until(
            lambda: text in self.says() or self.process.poll() is not None, f"the bridge says {text!r}"
        )
        assert text in self.says(), self.says()

    def ended(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and its last line."""
        code = self.process.wait(2 * PATIENCE_SECONDS)
        return code, self.says().splitlines()[-1]

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()


def once(herd: RunningHerd, fronts: RunningHerd, *options: str) -> tuple[int, str]:
    with Bridge(herd, fronts.file, "--once", *options) as bridge:
        return bridge.ended()


def report(server: ServerProcess, clients: Sequence[bytes], at: int = 1_700_000_000) -> list[bytes]:
    """Let clients report; return the answers."""
    with server.connect() as connection:
        connection.send(*[b"IAMAT %b +1.5-2.5 %d" % (client, at) for client in clients])
        answers = [connection.line() for _ in clients]
    assert all(answer.startswith(b"AT ") for answer in answers)
    return answers


def known(server: ServerProcess, clients: Sequence[bytes]) -> list[bytes]:
    """Return what a server holds of each client: an AT line, or its refusal."""
    with server.connect() as connection:
        connection.send(*[b"WHATSAT %b 0 0" % client for client in clients])
        return [connection.places().partition(b"\n")[0] for _ in clients]


def clients(word: str, count: int = 300) -> list[bytes]:
    return [b"%b-%d.ucla.edu" % (word.encode(), number) for number in range(count)]


def load_on(server: ServerProcess, clients: Sequence[bytes]) -> ReportingClient:
    """Report some clients, again and again, later each time but often as late as elsewhere."""
    began, rng = time.monotonic(), random.Random(server.name)

    def batch(_: int) -> list[bytes]:
        tick = int((time.monotonic() - began) * 20)
        return [b"IAMAT %b +3.5-4.5 17%08d" % (client, tick) for client in rng.sample(clients, 10)]

    return ReportingClient(
        server.connect(), batch, pause_seconds=0.01
    )  # more would only hold up what it is to meet


def entry(line: bytes) -> Entry:
    at = parse_at(line)
    assert at is not None, line
    return at.entry


def assert_equal_and_none_lost(
    loads: Sequence[ReportingClient], herd: RunningHerd, fronts: RunningHerd
) -> None:
    """Both sides hold the same of each client, and it is one of the latest of all that was answered."""
    answered: dict[bytes, dict[int, set[bytes]]] = {}
    for line in (line for load in loads for line in load.answers):
        answered.setdefault(line.split()[3], {}).setdefault(entry(line).nanoseconds, set()).add(line)
    assert answered
    everybody = [*answered]
    tables = [known(server, everybody) for server in (fronts["Zoe"], *(herd[name] for name in ALIVE))]
    assert tables[0] == tables[1] == tables[2]
    for client, line in zip(everybody, tables[0], strict=True):
        assert line in answered[client][max(answered[client])]


def test_what_both_are_told_at_once_ends_equal_on_both_and_no_answered_report_is_lost(
    herd: RunningHerd, fronts: RunningHerd
) -> None:
    everybody = clients("both", 100)
    with Bridge(herd, fronts.file) as bridge:
        with contextlib.ExitStack() as stack:
            servers = (herd["Bona"], herd["Jaquez"], fronts["Ann"], fronts["Zoe"])
            loads = [stack.enter_context(load_on(server, everybody)) for server in servers]
            bridge.wait_until_says("in step")
            time.sleep(0.5)  # of load while they are in step
        code, text = bridge.stop()
    assert (code, text[:5]) == (0, "ended"), text
    assert once(herd, fronts)[0] == 0  # what was answered while it ended
    assert_equal_and_none_lost(loads, herd, fronts)


def test_a_bridge_that_is_killed_again_and_again_loses_nothing(
    herd: RunningHerd, fronts: RunningHerd
) -> None:
    everybody = clients("killed", 100)
    report(herd["Bona"], clients("old", 1_000))
    report(fronts["Ann"], clients("new", 1_000))
    with contextlib.ExitStack() as stack:
        servers = (herd["Bona"], herd["Jaquez"], fronts["Ann"])
        loads = [stack.enter_context(load_on(server, everybody)) for server in servers]
        for seconds in (0, 0.1, 0.3):
            with Bridge(herd, fronts.file) as bridge:
                wait_until(herd["Bona"].links, "it is linked")
                time.sleep(seconds)  # into its work
                bridge.process.kill()
                wait_until(lambda: not herd["Bona"].links(), "it is gone")
    assert once(herd, fronts)[0] == 0
    assert_equal_and_none_lost(loads, herd, fronts)
    for word in ("old", "new"):
        everybody = clients(word, 1_000)
        assert known(herd["Jaquez"], everybody) == known(fronts["Zoe"], everybody)


def test_what_goes_to_a_master_that_is_killed_goes_there_again(
    herd: RunningHerd, fronts: RunningHerd, cluster: Cluster
) -> None:
    with Bridge(herd, fronts.file) as bridge:
        bridge.wait_until_says("in step")
        master = cluster.masters()[0]
        master.kill()
        answers = report(herd["Bona"], clients("lost"))
        bridge.wait_until_says(f"{master.address}: ")
        master.start()
        code, text = bridge.stop()
    assert code == 0, text
    cluster.wait_until_ok()
    assert [one + b"\n" for one in known(fronts["Zoe"], clients("lost"))] == answers


def test_what_the_cluster_has_gone_back_on_it_is_told_again(
    herd: RunningHerd, fronts: RunningHerd, cluster: Cluster
) -> None:
    """As when a master is lost with the only replica that had its last reports."""
    [client] = clients("again", 1)
    [older] = report(fronts["Ann"], [client], 1_600_000_000)
    [newer] = report(herd["Bona"], [client], 1_700_000_000)
    key = layout.key(client)
    with Bridge(herd, fronts.file) as bridge:
        bridge.wait_until_says("in step")
        value = layout.VALUE % (entry(older[:-1]).nanoseconds, older[:-1])
        cluster.owner(cluster.slot_of(key)).client("SET", key, value)
        fronts["Zoe"].wait_until_knows(newer)
        assert bridge.stop()[0] == 0


def test_the_herd_moves_server_by_server(own_herd: RunningHerd, fronts: RunningHerd) -> None:
    """As docs/redis.md says: what the last server took a moment before it stopped is in the cluster too."""
    own_herd["Clark"].start()
    own_herd["Clark"].wait_until_ready()
    own_herd["Clark"].wait_until_linked()
    answers = report(own_herd["Clark"], clients("early"))
    assert own_herd["Clark"].stop() == 0
    with Bridge(own_herd, fronts.file) as bridge:
        bridge.wait_until_says("in step")
        assert own_herd["Bona"].stop() == 0
        last = clients("late")
        answers += report(own_herd["Jaquez"], last)
        assert own_herd["Jaquez"].stop() == 0
        code, text = bridge.stop()
    assert (code, text.partition(":")[2]) == (
        0,
        " all 600 clients it held are in the cluster; no neighbour was linked",
    )
    assert [one + b"\n" for one in known(fronts["Ann"], [*clients("early"), *last])] == answers


def test_back_into_a_herd_that_begins_empty(own_herd: RunningHerd, fronts: RunningHerd) -> None:
    everybody = clients("back", 2_000)
    answers = report(fronts["Ann"], everybody)
    code, text = once(own_herd, fronts)
    assert (code, text) == (
        0,
        "ended in step: all 2000 clients it held are in the cluster, and Bona, Jaquez have them",
    )
    for name in ALIVE:
        assert [one + b"\n" for one in known(own_herd[name], everybody)] == answers


def test_of_two_reports_as_late_the_same_wins_on_both_sides(herd: RunningHerd, fronts: RunningHerd) -> None:
    mine, theirs = report(herd["Bona"], clients("tie")), report(fronts["Ann"], clients("tie"))
    more, less = report(fronts["Zoe"], clients("eit")), report(herd["Jaquez"], clients("eit"))
    code, text = once(herd, fronts)
    assert code == 0, text
    for server in (fronts["Ann"], herd["Bona"], herd["Jaquez"]):
        assert known(server, clients("tie")) == greater(mine, theirs), (server.name, text)
        assert known(server, clients("eit")) == greater(more, less), (server.name, text)


def greater(some: list[bytes], others: list[bytes]) -> list[bytes]:
    return [max(pair)[:-1] for pair in zip(some, others, strict=True)]


# --- it claims nothing that is not so


def test_who_is_erased_on_one_side_is_erased_on_both_and_may_report_again(
    herd: RunningHerd, fronts: RunningHerd
) -> None:
    """Of each pair one side erases while the bridge runs; of the last, the cluster had erased before."""
    here, there, before = clients("erased", 3)
    herd["Jaquez"].wait_for_web()
    fronts["Zoe"].wait_for_web()
    both = (herd["Bona"], herd["Jaquez"], fronts["Ann"], fronts["Zoe"])
    report(herd["Bona"], [here, there, before])
    report(fronts["Ann"], [before])
    erase(fronts["Zoe"], before)
    with Bridge(herd, fronts.file) as bridge:
        bridge.wait_until_says("in step")
        wait_until(lambda: all(one.knows(here) and one.knows(there) for one in both), "both know them")
        erase(herd["Jaquez"], here)
        erase(fronts["Zoe"], there)
        for one in both:
            wait_until(
                lambda: not any(map(one.knows, (here, there, before))),  # noqa: B023
                f"{one.name} has forgotten them",
            )
        again = [herd["Bona"].hears(here), fronts["Ann"].hears(there), fronts["Zoe"].hears(before)]
        for one in both:
            for line in again:
                one.wait_until_knows(line)
        code, text = bridge.stop()
    assert (code, text[:5]) == (0, "ended"), text
    assert "others" not in text, "a tombstone is no stranger's key"


def erase(server: ServerProcess, client: bytes) -> None:
    with WebWire(server) as wire:
        wire.send(request("DELETE", f"/v1/clients/{client.decode()}"))
        assert wire.answer()[0] == 202


def test_it_gives_up_where_neighbours_cannot_be_reached(fronts: RunningHerd) -> None:
    with herd_of(EDGES) as herd:
        code, text = once(herd, fronts, "--patience", "1")
    assert (code, "no link with Bona, Jaquez" in text) == (1, True), text


def test_it_is_not_in_step_while_replicas_do_not_acknowledge(
    herd: RunningHerd, fronts: RunningHerd, cluster: Cluster
) -> None:
    report(herd["Bona"], clients("unsealed"))
    [replica] = cluster.replicas_of(cluster.masters()[0])
    replica.freeze()
    try:
        with Bridge(herd, fronts.file, "--once") as bridge:
            bridge.wait_until_says("0 replicas have acknowledged, of 1 that must")
            assert bridge.process.poll() is None
            replica.thaw()
            assert bridge.ended()[0] == 0
    finally:
        replica.thaw()
    cluster.wait_until_ok()
    assert known(fronts["Ann"], clients("unsealed")) == known(herd["Bona"], clients("unsealed"))


def test_it_does_not_end_well_with_something_unwritten(
    herd: RunningHerd, fronts: RunningHerd, cluster: Cluster
) -> None:
    with Bridge(herd, fronts.file, "--patience", "0.5") as bridge:
        bridge.wait_until_says("in step")
        [replica] = cluster.replicas_of(cluster.masters()[0])
        replica.freeze()
        try:
            report(herd["Bona"], clients("unwritten"))
            bridge.wait_until_says("0 replicas have acknowledged, of 1 that must")
            code, text = bridge.stop()
        finally:
            replica.thaw()
    assert (code, "clients may not be in the cluster" in text) == (1, True), text
    cluster.wait_until_ok()


def test_it_is_not_in_step_while_a_slot_moves(
    herd: RunningHerd, fronts: RunningHerd, cluster: Cluster
) -> None:
    client, *others = same_tag("moving", 4)
    [answer] = report(fronts["Ann"], [client])
    answers = report(herd["Bona"], others)
    slot = layout.TAG_SLOTS[layout.tag_of(client)]
    source = cluster.owner(slot)
    target = next(one for one in cluster.masters() if one is not source)
    moving = cluster.moving_slot(slot, target)
    assert [next(moving), next(moving)] == ["importing", "migrating"]
    with Bridge(herd, fronts.file, "--once") as bridge:
        bridge.wait_until_says(f"slots {slot} are on their way")
        assert bridge.process.poll() is None
        assert list(moving)[-1] == "moved"
        code, text = bridge.ended()
    assert code == 0, text
    for server in (fronts["Ann"], herd["Jaquez"]):
        assert [one + b"\n" for one in known(server, [client, *others])] == [answer, *answers]
    cluster.wait_until_ok()


def same_tag(word: str, count: int) -> list[bytes]:
    """Return clients whose keys are in one slot."""
    first, *rest = clients(word, 1_000 * count)
    return [first, *(one for one in rest if layout.tag_of(one) == layout.tag_of(first))][:count]


def test_it_says_so_when_the_herd_has_no_room(fronts: RunningHerd) -> None:
    report(fronts["Ann"], clients("room"))
    with herd_without_clark("[limits]\nmax_clients = 200\n") as herd:
        code, text = once(herd, fronts)
    assert code == 1
    assert "50 clients of the cluster have no room in the herd: raise limits.max_clients" in text


def test_where_clark_still_runs_it_says_so(herd: RunningHerd, fronts: RunningHerd) -> None:
    with socket.create_server(("127.0.0.1", herd["Clark"].peer_port)):
        code, text = once(herd, fronts)
    assert code == 1
    assert text.endswith("the bridge takes the place of Clark, so stop that server first")


def test_files_that_do_not_go_together_are_refused(
    herd: RunningHerd, fronts: RunningHerd, tmp_path: Path
) -> None:
    longer, later = tmp_path / "redis.toml", tmp_path / "later.toml"
    longer.write_text("[limits]\nmax_line_bytes = 9000\n" + fronts.file.read_text())
    later.write_text("[limits]\nmax_clock_lead_seconds = 5\n" + fronts.file.read_text())
    for to, said in (
        (longer, "key limits.max_line_bytes: is 9000, but 8192 in"),
        (later, "key limits.max_clock_lead_seconds: is 5, but 1 in"),
        (herd.file, 'is "herd"'),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            check(herd_file.load(herd.file), herd_file.load(to))


# --- and what else there is


def test_what_the_herd_forgets_expires_in_the_cluster_too(
    cluster: Cluster, fronts: RunningHerd, tmp_path: Path
) -> None:
    age = "[limits]\nmax_age_seconds = 600\n"
    to = tmp_path / "redis.toml"
    to.write_text(age + fronts.file.read_text())
    [client] = clients("age", 1)
    with herd_without_clark(age) as herd:
        report(herd["Bona"], [client])
        with Bridge(herd, to, "--once") as bridge:
            assert bridge.ended()[0] == 0
    key = layout.key(client)
    left = cluster.owner(cluster.slot_of(key)).client("PTTL", key)
    assert 560_000 < left <= 600_000


def test_what_others_have_written_is_left_alone(
    herd: RunningHerd, fronts: RunningHerd, cluster: Cluster
) -> None:
    [client] = clients("foreign", 1)
    for key in (layout.key(client), b"theirs"):
        cluster.owner(cluster.slot_of(key)).client("SET", key, "what is this")
    assert once(herd, fronts)[0] == 0
    assert herd["Bona"].knows(client) == b""


def test_on_a_terminal_there_is_a_bar_and_nowhere_a_core_dump(herd: RunningHerd, fronts: RunningHerd) -> None:
    report(fronts["Ann"], clients("bar"))
    ours, its = pty.openpty()
    bridge = Bridge(herd, fronts.file, "--once")
    wanted = 'ulimit -S -c "$(ulimit -H -c)"; exec "$@"'  # as where core dumps are wanted
    process = subprocess.Popen(["sh", "-c", wanted, "sh", *bridge.command], stdout=its, stderr=its)
    os.close(its)
    shown = b""
    try:
        while not shown:
            shown = os.read(ours, 4_096)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 ", limits, re.MULTILINE), "it would leave a core dump"
        with contextlib.suppress(OSError):  # EIO: it has ended
            while data := os.read(ours, 4_096):
                shown += data
    finally:
        process.kill()
        os.close(ours)
    assert process.wait() == 0
    assert b"\r\x1b[K[" in shown
    assert re.search(rb"\[#*-*\] herd [\d,]+, written ", shown)
    assert shown.rstrip().splitlines()[-1].startswith(b"ended in step: ")
