"""Who is measured: ours, started as it is delivered, with a table of its own or in a Redis Cluster, and asked over lines or
over the web; the programs of bench/contenders; and Redis.

Where there is one server, ours has a neighbour that is down, and dials it meanwhile; the others have none.

`CONTENDERS` has all of them by name. What a machine lacks is told by `missing`, and left out.
"""

from __future__ import annotations

import operator
import os
import shutil
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import msgspec
from contender import ALONE, TABLE_SECONDS, Contender, Sent, within
from contenders import redis_store
from graphs import Edges

ABSENT = "Jaquez"
"""The neighbour of ours that is down where one server is measured."""

NODE_TIMEOUT_MS = 15_000
"""After so long a node of Redis is called dead: longer than any waits for a core here, where all share few."""

BENCH = Path(__file__).parent
sys.path.insert(0, str(BENCH.parent / "tests/support"))

from herd_process import (  # noqa: E402 - tests/ is on the path only now
    RunningHerd,
    free_port,
    herd_of,
    listens,
    short_folder,
    wait_until,
)
from redis_cluster import (  # noqa: E402 - behind the line that lets tests/ be found
    Cluster,
    RedisNode,
    running_cluster,
)

from proxyherd.core.messages import NANOSECONDS, parse_at  # noqa: E402 - behind the line that lets tests/ be found
from proxyherd.engines.herd import journal  # noqa: E402 - behind the line that lets tests/ be found
from proxyherd.engines.redis import layout  # noqa: E402 - behind the line that lets tests/ be found


class Proxyherd(Contender):
    """Ours: real `proxyherd serve` processes, with journal, log, metrics, handshakes and catch-up as delivered.

    Each starts in an interpreter of its own, from `folder`: two checkouts can take turns.
    """

    name = "proxyherd"
    has_turns = True
    folder = BENCH.parent
    python = sys.executable
    gazetteer = BENCH.parent / "var/bench/gazetteer.dat"
    """Not there, and so not asked, before `build_gazetteer`."""
    more = ""
    """What else stands in the herd's file."""
    _herd: RunningHerd

    @property
    def pids(self) -> list[int]:
        return [self._herd[name].pid for name in self.names]

    @property
    def ports(self) -> dict[str, int]:
        return {name: self._herd[name].client_port for name in self.names}

    def start(self) -> None:
        self._herd = self._stack.enter_context(herd_of(self.edges or [(ALONE, ABSENT)], more=self.more))
        self._serve()

    def build_gazetteer(self) -> None:
        """Build the file of its places, unless it is there; the servers find it."""
        command = [self.python, "-m", "proxyherd", "gazetteer", "build", str(self.gazetteer)]
        environ = {**os.environ, "PYTHONPATH": str(self.folder)}
        subprocess.run(command, check=True, env=environ, cwd=self._herd.folder, stdout=subprocess.DEVNULL)

    def _serve(self) -> None:
        self._herd.gazetteer = self.gazetteer
        servers = [self._herd[name] for name in self.names]
        for server in servers:
            server.options = ["--log-max-bytes=67108864", "--log-backups=50"]  # so that all can be counted
            server.program = [self.python, "-m", "proxyherd"]
            server.environ["PYTHONPATH"] = str(self.folder)
            server.start()
        for server in servers:
            server.wait_until_ready()
            if self.edges:
                server.wait_until_linked()

    def check(self, sent: Sent) -> list[str]:
        return [*super().check(sent), *self._check_journal(sent)]

    def logged(self, server: str) -> int:
        return sum(
            line.get("event") == "command" and line["kind"] == "iamat" and line["outcome"] != "invalid"
            for file in self.log_files(server)
            for line in _json_lines(file)
        )

    def log_files(self, server: str) -> list[Path]:
        """Return a server's log and those that were full."""
        log = self._herd[server].log_file
        return [*log.parent.glob(f"{log.name}*")]

    def _check_journal(self, sent: Sent) -> Iterator[str]:
        """What a start would replay is what the table holds."""
        for name in self.names:
            server = self._herd[name]
            kept: dict[bytes, tuple[int, bytes]] = {}
            records = 0
            for file in journal.files(server.state / "journal"):
                for line in (line for lines in _batches(file) for line in lines):
                    at = parse_at(line)
                    assert at is not None
                    records += 1
                    entry = (at.entry.nanoseconds, line)
                    kept[at.client] = max(entry, kept.get(at.client, entry))
            lost = sum(
                not kept.get(client, (0, b""))[1].endswith(b" " + operands)
                for client, operands in sent.latest.items()
            )
            whole = list((server.state / "journal").glob("*.snapshot"))
            if lost:
                yield f"{self.name}: the journal of {name} lacks the last reports of {lost} clients"
            if not whole and records != sent.reports.total():
                yield f"{self.name}: the journal of {name} has {records} records of {sent.reports.total()} reports"
            known = server.metrics("proxyherd_clients")["proxyherd_clients"]
            if known != len(sent.latest):
                yield f"{self.name}: {name} knows {known:.0f} clients of {len(sent.latest)}"


