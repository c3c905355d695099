"""Which Python client library a front server should use for its batches to one master of a Redis Cluster.

    python bench/redis_clients.py

A batch is what one turn of a server's event loop has for a master: a function call for each tag, with the keys and
values of its reports, and `WAIT` at the end. One batch is in flight at a time. Each library has a process of its own,
several times, in turns with the others; all of them send the same commands, with all replies checked, and none has a
timeout of its own, which is its cheapest. CPU is that of the whole client process, threads of its library included.

Then each sends a batch to a master that stands still and gives it up: once cancelled by us, once by the library's own
timeout. The replies to the next batch tell whether late ones are taken for its own; the master's own count tells
how often the batch that was given up was carried out. Last, a batch goes to a master whose slots have moved away: a library
that follows the redirections itself has `WAIT` answered by a master that was sent nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, cast

import hiredis
import redis.asyncio
import uvloop
from cpu import usage
from redis.asyncio.cluster import ClusterNode, RedisCluster

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/support"))

from redis_cluster import RedisNode, running_cluster

from proxyherd.config.address import Address
from proxyherd.config.schema import RedisSettings
from proxyherd.engines.redis import commands, layout
from proxyherd.engines.redis.opening import Opener

SIZES = (1, 10, 50, 200)
REPORTS = {1: 3_000, 10: 15_000, 50: 30_000, 200: 40_000}
"""How many reports a round sends in batches of a size: each about a second."""

CLIENTS = 100_000
FUNCTION = commands.LIBRARY + b"_advance"
LEAD = b"1000000000"
"""The last word of each call: max_clock_lead_seconds, in nanoseconds."""
pack: Any = hiredis.pack_command  # its types know commands of one word
WAIT = pack((b"WAIT", 1, 1000))
GIVEN_UP_SECONDS = 0.2
CANCELLED = 1_000
MOST_TURNS = 150
"""Of the event loop, until a batch is cancelled: few are answered before. Timers are too coarse for that."""

NODE_TIMEOUT_MS = 15_000
"""So long that no replica takes over while the master stands still."""


class Call(NamedTuple):
    """One call of the function: keys of one tag."""

    keys: list[bytes]
    values: list[bytes]


Batch = list[Call]


class Replies(NamedTuple):
    """What came back for a batch: a string for each call, and how many replicas had it all."""

    held: list[bytes]
    replicas: int


class Reports:
    """Makes batches of reports of one master's clients, each later than those before."""

    def __init__(self, by_tag: bool) -> None:
        self._by_tag = by_tag
        self._later = count(time.time_ns(), 1_000)
        self._clients: list[bytes] = []
        for number in range(CLIENTS):
            client = b"phone-%012d.example" % number
            if layout.tag_of(client) < layout.TAGS // 3:  # of the first of three masters
                self._clients.append(client)
        self._next = 0

    def batch(self, size: int) -> Batch:
        """Return so many reports: a call for each of their tags, or each a call of its own."""
        calls: dict[int, Call] = defaultdict(lambda: Call([], []))
        for number in range(size):
            client = self._clients[self._next]
            self._next = (self._next + 1) % len(self._clients)
            nanoseconds = next(self._later)
            line = b"AT Clark +0.%09d %b +34.068930-118.445127 %d.%09d" % (
                nanoseconds % 10**9,
                client,
                *divmod(nanoseconds, 10**9),
            )
            call = calls[layout.tag_of(client) if self._by_tag else number]
            call.keys.append(layout.key(client))
            call.values.append(layout.VALUE % (nanoseconds, line))
        return list(calls.values())


