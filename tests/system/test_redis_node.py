"""deploy/redis/node.sh decides rightly whether a node may serve: against a redis-server and a redis-cli that are scripts.

What the real ones make of it is in test_redis_faults.py; here are the cases that are hard to bring about there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Self

import pytest
from herd_process import ROOT, wait_until

NODE = ROOT / "deploy/redis/node.sh"
ME, FIRST, SECOND, OTHER = "a" * 40, "b" * 40, "c" * 40, "d" * 40

SERVER = """#!/bin/sh
echo "$@" >"$TOLD/server"
exec /bin/sleep 60
"""

SLEEP = """#!/bin/sh
exec /bin/sleep 0.02
"""

CLI = """#!/bin/sh
# Answers what the test has written for this port; notes who asks for what, and what the node's users are then.
while :; do
    case $1 in
        -p) port=$2; shift 2 ;;
        --user) user=$2; shift 2 ;;
        -h) shift 2 ;;
        -*) shift ;;
        *) break ;;
    esac
done
echo "$port $user $*" >>"$TOLD/asked"
case $* in
    "ACL LOAD" | "CLUSTER FAILOVER FORCE") echo OK ;;
    *) cat "$TOLD/$port" 2>/dev/null || echo "Could not connect to Redis at 127.0.0.1:$port: Connection refused" ;;
esac
"""


def line(name: str, port: int, flags: str, master: str = "-") -> str:
    slots = " 0-5460" if "master" in flags else ""
    return f"{name} 127.0.0.1:{port}@{port + 10_000} {flags} {master} 0 0 1 connected{slots}"


def view(me: str = "myself,master", first: str = "slave", second: str = "slave") -> str:
    """Return what CLUSTER NODES says at 7001: two replicas, and another shard's."""
    lines = [
        line(ME, 7001, me, "-" if "master" in me else FIRST),
        line(FIRST, 7002, first, "-" if "master" in first else ME),
        line(SECOND, 7003, second, ME),
        line(OTHER, 7004, "slave", OTHER),
    ]
    return "\n".join(lines) + "\n"


def replica(offset: int, master: int = 7001) -> str:
    """Return what INFO says of a replica that has received so much since it started; 1: nothing."""
    return f"role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:{master}\r\nslave_repl_offset:{offset}\r\n"


