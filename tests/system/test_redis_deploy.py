"""The herd on Redis as it is deployed: `make run-redis` in a folder like a checkout, and docs/redis.md step by step on a
system booted by systemd. Redis, supervisord and systemd are the real ones, and each has a network of its own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from booted import BootedMachine, booted, copy_checkout
from debian import needs
from herd_process import ROOT, wait_until
from newcomer import Machine, machine
from supervisor.options import ServerOptions  # type: ignore[import-untyped]

from proxyherd.config import herd_file
from proxyherd.engines.redis.opening import CREDENTIAL

DEPLOY = ROOT / "deploy/redis"
PAGE = (ROOT / "docs/redis.md").read_text()
PORTS = range(7001, 7010)
CLI = 'cli="redis-cli --user admin --no-auth-warning"'
SERVERS = herd_file.load(ROOT / "deploy/herd.toml").servers

pytestmark = [
    needs(
        "openssl", "redis-server", "systemctl", "systemd-nspawn", "ip", "nc", "nsenter", "setpriv", root=True
    ),
    pytest.mark.xdist_group("redis-deployed"),
]

MAKE_CERTIFICATE = """
key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1'
openssl req -x509 $key -subj /CN=authority -keyout authority.key -out authority.pem 2>/dev/null
openssl req -x509 -CA authority.pem -CAkey authority.key $key -subj /CN=redis -addext subjectAltName=IP:127.0.0.1 \
    -addext basicConstraints=critical,CA:FALSE -keyout redis.key -out redis.pem 2>/dev/null
"""


# --- the files


def test_a_password_that_a_full_disk_has_cut_off_is_not_kept(tmp_path: Path) -> None:
    """An empty one would let everybody in."""
    script = f"{DEPLOY}/make-users.sh {tmp_path}"
    full = subprocess.run(["sh", "-c", f"ulimit -f 0; exec {script}"], capture_output=True, check=False)
    assert full.returncode != 0
    subprocess.run(["sh", "-c", script], check=True)
    for name in ("password", "admin-password", "replication-password"):
        assert re.fullmatch("[0-9a-f]{64}", (tmp_path / name).read_text()), name


def test_its_servers_are_those_of_the_default_herd_at_the_same_ports() -> None:
    herd = herd_file.load(DEPLOY / "herd.toml")
    assert list(herd.servers) == list(SERVERS)
    for name, server in herd.servers.items():
        assert (server.clients, server.admin) == (SERVERS[name].clients, SERVERS[name].admin)
        assert not server.peers


def test_supervisord_runs_nine_nodes_and_the_servers_as_for_the_default_herd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis starts first and in the order of bytes; servers are set up as in the file that explains it."""
    groups = {}
    for file in (ROOT / "supervisord.conf", DEPLOY / "supervisord.conf"):
        where = tmp_path / "a herd" / file.relative_to(ROOT)
        where.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a herd/var/log").mkdir(parents=True, exist_ok=True)
        (tmp_path / "a herd/var/run").mkdir(exist_ok=True)
        shutil.copy(file, where)
        monkeypatch.chdir(tmp_path / "a herd")
        options = ServerOptions()
        options.realize(["-c", str(where)])
        assert options.parse_warnings == []
        groups[file.parent] = {group.name: group for group in options.process_group_configs}
        assert options.server_configs[0]["file"] == str(tmp_path / "a herd/var/run/supervisor.sock")
        assert Path(options.pidfile) == tmp_path / "a herd/var/run/supervisord.pid"
    redis = groups[DEPLOY]["redis"]
    assert redis.priority < groups[DEPLOY]["herd"].priority
    assert [one.name for one in redis.process_configs] == [str(port) for port in PORTS]
    for node in redis.process_configs:
        assert node.environment["LC_ALL"] == "C"
        assert node.stopwaitsecs > 10  # shutdown-timeout
    ours, theirs = (groups[one]["herd"].process_configs for one in (DEPLOY, ROOT))
    assert list(map(_setup, ours)) == list(map(_setup, theirs))