class Client(ABC):
    """One library in use. `timeout` in seconds is the library's own; none by default."""

    about: str
    module = "redis"
    finds_nodes = False
    """Whether it asks the cluster where a command belongs, and we cannot send it elsewhere."""
    calls_to_open = 0
    """Calls of a function that a new connection begins with."""

    def __init__(self, port: int, timeout: float | None = None) -> None:
        self.port = port
        self.timeout = timeout

    @abstractmethod
    async def open(self) -> None:
        """Connect."""

    @abstractmethod
    async def send(self, batch: Batch) -> Replies:
        """Send the batch, return when all of its replies have come."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""


class ClusterPipeline(Client):
    """redis-py finds the node of each command itself: it asks the server where a function call's keys stand."""

    about = "redis-py RedisCluster pipeline"
    finds_nodes = True

    async def open(self) -> None:
        self._cluster = RedisCluster(host="127.0.0.1", port=self.port, socket_timeout=self.timeout)
        await self._cluster.initialize()
        node = self._cluster.get_node("127.0.0.1", self.port)
        assert node is not None
        self._node: ClusterNode = node

    async def send(self, batch: Batch) -> Replies:
        pipeline: Any = self._cluster.pipeline()
        where = {} if self.finds_nodes else {"target_nodes": self._node}
        for call in batch:
            pipeline.execute_command(
                "FCALL", FUNCTION, len(call.keys), *call.keys, *call.values, LEAD, **where
            )
        pipeline.execute_command("WAIT", 1, 1000, target_nodes=self._node)
        *held, replicas = await pipeline.execute()
        return Replies(held, replicas)

    async def close(self) -> None:
        await self._cluster.aclose()


class TargetedClusterPipeline(ClusterPipeline):
    """redis-py is told the node of each command."""

    about = "redis-py RedisCluster pipeline, node given"
    finds_nodes = False


class NodePipeline(Client):
    """redis-py knows of one server only."""

    about = "redis-py Redis pipeline to the master"

    async def open(self) -> None:
        self._redis = cast(Any, redis.asyncio.Redis)(
            host="127.0.0.1", port=self.port, socket_timeout=self.timeout
        )
        await self._redis.execute_command("PING")

    async def send(self, batch: Batch) -> Replies:
        pipeline = self._redis.pipeline(transaction=False)
        for call in batch:
            pipeline.execute_command("FCALL", FUNCTION, len(call.keys), *call.keys, *call.values, LEAD)
        pipeline.execute_command("WAIT", 1, 1000)
        *held, replicas = await pipeline.execute()
        return Replies(held, replicas)

    async def close(self) -> None:
        await self._redis.aclose()


def packed(batch: Batch) -> bytes:
    """Return the batch as bytes of the protocol."""
    calls = [pack((b"FCALL", FUNCTION, len(keys), *keys, *values, LEAD)) for keys, values in batch]
    return b"".join([*calls, WAIT])


class BareConnection(Client):
    """redis-py connects, says hello and parses; the bytes are ours."""

    about = "redis-py Connection, our bytes"

    async def open(self) -> None:
        self._connection = cast(Any, redis.asyncio.Connection)(
            host="127.0.0.1", port=self.port, socket_timeout=self.timeout
        )
        await self._connection.connect()

    async def send(self, batch: Batch) -> Replies:
        connection = self._connection
        await connection.send_packed_command(packed(batch), check_health=False)
        replies: list[Any] = []
        for _ in range(len(batch) + 1):  # an error is raised, and what came behind it stays to be read
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except redis.ResponseError as error:
                replies.append(error)
        *held, replicas = replies
        return Replies(held, replicas)

    async def close(self) -> None:
        await self._connection.disconnect()


class ServersConnection(Client):
    """What servers have: redis-py connects and says hello, hiredis reads, the bytes are ours."""

    about = "redis-py and hiredis, as servers have it"
    calls_to_open = 1  # it tries the order of strings

    async def open(self) -> None:
        opener = Opener(
            RedisSettings(nodes=("127.0.0.1",)), Path(), {}, cast(Any, None)
        )  # it has nothing to tell
        self._connection = await opener.connect(Address("127.0.0.1", self.port))
        self._is_open = True

    async def send(self, batch: Batch) -> Replies:
        if not self._is_open:
            await self.open()
        try:
            async with asyncio.timeout(self.timeout):
                *held, replicas = await self._connection.exchange(packed(batch), len(batch) + 1)
        except BaseException:
            self._is_open = False
            await self._connection.disconnect(nowait=True)
            raise
        return Replies(cast("list[bytes]", held), cast(int, replicas))

    async def close(self) -> None:
        await self._connection.disconnect()


