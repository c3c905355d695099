"""What a command costs in steps of the interpreter: opcodes, and calls, counted and not timed, so the same each time.

    .venv/bin/python tests/support/cost.py            what it costs now, beside tests/support/cost.json
    .venv/bin/python tests/support/cost.py --write    the same, and keep it there

A fixed script of input goes through the pure core, a node with two neighbours, and through one whole server as the daemon
puts it together, with lines and over the web, on transports that are lists; and through one whose table is in a Redis Cluster, whose connections are
dicts. Counted is all that runs for it, libraries too, but for asyncio, in whose
place uvloop serves. What C code does within a call is not seen: that is for bench/ to measure.

Versions of Python have opcodes of their own: cost.json keeps the figures of each apart.
"""

from __future__ import annotations

import asyncio
import gc
import json
import selectors
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple, Self, cast

import fake_redis
from turns import NoPlaces

from proxyherd.config import herd_file
from proxyherd.config.address import Address
from proxyherd.config.herd_file import PEER_LINE_SLACK
from proxyherd.config.schema import Limits, Timing
from proxyherd.core.handshake import State, Terms
from proxyherd.core.link import Link
from proxyherd.core.messages import NANOSECONDS, recent_parser
from proxyherd.core.node import Node
from proxyherd.core.table import Table
from proxyherd.engines.herd.engine import HerdEngine
from proxyherd.engines.herd.peers import PeerConnection
from proxyherd.engines.redis.layout import TAGS
from proxyherd.engines.redis.shard import Library
from proxyherd.places import Query
from proxyherd.places.gazetteer.build import write as write_gazetteer
from proxyherd.places.gazetteer.own_places import Place
from proxyherd.places.gazetteer.provider import Gazetteer
from proxyherd.server.clients.tcp import ClientConnection, line_connection
from proxyherd.server.clients.web import WebListener
from proxyherd.server.credentials import read_credentials
from proxyherd.server.daemon import Paths, _Daemon
from proxyherd.telemetry.logs import LogFile

FILE = Path(__file__).with_suffix(".json")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBRARIES = ("aiohttp", "msgspec", "prometheus-client", "structlog")

SECRET = bytes(32)
NAME, NEIGHBOURS = "Bob", ("Abe", "Ann")
EPOCH = 1_600_000_000
SECOND = 10**9
CLIENTS = 256
TURNS = 8
BATCH = 100
"""Reports of a batch."""

COUNTED = "192.0.2.1"
"""The address of a client that has rates."""

_UNSEEN = (str(Path(asyncio.__file__).parent), selectors.__file__, __file__, fake_redis.__file__)
"""Whose frames do not count."""

_TOOL = 3
"""By which sys.monitoring knows this module: one that is free for any use."""


class Cost(NamedTuple):
    """Of one command."""

    opcodes: float
    calls: float  # of functions, Python's and C's


class Meter:
    """Counts what this thread does while it is entered."""

    def __init__(self) -> None:
        self.opcodes = self.calls = 0

    def __enter__(self) -> Self:
        self._before = sys.gettrace(), sys.getprofile(), gc.isenabled()
        gc.disable()  # else it would run now here and now there
        sys.setprofile(self._profile)
        if sys.version_info >= (3, 12):  # whose settrace misses the first call of each function
            sys.monitoring.use_tool_id(_TOOL, "cost")
            sys.monitoring.register_callback(_TOOL, sys.monitoring.events.INSTRUCTION, self._instruction)
            sys.monitoring.restart_events()
            sys.monitoring.set_events(_TOOL, sys.monitoring.events.INSTRUCTION)
        else:
            sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        trace, profile, collects = self._before
        if sys.version_info >= (3, 12):
            sys.monitoring.set_events(_TOOL, sys.monitoring.events.NO_EVENTS)
            sys.monitoring.free_tool_id(_TOOL)
        else:
            sys.settrace(trace)
        sys.setprofile(profile)
        if collects:
            gc.enable()

    def _instruction(self, code: CodeType, _: int) -> object:
        if sys.version_info >= (3, 12) and code.co_filename.startswith(_UNSEEN):
            return sys.monitoring.DISABLE
        self.opcodes += 1
        return None

    def _trace(self, frame: FrameType, _: str, __: Any) -> Any:
        if frame.f_code.co_filename.startswith(_UNSEEN):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, _: FrameType, event: str, __: Any) -> Any:
        self.opcodes += event == "opcode"
        return self._step

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        if event in {"call", "c_call"} and not frame.f_code.co_filename.startswith(_UNSEEN):
            self.calls += 1

    def a_command(self, commands: int) -> Cost:
        return Cost(round(self.opcodes / commands, 1), round(self.calls / commands, 1))


