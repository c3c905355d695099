"""Connections to one server: over TCP to the first address that answers, over WebSockets whatever comes as messages."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import jwt
import pytest
from aiohttp import WSCloseCode, WSMsgType, web
from asked import free_ports
from line_servers import as_a_server_does, line_server
from listening import until

from proxyherd.client import (
    ClientClosed,
    HerdClient,
    NoAnswer,
    NotAllowed,
    ReportRefused,
    TakenReport,
    Unreachable,
    concurrent,
)
from proxyherd.client.endpoints import Endpoint, parse_endpoint
from proxyherd.client.links import (
    JSON_SUBPROTOCOL,
    LINES_SUBPROTOCOL,
    close_websocket,
    dial,
    open_websocket,
)
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


@pytest.mark.parametrize("status", [401, 503])
def test_no_error_of_a_refused_websocket_leads_to_the_token(status: int) -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    async def body(url: str) -> None:
        with pytest.raises((NotAllowed, Unreachable)) as caught:
            await open_websocket(url, LINES_SUBPROTOCOL, 10, None, "s3cr3t", 1_000)
        error: BaseException | None = caught.value
        while error is not None:
            assert "s3cr3t" not in repr(error) + str(error)
            error = error.__cause__ or error.__context__

    with_web_server(handler, body)


def test_a_server_that_asks_for_patience_gets_it() -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={"Retry-After": "20"})

    async def body(url: str) -> None:
        async with HerdClient(url, timeout=100) as herd:
            call = asyncio.create_task(herd.locate("kiwi"))
            choice = herd._lines.choice
            await until(lambda: choice.reasons)
            [_, wait] = choice.next(asyncio.get_running_loop().time())
            assert 10 < wait <= 20
            call.cancel()

    with_web_server(handler, body)


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
        link = await dial(endpoint, 100, None, "", 1_000)
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
        await dial(endpoint, 20, None, "", 1_000)

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


def test_a_report_that_the_token_does_not_allow_is_not_allowed_and_another_is_refused() -> None:
    """Both are `? ` and the line."""

    async def say(socket: web.WebSocketResponse, message: bytes) -> None:
        await socket.send_bytes(b"? " + message)

    async def body(url: str) -> None:
        token = jwt.encode({"sub": "kiwi", "may": ["report"]}, "k" * 32, algorithm="HS256")
        async with HerdClient(url, timeout=100, token=token) as herd:
            with pytest.raises(NotAllowed, match="does not allow to report this client: 'plum'"):
                await herd.report("plum", 1, 2)
            with pytest.raises(ReportRefused):
                await herd.report("kiwi", 1, 2)

    with_web_server(speaking(say), body)


@pytest.mark.parametrize("renews", [True, False])
def test_a_token_that_ends_while_it_is_used_is_followed_by_the_next_one(renews: bool) -> None:
    """If there is a function that makes it; a text is the same one again."""
    tokens: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        tokens.append(request.headers["Authorization"])
        socket = web.WebSocketResponse(protocols=(LINES_SUBPROTOCOL,))
        await socket.prepare(request)
        for ends in [False, tokens[-1] == "Bearer 1"]:
            message = await socket.receive()
            if message.type != WSMsgType.BINARY:
                break
            if ends:
                await socket.close(code=4401, message=b"expired")
                break
            await answer(socket, message.data)
        return socket

    async def body(url: str) -> None:
        numbers = itertools.count(1)
        token = (lambda: str(next(numbers))) if renews else "1"
        async with HerdClient(url, timeout=100, token=token) as herd:
            await herd.locate("kiwi")
            if renews:
                await herd.locate("kiwi")
            else:
                with pytest.raises(NotAllowed):
                    await herd.locate("kiwi")

    with_web_server(handler, body)
    assert tokens == (["Bearer 1", "Bearer 2"] if renews else ["Bearer 1"])


def test_who_follows_goes_on_with_the_next_token() -> None:
    tokens: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        tokens.append(request.headers["Authorization"])
        socket = web.WebSocketResponse(protocols=(JSON_SUBPROTOCOL,))
        await socket.prepare(request)
        await socket.send_str(json.dumps({"event": "enter", "client": "abc"[len(tokens)]}))
        await socket.close(code=4401, message=b"expired")
        return socket

    async def body(url: str) -> None:
        numbers = itertools.count(1)
        herd = HerdClient(url, patience=100, token=lambda: str(next(numbers)))
        async with contextlib.aclosing(herd.follow("b", "c")) as changes:
            assert [(await anext(changes)).client, (await anext(changes)).client] == ["b", "c"]

    with_web_server(handler, body)
    assert tokens == ["Bearer 1", "Bearer 2"]


def test_a_line_that_no_websocket_takes_is_refused_before_it_breaks_the_connection_of_others() -> None:
    async def body(url: str) -> None:
        async with HerdClient(url, timeout=100) as herd:
            with pytest.raises(ValueError, match="65,536 bytes"):
                await herd.command(b"x" * 65_536)
            assert await herd.command(b"x" * 65_535)

    with_web_server(speaking(answer), body)


def follow_server(began: list[web.WebSocketResponse]) -> Handler:
    """Return a web port that says who is there, and then nothing, until the client has gone."""

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(JSON_SUBPROTOCOL,))
        await socket.prepare(request)
        began.append(socket)
        await socket.send_str('{"event":"enter","client":"kiwi"}')
        async for _ in socket:
            pass
        return socket

    return handler


@pytest.mark.parametrize("state", ["waits for a change", "works on a change", "has left the loop"])
def test_who_follows_is_told_that_the_client_is_closed_and_its_connection_ends(state: str) -> None:
    began: list[web.WebSocketResponse] = []

    async def body(url: str) -> None:
        herd = HerdClient(url, patience=100)
        changes = herd.follow("kiwi")
        assert (await anext(changes)).client == "kiwi"
        waiting = asyncio.create_task(anext(changes)) if state == "waits for a change" else None
        await asyncio.sleep(0)
        await herd.close()
        await herd.close()
        if state != "has left the loop":
            with pytest.raises(ClientClosed):
                await (waiting or anext(changes))
        await until(lambda: began[0].closed)
        with pytest.raises(ClientClosed):
            await anext(herd.follow("kiwi"))

    with_web_server(follow_server(began), body)


def test_who_is_cancelled_while_following_is_cancelled_and_nothing_stays_open() -> None:
    began: list[web.WebSocketResponse] = []

    async def body(url: str) -> None:
        async def follow() -> None:
            async for _ in herd.follow("kiwi"):
                seen.set()

        seen = asyncio.Event()
        async with HerdClient(url, patience=100) as herd:
            task = asyncio.create_task(follow())
            await seen.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await until(lambda: began[0].closed)
            assert herd._follows == {}

    with_web_server(follow_server(began), body)


def test_a_question_about_an_area_goes_to_another_server_when_one_cannot_answer_and_others_do_not() -> None:
    asked: list[dict[str, Any]] = []

    async def say(socket: web.WebSocketResponse, message: bytes) -> None:
        asked.append(json.loads(message))
        if len(asked) == 1:
            problem = {"status": 503, "title": "not ready"}
            await socket.send_str(json.dumps({"id": asked[-1]["id"], "problem": problem}))
            return
        found = {"id": asked[-1]["id"], "clients": [], "server": "Ann", "complete": True}
        await socket.send_str(json.dumps(found, indent=1))

    async def body(url: str) -> None:
        async with HerdClient(url, timeout=100) as herd:
            near, within = await asyncio.gather(
                herd.near((48.2, "16.370"), 2, limit=3), herd.within(16, 48, 17, 49, max_age_s=60)
            )
            assert (near.server, within.clients) == ("Ann", [])

    with_web_server(speaking(say, JSON_SUBPROTOCOL), body)
    near = {"op": "near", "id": "area", "lat": "48.2", "lon": "16.370", "radius_km": 2, "limit": 3}
    box = {"west": "16", "south": "48", "east": "17", "north": "49"}
    assert asked == [near, {"op": "within", "id": "area", **box, "limit": 100, "max_age_s": 60.0}, near]


def test_without_retry_a_question_that_no_server_answers_now_fails_while_others_are_answered() -> None:
    async def say(socket: web.WebSocketResponse, message: bytes) -> None:
        asked = json.loads(message)
        if asked["op"] == "near":
            said: dict[str, Any] = {"problem": {"status": 503, "title": "not ready"}}
        else:
            said = {"clients": [], "server": "Ann", "complete": True}
        await socket.send_str(json.dumps({"id": asked["id"], **said}))

    async def body(url: str) -> None:
        async with HerdClient(url, timeout=100, retry=False) as herd:
            near, within = await asyncio.gather(
                herd.near("kiwi"), herd.within(16, 48, 17, 49), return_exceptions=True
            )
            assert str(near) == f"{url}/v1/ws: does not answer now: not ready"
            assert isinstance(near, Unreachable)
            assert not isinstance(within, BaseException)

    with_web_server(speaking(say, JSON_SUBPROTOCOL), body)


def test_who_follows_on_while_the_client_is_being_closed_is_told_so() -> None:
    """A server may be slow to confirm that a WebSocket is closed."""

    async def body(url: str) -> None:
        herd = HerdClient(url, patience=100)
        changes = herd.follow("kiwi")
        assert (await anext(changes)).client == "kiwi"
        closing = [asyncio.create_task(herd.close()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ClientClosed):
            await anext(changes)
        await asyncio.gather(*closing)
        left.set()

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(JSON_SUBPROTOCOL,))
        await socket.prepare(request)
        await socket.send_str('{"event":"enter","client":"kiwi"}')
        await left.wait()
        return socket

    left = asyncio.Event()
    with_web_server(handler, body)


def a_token(left: float) -> str:
    """Return a token that ends in so many seconds."""
    claims = {"sub": "*", "may": ["report", "see"], "exp": int(time.time() + left)}
    return jwt.encode(claims, "k" * 32, algorithm="HS256")


def test_a_token_that_ends_is_that_of_its_connection_and_the_next_one_has_the_rest_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Questions about areas have another connection, whose token may be a later one. And clocks are set."""

    async def lines(socket: web.WebSocketResponse, is_first: bool) -> None:
        await answer(socket, (await socket.receive()).data)
        message = await socket.receive()
        if is_first and message.type == WSMsgType.BINARY:
            monkeypatch.setattr(concurrent, "time_ns", lambda: time.time_ns() + 3_600_000_000_000)
            await socket.send_bytes(b"? " + message.data)
            await socket.close(code=4401, message=b"expired")

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(LINES_SUBPROTOCOL, JSON_SUBPROTOCOL))
        await socket.prepare(request)
        began.append(str(socket.ws_protocol))
        if socket.ws_protocol == LINES_SUBPROTOCOL:
            await lines(socket, len(began) == 1)
            return socket
        async for message in socket:
            said = {"id": json.loads(message.data)["id"], "clients": [], "server": "Ann", "complete": True}
            await socket.send_str(json.dumps(said))
        return socket

    async def body(url: str) -> None:
        lives = iter([-5, 10_000, 10_000])
        async with HerdClient(url, timeout=100, token=lambda: a_token(next(lives))) as herd:
            await herd.locate("kiwi")
            await herd.near((1, 2))
            assert (await herd.locate("kiwi")).client == "kiwi"

    began: list[str] = []
    with_web_server(handler, body)
    assert began == [LINES_SUBPROTOCOL, JSON_SUBPROTOCOL, LINES_SUBPROTOCOL]


