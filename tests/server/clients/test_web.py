"""The shell of the web port, through real sockets: what a connection is counted and logged as, and how it ends."""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from listening import Listening, SilentTransport, rates, read_all, run, until
from msgspec.structs import replace
from web_talk import frame, messages, site

from proxyherd.core.follows.event import Event
from proxyherd.core.messages import Entry
from proxyherd.core.spatial.polygons import Polygon
from proxyherd.server.clients.http_reader import BodyRoom
from proxyherd.server.clients.web import WebConnection
from proxyherd.web.areas import read_geojson
from proxyherd.web.bodies import BODY_BYTES, LargeReads
from proxyherd.web.events import stream_event_of
from proxyherd.web.origins import Proxies

HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: proxyherd.lines.v1\r\n"
)


def connection(listening: Listening) -> WebConnection:
    turn = listening.clients.turn
    shared = replace(site(), large=LargeReads(lambda: turn.received))
    return WebConnection(listening.clients, shared, Proxies(("127.0.0.0/8",)), BodyRoom())


@asynccontextmanager
async def connected(listening: Listening) -> AsyncIterator[socket.socket]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: connection(listening), "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as sock:
        sock.setblocking(False)
        yield sock
    server.close()


async def websocket(sock: socket.socket, more: bytes = b"") -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, HANDSHAKE + more + b"\r\n")
    assert (await loop.sock_recv(sock, 1_000)).startswith(b"HTTP/1.1 101 ")


