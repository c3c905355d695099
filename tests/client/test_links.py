"""Connections to one server: over TCP to the first address that answers, over WebSockets whatever comes as messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import WSCloseCode, WSMsgType, web
from asked import free_ports
from line_servers import as_a_server_does, line_server

from proxyherd.client import HerdClient, NotAllowed, TakenReport, Unreachable
from proxyherd.client.endpoints import Endpoint, parse_endpoint
from proxyherd.client.follows import JSON_SUBPROTOCOL
from proxyherd.client.links import LINES_SUBPROTOCOL, close_websocket, dial
from proxyherd.config.address import Address

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def with_web_server(handler: Handler, body: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Run a body with the URL of a web port that answers so."""

    async def both() -> None:
        app = web.Application()
        app.router.add_get("/v1/ws", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            await body(f"ws://127.0.0.1:{port}")
        finally:
            await runner.cleanup()

    asyncio.run(both())


def speaking(
    say: Callable[[web.WebSocketResponse, bytes], Awaitable[object]], subprotocol: str = LINES_SUBPROTOCOL
) -> Handler:
    """Return a web port that says so about each message."""

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(subprotocol,))
        await socket.prepare(request)
        async for message in socket:
            await say(socket, message.data)
        return socket

    return handler


async def answer(socket: web.WebSocketResponse, message: bytes) -> None:
    """Answer all lines of a message in one."""
    await socket.send_bytes(b"".join(map(as_a_server_does, message.splitlines(keepends=True))))