@pytest.mark.parametrize("renews", [True, False])
def test_what_a_server_denies_at_the_end_of_a_token_is_asked_again_with_the_next_one(renews: bool) -> None:
    """It says `? ` before it closes the connection. Neither is the client unknown, nor the report refused."""
    used: list[float] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        claims = jwt.decode(request.headers["Authorization"][7:], options={"verify_signature": False})
        used.append(claims["exp"] - time.time())
        socket = web.WebSocketResponse(protocols=(LINES_SUBPROTOCOL,))
        await socket.prepare(request)
        async for message in socket:
            if used[-1] > 0:
                await answer(socket, message.data)
                continue
            await socket.send_bytes(b"".join(b"? " + line for line in message.data.splitlines(True)))
            await socket.close(code=4401, message=b"expired")
        return socket

    async def body(url: str) -> None:
        lives = iter([-5, 1_000])
        made = (lambda: a_token(next(lives))) if renews else a_token(-5)
        async with HerdClient(url, timeout=100, token=made) as herd:
            calls = [herd.report("kiwi", 1, 2), herd.locate("kiwi")]
            if renews:
                taken, located = await asyncio.gather(*calls)
                assert taken.client == located.client == "kiwi"
            else:
                ended = await asyncio.gather(*calls, return_exceptions=True)
                assert [str(one) for one in ended] == ["the token has expired"] * 2
                assert all(isinstance(one, NotAllowed) for one in ended)

    with_web_server(handler, body)


def test_a_call_that_is_asked_again_with_the_next_token_names_the_whole_time_that_it_had() -> None:
    used: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        used.append(request.headers["Authorization"])
        socket = web.WebSocketResponse(protocols=(LINES_SUBPROTOCOL,))
        await socket.prepare(request)
        async for message in socket:
            if len(used) == 1:
                await socket.send_bytes(b"? " + message.data)
                await socket.close(code=4401, message=b"expired")
        return socket

    async def body(url: str) -> None:
        lives = iter([-5, 1_000])
        async with HerdClient(url, timeout=1, token=lambda: a_token(next(lives))) as herd:
            with pytest.raises(NoAnswer, match=r"^no answer within 1 s; "):
                await herd.locate("kiwi")

    with_web_server(handler, body)
    assert len(used) == 2