def _batches(file: Path) -> Iterator[list[bytes]]:
    finding = yield from journal.read(file)
    assert not finding.damaged, finding


def _json_lines(file: Path) -> Iterator[dict[str, object]]:
    """Yield the events of a log; a last line that is being written is left out."""
    decode = msgspec.json.Decoder(dict[str, object]).decode
    *lines, _ = file.read_bytes().split(b"\n")
    return map(decode, lines)


def checkout(folder: Path) -> type[Proxyherd]:
    """Return ours as another checkout has it, under the name of its folder. It runs on the Python of its own .venv; where it
    has none, on this one. Raises ValueError if there is no proxyherd in the folder.
    """
    own = folder.resolve()
    if not (own / "proxyherd/__main__.py").is_file():
        raise ValueError(f"{folder} is no checkout of proxyherd: it has no proxyherd/__main__.py")
    interpreter = own / ".venv/bin/python"

    class Checkout(Proxyherd):
        name = own.name
        folder = own
        python = str(interpreter) if interpreter.exists() else sys.executable
        gazetteer = Proxyherd.gazetteer.with_name(f"gazetteer-{own.name}.sqlite")

    return Checkout


class ProxyherdWebSocket(Proxyherd):
    """Ours, asked in lines over WebSockets."""

    name = "proxyherd-websocket"
    wire = "websocket"
    more = "[web]\n"

    @property
    def targets(self) -> dict[str, int]:
        return {name: self._herd[name].web_port for name in self.names}

    def start(self) -> None:
        super().start()
        for name in self.names:
            self._herd[name].wait_for_web()


class ProxyherdPut(ProxyherdWebSocket):
    """Ours, told of one report by each request of HTTP."""

    name = "proxyherd-put"
    wire = "put"


class ProxyherdBatch(ProxyherdWebSocket):
    """Ours, told of a batch of reports by each request of HTTP."""

    name = "proxyherd-batch"
    wire = "batch"


class ProxyherdRedis(Proxyherd):
    """Ours in front of a Redis Cluster: one that runs, or one of its own. Its processes are the servers alone; what nodes
    cost is told by `shards`.
    """

    name = "proxyherd-redis"
    is_herd = False

    def __init__(
        self,
        edges: Edges = (),
        *,
        fronts: Sequence[str] = (ALONE,),
        cluster: Cluster | None = None,
        gather_seconds: float = 0.0,
    ) -> None:
        super().__init__(edges)
        self.names = [*fronts]
        self.masters: list[RedisNode] = []
        self.replicas: list[RedisNode] = []
        self._cluster = cluster
        self._gather_seconds = gather_seconds

    @classmethod
    def missing(cls) -> str:
        return Redis.missing()

    def start(self) -> None:
        cluster = self._cluster
        if cluster is None:
            cluster = self._stack.enter_context(running_cluster(node_timeout_ms=NODE_TIMEOUT_MS))
        self._cluster = cluster
        self.masters = cluster.masters()
        self.replicas = [node for node in cluster.nodes if node not in self.masters]
        self._herd = self._stack.enter_context(
            herd_of([], *self.names, more=f"gather_seconds = {self._gather_seconds}\n", cluster=cluster)
        )
        self._serve()

    def metrics(self, name: str, prefix: str) -> dict[str, float]:
        """Return the figures of a server."""
        return self._herd[name].metrics(prefix)

    def check(self, sent: Sent) -> list[str]:
        return [*Contender.check(self, sent), *self._check_store(sent)]

    def _check_store(self, sent: Sent) -> Iterator[str]:
        """Each master and its replicas hold the last report of every client of their shard, and no other client."""
        assert self._cluster is not None
        if self._cluster.masters() != self.masters:
            yield f"{self.name}: other nodes are masters than at the start"
            return
        wanted: dict[int, dict[bytes, bytes]] = {}
        for client, operands in sent.latest.items():
            wanted.setdefault(layout.tag_of(client), {})[client] = operands
        for master in self.masters:
            [slots] = [one.slots for one in master.seen() if one.port == master.port]
            tags = [tag for first, last in slots for tag in layout.owned(first, last)]
            shard = {tag: wanted.get(tag, {}) for tag in tags}
            for node in (master, *self._cluster.replicas_of(master)):
                differing = partial(_differing, node, master.address, shard)
                wrong = within(TABLE_SECONDS, differing, operator.not_)  # a replica may lag
                if wrong:
                    yield f"{self.name}: {node.address} differs about {len(wrong)} clients, as {wrong[0]!r}"