class Replying(asyncio.Protocol):
    """Batches out, replies in. Replies belong to the batches in their order, also those that nobody waits for."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=self)
        self._replies: list[Any] = []
        self._awaited: deque[tuple[int, asyncio.Future[list[Any]]]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not self:
            self._replies.append(reply)
            wanted, answered = self._awaited[0]
            if len(self._replies) == wanted:
                self._awaited.popleft()
                if not answered.done():
                    answered.set_result(self._replies)
                self._replies = []

    def connection_lost(self, reason: Exception | None) -> None:
        for _, answered in self._awaited:
            if not answered.done():
                answered.set_exception(reason or ConnectionResetError("Redis closed the connection"))

    def send(self, batch: Batch) -> asyncio.Future[list[Any]]:
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._awaited.append((len(batch) + 1, answered))
        self.transport.write(packed(batch))
        return answered


class OwnProtocol(Client):
    """A protocol of asyncio and the parser of hiredis."""

    about = "own Protocol and hiredis, our bytes"

    async def open(self) -> None:
        _, self._protocol = await asyncio.get_running_loop().create_connection(
            Replying, "127.0.0.1", self.port
        )

    async def send(self, batch: Batch) -> Replies:
        async with asyncio.timeout(self.timeout):
            *held, replicas = await self._protocol.send(batch)
        return Replies(held, replicas)

    async def close(self) -> None:
        self._protocol.transport.abort()


class Glide(Client):
    """valkey-glide is told the node of the batch."""

    about = "valkey-glide ClusterBatch to the node"
    module = "glide"

    async def open(self) -> None:
        glide = self._glide = importlib.import_module("glide")  # not everyone who measures has it
        timeout = round((self.timeout or 60) * 1_000)
        settings = glide.GlideClusterClientConfiguration(
            [glide.NodeAddress("127.0.0.1", self.port)], request_timeout=timeout
        )
        self._client = await glide.GlideClusterClient.create(settings)
        route = None if self.finds_nodes else glide.ByAddressRoute("127.0.0.1", self.port)
        self._options = glide.ClusterBatchOptions(route=route, timeout=timeout)

    async def send(self, batch: Batch) -> Replies:
        calls = self._glide.ClusterBatch(is_atomic=False)
        for call in batch:
            calls.fcall(FUNCTION, call.keys, [*call.values, LEAD])
        calls.wait(1, 1000)
        *held, replicas = await self._client.exec(calls, raise_on_error=True, options=self._options)
        return Replies(held, replicas)

    async def close(self) -> None:
        await self._client.close()


class GlideBySlots(Glide):
    """valkey-glide finds the node of each command itself; WAIT goes to all masters."""

    about = "valkey-glide ClusterBatch by slots"
    finds_nodes = True


CLIENTS_BY_NAME: dict[str, type[Client]] = {
    one.about: one
    for one in (
        ClusterPipeline,
        TargetedClusterPipeline,
        NodePipeline,
        BareConnection,
        ServersConnection,
        Glide,
        GlideBySlots,
        OwnProtocol,
    )
}


class Figures(NamedTuple):
    """Microseconds of CPU a report, of the client and of the master; milliseconds until a batch's replies, at the median."""

    client: float
    master: float
    wall: float


async def measure(client: Client, master: int, by_tag: bool, share: float) -> dict[int, Figures]:
    """Return what each size of batch costs; `master` is the id of its process."""
    await client.open()
    reports = Reports(by_tag)
    figures = {}
    for size in SIZES:
        await drive(client, [reports.batch(size) for _ in range(5)])
        batches = [reports.batch(size) for _ in range(max(5, round(REPORTS[size] * share / size)))]
        before, before_master = usage([os.getpid()]), usage([master])
        seconds = await drive(client, batches)
        used, used_master = usage([os.getpid()]).since(before), usage([master]).since(before_master)
        figures[size] = Figures(
            client=used.cpu * 1e6 / (size * len(batches)),
            master=used_master.cpu * 1e6 / (size * len(batches)),
            wall=statistics.median(seconds) * 1e3,
        )
    await client.close()
    return figures