def _setup(program: object) -> dict[str, str]:
    """Return how a program is set up, with its paths as they are meant."""
    return {
        name: re.sub(r"/deploy/redis/\.\./\.\.", "", str(value))
        for name, value in vars(program).items()
        if name not in {"options", "environment"}
    }


def analyze(where: Path, *arguments: str) -> str:
    """Return what systemd-analyze has to say of units in a folder, if anything."""
    done = subprocess.run(
        ["systemd-analyze", *arguments], cwd=where, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def test_the_unit_is_what_systemd_understands_and_hardened(tmp_path: Path) -> None:
    text = (DEPLOY / "proxyherd-redis@.service").read_text()
    assert "ExecStart=/etc/proxyherd/redis/node.sh %i " in text
    unit = tmp_path / "proxyherd-redis@.service"
    unit.write_text(text.replace("/etc/proxyherd/redis/node.sh", "/bin/true"))
    unit.chmod(0o644)
    assert analyze(tmp_path, "verify", "./proxyherd-redis@7001.service") == ""
    analyze(
        tmp_path, "security", "--offline=true", "--no-pager", "--threshold=15", "./proxyherd-redis@.service"
    )


def test_servers_are_handed_the_password_by_systemd(tmp_path: Path) -> None:
    for unit in (ROOT / "systemd").iterdir():
        text = unit.read_text().replace("/usr/local/bin/proxyherd", "/bin/true")
        (tmp_path / unit.name).write_text(text)
        (tmp_path / unit.name).chmod(0o644)
    shutil.copytree(DEPLOY / "proxyherd@.service.d", tmp_path / "proxyherd@.service.d")
    assert analyze(tmp_path, "verify", "./proxyherd@Clark.service") == ""
    drop_in = (DEPLOY / "proxyherd@.service.d/redis.conf").read_text()
    assert f"LoadCredential={CREDENTIAL}:/etc/proxyherd/redis-password\n" in drop_in


# --- make run-redis


@pytest.fixture(scope="module")
def checkout() -> Iterator[tuple[Machine, str]]:
    """A folder like a checkout where `make run-redis` was typed, and what that has printed."""
    with machine() as where:
        printed = where.run("make run-redis")
        where.run('cli() { REDISCLI_AUTH=$(cat var/redis/admin-password) redis-cli --user admin "$@"; }')
        yield where, printed


def ask(where: Machine, server: str, line: str) -> str:
    """Return what a server answers to a line; nothing if it is away."""
    return where.run(f"echo '{line}' | nc -N -w 15 127.0.0.1 {SERVERS[server].clients[0].port} || true")


def report(where: Machine, server: str, client: str) -> str:
    """Let a client report; return its AT line."""
    line = ask(where, server, f"IAMAT {client} +34.068930-118.445127 1621464827.959498503")
    assert re.fullmatch(rf"AT {server} \S+ {client} .*\n", line), line
    return line


def knows(where: Machine, server: str, at_line: str) -> bool:
    return ask(where, server, f"WHATSAT {at_line.split()[3]} 0 0").startswith(at_line)


def pids(where: Machine) -> dict[str, int]:
    lines = where.run(".venv/bin/supervisorctl status || true").splitlines()
    return {line.split()[0]: int(line.split()[3].rstrip(",")) for line in lines if " RUNNING " in line}


def test_run_redis_brings_up_nine_nodes_and_five_servers_and_says_so(
    checkout: tuple[Machine, str],
) -> None:
    where, printed = checkout
    for name in SERVERS:
        assert re.search(rf"\b{name}\b.*\bready\b", printed), printed
    assert "make stop" in printed
    wanted = {f"redis:{port}" for port in PORTS} | {f"herd:{name}" for name in SERVERS}
    wait_until(lambda: pids(where).keys() == wanted, "all are RUNNING")
    nodes = where.run("cli -p 7001 cluster nodes").splitlines()
    assert len(nodes) == len(PORTS)
    assert sum("master" in node for node in nodes) == 3


def test_what_is_reported_at_one_server_is_known_at_all(checkout: tuple[Machine, str]) -> None:
    where, _ = checkout
    at_line = report(where, "Clark", "kiwi")
    assert all(knows(where, name, at_line) for name in SERVERS)


def test_the_servers_user_may_erase_and_list_and_nothing_of_it_is_anybody_elses_key(
    checkout: tuple[Machine, str],
) -> None:
    where, _ = checkout
    stays, gone = (report(where, "Clark", client) for client in ("tour-1", "tour-22"))
    forget = ".venv/bin/proxyherd forget --config deploy/redis/herd.toml"
    assert where.run(f"{forget} --prefix tour-2") == "1 client erased herd-wide\n"
    assert not any(knows(where, name, gone) for name in SERVERS)
    assert all(knows(where, name, stays) for name in SERVERS)
    assert where.run(f"{forget} --list") == "1 tombstone in the cluster\n"


def test_it_may_be_typed_again_and_the_herd_without_redis_may_not(checkout: tuple[Machine, str]) -> None:
    where, _ = checkout
    before = pids(where)
    where.run("make run-redis")
    assert "type make stop first" in where.run("make run 2>&1 && exit 1 || true")
    assert pids(where) == before


def test_nodes_are_set_up_as_promised(checkout: tuple[Machine, str]) -> None:
    where, _ = checkout
    wanted = {
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "cluster-require-full-coverage": "no",
        "cluster-node-timeout": "2000",
        "bind": "127.0.0.1",
    }
    for port in PORTS:
        lines = where.run(f"cli -p {port} config get {' '.join(wanted)}").split("\n")
        assert dict(zip(lines[:-1:2], lines[1::2], strict=True)) == wanted


def test_nothing_of_it_is_for_other_users(checkout: tuple[Machine, str]) -> None:
    where, _ = checkout
    assert where.run("find var/redis ! -type d ! -type l -perm /o=rwx") == ""
    assert where.run("find var/redis -name '*password' -perm /go=rwx") == ""
    assert where.run("find var/redis -type d -perm /o=rwx") == ""


REFUSED = [
    *(
        "FLUSHALL",
        "FLUSHDB",
        "KEYS '*'",
        "CONFIG GET save",
        "CONFIG SET appendonly no",
        "SHUTDOWN NOSAVE",
    ),
    *(
        "CLUSTER RESET",
        "CLUSTER FAILOVER",
        "CLUSTER FORGET x",
        "REPLICAOF NO ONE",
        "MIGRATE h 1 {0}x 0 1",
        "MONITOR",
    ),
    *(
        "FUNCTION FLUSH",
        "FUNCTION LOAD x",
        "FUNCTION DELETE proxyherd_2",
        "FUNCTION DUMP",
        "SCRIPT FLUSH",
        "EVAL 'return 1' 0",
        "BGSAVE",
    ),
    *(
        "ACL LIST",
        "ACL SETUSER proxyherd +@all",
        "DEL {0}x",
        "RENAME {0}x {0}y",
        "PUBLISH x y",
        "REPLCONF ACK 0",
    ),
    *("GET other", "MGET other", "SET other 1", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1", "SAVE"),
]


def test_servers_user_may_do_nothing_else(checkout: tuple[Machine, str]) -> None:
    where, _ = checkout
    ours = "REDISCLI_AUTH=$(cat var/redis/password) redis-cli --user proxyherd -p 7001"
    assert where.run(f"{ours} PING") == "PONG\n"
    for command in REFUSED:
        assert where.run(f"{ours} {command}").startswith("NOPERM "), command


def test_nobody_gets_in_without_a_password(checkout: tuple[Machine, str]) -> None:
    where, _ = checkout
    assert where.run("redis-cli -p 7001 PING").startswith("NOAUTH ")
    assert "WRONGPASS" in where.run("REDISCLI_AUTH=x redis-cli --user proxyherd -p 7001 PING 2>&1")


def test_a_cluster_that_is_there_is_left_as_it_is(checkout: tuple[Machine, str]) -> None:
    where, _ = checkout
    before = where.run("cli -p 7001 cluster slots")
    nodes = " ".join(f"127.0.0.1:{port}" for port in PORTS)
    where.run(f"REDISCLI_AUTH=$(cat var/redis/admin-password) deploy/redis/create-cluster.sh {nodes}")
    assert where.run("cli -p 7001 cluster slots") == before
    said = where.run(f"REDISCLI_AUTH=x deploy/redis/create-cluster.sh {nodes} 2>&1 && exit 1 || true")
    assert "Is REDISCLI_AUTH the password of its user admin?" in said


def test_the_herd_answers_again_after_a_master_and_a_server_were_killed(
    checkout: tuple[Machine, str],
) -> None:
    where, _ = checkout
    at_lines = [report(where, "Bona", f"before-{number}") for number in range(12)]
    where.run("kill -9 $(.venv/bin/supervisorctl pid redis:7001) $(.venv/bin/supervisorctl pid herd:Bona)")

    def answers(at_line: str) -> bool:
        return knows(where, "Jaquez", at_line)

    for at_line in at_lines:
        wait_until(partial(answers, at_line), f"{at_line!r} is known again")
    # Not as master: its file may lack what its replicas have.
    wait_until(
        lambda: "role:slave" in where.run("cli -p 7001 info replication 2>&1 || true"),
        "the killed master is back as a replica",
    )
    wait_until(lambda: ask(where, "Bona", "FOO") == "? FOO\n", "Bona is back")
    for number in range(12):
        assert knows(where, "Clark", report(where, "Bona", f"after-{number}"))


def test_stop_ends_all_and_the_table_is_there_the_next_time(checkout: tuple[Machine, str]) -> None:
    where, _ = checkout
    at_line = report(where, "Clark", "lasting")
    assert where.run("make stop") == "The herd has stopped.\n"
    # Where a node was killed while it wrote its file anew, its child is an orphan, which may be a zombie for ever.
    running = "ps -C redis-server -o stat=,pid=,args= | grep -v '^Z' || true"
    wait_until(lambda: where.run(running) == "", "no Redis node runs")
    where.run("make run-redis")
    assert knows(where, "Bailey", at_line)


# --- on hosts, by systemd


def steps(title: str) -> list[str]:
    """Return the blocks of steps of a section of the page, for a host that is all three."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```bash\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return [re.sub(r"\b10\.0\.0\.[123]\b", "127.0.0.1", one) for one in found]


class Host:
    """A booted system, and the operator's shell in it: what one step exports, the next one has."""

    def __init__(self, system: BootedMachine) -> None:
        self.system = system
        self._before = "cd /usr/src/proxyherd"

    def run(self, step: str) -> str:
        return self.system.run(f"{self._before}; {step}", seconds=600).stdout

    def remember(self, step: str) -> None:
        self._before += f"; {step.rstrip()}"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A system with a cluster of nine that was set up as the page says: one host in place of three."""
    with booted() as system:
        copy_checkout(system.path("/usr/src/proxyherd"))
        host = Host(system)
        install, users, start, create, _ = steps("On hosts")
        # Redis is there, and a container may not set what is the kernel's.
        host.run("\n".join(one for one in install.splitlines() if not one.startswith(("apt-get", "sysctl"))))
        host.run(users)
        others = " ".join(f"proxyherd-redis@{port}" for port in PORTS[3:])
        host.run(f"{start.rstrip()} {others}")
        host.remember(create.splitlines()[0])
        host.run(create)
        yield host


def keys(host: Host, ports: range) -> int:
    """Return how many keys there are in all masters among these."""
    return sum(
        int(host.run(f"redis-cli --user admin -p {port} dbsize"))
        for port in ports
        if host.run(f"redis-cli --user admin -p {port} role").startswith("master")
    )


def test_nodes_run_in_the_order_of_bytes_and_keep_to_their_folders(host: Host) -> None:
    for port in PORTS:
        assert "LC_ALL=C" in host.run(f"systemctl show -P Environment proxyherd-redis@{port}").split()
        assert host.run(f"stat -c '%U %a' /var/lib/proxyherd-redis/{port}") == "redis 700\n"
    assert (
        host.run("find /etc/proxyherd/redis -name '*.acl' -perm /o=rwx -o -name local.conf -perm /o=rwx")
        == ""
    )


def test_a_node_that_is_killed_is_started_again(host: Host) -> None:
    unit = "proxyherd-redis@7009"
    pid = host.run(f"systemctl show -P MainPID {unit}")
    host.run(f"systemctl kill -s KILL {unit}")
    shown = f"systemctl show -P MainPID -P SubState {unit}"
    wait_until(lambda: pid not in (now := host.run(shown)) and "running" in now, "it is started again")


def test_a_shard_is_added_and_taken_away_as_the_page_says_and_keys_stay(host: Host) -> None:
    host.run(
        "for i in $(seq 500); do echo set {$i}c$i v; done | redis-cli -c --user admin -p 7001 >/dev/null"
    )
    host.run("systemctl start proxyherd-redis@{7010,7011,7012}")
    add, share, take_away = steps("Adding a shard")
    assert add.splitlines()[0] == CLI
    host.remember(CLI)
    host.run(add)
    [master] = re.findall(r"^master=.*", add, re.MULTILINE)
    online = "$cli -p 7010 info replication"
    wait_until(lambda: host.run(online).count("state=online") == 2, "the new master has two replicas")
    host.run(share)
    assert keys(host, range(7001, 7013)) == 500
    assert int(host.run("$cli -p 7010 dbsize")) > 50
    host.run(f"{master}; {take_away}")
    assert keys(host, PORTS) == 500
    assert len(host.run("$cli -p 7001 cluster nodes").splitlines()) == len(PORTS)


def test_a_master_is_replaced_as_the_page_says(host: Host) -> None:
    [command] = re.findall(r"^redis-cli .* cluster failover$", PAGE, re.MULTILINE)
    assert host.run("redis-cli --user admin -p 7004 role").startswith("slave")
    host.run(re.sub(r"10\.0\.0\.2", "127.0.0.1", command))
    wait_until(lambda: host.run("redis-cli --user admin -p 7004 role").startswith("master"), "7004 is master")


def test_a_backup_is_made_as_the_page_says(host: Host) -> None:
    [backup] = steps("Backups")
    host.run(f"mkdir -p /var/backups; {backup}")
    assert "RDB looks OK" in host.run("redis-check-rdb /var/backups/proxyherd-7004.rdb")


def test_nodes_speak_tls_as_the_page_says(host: Host) -> None:
    set_up, tell = steps("TLS")
    host.run(MAKE_CERTIFICATE)
    host.run(set_up)
    host.run("systemctl stop 'proxyherd-redis@*'")
    host.run(f"systemctl start {' '.join(f'proxyherd-redis@{port}' for port in PORTS)}")
    host.remember(tell)
    host.run(f"deploy/redis/create-cluster.sh {' '.join(f'127.0.0.1:{port}' for port in PORTS)}")
    assert host.run("$REDIS_CLI --no-auth-warning -p 7001 cluster info").startswith("cluster_state:ok")
    assert "PONG" not in host.run("redis-cli --user admin -p 7001 PING 2>&1 || true")
    assert "PONG" not in host.run("redis-cli --user admin --tls -p 7001 PING 2>&1 || true")