def _differing(node: RedisNode, master: str, wanted: dict[int, dict[bytes, bytes]]) -> list[bytes]:
    """Return the clients of whom a node does not hold the last report; one without a name if it holds too many."""
    wrong: list[bytes] = []
    seals = 0
    with node.connect() as session:
        session.ask("READONLY")
        for tag, latest in wanted.items():
            values = session.ask("MGET", layout.seal(tag, master), *map(layout.key, latest))
            for (client, operands), value in zip(latest.items(), values[1:], strict=True):
                entry = layout.entry(value, NANOSECONDS) if value else None
                if entry is None or not entry.line.endswith(b" " + operands):
                    wrong.append(client)
            seals += values[0] is not None
        surplus = session.ask("DBSIZE") - seals - sum(map(len, wanted.values()))
    return wrong or [b""] * (surplus > 0)


class Program(Contender):
    """Servers that are a program of bench/contenders, started by the herd's file."""

    arguments: Sequence[str] = ()
    links_stay = True

    def __init__(self, edges: Edges = ()) -> None:
        super().__init__(edges)
        self._ports = {name: free_port() for name in self.names}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = Path()

    @abstractmethod
    def command(self) -> list[str]:
        """Return the program, that the herd's file and a name are appended to."""

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes.values()]

    @property
    def ports(self) -> dict[str, int]:
        return self._ports

    def neighbours(self, name: str) -> list[str]:
        """Return whom a server is linked with."""
        return [b if a == name else a for a, b in self.edges if name in (a, b)]

    def start(self) -> None:
        self.folder = self._stack.enter_context(short_folder())
        file = self.folder / "herd.json"
        servers = {
            name: {"port": port, "neighbours": self.neighbours(name)} for name, port in self.ports.items()
        }
        file.write_bytes(msgspec.json.encode(servers))
        for name in self.names:
            self._start(name, [*self.command(), str(file), name, *self.arguments])
        for name in self.names:
            wait_until(partial(self._is_up, name), f"{self.name}: {name} listens")
            if self.links_stay:
                wait_until(partial(self._is_linked, name), f"{self.name}: {name} is linked")

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.stderr").open("wb") as stderr:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, cwd=BENCH
            )
        self._processes[name] = process
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

    def _is_up(self, name: str) -> bool:
        assert self._processes[name].poll() is None, (self.folder / f"{name}.stderr").read_text()
        return listens(self.ports[name])

    def _is_linked(self, name: str) -> bool:
        return self.log(name).count(b"linked") >= len(self.neighbours(name))

    def log(self, name: str) -> bytes:
        """Return what a server has logged."""
        file = self.folder / f"{name}.log"
        return file.read_bytes() if file.exists() else b""

    def logged(self, server: str) -> int | None:
        if "--equal" in self.arguments:
            events = _json_lines(self.folder / f"{server}.log")
            return sum(line["event"] == "command" and line["kind"] == "iamat" for line in events)
        return self.log(server).count(b" IAMAT ")


class Twisted(Program):
    """A connection for each update, Twisted's log."""

    name = "twisted"
    links_stay = False

    @classmethod
    def missing(cls) -> str:
        return "" if find_spec("twisted") else "Twisted is not installed; pip install -e '.[bench]'"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "contenders.twisted_herd"]


class TwistedEqual(Twisted):
    """Links that stay, a log of JSON."""

    name = "twisted-equal"
    arguments = ("--equal",)
    links_stay = True


class TwistedBare(Twisted):
    """Rules behind a LineReceiver: no log, no neighbours."""

    name = "twisted-bare"
    arguments = ("--bare",)
    is_herd = False

    def logged(self, _: str) -> None:
        return None