async def drive(client: Client, batches: Sequence[Batch]) -> list[float]:
    """Send one after another; return the seconds that each took. Every report has to be held and replicated."""
    seconds = []
    for batch in batches:
        began = time.perf_counter()
        held, replicas = await client.send(batch)
        seconds.append(time.perf_counter() - began)
        assert replicas >= 1, f"{replicas} replicas"
        assert held == [b"1" * len(call.keys) for call in batch], held
    return seconds


async def give_up(client: Client, master: int) -> str:
    """Return in words what becomes of a batch that is given up, and of the one behind it."""
    watcher: Any = redis.asyncio.Redis(host="127.0.0.1", port=client.port)
    await client.open()
    reports = Reports(by_tag=False)
    await client.send(reports.batch(1))
    first, second = reports.batch(3), distinct(reports)
    before = await _counts(watcher)
    began = time.perf_counter()
    os.kill(master, signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    thaw = loop.call_later(10 * GIVEN_UP_SECONDS, os.kill, master, signal.SIGCONT)
    try:
        async with asyncio.timeout(None if client.timeout else GIVEN_UP_SECONDS):
            await client.send(first)
        ended = "answered"
    except Exception as error:  # noqa: BLE001 - what a library raises when it is late is what is asked
        ended = type(error).__name__
    ended += f" after {time.perf_counter() - began:.1f} s"
    thaw.cancel()
    os.kill(master, signal.SIGCONT)
    right = await _is_right(client, second)
    await asyncio.sleep(GIVEN_UP_SECONDS)  # for what a library repeats behind our back
    calls, connections = (now - then for now, then in zip(await _counts(watcher), before, strict=True))
    times = (calls - len(second) - connections * client.calls_to_open) / len(first)
    await client.close()
    await watcher.aclose()
    return f"{ended}, carried out {times:g} times, {connections} new connections; next batch {right}"


async def cancel_at_random(client: Client) -> str:
    """Return in words how many of the batches behind cancelled ones had replies that were not theirs."""
    await client.open()
    reports = Reports(by_tag=False)
    chance = random.Random(1)
    cancelled, seen = 0, Counter[str]()
    for _ in range(CANCELLED):
        sending = asyncio.ensure_future(client.send(reports.batch(50)))
        for _ in range(chance.randrange(MOST_TURNS)):
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait([sending])
        cancelled += sending.cancelled()
        seen[await _is_right(client, distinct(reports))] += 1
    await client.close()
    return f"{cancelled} of {CANCELLED} cancelled; next batches {dict(seen)}"


async def misroute(client: Client) -> str:
    """Return in words what becomes of a batch that its master may not take; the client is at another one."""
    await client.open()
    try:
        held, replicas = await client.send(Reports(by_tag=False).batch(3))
        told = any(isinstance(one, Exception) for one in held)
        said = "the redirections" if told else f"all held, {replicas} replicas: WRONG, they were never asked"
    except Exception as error:  # noqa: BLE001 - what a library raises for a redirection is what is asked
        said = type(error).__name__
    await client.close()
    return said


def distinct(reports: Reports) -> Batch:
    """Return a batch whose replies are like no other's: each client is reported twice in a call."""
    return [Call(call.keys * 2, call.values * 2) for call in reports.batch(5)]


async def _is_right(client: Client, batch: Batch) -> str:
    try:
        held, _ = await client.send(batch)
    except Exception as error:  # noqa: BLE001 - whatever is raised is told, and is not right
        return f"{type(error).__name__}: {error}"
    return "right" if held == [b"11"] * len(batch) else f"WRONG: {held}"


async def _counts(watcher: Any) -> tuple[int, int]:
    """Return how many function calls and how many connections the master has seen."""
    calls = (await watcher.info("commandstats")).get("cmdstat_fcall", {}).get("calls", 0)
    return calls, (await watcher.info("stats"))["total_connections_received"]


def in_its_own_process(name: str, master: RedisNode, *options: str) -> Any:
    """Return what a process with this library alone reports."""
    where = ["--client", name, "--port", str(master.port), "--master", str(master.pid)]
    done = subprocess.run(
        [sys.executable, __file__, *where, *options], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def table(rounds: dict[str, list[dict[str, list[float]]]]) -> str:
    """Return the medians of all rounds, a line for each library."""
    head = "".join(f"{f'batches of {size}':>22}" for size in SIZES)
    unit = f"{'us/report     ms':>22}" * len(SIZES)
    lines = [f"{'':44}{head}", f"{'':44}{unit}"]
    for name, figures in rounds.items():
        cells = []
        for size in SIZES:
            each = [Figures(*one[str(size)]) for one in figures]
            cpu = statistics.median(one.client for one in each)
            wall = statistics.median(one.wall for one in each)
            cells.append(f"{cpu:>15.1f}{wall:>7.2f}")
        lines.append(f"{name:44}{''.join(cells)}")
    masters = [
        statistics.median(Figures(*one[str(size)]).master for figures in rounds.values() for one in figures)
        for size in SIZES
    ]
    lines.append(f"{'(the master itself)':44}{''.join(f'{cpu:>15.1f}       ' for cpu in masters)}".rstrip())
    return "\n".join(lines)


def compare(names: Sequence[str], rounds: int, share: float) -> None:
    """Run everything and print it."""
    with running_cluster(replicas=1, node_timeout_ms=NODE_TIMEOUT_MS) as cluster:
        first, last = cluster.owner(0), cluster.owner(layout.SLOTS - 1)
        for shape in ("tag", "report"):
            figures: dict[str, list[Any]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in names:
                    options = ["--shape", shape, "--share", str(share)]
                    figures[name].append(in_its_own_process(name, first, *options))
            print(f"A function call for each {shape}:\n{table(figures)}\n", flush=True)
        print(f"Batches given up, after {GIVEN_UP_SECONDS} s of a master that stands still, or at random:")
        for name in names:
            for how in ("cancelled", "own timeout", "at random"):
                print(f"  {name}, {how}: {in_its_own_process(name, first, '--fate', how)}", flush=True)
        print("\nA batch to a master whose slots have moved to another:")
        for name in names:
            if not CLIENTS_BY_NAME[name].finds_nodes:
                print(f"  {name}: {in_its_own_process(name, last, '--fate', 'misrouted')}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="processes for each library")
    parser.add_argument("--share", type=float, default=1.0, help="of the reports of a round")
    parser.add_argument("--only", action="append", help="libraries whose names contain this")
    parser.add_argument("--client", choices=CLIENTS_BY_NAME, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--master", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    parser.add_argument("--fate", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.client is None:
        compare(_names(asked.only), asked.rounds, asked.share)
        return
    client = CLIENTS_BY_NAME[asked.client](
        asked.port, GIVEN_UP_SECONDS if asked.fate == "own timeout" else None
    )
    doing: Coroutine[Any, Any, Any]
    if asked.fate is None:
        doing = measure(client, asked.master, asked.shape == "tag", asked.share)
    elif asked.fate == "at random":
        doing = cancel_at_random(client)
    elif asked.fate == "misrouted":
        doing = misroute(client)
    else:
        doing = give_up(client, asked.master)
    print(json.dumps(uvloop.run(doing)))


def _names(only: Sequence[str] | None) -> list[str]:
    names = []
    for name, client in CLIENTS_BY_NAME.items():
        if only and not any(word in name for word in only):
            continue
        if importlib.util.find_spec(client.module) is None:
            print(f"{name}: not installed: pip install valkey-glide", file=sys.stderr)
        else:
            names.append(name)
    return names


if __name__ == "__main__":
    main()