# Input. --------------------------------------------------------------------------------------------------------


def report(client: int, moment: int) -> bytes:
    return b"IAMAT client%04d.example.com +34.068930-118.445127 %d.959498503" % (client, EPOCH + moment)


def odd_report(client: int, moment: int) -> bytes:
    """Return a report; the ID of the first client needs an escape in JSON."""
    return report(client, moment).replace(b"client0000", b'client"000')


def question(client: int) -> bytes:
    return b"WHATSAT client%04d.example.com 0 0" % client


def invalid(client: int) -> bytes:
    return b"WHEREIS client%04d.example.com" % client


def update(client: int, moment: int) -> bytes:
    return b"AT Ann +0.263873386 client%04d.example.com +34.068930-118.445127 %d.959498503\n" % (
        client,
        EPOCH + moment,
    )


def frame(data: bytes) -> bytes:
    """Return a client's frame, masked with zeros."""
    return b"\x81%c\0\0\0\0%b" % (0x80 | len(data), data)


def frames_of(clients: int, moment: int) -> list[bytes]:
    return [frame(report(client, moment)) for client in range(clients)]


def request(method: bytes, target: bytes, body: bytes, *headers: bytes) -> bytes:
    named = b"Host: localhost", *headers, b"Content-Length: %d" % len(body)
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n%b" % (method, target, b"\r\n".join(named), body)


def position(moment: int) -> bytes:
    return b'"lat":34.068930,"lon":-118.445127,"time":%d.959498503' % (EPOCH + moment)


def put(moment: int) -> bytes:
    return request(b"PUT", b"/v1/clients/client0000.example.com", b"{%b}" % position(moment))


def batch(moment: int) -> bytes:
    reports = [
        b'{"client":"client%04d.example.com",%b}' % (client, position(moment)) for client in range(BATCH)
    ]
    return request(b"POST", b"/v1/reports", b"[%b]" % b",".join(reports))


