"""Redis Clusters of real processes for tests and benchmarks: on ports and in folders of their own, ended by id whatever
happens.

    with running_cluster(masters=3, replicas=2) as cluster:
        cluster.masters()[0].kill()
        cluster.wait_until_ok()

Each node begins with a file that says who all nodes are, so that none has to be told; the cluster is whole when its
masters accept writes, which Redis lets no freshly started master do for two seconds. The rule: what a node says of
itself and of others is asked for each time, and nothing of it is remembered here.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from herd_process import PATIENCE_SECONDS, free_port, short_folder, wait_until

from proxyherd.engines.redis.commands import code

SLOTS = 16_384
_TESTER = "tester"  # our own way in, whatever users a test sets up
_GUARD = Path(__file__).with_name("supervised.py")
_DEPLOY = Path(__file__).parents[2] / "deploy/redis"

Argument = str | bytes | int


class Refused(Exception):  # noqa: N818 - what Redis does
    """Redis has answered with an error."""


class Session:
    """A connection to a node, that blocks: commands go out at once, each reply is read when asked for."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._replies = connection.makefile("rb")

    def send(self, *arguments: Argument) -> None:
        parts = [one if isinstance(one, bytes) else str(one).encode() for one in arguments]
        self._socket.sendall(
            b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in parts)
        )

    def reply(self) -> Any:
        """Return the next reply: bytes, an integer, None or a list of these.

        Raises:
            Refused: it is an error.
            OSError: there is none.

        """
        line = self._replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("Redis has closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Refused(rest.decode())
        if kind == b"+":
            return rest
        number = int(rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"$":
            return self._replies.read(number + 2)[:-2]
        assert kind == b"*", line
        return [self.reply() for _ in range(number)]

    def ask(self, *arguments: Argument) -> Any:
        self.send(*arguments)
        return self.reply()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._replies.close()
        self._socket.close()


@dataclass(frozen=True)
class Tls:
    """Certificates for a cluster that speaks TLS only, to clients and between its nodes. Nodes ask for a client's own
    certificate, if `clients` says so: yes, no or optional.
    """

    authority: Path
    certificate: Path
    key: Path
    clients: str = "optional"

    def lines(self) -> list[str]:
        return [
            *("tls-cluster yes", "tls-replication yes", f"tls-auth-clients {self.clients}"),
            f"tls-ca-cert-file {self.authority}",
            *(f"tls-cert-file {self.certificate}", f"tls-key-file {self.key}"),
        ]

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.authority)
        context.check_hostname = False
        context.load_cert_chain(self.certificate, self.key)
        return context.wrap_socket(connection)


@dataclass(frozen=True)
class Seen:
    """A line of `CLUSTER NODES`: what a node knows of one, maybe itself."""

    id: str
    port: int
    flags: frozenset[str]
    master: str
    slots: tuple[tuple[int, int], ...]

    @property
    def is_master(self) -> bool:
        return "master" in self.flags

    @property
    def is_well(self) -> bool:
        return not self.flags & {"fail", "fail?", "handshake", "noaddr"}

    def owns(self, slot: int) -> bool:
        return any(first <= slot <= last for first, last in self.slots)


def _seen(line: str) -> Seen:
    name, address, flags, master, _, _, _, _, *slots = line.split()
    ranges = [one.partition("-") for one in slots if not one.startswith("[")]  # [: a slot on its way
    return Seen(
        name,
        int(re.split("[:@]", address)[-2]),
        frozenset(flags.split(",")),
        "" if master == "-" else master,
        tuple((int(first), int(last or first)) for first, _, last in ranges),
    )


def _all_seen(nodes: bytes) -> list[Seen]:
    return [_seen(line) for line in nodes.decode().splitlines()]


def _fields(text: bytes) -> dict[str, str]:
    lines = text.decode().split("\r\n")
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


@dataclass(frozen=True)
class Said:
    """What a node says of the cluster, of its replication, and of all nodes."""

    cluster: dict[str, str]
    replication: dict[str, str]
    seen: list[Seen]

    def replicas_online(self) -> int:
        """Return how many replicas it feeds now."""
        return sum(
            "state=online" in value
            for name, value in self.replication.items()
            if re.fullmatch(r"slave\d+", name)
        )


class RedisNode:
    """One process of the cluster: its ports, files and process."""

    def __init__(
        self,
        folder: Path,
        options: Sequence[str],
        tls: Tls | None,
        environ: dict[str, str],
        *,
        deployed: bool,
    ) -> None:
        self.port = free_port()
        self.bus_port = free_port()
        self.folder = folder
        self.log_file = folder / "log"
        self.options = [*options]
        self.is_frozen = False
        self.process: subprocess.Popen[bytes] | None = None
        self._tls = tls
        self._environ = environ
        self._deployed = deployed
        folder.mkdir()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    # The process. --------------------------------------------------------------------------------------------

    def _command(self) -> list[str]:
        """Write its files; return how it is started: as it is deployed, or redis-server alone."""
        tls = self._tls
        lines = [
            *("repl-diskless-sync-delay 0", "repl-backlog-size 4mb", f"cluster-port {self.bus_port}"),
            *(f"masteruser {_TESTER}", f"masterauth {_TESTER}"),
            *(() if tls is None else tls.lines()),
            *self.options,
        ]
        file = self.folder / "local.conf"
        file.write_text("\n".join(lines) + "\n")
        if self._deployed:
            return [str(_DEPLOY / "node.sh"), str(self.port), str(self.folder), str(self.folder)]
        ports = ["--port", "0", "--tls-port"] if tls else ["--port"]
        more = ["--aclfile", "users.acl", "--include", str(file), "--dir", str(self.folder)]
        return ["redis-server", str(_DEPLOY / "redis.conf"), *ports, str(self.port), *more]

    def start(self) -> None:
        """Start it, again too, and return at once."""
        assert self.process is None or self.process.poll() is not None, f"{self.address} runs already"
        command = self._command()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", os.defpath), **self._environ},
            )
        self.is_frozen = False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def runs(self) -> bool:
        """Whether it is there and can answer."""
        return self.process is not None and self.process.poll() is None and not self.is_frozen

    def kill(self) -> None:
        """End it as `kill -9` does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def lose_end_of_file(self, size: int) -> None:
        """Let its append-only file lack the last so many bytes, as after a kill while the disk was busy."""
        file = max((self.folder / "appendonlydir").glob("*.incr.aof"), key=lambda one: one.stat().st_mtime)
        os.truncate(file, max(0, file.stat().st_size - size))

    def stop(self) -> None:
        """Tell it to end, as systemd does; wait until it has."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_SECONDS)

    def freeze(self) -> None:
        """Let it hang: connections stay, nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.is_frozen = False

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    # What it says. -------------------------------------------------------------------------------------------

    def connect(self) -> Session:
        """Connect as a user who may do everything."""
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)
        session = Session(self._tls.wrap(connection) if self._tls else connection)
        try:
            session.ask("AUTH", _TESTER, _TESTER)
        except BaseException:
            session.__exit__()
            raise
        return session

    def client(self, *arguments: Argument) -> Any:
        """Return the reply to one command on a connection of its own."""
        with self.connect() as session:
            return session.ask(*arguments)

    def wait_until_answers(self) -> None:
        wait_until(self.answers, f"{self.address} answers")

    def answers(self) -> bool:
        """Return whether it is up and has its data; fail at once when it has ended."""
        assert self.process is None or self.process.poll() is None, f"{self.address} has ended: {self.log()}"
        with contextlib.suppress(OSError, Refused):
            return bool(self.client("PING") == b"PONG")
        return False

    def info(self, section: str) -> dict[str, str]:
        """Return a section of INFO, or what `CLUSTER INFO` says for section `cluster info`."""
        words = section.split() if " " in section else ["INFO", section]
        return _fields(self.client(*words))

    def seen(self) -> list[Seen]:
        """Return what it knows of all nodes."""
        return _all_seen(self.client("CLUSTER", "NODES"))

    def says(self) -> Said | None:
        """Return all that it says of itself and of others; nothing where it does not answer."""
        assert self.process is None or self.process.poll() is None, f"{self.address} has ended: {self.log()}"
        with contextlib.suppress(OSError, Refused), self.connect() as session:
            session.ask("PING")  # refused while it reads its data
            return Said(
                _fields(session.ask("CLUSTER", "INFO")),
                _fields(session.ask("INFO", "replication")),
                _all_seen(session.ask("CLUSTER", "NODES")),
            )
        return None

    @property
    def id(self) -> str:
        return str(self.client("CLUSTER", "MYID").decode())

    @property
    def is_master(self) -> bool:
        return bool(self.client("ROLE")[0] == b"master")

    def keys(self) -> int:
        return int(self.client("DBSIZE"))


class Cluster:
    """The nodes of a cluster, those too that do not run."""

    def __init__(
        self,
        folder: Path,
        options: Sequence[str],
        users: Sequence[str],
        tls: Tls | None,
        environ: dict[str, str],
        *,
        deployed: bool = False,
    ) -> None:
        self.folder = folder
        self.nodes: list[RedisNode] = []
        self.tls = tls
        self._options = options
        self._users = users
        self._environ = environ
        self._deployed = deployed

    def _new_node(self) -> RedisNode:
        node = RedisNode(
            self.folder / str(len(self.nodes)),
            self._options,
            self.tls,
            self._environ,
            deployed=self._deployed,
        )
        ours = f"user {_TESTER} on >{_TESTER} ~* &* +@all"
        (node.folder / "users.acl").write_text("\n".join([*self._users, ours]) + "\n")
        self.nodes.append(node)
        return node

    def make(self, masters: int, replicas: int) -> None:
        """Make nodes that know one another, and start them."""
        made = [(self._new_node(), secrets.token_hex(20)) for _ in range(masters * (1 + replicas))]
        lines: list[tuple[str, str]] = []
        for number, (node, name) in enumerate(made):
            address = f"{name} {node.address}@{node.bus_port}"
            if number < masters:
                first, end = (SLOTS * one // masters for one in (number, number + 1))
                lines.append((f"{address} ", f"master - 0 0 {number + 1} connected {first}-{end - 1}"))
            else:
                lines.append((f"{address} ", f"slave {made[number % masters][1]} 0 0 0 connected"))
        last = f"vars currentEpoch {masters} lastVoteEpoch 0\n"
        for me, (node, _) in enumerate(made):
            known = "".join(
                f"{address}{'myself,' if one == me else ''}{rest}\n"
                for one, (address, rest) in enumerate(lines)
            )
            (node.folder / "nodes.conf").write_text(known + last)
            node.start()

    # Who is who. ---------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes]

    @property
    def epoch(self) -> int:
        """How often a replica has stood for election."""
        return max(int(node.info("CLUSTER INFO")["cluster_current_epoch"]) for node in self.running())

    def running(self) -> list[RedisNode]:
        return [node for node in self.nodes if node.runs]

    def _view(self) -> list[Seen]:
        """Return what the node knows that has heard of the latest election."""
        views: dict[int, list[Seen]] = {}
        for node in self.running():
            with contextlib.suppress(OSError, Refused):
                views[int(node.info("CLUSTER INFO")["cluster_current_epoch"])] = node.seen()
        assert views, "no node answers"
        return views[max(views)]

    def _node(self, port: int) -> RedisNode:
        [found] = [node for node in self.nodes if node.port == port]
        return found

    def masters(self) -> list[RedisNode]:
        """Return the masters that the cluster counts on now, by their lowest slots; one without slots comes last."""
        found = [one for one in self._view() if one.is_master and one.is_well]
        return [self._node(one.port) for one in sorted(found, key=lambda one: one.slots or ((SLOTS, SLOTS),))]

    def replicas_of(self, master: RedisNode) -> list[RedisNode]:
        """Return the replicas that the cluster counts on now."""
        view = self._view()
        [name] = [one.id for one in view if one.port == master.port]
        return [self._node(one.port) for one in view if one.master == name and one.is_well]

    def slot_of(self, key: bytes) -> int:
        return int(self.running()[0].client("CLUSTER", "KEYSLOT", key))

    def owner(self, slot: int) -> RedisNode:
        """Return the master that has a slot now."""
        [found] = [one.port for one in self._view() if one.is_master and one.is_well and one.owns(slot)]
        return self._node(found)

    # Waiting. ------------------------------------------------------------------------------------------------

    def wait_until_ok(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until all nodes that run agree on who has which slots, all slots are served, and every replica is fed
        by its master.
        """
        faults: list[str] = []

        def ok() -> bool:
            faults[:] = self._faults()
            return not faults

        try:
            wait_until(ok, "the cluster is whole", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {'; '.join(faults)}") from None

    def _faults(self) -> list[str]:
        said: dict[RedisNode, Said] = {}
        views = set()
        for node in self.running():
            says = node.says()
            if says is None:
                return [f"{node.address} does not answer"]
            if says.cluster["cluster_state"] != "ok" or says.cluster["cluster_slots_ok"] != str(SLOTS):
                return [f"{node.address} has {says.cluster}"]
            if says.replication.get("master_link_status", "up") != "up":
                return [f"{node.address} is not fed by its master"]
            running = [one for one in says.seen if self._node(one.port).runs]
            wrong = [one for one in running if not one.is_well]
            if wrong:
                return [f"{node.address} sees {wrong}"]
            views.add(frozenset((one.id, one.master, one.slots) for one in running))
            said[node] = says
        if len(views) != 1:
            return [f"they do not agree: {views}"]
        [view] = views
        faults = []
        for node, says in said.items():
            [me] = [one.id for one in says.seen if "myself" in one.flags]
            wanted = sum(master == me for _, master, _ in view)
            if says.replicas_online() != wanted:
                faults.append(f"{node.address} feeds {says.replicas_online()} of {wanted} replicas")
        return faults

    # Changing it. --------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Drop all keys, on replicas too; functions stay."""
        for master in self.masters():
            with master.connect() as session:
                session.ask("FLUSHALL", "SYNC")
                running = sum(one.runs for one in self.replicas_of(master))
                assert session.ask("WAIT", running, 1000 * int(PATIENCE_SECONDS)) >= running

    def moving_slot(self, slot: int, to: RedisNode, keys_a_step: int = 10) -> Iterator[str]:
        """Move a slot with its keys while all is served, as redis-cli does; after each step the generator says which
        that was: importing, migrating, keys (for each few), moved.
        """
        source = self.owner(slot)
        assert source is not to, f"{to.address} has slot {slot} already"
        target, origin = to.id, source.id
        to.client("CLUSTER", "SETSLOT", slot, "IMPORTING", origin)
        yield "importing"
        source.client("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
        yield "migrating"
        while keys := source.client("CLUSTER", "GETKEYSINSLOT", slot, keys_a_step):
            where: list[Argument] = ["127.0.0.1", to.port, "", 0, 1000 * int(PATIENCE_SECONDS)]
            source.client("MIGRATE", *where, "AUTH2", _TESTER, _TESTER, "KEYS", *keys)
            yield "keys"
        # The receiver first: between the two, both send clients there.
        for node in (to, source):
            node.client("CLUSTER", "SETSLOT", slot, "NODE", target)
        yield "moved"

    def move_slot(self, slot: int, to: RedisNode) -> None:
        """Move a slot with its keys, and wait until all know."""
        for _ in self.moving_slot(slot, to):
            pass
        self.wait_until_ok()

    def add_shard(self, replicas: int = 2) -> RedisNode:
        """Add a master without slots and its replicas, and wait until all know; return the master."""
        others = self.running()
        master, *fed = added = [self._new_node() for _ in range(1 + replicas)]
        for node in added:
            node.start()
        for node in added:
            node.wait_until_answers()
            for one in others:
                one.client("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        wait_until(self._all_know_all, "all know all")
        for node in fed:
            node.client("CLUSTER", "REPLICATE", master.id)
        self.wait_until_ok()
        self.load_function()
        return master

    def load_function(self) -> None:
        """Load the function that servers call into all masters, as an operator does."""
        for master in self.masters():
            master.client("FUNCTION", "LOAD", "REPLACE", code())

    def _all_know_all(self) -> bool:
        ports = {node.port for node in self.running()}
        return all(ports <= {one.port for one in node.seen() if one.is_well} for node in self.running())

    def end(self) -> None:
        """End every process that still runs."""
        started = [node.process for node in self.nodes if node.process and node.process.poll() is None]
        for process in started:
            process.kill()  # a frozen one too
        for process in started:
            process.wait()


@contextlib.contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """End what works in a folder also when this process is killed."""
    guard = subprocess.Popen(
        [sys.executable, str(_GUARD), str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        guard.communicate()


@contextlib.contextmanager
def running_cluster(
    masters: int = 3,
    replicas: int = 2,
    *,
    node_timeout_ms: int = 2000,
    options: Sequence[str] = (),
    users: Sequence[str] = (),
    tls: Tls | None = None,
    environ: dict[str, str] | None = None,
    deployed: bool = False,
) -> Iterator[Cluster]:
    """Run a cluster; it is whole when the body begins. `options` are lines of redis.conf for all nodes, `users` lines of
    their ACL file, `environ` their environment, if not LC_ALL=C; `deployed` starts nodes by deploy/redis/node.sh.
    """
    with short_folder() as folder, _guarded(folder):
        lines = [f"cluster-node-timeout {node_timeout_ms}", *options]
        environment = {"LC_ALL": "C"} if environ is None else environ
        cluster = Cluster(folder, lines, users, tls, environment, deployed=deployed)
        try:
            cluster.make(masters, replicas)
            cluster.wait_until_ok()
            cluster.load_function()
            yield cluster
        finally:
            cluster.end()