def test_a_websocket_is_counted_as_another_connection_and_named_by_a_trusted_proxy(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            loop = asyncio.get_running_loop()
            async with connected(listening) as sock:
                await websocket(sock, b"X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\n")
                await loop.sock_sendall(sock, frame(b"FOO"))
                assert messages(await loop.sock_recv(sock, 100)) == [(1, b"? FOO\n")]
                assert len(listening.connections) == 1
            await until(lambda: not listening.connections)
            opened = [(one["via"], one["client"]) for one in listening.events("client_opened")]
            closed = [(one["via"], one["reason"]) for one in listening.events("client_closed")]
            [command] = listening.events("command")
            assert [via for via, _ in opened] == ["http", "websocket"]
            assert opened[1][1].startswith("5.6.7.8")
            assert closed == [("http", "became a WebSocket"), ("websocket", "closed by client")]
            assert (command["via"], command["client"]) == ("websocket", opened[1][1])

    run(scenario())


@pytest.mark.parametrize("answers_close", [True, False])
def test_a_server_that_stops_waits_a_little_for_the_client_s_close_frame(
    answers_close: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyherd.server.clients.tcp.AWAIT_SECONDS", 60 if answers_close else 0.05)

    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            loop = asyncio.get_running_loop()
            async with connected(listening) as sock:
                await websocket(sock)
                listening.stop()
                [(opcode, data)] = messages(await loop.sock_recv(sock, 1_000))
                assert (opcode, data[:2]) == (8, (1012).to_bytes(2, "big"))
                assert listening.connections
                if answers_close:
                    await loop.sock_sendall(sock, frame(data[:2], 8))
                    assert await read_all(sock) == b""
                await listening.clients.gone.wait()

    run(scenario())


def test_a_client_whose_body_is_refused_gets_the_answer_while_it_sends_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            loop = asyncio.get_running_loop()
            async with connected(listening) as sock:
                head = f"PUT /v1/clients/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2 * BODY_BYTES}\r\n\r\n"
                sending = loop.create_task(loop.sock_sendall(sock, head.encode() + bytes(2 * BODY_BYTES)))
                assert (await read_all(sock)).startswith(b"HTTP/1.1 413 ")
                await sending
            await until(lambda: not listening.connections)
            [closed] = listening.events("client_closed")
            assert closed["reason"] == "bad request"

    run(scenario())


def test_a_websocket_that_begins_while_its_client_does_not_read_is_not_read_either(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            web, wire = connection(listening), Written()
            web.connection_made(wire)

            def write(data: bytes | bytearray | memoryview[Any]) -> None:
                Written.write(wire, data)
                web.pause_writing()

            wire.write = write  # type: ignore[method-assign] # as a transport whose buffer is full
            web.data_received(HANDSHAKE + b"\r\n")
            await asyncio.sleep(0)
            assert web.via == "websocket"
            sent = len(wire.data)
            for _ in range(20):
                if web._reading:
                    web.data_received(frame(b"FOO") * 5_000)
                    await asyncio.sleep(0)
            assert (web._reading, len(wire.data)) == (False, sent)
            web.resume_writing()
            await until(lambda: len(wire.data) > sent)

    run(scenario())


class Written(SilentTransport):
    """A connection that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.data += bytes(data)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@pytest.mark.parametrize(
    "flood",
    [
        HANDSHAKE + b"\r\n" + frame(b"ping", 9) * 20_000,
        HANDSHAKE.replace(b"lines", b"json") + b"\r\n" + frame(b"{") * 20_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5_000,
    ],
    ids=["pings", "bad ops", "requests"],
)
def test_a_flood_on_one_connection_delays_nobody(flood: bytes, tmp_path: Path) -> None:
    """What it asks is done in small parts, and the others are served between them."""

    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            web, wire, (other, others) = (
                connection(listening),
                Written(),
                (listening.connected()[0], Written()),
            )
            web.connection_made(wire)
            other._transport = others
            web.data_received(flood)
            for number in range(5):
                other.data_received(b"FOO\n")
                before = len(wire.data)
                for _ in range(3):
                    await asyncio.sleep(0)
                assert others.data == b"? FOO\n" * (number + 1)
                assert len(wire.data) - before < 100_000
            assert not web._reading

    run(scenario())


def polygon_of(positions: int) -> str:
    """Return GeoJSON of a polygon with so many positions."""
    angles = [2 * math.pi * number / (positions - 1) for number in range(positions - 1)]
    ring = [[round(10 * math.cos(angle), 6), round(10 * math.sin(angle), 6)] for angle in angles]
    return json.dumps({"type": "Polygon", "coordinates": [[*ring, ring[0]]]})


def ask_about(way: str, positions: int) -> bytes:
    """Return how a client asks about the clients in a polygon."""
    area = polygon_of(positions)
    if way == "query":
        target = quote(area.replace(" ", ""), safe="[],:{}")
        return f"GET /v1/events?within={target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    if way == "body":
        head = f"POST /v1/within HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(area)}\r\n"
        return f"{head}Content-Type: application/json\r\n\r\n{area}".encode()
    op = f'{{"op": "{way}", "id": 1, "within": {area}}}'
    return HANDSHAKE.replace(b"lines", b"json") + b"\r\n" + frame(op.encode(), 1)


@pytest.mark.parametrize(
    ("way", "positions"), [("within", 1_000), ("follow", 1_000), ("body", 1_000), ("query", 350)]
)
def test_of_many_large_polygons_one_is_read_in_a_turn_and_others_are_answered_between_them(
    way: str, positions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[int]()

    def count(document: bytes) -> Polygon:
        read.append(len(document))
        return read_geojson(document)

    for module in ("areas", "nearby"):
        monkeypatch.setattr(f"proxyherd.web.{module}.read_geojson", count)

    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            asked = ask_about(way, positions)
            first = connection(listening)
            for _ in range(20):
                web = WebConnection(listening.clients, first._site, first._proxies, BodyRoom())
                web.connection_made(Written())
                web.data_received(asked)
            (other, others), rounds = (listening.connected()[0], Written()), list[int]()
            other._transport = others
            while len(read) < 20:
                before = len(read)
                other.data_received(b"FOO\n")
                await asyncio.sleep(0)
                rounds.append(len(read) - before)
            assert max(rounds) == 1
            assert others.data.count(b"\n") >= len(rounds) - 2

    run(scenario())


def large(name: int | str) -> bytes:
    """Return a message that is answered at once, and so long that it may describe an area."""
    return frame(json.dumps({"op": "fly", "id": name, "for": "x" * 1_100}).encode(), 1)


async def json_sockets(listening: Listening, count: int) -> list[tuple[WebConnection, Written]]:
    """Return WebSockets of one site that speak JSON, and what each was sent."""
    site_ = connection(listening)._site
    sockets = list[tuple[WebConnection, Written]]()
    for _ in range(count):
        web, wire = WebConnection(listening.clients, site_, Proxies(()), BodyRoom()), Written()
        web.connection_made(wire)
        web.data_received(HANDSHAKE.replace(b"lines", b"json") + b"\r\n")
        sockets.append((web, wire))
    await until(lambda: all(b" 101 " in wire.data for _, wire in sockets))
    return sockets


def test_a_client_that_sends_large_messages_all_the_time_does_not_keep_others_from_theirs(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            (flood, _), *others = await json_sockets(listening, 3)
            flood.data_received(b"".join(map(large, range(10))))
            for other, _ in others:
                other.data_received(large("mine"))
            for number in range(10):
                flood.data_received(large(number))
                await asyncio.sleep(0)
            assert all(b'"mine"' in wire.data for _, wire in others)

    run(scenario())


def test_whoever_waits_until_a_large_message_is_read_pays_for_it_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Listening(tmp_path, rates=rates(commands_per_connection=500)) as listening:
            sockets = await json_sockets(listening, 80)
            for web, _ in sockets:
                web.data_received(large("mine"))
            await until(lambda: all(b'"mine"' in wire.data for _, wire in sockets))
            assert all(web._timer is None and web._meter.used < 10 for web, _ in sockets if web._meter)
            assert sum(web._meter is not None for web, _ in sockets) == 80

    run(scenario())


FOLLOW = b"GET /v1/events?client=kiwi HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 5.6.7.8\r\n\r\n"
MOVED = Event("move", b"kiwi", Entry(b"AT Clark +0.000000001 kiwi +1+2 3", 3))


def test_a_stream_is_counted_as_another_connection_and_named_by_a_trusted_proxy(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            loop = asyncio.get_running_loop()
            async with connected(listening) as sock:
                await loop.sock_sendall(sock, FOLLOW)
                await until(lambda: bool(listening.engine.followers))
                listening.engine.tell(MOVED)
                data = b""
                while not data.endswith(b"}\n\n"):
                    data += await loop.sock_recv(sock, 1_000)
                assert data.startswith(b"HTTP/1.1 200 ")
                assert data.endswith(b"\n\n" + stream_event_of(MOVED))
                await loop.sock_sendall(sock, FOLLOW)  # it is dropped
                listening.engine.tell(MOVED)
                assert await loop.sock_recv(sock, 1_000) == stream_event_of(MOVED)
            await until(lambda: not listening.connections)
            opened = [
                (one["via"], one["client"].partition(":")[0]) for one in listening.events("client_opened")
            ]
            closed = [(one["via"], one["reason"]) for one in listening.events("client_closed")]
            [command] = listening.events("command")
            assert opened == [("http", "127.0.0.1"), ("stream", "5.6.7.8")]
            assert closed == [("http", "became a stream"), ("stream", "closed by client")]
            assert (command["via"], command["kind"], command["command"]) == (
                "stream",
                "follow",
                "follow kiwi",
            )
            assert listening.engine.followers[0].is_closed

    run(scenario())


def test_a_client_whose_events_cannot_be_sent_is_closed_and_the_others_are_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            pairs = [(connection(listening), Written()) for _ in range(2)]
            for web, wire in pairs:
                web.connection_made(wire)
                web.data_received(FOLLOW)
            await until(lambda: len(listening.engine.followers) == 2)
            (broken, bad), (_, good) = pairs

            def write(data: bytes | bytearray | memoryview[Any]) -> None:
                raise ValueError

            bad.write = write  # type: ignore[method-assign] # as by a fault of the program
            listening.engine.tell(MOVED)
            await until(lambda: good.data.endswith(stream_event_of(MOVED)))
            assert broken not in listening.connections
            assert len(listening.events("internal_error")) == 1

    run(scenario())