class Node(Program):
    """Node's net, a log stream of text."""

    name = "node"

    @classmethod
    def missing(cls) -> str:
        return "" if shutil.which("node") else "node is not installed; see https://nodejs.org"

    def command(self) -> list[str]:
        return ["node", str(BENCH / "contenders/node_herd.js")]


class NodeEqual(Node):
    """A log stream of JSON."""

    name = "node-equal"
    arguments = ("--equal",)


class NodeBare(Node):
    """Rules behind a socket: no log, no neighbours."""

    name = "node-bare"
    arguments = ("--bare",)
    is_herd = False

    def logged(self, _: str) -> None:
        return None


class Streams(Program):
    """asyncio's streams and own event loop, the standard library's log."""

    name = "streams"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "contenders.asyncio_streams_herd"]


class StreamsEqual(Streams):
    """A log of JSON."""

    name = "streams-equal"
    arguments = ("--equal",)


class StreamsUvloop(Streams):
    """A log of JSON, and uvloop."""

    name = "streams-equal-uvloop"
    arguments = ("--equal", "--uvloop")


class Aiohttp(Program):
    """A handler of aiohttp, a dict and a log of JSON."""

    name = "aiohttp"
    wire = "put"
    arguments = ("--equal",)
    is_herd = False

    def command(self) -> list[str]:
        return [sys.executable, "-m", "contenders.aiohttp_put"]

    def table(self, server: str, clients: Sequence[bytes]) -> dict[bytes, bytes]:
        with urlopen(f"http://127.0.0.1:{self.ports[server]}/table") as answer:
            lines = answer.read().splitlines()
        table = {line.split()[3]: line for line in lines}
        return {client: table[client] for client in clients if client in table}


class Echo(Program):
    """Reads nothing, knows nothing, sends back what came."""

    name = "echo"
    wire = "echo"
    is_herd = False

    def command(self) -> list[str]:
        return [sys.executable, "-m", "contenders.echo"]

    def logged(self, _: str) -> None:
        return None

    def _check_tables(self, _: Sent) -> Iterator[str]:
        return iter(())


class Redis(Program):
    """A store of locations, in memory alone."""

    name = "redis"
    wire = "resp"
    is_herd = False
    keeps_log = False

    @classmethod
    def missing(cls) -> str:
        program = redis_store.PROGRAM
        return "" if shutil.which(program) else f"{program} is not installed; apt-get install {program}"

    def command(self) -> list[str]:
        return redis_store.command_line(self.ports[ALONE], self.folder, equal=self.keeps_log)

    def start(self) -> None:
        self.folder = self._stack.enter_context(short_folder())
        self._start(ALONE, self.command())
        wait_until(lambda: self._is_up(ALONE), f"{self.name} listens")

    def check(self, sent: Sent) -> list[str]:
        positions = redis_store.count_positions(self.ports[ALONE])
        short = f"{self.name}: {positions} positions of {len(sent.latest)} clients"
        return [*super().check(sent), *([short] if positions != len(sent.latest) else [])]

    def logged(self, _: str) -> int | None:
        return redis_store.count_reports(self.folder) if self.keeps_log else None

    def table(self, server: str, clients: Sequence[bytes]) -> dict[bytes, bytes]:
        return redis_store.read_table(self.ports[server], clients)


class RedisPositions(Redis):
    """A store of positions alone: neither the AT line nor the time."""

    name = "redis-geoadd"
    wire = "resp-position"

    def _check_tables(self, sent: Sent) -> Iterator[str]:
        stored = redis_store.read_positions(self.ports[ALONE], list(sent.latest))
        wrong = [
            client
            for client, operands in sent.latest.items()
            if client not in stored or not redis_store.is_near(operands.split()[1], stored[client])
        ]
        if wrong:
            yield f"{self.name}: positions of {len(wrong)} clients are not those reported last, as {wrong[0]!r}"


class RedisEqual(Redis):
    """A store of locations that logs commands to disk."""

    name = "redis-equal"
    keeps_log = True


CONTENDERS: dict[str, type[Contender]] = {
    one.name: one
    for one in (
        *(Proxyherd, ProxyherdRedis, Twisted, TwistedEqual, TwistedBare, Node, NodeEqual, NodeBare),
        *(ProxyherdWebSocket, ProxyherdPut, ProxyherdBatch, Aiohttp),
        *(Streams, StreamsEqual, StreamsUvloop, RedisPositions, Redis, RedisEqual, Echo),
    )
}
"""All there are, ours first."""