HANDSHAKE = request(
    b"GET",
    b"/v1/ws",
    b"",
    *(b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13"),
    *(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Protocol: proxyherd.lines.v1"),
)


def updates(moment: int) -> bytes:
    return b"".join(update(client, moment) for client in range(CLIENTS))


# The pure core. ------------------------------------------------------------------------------------------------


def terms(name: str, neighbours: Iterable[str]) -> Terms:
    limits, timing = Limits(), Timing()
    return Terms(
        name=name,
        neighbours=frozenset(neighbours),
        secrets=(SECRET,),
        line_bytes=limits.max_line_bytes + PEER_LINE_SLACK,
        lead=limits.clock_lead,
        fingerprint=b"0" * 16,
        heartbeat=timing.heartbeat_seconds,
        handshake=timing.handshake_seconds,
    )


def neighbour(name: str) -> Link:
    """Return the end of a link that a neighbour has, which has dialled."""
    return Link(terms(name, [NAME]), dial=NAME, nonce=name.encode().ljust(32), now=0.0)


class Core:
    """A node with two neighbours."""

    def __init__(self) -> None:
        self.node = Node(NAME, Table(SECRET), Limits(), Timing(), alone=False, now=0.0)
        self.links = {
            name: Link(terms(NAME, NEIGHBOURS), dial=None, nonce=name.lower().encode().ljust(32), now=0.0)
            for name in NEIGHBOURS
        }
        for name, link in self.links.items():
            far = neighbour(name)
            for _ in range(3):
                link.receive_data(far.data_to_send(0.0), 0.0)
                self.node.receive(link, 100, 0.0)
                far.receive_data(link.data_to_send(0.0), 0.0)
                far.events(100)
            assert link.state is far.state is State.LIVE
        self.costs: dict[str, Cost] = {}

    def run(self) -> dict[str, Cost]:
        reports = [report(client, 1) for client in range(CLIENTS)]
        self.commands("a first report", reports, "stored")
        self.commands("a later report", [report(client, 2) for client in range(CLIENTS)], "stored")
        self.commands("a stale report", reports, "stale")
        self.commands("a question", [question(client) for client in range(CLIENTS)], "answered")
        self.commands("an invalid line", [invalid(client) for client in range(CLIENTS)], "invalid")
        self.heard("a neighbour's update", updates(3), CLIENTS)
        self.heard("a neighbour's update that is no news", updates(3), 0)
        return self.costs

    def commands(self, name: str, lines: list[bytes], outcome: str) -> None:
        node = self.node
        with Meter() as meter:
            reports, others = node.rules.judge(lines, (EPOCH + 9) * SECOND)
            replies = [node.decide(*one) for one in zip(lines, (*reports, *others), strict=True)]
            node.flood()
        assert {reply.outcome for reply in replies} == {outcome}
        self._clear(name, meter)

    def heard(self, name: str, data: bytes, news: int) -> None:
        link = self.links["Ann"]
        with Meter() as meter:
            link.receive_data(data, 0.0)
            self.node.receive(link, CLIENTS, 0.0)
            learned = len(self.node.news)
            self.node.flood()
        assert learned == news
        self._clear(name, meter)

    def _clear(self, name: str, meter: Meter) -> None:
        self.costs[name] = meter.a_command(CLIENTS)
        self.node.take_notes()
        for link in self.links.values():
            link.data_to_send(0.0)


# One server. ---------------------------------------------------------------------------------------------------


class Transport:
    """One connection's other side: what is written to it is kept."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.written: list[bytes] = []
        self.write = self.written.append  # so that a write counts as a call
        self._address = (host, port)

    def get_extra_info(self, name: str) -> Any:
        return self._address if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def take(self) -> bytes:
        """Return what was written since the last time."""
        data = b"".join(self.written)
        self.written.clear()
        return data


HERD = """
edges = [["Abe", "Bob"], ["Ann", "Bob"]]
[servers]
Abe = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }
Ann = { clients = "127.0.0.1:4", peers = "127.0.0.1:5", admin = "127.0.0.1:6" }
Bob = { clients = "127.0.0.1:7", peers = "127.0.0.1:8", admin = "127.0.0.1:9" }
"""


HERD_ON_REDIS = """
[servers]
Bob = { clients = "127.0.0.1:7", admin = "127.0.0.1:9" }
[table]
engine = "redis"
[redis]
nodes = ["127.0.0.1:10"]
timeout_seconds = 30
deadline_seconds = 60
"""  # however busy this machine is


class OnlySoon:
    """Lets updates be passed on soon, and settles nothing."""

    def __init__(self, engine: HerdEngine) -> None:
        self._engine = engine

    def pass_on_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._engine.pass_on, 0.0)

    def settle_later(self) -> None:
        pass

    def settled(self) -> None:
        pass


class BareServer:
    """What the daemon puts together, less its sockets and what it does by the clock."""

    herd = HERD

    def __init__(self, folder: Path) -> None:
        (folder / "herd.toml").write_text(self.herd)
        (folder / "secret").touch(0o600)
        (folder / "secret").write_bytes(SECRET)
        (folder / "state").mkdir()
        herd = herd_file.load(folder / "herd.toml")
        self._log = LogFile(folder / "log")
        paths = Paths(folder / "state", folder / "log", folder / "secret", folder / "gazetteer")
        self.daemon = _Daemon(
            herd,
            herd.server(NAME),
            read_credentials(herd, NAME, folder / "secret"),
            paths,
            self._log,
        )
        self.peers: list[tuple[PeerConnection, Transport]] = []
        self.costs: dict[str, Cost] = {}
        self._moment = 0

    def assemble(self) -> None:
        loop = asyncio.get_running_loop()
        self._log.gather(loop.call_soon)
        places = loop.create_future()
        places.set_result(NoPlaces())
        self.daemon._loop, self.daemon._places = loop, cast("Any", places)
        self.daemon._assemble()
        self.clients = [self.connect(port) for port in range(8)]

    async def run(self) -> dict[str, Cost]:
        self.assemble()
        self.daemon._clients._sweeper.cancel()  # it runs by the clock
        backend = cast("Any", self.daemon._backend)
        backend._node.start(0.0)  # there is nothing to replay
        backend._node._walks.ended = True  # and nothing to catch up with
        backend.engine._later = backend.engine._links._later = OnlySoon(backend.engine)
        self.peers = [await self.link(name) for name in NEIGHBOURS]
        await self.count()
        self._log.close()
        return self.costs

    async def count(self) -> None:
        """Count what each kind of command costs."""
        await self.commands("a report alone", report, clients=1, lines=1)
        await self.commands("a report of 32 in a turn", report, clients=1, lines=32)
        await self.commands("a report of 8 clients with 32 each", report, clients=8, lines=32)
        await self.commands("a question of 32 in a turn", lambda at, _: question(at), clients=1, lines=32)
        await self.commands("an invalid line of 32 in a turn", lambda at, _: invalid(at), clients=1, lines=32)
        await self.commands("a report of 32 in a turn, one with an odd ID", odd_report, clients=1, lines=32)
        exempt, self.clients = self.clients, [self.connect(1, COUNTED)]
        for name, lines in (("a report alone", 1), ("a report of 32 in a turn", 32)):
            await self.commands(f"{name}, counted", report, clients=1, lines=lines)
        self.clients = [self.connect(port) for port in range(50)]
        await self.commands("a report of 50 clients with one each", report, clients=50, lines=1)
        self.clients = exempt
        await self.web()
        await self.updates("a neighbour's update of 256")
        await self.few_updates("a neighbour's update alone, two in 5 ms", "one that comes back")

    async def link(self, name: str, transport: Transport | None = None) -> tuple[PeerConnection, Transport]:
        connection, far = PeerConnection(cast("Any", self.daemon._backend).peers, None), neighbour(name)
        transport = transport or Transport(1)
        connection.connection_made(cast("asyncio.Transport", transport))
        for _ in range(3):
            connection.data_received(far.data_to_send(0.0))
            await settled()
            far.receive_data(transport.take(), 0.0)
            far.events(100)
        assert far.state is State.LIVE, far.reason
        return connection, transport

    def connect(self, port: int, host: str = "127.0.0.1") -> tuple[ClientConnection, Transport]:
        connection, transport = line_connection(self.daemon._clients), Transport(port, host)
        connection.connection_made(cast("asyncio.Transport", transport))
        return connection, transport

    async def commands(
        self, name: str, spell: Callable[[int, int], bytes], *, clients: int, lines: int
    ) -> None:
        """Let clients send lines, so many in a turn; the first turns are not counted."""
        for counted in (False, True):
            meter, answers = Meter(), 0
            for _ in range(TURNS):
                self._moment += 1
                sent = [
                    b"".join(spell(client * lines + at, self._moment) + b"\n" for at in range(lines))
                    for client in range(clients)
                ]
                with meter:
                    for (connection, _), data in zip(self.clients, sent, strict=False):
                        connection.data_received(data)
                    await settled()
                answers += sum(transport.take().count(b".example.com") for _, transport in self.clients)
                for _, transport in self.peers:
                    transport.take()
            assert answers == TURNS * clients * lines, (name, answers)
            if counted:
                self.costs[name] = meter.a_command(answers)

    async def web(self) -> None:
        """Let a client send requests, and one speak lines over a WebSocket."""
        listener = WebListener(self.daemon._clients, self.daemon._herd, lambda _: 0, "Clark")
        http, frames = (self.connect_web(listener, port) for port in (1_001, 1_002))
        connection, transport = frames
        connection.data_received(HANDSHAKE)
        await settled()
        assert transport.take().startswith(b"HTTP/1.1 101 ")
        await self.sent("over the web: a report by PUT", http, lambda moment: [put(moment)], 1)
        await self.sent(
            "over the web: a report of a batch of 100", http, lambda moment: [batch(moment)], BATCH
        )
        counted = self.connect_web(listener, 1_003, COUNTED)
        await self.sent("over the web: a report by PUT, counted", counted, lambda moment: [put(moment)], 1)
        for name, count in (("a report alone", 1), ("a report of 32 in a turn", 32)):
            await self.sent(
                f"over a WebSocket: {name}",
                frames,
                partial(frames_of, count),
                count,
            )

    def connect_web(
        self, listener: WebListener, port: int, host: str = "127.0.0.1"
    ) -> tuple[ClientConnection, Transport]:
        connection = cast("ClientConnection", listener._listener._make_protocol())
        transport = Transport(port, host)
        connection.connection_made(cast("asyncio.Transport", transport))
        return connection, transport

    async def sent(
        self,
        name: str,
        client: tuple[ClientConnection, Transport],
        spell: Callable[[int], list[bytes]],
        reports: int,
    ) -> None:
        """Let a client send so many reports at once; the first turns are not counted."""
        connection, transport = client
        for counted in (False, True):
            meter = Meter()
            for _ in range(TURNS):
                self._moment += 1
                data = b"".join(spell(self._moment))
                with meter:
                    connection.data_received(data)
                    await settled()
                assert transport.take().count(b"AT Bob") == reports
                for _, peer in self.peers:
                    peer.take()
            if counted:
                self.costs[name] = meter.a_command(TURNS * reports)

    async def updates(self, name: str) -> None:
        meter = Meter()
        (connection, _), (_, other) = self.peers
        other.take()
        self.daemon._turn._lately = 0  # clients were heard a while ago, however fast this machine is
        for _ in range(TURNS):
            self._moment += 1
            data = updates(self._moment)
            with meter:
                connection.data_received(data)
                await settled()
                cast("Any", self.daemon._backend)._settle()
        assert other.take().count(b"AT Ann") == TURNS * CLIENTS
        self.costs[name] = meter.a_command(TURNS * CLIENTS)

    async def few_updates(self, name: str, name_of_repeats: str) -> None:
        """Let a neighbour tell of updates one at a time, of which two are kept and logged together; and let the other
        neighbour send each back in the meantime. The first turns are not counted.
        """
        backend = cast("Any", self.daemon._backend)
        (connection, _), (other, _) = self.peers
        for counted in (False, True):
            meter, meter_of_repeats = Meter(), Meter()
            for _ in range(TURNS):
                self._moment += 1
                for client in range(2):
                    data = update(client, self._moment)
                    with meter:
                        connection.data_received(data)
                        await settled()
                    with meter_of_repeats:
                        other.data_received(data)
                assert len(backend.engine._unkept) == 2
                with meter:
                    backend._settle()
            if counted:
                self.costs[name] = meter.a_command(TURNS * 2)
                self.costs[name_of_repeats] = meter_of_repeats.a_command(TURNS * 2)


class ServerWithAWebPort(BareServer):
    """One whose web port is open, with a connection that is idle."""

    herd = HERD.replace('admin = "127.0.0.1:9"', 'admin = "127.0.0.1:9", web = "127.0.0.1:11"')

    async def count(self) -> None:
        _forget_lines()
        self.daemon._observer.open_web()
        listener = WebListener(self.daemon._clients, self.daemon._herd, lambda _: 0, "Clark")
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        await listener.listen(sock)
        _, writer = await asyncio.open_connection(*sock.getsockname())
        await settled()
        assert {one.via for one in self.daemon._clients.connections} == {"lines", "http"}
        await super().count()
        writer.close()
        listener.close()


class OnlyMaster:
    """A connection to a master that has all tags: answers at once, and every report is the latest."""

    def __init__(self) -> None:
        self._held: dict[bytes, bytes] = {}

    async def exchange(self, commands: bytes, _: int) -> list[object]:
        return [self._execute(*words) for words in fake_redis.words(commands)]

    def _execute(self, name: bytes, *words: bytes) -> object:
        if name == b"MGET":
            return [self._held.get(key) for key in words]
        if name == b"WAIT":
            return 2
        count = int(words[1])
        self._held.update(zip(words[2 : 2 + count], words[2 + count :], strict=False))
        return b"1" * count

    async def disconnect(self, nowait: bool) -> None:
        pass


async def connect(_: Address) -> OnlyMaster:
    return OnlyMaster()


NO_ERRORS = Library(
    connect=connect,
    errors=(OSError,),
    moved=fake_redis.MovedError,
    asked=fake_redis.AskError,
    later=fake_redis.TryAgainError,
    full=fake_redis.FullError,
)


class ServerOnRedis(BareServer):
    """One whose table is in a cluster of one master."""

    herd = HERD_ON_REDIS

    async def run(self) -> dict[str, Cost]:
        self.assemble()
        self.daemon._clients._sweeper.cancel()  # it runs by the clock
        engine = cast("Any", self.daemon._backend).engine
        engine._library = NO_ERRORS
        engine.learn([Address("127.0.0.1", 10)] * TAGS)
        await settled()
        assert not engine.routes.trouble()
        await self.commands("a report alone", report, clients=1, lines=1)
        await self.commands("a report of 32 in a turn", report, clients=1, lines=32)
        await self.commands("a report of 8 clients with 32 each", report, clients=8, lines=32)
        await self.commands("a question of 32 in a turn", lambda at, _: question(at), clients=1, lines=32)
        await engine.close()
        self._log.close()
        return self.costs


# The gazetteer. ------------------------------------------------------------------------------------------------


def town(number: int) -> Place:
    """Return one of 10,000 places, some 5 km apart."""
    return Place(
        source="own",
        key=number,
        name=f"Town {number}",
        latitude=30 + number // 100 / 20,
        longitude=-120 + number % 100 / 17,
        population=number * 7919 % 100_000,
        types=("locality", "political"),
        vicinity="California, United States",
        attribution="somebody",
    )


async def near(path: Path) -> dict[str, Cost]:
    """Ask for 5 places of some 12 in circles of 10 km, which are answered at once, and for 20 of some 300 in 50 km."""
    write_gazetteer(path, [town(number) for number in range(10_000)])
    gazetteer = Gazetteer(path)
    costs: dict[str, Cost] = {}
    for name, metres, most in (("5 places in 10 km", 10_000, 5), ("20 places in 50 km", 50_000, 20)):
        queries = [
            Query(f"{31 + at / 100:+.6f}", f"{-118 + at / 100:+.6f}", Decimal(metres), most)
            for at in range(CLIENTS)
        ]
        assert (await gazetteer.nearby(queries[0])).results == most  # it is opened
        with Meter() as meter:
            answers = [*map(gazetteer.answer_at_once, queries)]
        assert {answer.results for answer in answers if answer} == {most}
        costs[name] = meter.a_command(CLIENTS)
    return costs


def _forget_lines() -> None:
    """Forget what an earlier run has parsed."""
    recent: Any = recent_parser(NANOSECONDS)
    recent.cache_clear()


async def settled() -> None:
    """Let the event loop do what there is to do: a turn, a batch to a master, what is left for the next, and tasks."""
    for _ in range(10):
        await asyncio.sleep(0)


def measure() -> dict[str, Cost]:
    """Return what each kind of command costs now."""
    _forget_lines()
    core = {f"core: {name}": cost for name, cost in Core().run().items()}
    with tempfile.TemporaryDirectory() as folder:
        server = asyncio.run(BareServer(Path(folder)).run())
    with tempfile.TemporaryDirectory() as folder:
        on_redis = asyncio.run(ServerOnRedis(Path(folder)).run())
    with tempfile.TemporaryDirectory() as folder:
        gazetteer = asyncio.run(near(Path(folder) / "gazetteer"))
    return (
        core
        | {f"server: {name}": cost for name, cost in server.items()}
        | {f"server on redis: {name}": cost for name, cost in on_redis.items()}
        | {f"gazetteer: {name}": cost for name, cost in gazetteer.items()}
    )


def kept() -> dict[str, Cost] | None:
    """Return what was kept for this version of Python, if anything."""
    figures = json.loads(FILE.read_text()).get(PYTHON) if FILE.exists() else None
    return figures and {name: Cost(**cost) for name, cost in figures["a command"].items()}


def libraries() -> dict[str, str]:
    """Return the versions of what is counted with us."""
    return {name: version(name) for name in LIBRARIES}


def kept_libraries() -> dict[str, str]:
    """Return those that the kept figures were counted with."""
    found: dict[str, str] = json.loads(FILE.read_text())[PYTHON]["with"]
    return found


def write(costs: dict[str, Cost]) -> None:
    """Keep these figures."""
    figures = json.loads(FILE.read_text()) if FILE.exists() else {}
    figures[PYTHON] = {
        "with": libraries(),
        "a command": {name: cost._asdict() for name, cost in costs.items()},
    }
    FILE.write_text(json.dumps(figures, indent=1) + "\n")


def table(now: dict[str, Cost], then: dict[str, Cost]) -> str:
    """Return both, side by side."""
    lines = [f"{'a command costs':48} {'opcodes':>9} {'kept':>9} {'':7} {'calls':>9} {'kept':>9}"]
    for name, cost in now.items():
        line = f"{name:48}"
        for new, old in zip(cost, then.get(name, (None, None)), strict=True):
            change = f"{new / old - 1:+7.1%}" if old else " " * 7
            line += f" {new:9} {old or '':>9} {change}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Print, and with --write keep."""
    costs = measure()
    print(table(costs, kept() or {}))
    if "--write" in sys.argv[1:]:
        write(costs)


if __name__ == "__main__":
    main()
