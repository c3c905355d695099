"""Servers in front of a real Redis Cluster of nine, while its nodes are killed, stopped, filled up and moved about: no
answered report is lost, nothing is answered that is not known to be true, and parts that are well are not harmed.

Each test prints for how many seconds its part of the table could not be written (`pytest -rP`). What befalls the cluster
at random takes longer, or is the same again, by PROXYHERD_REDIS_FAULTS_SECONDS and PROXYHERD_REDIS_FAULTS_SEED; with
PROXYHERD_REDIS_FAULTS_REPLICAS=1 servers wait for one replica only, which can lose reports on a busy machine:

    PROXYHERD_REDIS_FAULTS_SECONDS=600 PROXYHERD_REDIS_FAULTS_SEED=7 pytest -s tests/system/test_redis_faults.py -k random
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from debian import needs
from herd_process import (
    PATIENCE_SECONDS,
    Connection,
    RunningHerd,
    ServerProcess,
    now,
    short_folder,
    wait_until,
)
from redis_cluster import SLOTS, Cluster, RedisNode, running_cluster
from redis_load import (
    BUSY_SLOTS,
    DEADLINE_SECONDS,
    PARTS,
    RedisLoad,
    clients_of,
    knows,
    prepared_fronts,
    running_fronts,
)

from proxyherd.core.messages import parse_at
from proxyherd.engines.redis.commands import LIBRARY
from proxyherd.engines.redis.layout import TAG_SLOTS, VALUE, key, tag_of

SECONDS = float(os.environ.get("PROXYHERD_REDIS_FAULTS_SECONDS", "8"))
CONNECTIONS = 12 if "PROXYHERD_REDIS_FAULTS_SECONDS" in os.environ else 4
"""Of clients of each part at random: more where somebody looks for faults."""

REPLICAS = int(os.environ.get("PROXYHERD_REDIS_FAULTS_REPLICAS", "2"))
"""How many replicas must confirm a report, at random. Where one is enough, Redis may elect the other if the machine has
no time for them: docs/redis.md.
"""

ROUNDS = int(os.environ.get("PROXYHERD_REDIS_FAULTS_ROUNDS", "1"))
"""How often two masters are killed at once."""
SEED = int(os.environ.get("PROXYHERD_REDIS_FAULTS_SEED", random.randrange(1 << 32)))

AWAY_SECONDS = 8.0
"""Within which a part is written again whose master has gone, at a node timeout of 2 s."""

NEXT_ELECTION_SECONDS = 10.0
"""How much longer it takes where two replicas have stood and shared the votes, so that nobody was elected: Redis lets a
replica stand again after four times the node timeout.
"""

UNHARMED_SECONDS = 2.0
"""How long a client of a part that is well may wait, on a busy machine too: less than any election takes."""

TESTER = "tester"  # who has a password in tests' clusters
OPTIONS = ["cluster-allow-replica-migration no", "appendfsync no"]
"""Else a shard without replicas is given another's, whenever Redis sees fit; and what a kill of all nodes loses would
depend on how busy the disk is: Redis does not write while a flush is under way.
"""

pytestmark = [
    needs("redis-server"),
    pytest.mark.xdist_group("redis-faults"),
]


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[Cluster]:
    with running_cluster(options=OPTIONS, deployed=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared_fronts(shared_cluster: Cluster) -> Iterator[RunningHerd]:
    with running_fronts(shared_cluster, "Ann", "Bob", "Cid") as herd:
        yield herd


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """Lend the cluster, whole again whatever the last test has left."""
    revive(shared_cluster)
    return shared_cluster


@pytest.fixture
def fronts(cluster: Cluster, shared_fronts: RunningHerd) -> Iterator[RunningHerd]:
    assert cluster.running() == cluster.nodes
    wait_until_ready(shared_fronts)
    yield shared_fronts
    see_no_fault_of_ours(shared_fronts)


@pytest.fixture
def random_fronts(cluster: Cluster) -> Iterator[RunningHerd]:
    """Run servers that lose no report because the machine is busy."""
    with running_fronts(cluster, "Ann", "Bob", "Cid", more=[f"replicas = {REPLICAS}"]) as herd:
        yield herd
        see_no_fault_of_ours(herd)


def see_no_fault_of_ours(fronts: RunningHerd) -> None:
    for server in fronts.values():
        assert server.stderr() == ""
        assert b'"internal_error"' not in server.log_file.read_bytes()  # too long to be parsed each time


def revive(cluster: Cluster) -> None:
    for node in cluster.nodes:
        if node.is_frozen:
            node.thaw()
        elif not node.runs:
            node.start()
    cluster.wait_until_ok()


def wait_until_ready(fronts: RunningHerd) -> None:
    for server in fronts.values():
        server.wait_until_ready()


def wait_until_unready(fronts: RunningHerd, *words: str) -> None:
    """Wait until /readyz of every server says what is away."""
    for server in fronts.values():

        def told(server: ServerProcess = server) -> bool:
            status, text = server.readiness()
            return status == 503 and all(word in text for word in words)

        wait_until(told, f"{server.name} says that {words} cannot be had")


@contextlib.contextmanager
def trouble(what: str, cluster: Cluster, fronts: RunningHerd, load: RedisLoad, *parts: int) -> Iterator[None]:
    """Judge what the body does to parts of the table, when all is well again: nothing answered is lost, these parts were
    written again in time, and the others all along.
    """
    since, epoch = time.monotonic(), cluster.epoch
    yield
    load.wait_until_served()
    wait_until_ready(fronts)
    candidates = cluster.epoch - epoch
    away = AWAY_SECONDS + NEXT_ELECTION_SECONDS * max(0, candidates - len(parts))
    pauses = [load.pause(part, since) for part in range(PARTS)]
    revive(cluster)
    load.check()
    print(
        f"{what}: unwritable for {', '.join(f'{pauses[part].part:.2f} s' for part in parts) or 'no time'}; "
        f"elsewhere the longest wait was {max((one.client for at, one in enumerate(pauses) if at not in parts), default=0):.2f} s"
    )
    for part, pause in enumerate(pauses):
        assert pause.client < (UNHARMED_SECONDS if part not in parts else PATIENCE_SECONDS), (what, pauses)
        assert pause.part < (UNHARMED_SECONDS if part not in parts else away), (what, candidates, pauses)


def load_of(fronts: RunningHerd, connections: int = 4) -> RedisLoad:
    return RedisLoad([*fronts.values()], connections=connections)


def events(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    """Return the events of that name; the log is too long to be parsed whole."""
    lines = server.log_file.read_bytes().splitlines()
    return [json.loads(line) for line in lines if b'"%b"' % event.encode() in line]


# --- masters that go


def test_masters_killed_one_after_another_lose_no_answered_report(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    with load_of(fronts) as load:
        for part in (0, 2):
            with trouble(f"master of part {part} killed", cluster, fronts, load, part):
                victim = cluster.masters()[part]
                victim.kill()
                wait_until_unready(fronts, victim.address)
    assert load.counts["reports"] > 300


def test_a_master_that_stands_still_for_seven_seconds_loses_no_answered_report(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    with load_of(fronts) as load, trouble("master stopped for 7 s", cluster, fronts, load, 1):
        old = cluster.masters()[1]
        began = time.monotonic()
        old.freeze()
        wait_until_unready(fronts, old.address)
        wait_until_ready(fronts)
        load.wait_until_served()  # by another one
        load.check()
        time.sleep(max(0.0, began + 7 - time.monotonic()))
        old.thaw()


def test_a_master_that_wakes_while_a_replica_is_being_elected_is_not_used_again(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    """What it takes then, the other replica may acknowledge, and the one that is elected lacks."""
    old = cluster.masters()[0]
    elected, other = replicas = cluster.replicas_of(old)
    other.client("CONFIG", "SET", "cluster-replica-no-failover", "yes")  # or the two may share the votes
    used = {server: count_ups(server, old) for server in fronts.values()}
    with load_of(fronts) as load, trouble("master woken during the election", cluster, fronts, load, 0):
        old.freeze()
        wait_until(lambda: any(takes_for_dead(one, old) for one in replicas), "a replica is to be elected")
        old.thaw()
        wait_until(lambda: elected.is_master, "it is elected")
    other.client("CONFIG", "SET", "cluster-replica-no-failover", "no")
    for server, count in used.items():
        assert count_ups(server, old) == count


def takes_for_dead(replica: RedisNode, master: RedisNode) -> bool:
    return any("fail" in one.flags for one in replica.seen() if one.port == master.port)


def count_ups(server: ServerProcess, master: RedisNode) -> int:
    return sum(one["master"] == master.address for one in events(server, "master_up"))


def test_replicas_that_stand_still_while_their_master_is_killed_lose_no_answered_report(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    with load_of(fronts) as load, trouble("replicas stopped, master killed", cluster, fronts, load, 2):
        victim = cluster.masters()[2]
        replicas = cluster.replicas_of(victim)
        for replica in replicas:
            replica.freeze()
        wait_until_unready(fronts, victim.address)  # it goes on, but what it says is not believed
        victim.kill()
        for replica in replicas:
            replica.thaw()


@pytest.mark.parametrize("number", range(ROUNDS))
def test_two_masters_killed_at_once_that_come_back_without_their_last_writes_lose_no_answered_report(
    cluster: Cluster, fronts: RunningHerd, number: int
) -> None:
    """No replica can be elected before they are back, and their own files lack what the disk had not taken yet."""
    with load_of(fronts) as load:
        load.wait_for_reports(100)
        victims = [master for at, master in enumerate(cluster.masters()) if at != number % PARTS]
        for victim in victims:
            victim.kill()
        for victim in victims:
            victim.lose_end_of_file(20_000)
            victim.start()
        began = time.monotonic()
        wait_until_ready(fronts)
        load.wait_until_served()
        print(f"served after {time.monotonic() - began:.2f} s")
        load.check()
        cluster.wait_until_ok()
        assert not any(victim.is_master for victim in victims)


def test_a_shard_killed_as_a_whole_waits_for_all_of_its_nodes_or_for_the_operator(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    master = cluster.masters()[0]
    late, *others = replicas = cluster.replicas_of(master)
    for node in (master, *replicas):
        node.kill()
    for node in (master, *others):
        node.start()
    wait_until(lambda: f"waits for: {late.address}" in master.log(), "it waits for the one that is away")
    assert not master.answers()
    wait_until_unready(fronts, master.address, "NOAUTH")
    (master.folder / "serve-anyway").touch()
    wait_until_ready(fronts)
    assert master.is_master


# --- masters that come back


def ask(connection: Connection) -> bytes:
    return connection.places().partition(b"\n")[0]


def test_a_question_on_its_way_to_a_master_that_is_replaced_meanwhile_is_answered_by_the_new_one(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    """The old master wakes with the question before it, and answers from what it held: only the seal tells. Servers that
    do not heed the count of WAIT tell the old state in nine of ten rounds.
    """
    for number in (0, 2, 4):
        [client] = clients_of(number % PARTS, 1, b"replaced%d" % number)
        before = fronts["Ann"].hears(client)[:-1]
        later = b"AT Zoe +0.000000001 %b +1+1 %b" % (client, now())
        old = cluster.masters()[number % PARTS]
        new, *_ = cluster.replicas_of(old)
        with contextlib.ExitStack() as stack:
            asking = [stack.enter_context(server.connect()) for server in fronts.values()]
            on_new = stack.enter_context(new.connect())
            old.freeze()
            for connection in asking:
                connection.send(b"WHATSAT %b 0 0" % client)
            on_new.ask("CLUSTER", "FAILOVER", "TAKEOVER")
            at = parse_at(later)
            assert at is not None
            value = VALUE % (at.entry.nanoseconds, later)
            assert on_new.ask("FCALL", LIBRARY + b"_advance", 1, key(client), value, 10**9) == b"1"
            assert on_new.ask("WAIT", 1, 800) == 1
            time.sleep(0.05 * number)  # any instant, while the first batch is not late yet
            old.thaw()
            answers = [ask(connection) for connection in asking]
        assert answers == [later] * len(asking), f"round {number}, before that: {before!r}"
        cluster.wait_until_ok()


def test_an_idle_server_asked_as_an_old_master_wakes_does_not_tell_its_old_state(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    """Server and master stand still together, as virtual machines do, and wake together."""
    clients = clients_of(0, 20, b"idle")
    before = [fronts["Ann"].hears(client) for client in clients]
    idle = [server for server in fronts.values() if server.name != "Ann"]
    old = cluster.masters()[0]
    with contextlib.ExitStack() as stack:
        for server in idle:
            assert list(knows(server, clients).values()) == [line[:-1] for line in before]
        asking = [stack.enter_context(server.connect()) for server in idle]
        try:
            for server in idle:
                server.freeze()
            old.freeze()
            began = time.monotonic()
            wait_until(lambda: hears(fronts["Ann"], clients[0]), "a new master has taken a report")
            after = [fronts["Ann"].hears(client) for client in clients]
            for connection in asking:
                connection.send(*(b"WHATSAT %b 0 0" % client for client in clients))
            time.sleep(max(0.0, began + 7 - time.monotonic()))
        finally:
            for server in idle:
                server.thaw()
            old.thaw()
        for connection in asking:
            assert [ask(connection) + b"\n" for _ in clients] == after


def hears(server: ServerProcess, client: bytes) -> bytes:
    """Let a client report; return the answer, or nothing where there is none."""
    return server.ask(b"IAMAT %b +1+1 %b" % (client, now()))


# --- what is answered while a part is away


def test_without_replicas_a_part_is_not_answered_and_the_others_are(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    with load_of(fronts) as load:
        since = time.monotonic()
        master = cluster.masters()[0]
        replicas = cluster.replicas_of(master)
        for replica in replicas:
            replica.kill()
        wait_until_unready(fronts, master.address, "replicas")
        [client] = clients_of(0, 1, b"unkept")
        question = b"WHATSAT %b 0 0" % client
        assert_closed_in_time(DEADLINE_SECONDS, *((one, question) for one in fronts.values()))
        for part in (1, 2):
            assert load.pause(part, since).client < UNHARMED_SECONDS
        for replica in replicas:
            replica.start()
        wait_until_ready(fronts)
        load.wait_until_served()
        load.check()
        assert fronts["Bob"].knows(fronts["Ann"].hears(client).split()[3]).startswith(b"AT Ann ")


def assert_closed_in_time(seconds: float, *asked: tuple[ServerProcess, bytes]) -> None:
    """See that lines that nobody can answer are not answered, and their connections are closed after so many seconds: a
    batch may be in flight then, and the server looks once a second.
    """
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        asking = [stack.enter_context(server.connect()) for server, _ in asked]
        for connection, (_, line) in zip(asking, asked, strict=True):
            connection.send(line)
        for connection in asking:
            assert connection.rest() == b""
            assert seconds - 0.5 < time.monotonic() - began < seconds + 3


@pytest.mark.parametrize("parts", [(0, 1), (0, 1, 2)])
def test_masters_that_are_all_away_are_waited_for_no_longer_than_the_deadline(
    cluster: Cluster, fronts: RunningHerd, parts: tuple[int, ...]
) -> None:
    """Nobody can be elected: too few masters are left to vote."""
    with load_of(fronts) as load:
        masters = cluster.masters()
        gone = [masters[part] for part in parts]
        if len(parts) == PARTS:
            gone = cluster.nodes
        for node in gone:
            node.kill()
        wait_until_unready(fronts, *(masters[part].address for part in parts))
        [client] = clients_of(0, 1, b"away")
        assert_closed_in_time(
            DEADLINE_SECONDS,
            *((one, b"WHATSAT %b 0 0" % client) for one in fronts.values()),
            (fronts["Ann"], b"IAMAT %b +1+1 %b" % (client, now())),
        )
        assert fronts["Ann"].ask(b"FOO") == b"? FOO\n"
        began = time.monotonic()
        revive(cluster)
        wait_until_ready(fronts)
        load.wait_until_served()
        print(f"masters of parts {parts} back: served after {time.monotonic() - began:.2f} s")
        load.check()


def test_a_master_that_has_lost_the_function_is_told_until_an_operator_loads_it(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    with load_of(fronts) as load:
        master = cluster.masters()[1]
        master.client("FUNCTION", "DELETE", LIBRARY)
        wait_until_unready(fronts, f"{master.address} has no function proxyherd_2", "load-function.sh")
        cluster.load_function()
        load.wait_until_served()
        wait_until_ready(fronts)
        load.check()


def test_where_memory_is_full_reports_are_refused_and_questions_answered(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    known, new = clients_of(0, 2, b"memory")
    at_line = fronts["Ann"].hears(known)
    master = cluster.masters()[0]
    master.client("CONFIG", "SET", "maxmemory", 1)
    try:
        for client in (known, new):
            line = b"IAMAT %b +1+1 %b" % (client, now())
            assert fronts["Ann"].ask(line) == b"? %b\n" % line
        assert fronts["Bob"].knows(known) == at_line
        assert fronts["Bob"].knows(new) == b""
        assert fronts["Ann"].hears(clients_of(1, 1, b"memory")[0])
        wait_until_unready(fronts, master.address, "take no reports", "raise maxmemory")
        for server in fronts.values():
            assert server.metrics()["proxyherd_masters_full"] == 1
            assert [one["master"] for one in events(server, "master_full")][-1] == master.address
        with fronts["Ann"].connect() as connection:  # between what is answered otherwise, in order
            line = b"IAMAT %b +1+1 %b" % (known, now())
            connection.send(b"WHATSAT %b 0 0" % known, line, b"WHATSAT %b 0 0" % known)
            assert connection.places().startswith(at_line)
            assert connection.line() == b"? %b\n" % line
            assert connection.places().startswith(at_line)
    finally:
        master.client("CONFIG", "SET", "maxmemory", 0)
    wait_until_ready(fronts)  # though nobody has reported since
    for server in fronts.values():
        assert server.metrics()["proxyherd_masters_full"] == 0
        assert [one["master"] for one in events(server, "master_has_room")][-1] == master.address
    assert fronts["Bob"].knows(known) == at_line
    assert fronts["Ann"].hears(new)


# --- slots that move


def test_a_slot_moved_while_serving_loses_no_answered_report_and_harms_nobody(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    """Reports for what has been moved wait until its slot is, so the steps of a move do not wait for clients of its part."""
    with load_of(fronts) as load, trouble("slots moved to and fro", cluster, fronts, load):
        for slot in (BUSY_SLOTS[0], BUSY_SLOTS[-1]):
            others = {*range(PARTS)} - {slot * PARTS // SLOTS}
            home = cluster.owner(slot)
            [to, *_] = [node for node in cluster.masters() if node is not home]
            for target in (to, home):
                for _ in cluster.moving_slot(slot, target, keys_a_step=1):
                    load.wait_until_served(others)
                assert cluster.owner(slot) is target
                load.check()


def test_a_slot_whose_receiver_was_killed_is_served_again_when_its_move_has_been_mended(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    """Until then its keys may be where nobody can ask: the one that was killed comes back as a replica."""
    ids = [client for client in clients_of(0, 100, b"mended") if TAG_SLOTS[tag_of(client)] == BUSY_SLOTS[0]]
    clients = {client: fronts["Ann"].hears(client)[:-1] for client in ids}
    receiver = cluster.masters()[1]
    for step in cluster.moving_slot(BUSY_SLOTS[0], receiver, keys_a_step=len(clients) // 2):
        if step == "keys":
            break
    receiver.kill()
    with contextlib.ExitStack() as stack:
        asking = [(stack.enter_context(one.connect()), client) for one in fronts.values() for client in ids]
        for connection, client in asking:
            connection.send(b"WHATSAT %b 0 0" % client)
        answers = {(client, ask(connection)) for connection, client in asking}
    unanswered = {(client, b"") for client in clients}
    assert answers & unanswered
    assert answers <= {*clients.items()} | unanswered
    receiver.start()
    wait_until(lambda: receiver.answers() and not receiver.is_master, "it is a replica")
    wait_until_ready(fronts)
    redis_cli(cluster, "fix")
    cluster.wait_until_ok()
    for server in fronts.values():
        assert knows(server, [*clients]) == clients


def redis_cli(cluster: Cluster, command: str, *options: str) -> None:
    """Let Redis' own tool change the cluster."""
    way_in = ["--no-auth-warning", "--user", TESTER, "--pass", TESTER]
    where = cluster.running()[0].address
    done = subprocess.run(
        ["redis-cli", *way_in, "--cluster", command, where, *options],
        input="yes\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- anything at any time


class Troubles:
    """What may befall a cluster and its servers, one at a time. No slot is on its way when a master is killed: Redis 7
    tells no replica of that, so its new master denies what has moved already, until `redis-cli --cluster fix`.
    """

    def __init__(self, cluster: Cluster, fronts: RunningHerd, rng: random.Random) -> None:
        self._cluster = cluster
        self._fronts = fronts
        self._rng = rng
        self.names = [
            *("kill", "stop", "kill_replica", "stop_replicas_and_kill", "wake_replica_and_kill"),
            *("move", "fail_over", "kill_front", "forget_functions", "cut"),
        ]

    def befall(self) -> str:
        """Do one, and undo it; return what was done."""
        name = self._rng.choice(self.names)
        master = self._rng.choice(self._cluster.masters())
        began = time.monotonic()
        getattr(self, f"_{name}")(master)
        return f"{name} {master.address}, {time.monotonic() - began:.3f} s"

    def _wait(self, *seconds: float) -> None:
        time.sleep(self._rng.choice(seconds))  # the instant is to be any

    def _kill(self, master: RedisNode) -> None:
        master.kill()
        self._wait(0, 0.5, 2, 3, 4)
        master.start()

    def _stop(self, master: RedisNode) -> None:
        master.freeze()
        self._wait(0.3, 0.9, 2, 2.5, 3, 3.5, 4, 7)
        master.thaw()

    def _kill_replica(self, master: RedisNode) -> None:
        replica = self._rng.choice(self._cluster.replicas_of(master))
        replica.kill()
        self._wait(0, 1)
        replica.start()

    def _stop_replicas_and_kill(self, master: RedisNode) -> None:
        replicas = self._cluster.replicas_of(master)
        for replica in replicas:
            replica.freeze()
        self._wait(0.2, 1)
        master.kill()
        for replica in replicas:
            replica.thaw()

    def _wake_replica_and_kill(self, master: RedisNode) -> None:
        replica = self._rng.choice(self._cluster.replicas_of(master))
        replica.freeze()
        self._wait(0.5, 1, 3)
        replica.thaw()
        master.kill()

    def _move(self, _: RedisNode) -> None:
        slot = self._rng.choice(BUSY_SLOTS)
        home = self._cluster.owner(slot)
        to = self._rng.choice([node for node in self._cluster.masters() if node is not home])
        for _step in self._cluster.moving_slot(slot, to, keys_a_step=1):
            self._wait(0, 0.02)

    def _fail_over(self, master: RedisNode) -> None:
        replica = self._rng.choice(self._cluster.replicas_of(master))
        replica.client("CLUSTER", "FAILOVER")  # FORCE would lose what only the other replica has acknowledged
        wait_until(lambda: replica.is_master, f"{replica.address} is master")

    def _kill_front(self, _: RedisNode) -> None:
        server = self._rng.choice([*self._fronts.values()])
        server.kill()
        server.start()
        server.wait_until_ready()

    def _forget_functions(self, master: RedisNode) -> None:
        master.client("FUNCTION", "FLUSH")
        self._wait(0, 0.5)
        self._cluster.load_function()

    def _cut(self, master: RedisNode) -> None:
        for _ in range(5):
            master.client("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            self._wait(0.02)


@pytest.mark.timeout(SECONDS + 600)
def test_random_troubles_lose_no_answered_report(cluster: Cluster, random_fronts: RunningHerd) -> None:
    fronts = random_fronts
    troubles = Troubles(cluster, fronts, random.Random(SEED))
    history = [f"PROXYHERD_REDIS_FAULTS_SEED={SEED} PROXYHERD_REDIS_FAULTS_SECONDS={SECONDS:g}"]
    logged = {node: len(node.log()) for node in cluster.nodes}
    end = time.monotonic() + SECONDS
    try:
        with load_of(fronts, CONNECTIONS) as load:
            while time.monotonic() < end:
                history.append(troubles.befall())
                revive(cluster)
                load.wait_until_served()
                load.check()
    finally:
        print(*history, dict(load.counts), *elections(logged), sep="\n")


def elections(logged: dict[RedisNode, int]) -> list[str]:
    """Return who has stood for election, with how much data, and who won, beyond these characters of nodes' logs."""
    return [
        f"{node.address} {line}"
        for node, size in logged.items()
        for line in node.log()[size:].splitlines()
        if "rank #" in line or "election won" in line
    ]


# --- clusters that cannot be used


@pytest.mark.parametrize(
    ("lines", "nodes", "said"),
    [
        ([f'user = "{TESTER}"', 'password_file = "wrong"'], None, "invalid username-password pair"),
        (['tls_authority = "authority.pem"'], None, "no answer in time"),
        ([], ["127.0.0.1:1"], "127.0.0.1:1"),
    ],
    ids=["a wrong password", "TLS to a plain port", "nobody there"],
)
def test_a_cluster_that_cannot_be_had_is_told_and_ends_no_server(
    cluster: Cluster, lines: list[str], nodes: list[str] | None, said: str
) -> None:
    with prepared_fronts(nodes or cluster.addresses, "Dot", more=["deadline_seconds = 1.5", *lines]) as herd:
        dot = herd["Dot"]
        (herd.folder / "deploy/wrong").write_text("not this one")
        make_authority(herd.folder / "deploy/authority.pem")
        dot.start()
        wait_until_unready(herd, "512 of 512", said)
        assert_closed_in_time(1.5, (dot, b"WHATSAT kiwi 0 0"), (dot, b"IAMAT kiwi +1+1 1"))
        assert dot.ask(b"FOO") == b"? FOO\n"
        assert len(dot.events("node_failed")) <= 2 * len(nodes or cluster.addresses)
        assert dot.stop() == 0
        assert dot.stderr() == ""


def make_authority(file: Path) -> None:
    """Make a certificate that has signed nothing."""
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    key_file = ["-keyout", os.devnull, "-out", str(file)]
    subprocess.run(
        ["openssl", "req", "-x509", *new_key, "-nodes", "-subj", "/CN=nobody", *key_file],
        check=True,
        capture_output=True,
    )


@needs("locale-gen")
def test_nodes_that_order_by_another_language_are_refused_with_the_remedy() -> None:
    with short_folder() as folder:
        compiled = ["localedef", "-i", "en_US", "-f", "UTF-8", str(folder / "en_US.UTF-8")]
        subprocess.run(compiled, check=True, capture_output=True)
        environ = {"LC_ALL": "en_US.UTF-8", "LOCPATH": str(folder)}
        with (
            running_cluster(masters=1, replicas=1, environ=environ) as cluster,
            prepared_fronts(cluster.addresses, "Eve", more=["deadline_seconds = 1.5"]) as herd,
        ):
            herd.start()
            wait_until_unready(herd, cluster.masters()[0].address, "LC_ALL=C")
            assert_closed_in_time(1.5, (herd["Eve"], b"IAMAT kiwi +1+1 1"))
            assert herd["Eve"].stop() == 0


# --- last, since the cluster has another shard then


def test_a_shard_added_while_serving_takes_its_share_and_no_answered_report_is_lost(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    with (
        load_of(fronts) as load,
        trouble("a shard added, 600 slots moved to it", cluster, fronts, load),
    ):
        added = cluster.add_shard(replicas=1)
        began = time.monotonic()
        where = ["--cluster-from", "all", "--cluster-to", added.id]
        redis_cli(cluster, "reshard", *where, "--cluster-slots", "600", "--cluster-yes")
        print(f"resharded in {time.monotonic() - began:.2f} s")
        cluster.wait_until_ok()
        assert added.keys() > 0
        for server in fronts.values():
            wait_until(partial(masters_told, server, added), f"{server.name} knows the new master")


def masters_told(server: ServerProcess, master: RedisNode) -> bool:
    return master.address in events(server, "masters")[-1]["parts"]