class Started:
    """A node that node.sh has started, in a folder."""

    def __init__(self, folder: Path, nodes: str | None, answers: dict[int, str], local: str = "") -> None:
        self.folder, self.told = folder / "node", folder / "told"
        for one in (self.folder, self.told, folder / "bin"):
            one.mkdir()
        for name, text in (("redis-server", SERVER), ("redis-cli", CLI), ("sleep", SLEEP)):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        (folder / "local.conf").write_text(f"masteruser replication\nmasterauth secret\n{local}")
        self.users = folder / "users.acl"
        self.users.write_text(
            "user default off ~* &* +@all\nuser proxyherd on >x +@all\nuser admin on >y +@all\n"
        )
        if nodes is not None:
            (self.folder / "nodes.conf").write_text(nodes + "vars currentEpoch 1 lastVoteEpoch 0\n")
        for port, text in answers.items():
            self.answers(port, text)
        self.log = folder / "log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [str(NODE), "7001", str(self.folder), str(folder)],
                env={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "TOLD": str(self.told)},
                stdout=log,
                stderr=log,
            )

    def answers(self, port: int, text: str) -> None:
        (self.told / f"{port}.new").write_text(text)
        (self.told / f"{port}.new").rename(self.told / str(port))

    def __enter__(self) -> Self:
        wait_until((self.told / "server").exists, "redis-server is started")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def active(self) -> Path:
        return self.folder / "users-now.acl"

    def asked(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return (self.told / "asked").read_text().splitlines()
        return []

    def is_open(self) -> bool:
        return "7001 node.sh ACL LOAD" in self.asked() and self.active.resolve() == self.users

    def wait_until_asked(self, what: str, times: int = 1) -> None:
        wait_until(lambda: self.asked().count(what) >= times, f"it asks {what} {times} times")

    def wait_until_says(self, text: str) -> None:
        wait_until(lambda: text in self.log.read_text(), f"its log says {text!r}")


FORCE_FIRST, FORCE_SECOND = (f"{port} replication CLUSTER FAILOVER FORCE" for port in (7002, 7003))


@pytest.mark.parametrize(
    "nodes",
    [None, view(me="myself,slave", first="master"), view(first="slave,fail", second="slave,fail")],
    ids=["new", "a replica", "whose replicas had failed before it ended"],
)
def test_a_node_that_nobody_can_be_ahead_of_starts_open(tmp_path: Path, nodes: str | None) -> None:
    with Started(tmp_path, nodes, {}) as node:
        assert node.active.resolve() == node.users
        assert node.asked() == []


def test_a_master_starts_closed_to_all_but_the_operator(tmp_path: Path) -> None:
    with Started(tmp_path, view(), {7001: "LOADING Redis is loading the dataset in memory\n"}) as node:
        node.wait_until_asked("7001 node.sh CLUSTER NODES", 3)
        users = node.active.read_text().splitlines()
        assert [one.split()[1] for one in users] == ["default", "node.sh", "admin"]
        assert users[0] == "user default off ~* &* +@all"
        assert users[1].split()[4:] == ["+acl|load", "+cluster|nodes"]
        assert node.active.stat().st_mode & 0o077 == 0
        assert not node.is_open()


@pytest.mark.parametrize(
    ("offsets", "best"), [((500, 90), FORCE_FIRST), ((90, 500), FORCE_SECOND), ((1, 2), FORCE_SECOND)]
)
def test_the_replica_that_has_received_most_takes_its_place_and_then_it_opens(
    tmp_path: Path, offsets: tuple[int, int], best: str
) -> None:
    first, second = offsets
    with Started(tmp_path, view(), {7001: view(), 7002: replica(first), 7003: replica(second)}) as node:
        node.wait_until_asked(best)
        assert not node.is_open()
        assert {one for one in node.asked() if "FAILOVER" in one} == {best}
        node.answers(7001, view(me="myself,slave", first="master"))
        wait_until(node.is_open, "it opens as a replica")


def test_where_all_have_been_started_anew_it_serves(tmp_path: Path) -> None:
    with Started(tmp_path, view(), {7001: view(), 7002: replica(1), 7003: replica(1)}) as node:
        wait_until(node.is_open, "it opens")
        assert not any("FAILOVER" in one for one in node.asked())


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({7002: replica(1)}, "127.0.0.1:7003 (Could not connect"),
        ({7003: replica(500)}, "127.0.0.1:7002 (Could not connect"),
        ({7002: replica(1), 7003: replica(9, master=7009)}, "127.0.0.1:7003 (has another master)"),
        ({7002: replica(1), 7003: replica(9, master=70011)}, "127.0.0.1:7003 (has another master)"),
        ({7002: replica(1), 7003: "role:master\r\n"}, "127.0.0.1:7003 (has another master)"),
        ({7002: replica(1), 7003: "LOADING Redis is loading"}, "127.0.0.1:7003 (LOADING"),
        ({7002: replica(1), 7003: "NOPERM this user"}, "127.0.0.1:7003 (its users.acl lacks +info"),
    ],
)
def test_while_a_replica_may_be_ahead_it_waits_and_the_operator_has_the_last_word(
    tmp_path: Path, others: dict[int, str], said: str
) -> None:
    with Started(tmp_path, view(), {7001: view(), **others}) as node:
        node.wait_until_says(said)
        node.wait_until_asked("7001 node.sh CLUSTER NODES", 3)
        assert not node.is_open()
        assert not any("FAILOVER" in one for one in node.asked())
        assert f"touch {node.folder}/serve-anyway" in node.log.read_text()
        (node.folder / "serve-anyway").touch()
        wait_until(node.is_open, "it opens")
        wait_until(lambda: not (node.folder / "serve-anyway").exists(), "the decision holds once")


def test_a_replica_that_is_lost_meanwhile_is_waited_for_unless_another_has_gone_on(tmp_path: Path) -> None:
    seen = view(second="slave,fail")
    with Started(tmp_path, view(), {7001: seen, 7002: replica(1)}) as node:
        node.wait_until_says("127.0.0.1:7003 (failed)")
        assert not node.is_open()
        node.answers(7002, replica(500))
        node.wait_until_asked(FORCE_FIRST)


def test_what_had_failed_before_it_ended_is_not_waited_for(tmp_path: Path) -> None:
    nodes = view(second="slave,fail")
    with Started(tmp_path, nodes, {7001: nodes, 7002: replica(1)}) as node:
        wait_until(node.is_open, "it opens")


def test_whoever_would_open_it_ends_with_it(tmp_path: Path) -> None:
    with Started(tmp_path, view(), {7001: view()}) as node:
        node.wait_until_asked("7001 node.sh CLUSTER NODES")
    wait_until(lambda: not _works_in(tmp_path), "nothing works in its folder any more")


def _works_in(folder: Path) -> list[str]:
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (text := command.read_bytes()):
                found.append(text.decode())
    return found


@pytest.mark.parametrize(
    ("local", "wanted"),
    [
        ("", "--port 7001 "),
        (
            "tls-cluster yes\ntls-ca-cert-file /a.pem\ntls-cert-file /b\ntls-key-file /c\n",
            "--port 0 --tls-port 7001 ",
        ),
    ],
)
def test_its_port_speaks_tls_where_local_conf_says_so(tmp_path: Path, local: str, wanted: str) -> None:
    with Started(tmp_path, None, {}, local) as node:
        told = (node.told / "server").read_text()
        assert told.startswith(
            f"{NODE.parent}/redis.conf {wanted}--dir {node.folder} --aclfile {node.active} "
        )
        assert told.endswith(f"--include {tmp_path}/local.conf\n")
