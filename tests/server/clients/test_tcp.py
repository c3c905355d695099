"""The shell around a client's conversation: what it tells the conversation and the log, by a clock that the tests move;
and that whoever is disconnected has all answers, through real sockets. Who is disconnected, and when: see
tests/core/test_conversation.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, cast

import pytest

from proxyherd.config.schema import Limits
from proxyherd.core.engine import Client, Said, Settled
from proxyherd.core.messages import invalid
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules
from proxyherd.core.turn import Turn
from proxyherd.server.clients.clients import Clients
from proxyherd.server.clients.tcp import ClientConnection, TcpListener
from proxyherd.server.driver import Driver
from proxyherd.server.places_queries import AsyncPlacesQueries
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

IDLE, SLOW = 50.0, 30.0
LONG = b"x" * 1_000 + b"\n"


class Holding:
    """An engine that answers every line as invalid: at once, or when `release` is called, where the line is `hold`."""

    full = False
    keeper = None

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.rules = Rules("Clark", Limits())
        self.held: list[tuple[Client, Reply, bytes]] = []
        self._released: list[Client] = []

    def begin(self, *_: object) -> None: ...

    def decide(self, said: Sequence[Said]) -> None:
        for one in said:
            one.replies = [self._reply(one.client, line) for line in cast("list[bytes]", one.lines)]

    def _reply(self, client: Client, line: bytes) -> Reply:
        reply = Reply("other", "invalid", None if line == b"hold" else invalid(line))
        if line == b"hold":
            self.held.append((client, reply, line))
        return reply

    def end(self, now: float) -> Settled:
        released, self._released = self._released, []
        return Settled(released)

    def release(self) -> None:
        """Answer what is held."""
        for client, reply, line in self.held:
            reply.answer = invalid(line)
            self._released.append(client)
        self.held.clear()
        self._wake()


class Wire(asyncio.Transport):
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

    def __init__(self, folder: Path, **limits: float) -> None:
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
        self.clients = Clients(Limits(**values), turn, observer)
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

    def connected(self) -> tuple[ClientConnection, Wire]:
        connection, wire = ClientConnection(self.clients), Wire()
        connection.connection_made(wire)
        return connection, wire

    async def port(self) -> int:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        await self._listener.listen(sock)
        port: int = sock.getsockname()[1]
        return port

    def events(self, name: str) -> list[dict[str, Any]]:
        self._log_file.flush()
        events = [json.loads(line) for line in self.file.read_bytes().splitlines()]
        return [one for one in events if one["event"] == name]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(60):  # against a hang alone
            await scenario

    asyncio.run(in_time())


def seconds(start: float, step: float, number: int) -> Iterator[float]:
    return (start + step * count for count in range(1, number + 1))


def ended(connection: ClientConnection, wire: Wire) -> str:
    """Return why the server has ended this connection, "" if it has not."""
    return connection._conversation.reason if wire.aborted else ""


# Slow readers. -------------------------------------------------------------------------------------------------


def test_a_reader_that_takes_one_byte_in_time_stays_and_one_that_takes_none_goes(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            reader, wire = listening.connected()
            wire.unsent = 1_000_000
            reader.pause_writing()
            began = listening.clients.loop.time()
            reader.check(began)
            for now in seconds(began, 0.9 * SLOW, 100):
                wire.unsent -= 1
                reader.check(now)
                assert not ended(reader, wire)
            reader.check(now + SLOW)
            assert not ended(reader, wire)
            reader.check(now + SLOW + 0.001)
            assert ended(reader, wire) == "slow reader"

    run(scenario())


# Bytes without LF. ---------------------------------------------------------------------------------------------


def test_bytes_without_a_line_feed_are_logged_once_after_a_while(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            client, _ = listening.connected()
            client.data_received(b"IAMAT kiwi +1+1 5")
            await asyncio.sleep(0)
            now = listening.clients.loop.time()
            client.check(now)
            client.check(now + 4.9)
            assert listening.events("line_unfinished") == []
            client.data_received(b" ")  # more of the same line
            await asyncio.sleep(0)
            for later in seconds(now, 5.0, 5):
                client.check(later)
            [event] = listening.events("line_unfinished")
            assert (event["client"], event["bytes"], event["seconds"]) == ("10.0.0.1:5", 18, 5.0)
            assert "LF" in event["remedy"]
            assert "sending half" in event["remedy"]
            client.data_received(b"\nhalf")
            await asyncio.sleep(0)
            for later in seconds(now, 5.0, 5):
                client.check(later)
            assert len(listening.events("line_unfinished")) == 1, "once a connection"

    run(scenario())


# How connections end. ------------------------------------------------------------------------------------------


async def read_all(sock: socket.socket) -> bytes:
    """Read to the end; a reset raises."""
    loop, read = asyncio.get_running_loop(), bytearray()
    while some := await loop.sock_recv(sock, 65_536):
        read += some
    return bytes(read)


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("quiet", [False, True], ids=["busy", "quiet"])
def test_a_client_whose_bytes_were_not_all_read_has_its_answers_when_the_server_stops(
    quiet: bool, tmp_path: Path
) -> None:
    """Its socket is not closed with bytes in it: that would reset the connection, and take answers with it."""

    async def scenario() -> None:
        with Listening(tmp_path, max_answers_outstanding=4) as listening:
            loop = asyncio.get_running_loop()
            with socket.create_connection(("127.0.0.1", await listening.port())) as sock:
                sock.setblocking(False)
                await loop.sock_sendall(sock, b"hold\n" * 4)
                pouring = loop.create_task(loop.sock_sendall(sock, LONG * 10_000))
                await until(lambda: len(listening.engine.held) == 4 and paused(listening))
                [connection] = listening.connections
                if quiet:
                    connection._conversation._heard = -math.inf
                listening.stop()
                listening.engine.release()
                answers = await read_all(sock)
                assert answers.startswith(b"? hold\n" * 4)
                assert answers.replace(b"? hold\n", b"").replace(b"? " + LONG, b"") == b""
                pouring.cancel()
                await asyncio.gather(pouring, return_exceptions=True)
            await listening.clients.gone.wait()

    run(scenario())


def paused(listening: Listening) -> bool:
    return any(not one._reading for one in listening.connections)


def test_a_quiet_client_is_closed_at_once_when_the_server_stops(tmp_path: Path) -> None:
    """And a busy one is read on for a while, so what it sends meanwhile resets nothing."""

    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            loop = asyncio.get_running_loop()
            port = await listening.port()
            with (
                socket.create_connection(("127.0.0.1", port)) as quiet,
                socket.create_connection(("127.0.0.1", port)) as busy,
            ):
                for sock in (quiet, busy):
                    sock.setblocking(False)
                    await loop.sock_sendall(sock, b"FOO\n")
                    assert await loop.sock_recv(sock, 100) == b"? FOO\n"
                [of_quiet] = [
                    one for one in listening.connections if one.name.endswith(f":{quiet.getsockname()[1]}")
                ]
                of_quiet._conversation._heard = -math.inf
                listening.stop()
                await read_all(quiet)
                await loop.sock_sendall(busy, b"FOO\n" * 1_000)
                assert len(listening.connections) == 1
                assert await read_all(busy) == b""
            await listening.clients.gone.wait()

    run(scenario())


def test_connections_past_the_limit_end_and_those_inside_stay(tmp_path: Path) -> None:
    """No clock ends any of them here."""

    async def scenario() -> None:
        with Listening(tmp_path, max_connections=3, idle_seconds=86_400) as listening:
            loop = asyncio.get_running_loop()
            port = await listening.port()
            inside = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
            await until(lambda: len(listening.connections) == 3)
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", port)) as outside:
                    outside.setblocking(False)
                    with contextlib.suppress(ConnectionError):
                        assert await loop.sock_recv(outside, 1) == b""
                refused = listening.events("client_refused")
                assert "max_connections" in refused[-1]["reason"]
                assert len(listening.connections) == 3
            for sock in inside:
                sock.setblocking(False)
                await loop.sock_sendall(sock, b"FOO\n")
                assert await loop.sock_recv(sock, 100) == b"? FOO\n"
                sock.close()

    run(scenario())