def refusing(status: int) -> Handler:
    """Return a web port that opens no WebSocket."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    return handler


def test_answers_over_a_websocket_come_in_order_and_long_messages_are_parted() -> None:
    sizes: list[int] = []

    async def say(socket: web.WebSocketResponse, message: bytes) -> None:
        sizes.append(len(message))
        await answer(socket, message)

    async def body(url: str) -> None:
        async with HerdClient(url, timeout=100) as herd:
            names = [f"{number:03}" + "x" * 400 for number in range(250)]
            taken = await asyncio.gather(*(herd.report(name, 1, 2) for name in names))
            assert [one.client for one in taken] == names
            assert (await herd.ask("kiwi")).status == "ZERO_RESULTS"

    with_web_server(speaking(say), body)
    assert max(sizes) <= 65_536
    assert len(sizes) < 20


def test_text_and_empty_messages_are_read_too() -> None:
    async def say(socket: web.WebSocketResponse, message: bytes) -> None:
        await socket.send_bytes(b"")
        await socket.send_str(as_a_server_does(message).decode())

    async def body(url: str) -> None:
        async with HerdClient(url, timeout=100) as herd:
            assert (await herd.report("kiwi", 1, 2)).client == "kiwi"

    with_web_server(speaking(say), body)


@pytest.mark.parametrize(("status", "token"), [(401, ""), (401, "old"), (403, "old")])
def test_a_server_that_refuses_the_token_is_not_asked_again(status: int, token: str) -> None:
    asked: list[str | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Authorization"))
        return web.Response(status=status)

    async def body(url: str) -> None:
        async with HerdClient(url, timeout=100, token=lambda: token) as herd:
            with pytest.raises(NotAllowed, match=str(status)):
                await herd.report("kiwi", 1, 2)

    with_web_server(handler, body)
    assert asked == [f"Bearer {token}" if token else None]


def test_a_token_that_ends_meanwhile_is_told_to_all_who_wait() -> None:
    async def say(socket: web.WebSocketResponse, _: bytes) -> None:
        await socket.close(code=4401, message=b"expired")

    async def body(url: str) -> None:
        async with HerdClient(url, timeout=100, token="short") as herd:
            ended = await asyncio.gather(*(herd.locate("kiwi") for _ in range(3)), return_exceptions=True)
            assert [str(one) for one in ended] == ["the token is missing, or not good: expired"] * 3
            assert all(isinstance(one, NotAllowed) for one in ended)

    with_web_server(speaking(say), body)


def test_a_server_that_restarts_is_told_of_as_it_says() -> None:
    async def say(socket: web.WebSocketResponse, _: bytes) -> None:
        await socket.close(code=WSCloseCode.SERVICE_RESTART, message=b"again\x1b")

    async def body(url: str) -> None:
        async with HerdClient(url, timeout=100, retry=False) as herd:
            with pytest.raises(Unreachable, match=r"closed the WebSocket \(1012: again\\x1b\)"):
                await herd.locate("kiwi")

    with_web_server(speaking(say), body)


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (speaking(answer, "another"), f"does not speak {LINES_SUBPROTOCOL}"),
        (refusing(503), "answers 503"),
        (refusing(200), "answers 200"),
    ],
    ids=["another subprotocol", "not ready", "no websocket"],
)
def test_what_is_no_web_port_says_so(handler: Handler, reason: str) -> None:
    async def body(url: str) -> None:
        async with HerdClient(url, timeout=100, retry=False) as herd:
            with pytest.raises(Unreachable, match=reason):
                await herd.locate("kiwi")

    with_web_server(handler, body)


def test_of_several_addresses_the_first_that_answers_is_used() -> None:
    [nobody] = free_ports(1)

    async def body(address: str) -> bytes:
        [good] = parse_endpoint(address).addresses
        endpoint = Endpoint((Address("127.0.0.1", nobody), good))
        link = await dial(endpoint, 100, None, str, 1_000)
        assert link.called == address
        await link.send([b"FOO\n"])
        try:
            return await link.receive()
        finally:
            await link.close()

    with line_server() as ann:
        assert asyncio.run(body(ann.address)) == b"? FOO\n"


def test_each_address_that_does_not_answer_is_told() -> None:
    [nobody] = free_ports(1)
    endpoint = Endpoint((Address("127.0.0.1", nobody), Address("nowhere.invalid", 1)))

    async def body() -> None:
        await dial(endpoint, 20, None, str, 1_000)

    with pytest.raises(Unreachable) as raised:
        asyncio.run(body())
    first, second = raised.value.reasons
    assert first == f"127.0.0.1:{nobody}: Connection refused"
    assert second.startswith("nowhere.invalid:1: ")


def test_who_is_cancelled_while_a_websocket_is_closed_leaves_no_session_open() -> None:
    class Socket:
        async def close(self) -> None:
            closing.set()
            await asyncio.Event().wait()

    class Session:
        closed = False

        async def close(self) -> None:
            self.closed = True

    closing = asyncio.Event()

    async def body() -> None:
        session: Any = Session()
        socket: Any = Socket()
        task = asyncio.create_task(close_websocket(session, socket))
        await closing.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert session.closed

    asyncio.run(body())


async def a_strangers_program() -> TakenReport:
    """Type-checked with all tests, strictly: what a program of others sees."""
    async with HerdClient.of_herd_file("herd.toml", websocket=True) as herd:
        taken: TakenReport = await herd.report("kiwi", "34.06893", -118.445127, time=5)
        await herd.report("kiwi", None, 2)  # type: ignore[arg-type]
        first, second = await asyncio.gather(herd.locate(b"kiwi"), herd.ask("kiwi", radius_km=0.5, limit=3))
        assert second.report.difference + first.lat > 0
    return taken


def test_who_follows_leaves_a_server_that_answers_no_ping_and_stays_where_it_does() -> None:
    pings: list[int] = []
    enough = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        hangs = not pings
        pings.append(0)
        socket = web.WebSocketResponse(protocols=(JSON_SUBPROTOCOL,), autoping=False)
        await socket.prepare(request)
        if hangs:
            await enough.wait()
            return socket
        await socket.send_str('{"event":"enter","client":"kiwi"}')
        await socket.ping()
        async for message in socket:
            if message.type == WSMsgType.PING:
                await socket.pong(message.data)
                pings[-1] += 1
                if pings[-1] == 2:
                    await socket.send_str('{"event":"gone","client":"kiwi"}')
        return socket

    async def body(url: str) -> None:
        herd = HerdClient(url, patience=0.05)
        async with contextlib.aclosing(herd.follow("kiwi")) as changes:
            assert [(await anext(changes)).event, (await anext(changes)).event] == ["enter", "gone"]
        enough.set()

    with_web_server(handler, body)
    assert pings[0] == 0
    assert pings[-1] == 2
