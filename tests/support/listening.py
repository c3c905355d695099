"""The connections of clients to one server, in this process: over real sockets, or to whom a test lets something happen."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Self, cast

from proxyherd.config.rates import RateSettings
from proxyherd.config.schema import Limits
from proxyherd.core.area_queries import AreaQuery, AreaReply
from proxyherd.core.engine import Client, Said, Settled
from proxyherd.core.follows.event import Event
from proxyherd.core.follows.follow import Follow, FollowReply
from proxyherd.core.follows.follower import Follower
from proxyherd.core.messages import invalid
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules
from proxyherd.core.spatial.search import SearchResult
from proxyherd.core.turn import Turn
from proxyherd.server.clients.clients import Clients
from proxyherd.server.clients.tcp import ClientConnection, TcpListener, line_connection
from proxyherd.server.driver import Driver
from proxyherd.server.places_queries import AsyncPlacesQueries
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

IDLE, SLOW = 50.0, 30.0


class Holding:
    """An engine that answers every line as invalid: at once, or when `release` is called, where the line is `hold`. Who follows
    anything is told what a test tells all, and in each area there is nobody.
    """

    full = False
    keeper = None

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.rules = Rules("Clark", Limits())
        self.held: list[tuple[Client, Reply, bytes]] = []
        self._released: list[Client] = []
        self.followers: list[Follower] = []
        self._due: list[Follower] = []

    def begin(self, *_: object) -> None: ...

    def decide(self, said: Sequence[Said]) -> None:
        for one in said:
            one.replies = [self._reply(one.client, line) for line in cast("list[bytes]", one.lines)]

    def _reply(self, client: Client, line: bytes | Follow | AreaQuery) -> Reply:
        if isinstance(line, Follow):
            self.followers.append(line.follower)
            return FollowReply("follow", "following", b"")
        if isinstance(line, AreaQuery):
            return AreaReply(line.kind, "answered", b"", result=SearchResult([], None))
        reply = Reply("other", "invalid", None if line == b"hold" else invalid(line))
        if line == b"hold":
            self.held.append((client, reply, line))
        return reply

    def send(self, _: float) -> None: ...

    def end(self, now: float) -> Settled:
        released, self._released = self._released, []
        due, self._due = self._due, []
        return Settled(released, pushes=due)

    def tell(self, event: Event) -> None:
        """Tell all followers, in the next turn."""
        for follower in self.followers:
            follower.tell((event,))
        self._due = [*self.followers]
        self._wake()

    def release(self) -> None:
        """Answer what is held."""
        for client, reply, line in self.held:
            reply.answer = invalid(line)
            self._released.append(client)
        self.held.clear()
        self._wake()


class SilentTransport(asyncio.Transport):
    """A connection whose other end takes what a test says."""

    def __init__(self) -> None:
        super().__init__({"peername": ("10.0.0.1", 5)})
        self.unsent = 0
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None: ...

    def abort(self) -> None:
        self.aborted = True


class Listening:
    """The client connections of one server. Build it inside an event loop."""

    def __init__(self, folder: Path, rates: RateSettings | None = None, **limits: float) -> None:
        self.file = folder / "Clark.log"
        log_file = LogFile(self.file)
        log = make_logger(log_file, server="Clark", level="info", max_field_bytes=1_024)
        observer = Observer(log, log_file, Metrics(), ())
        loop = asyncio.get_running_loop()
        driver = Driver(loop)
        self.engine = Holding(driver.wake)
        places: Any = loop.create_future()
        turn = Turn(self.engine, AsyncPlacesQueries[Client](places, observer, loop), observer, driver.wake)
        driver.start(turn)
        values: dict[str, Any] = {"idle_seconds": IDLE, "slow_reader_seconds": SLOW, **limits}
        self.clients = Clients(Limits(**values), turn, observer, rates)
        self._listener = TcpListener(self.clients, None, drain_seconds=5)
        self._log_file = log_file
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.clients.abort()
        self._log_file.close()

    def stop(self) -> None:
        """Stop, as at SIGTERM."""
        if not self._stopped:
            self._stopped = True
            self._listener.close()
            self.clients.drain()

    @property
    def connections(self) -> list[ClientConnection]:
        return cast("list[ClientConnection]", [*self.clients.connections])

    def connected(self) -> tuple[ClientConnection, SilentTransport]:
        connection, wire = line_connection(self.clients), SilentTransport()
        connection.connection_made(wire)
        return connection, wire

    async def port(self) -> int:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        await self._listener.listen(sock)
        port: int = sock.getsockname()[1]
        return port

    def value(self, name: str, **labels: str) -> float:
        """Return the value of a metric."""
        self.clients.observer.settle()
        return self.clients.observer.metrics.registry.get_sample_value(name, labels) or 0.0

    def events(self, name: str) -> list[dict[str, Any]]:
        self._log_file.flush()
        events = [json.loads(line) for line in self.file.read_bytes().splitlines()]
        return [one for one in events if one["event"] == name]


def rates(**others: float) -> RateSettings:
    """Return rates that count loopback, with these limits alone: of each rate a tenth of a second at once."""
    names = [name for name in RateSettings.__struct_fields__ if "_per_" in name]
    return RateSettings(exempt=(), burst_seconds=0.1, **{**dict.fromkeys(names, 0), **others})  # type: ignore[arg-type] # all are numbers


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(60):  # against a hang alone
            await scenario

    asyncio.run(in_time())


async def read_all(sock: socket.socket) -> bytes:
    """Read to the end; a reset raises."""
    loop, read = asyncio.get_running_loop(), bytearray()
    while some := await loop.sock_recv(sock, 65_536):
        read += some
    return bytes(read)


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
