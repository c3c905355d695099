"""The client for asyncio: many calls at once, each with its own answer; nothing lost where servers fail."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Any

import pytest
from asked import free_ports
from line_servers import HANG_UP, Answer, LineServer, as_a_server_does, line_server
from listening import until

from proxyherd.client import (
    ClientClosed,
    HerdClient,
    NoAnswer,
    ReportRefused,
    SyncHerdClient,
    UnknownClient,
    Unreachable,
)
from proxyherd.client.rules.choice import ServerChoice

LONG = 100.0
"""Seconds that a busy machine may need for what takes milliseconds."""

Client = partial(HerdClient, timeout=LONG, patience=LONG)


def run(body: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(body)


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are asked in the order of their names, and again without a pause."""
    turns = itertools.count()

    def following(self: ServerChoice, *_: object) -> tuple[int, float]:
        return next(turns) % len(self._free_at), 0.0

    monkeypatch.setattr(ServerChoice, "next", following)


def test_calls_have_typed_answers_over_one_connection() -> None:
    async def body(address: str) -> None:
        async with Client(address) as herd:
            assert (await herd.report("kiwi", 34.06893, "-118.4450", 5)).server == "Ann"
            assert (await herd.ask("kiwi", 0.5, 3)).status == "ZERO_RESULTS"
            assert (await herd.locate("kiwi")).line == b"AT Ann +0.100000000 kiwi +1+1 5"
            assert await herd.command(b"FOO") == b"? FOO\n"
            with pytest.raises(UnknownClient):
                await herd.locate("nobody")

    with line_server() as ann:
        run(body(ann.address))
    assert ann.connections == 1


def test_each_of_many_calls_gets_its_own_answer_and_lines_go_out_in_their_order() -> None:
    async def body(address: str) -> None:
        async with Client(address, outstanding=20) as herd:
            taken = await asyncio.gather(
                *(herd.report(f"c{number}", number, 0, number) for number in range(90))
            )
            assert [one.client for one in taken] == [f"c{number}" for number in range(90)]

    with line_server() as ann:
        run(body(ann.address))
    assert [line.split()[1] for line in ann.told] == [b"c%d" % number for number in range(90)]


def test_no_more_are_under_way_than_may_be() -> None:
    """A server that answers nothing is told no more."""

    async def body(ann: LineServer) -> None:
        async with Client(ann.address, outstanding=5) as herd:
            calls = [asyncio.create_task(herd.locate("kiwi")) for _ in range(20)]
            await until(lambda: len(ann.told) >= 5)
            assert herd._lines.pipeline.owed == 5
            for call in calls[:10]:
                call.cancel()  # who gives up leaves a gap: no room for others
            await asyncio.sleep(0)
            assert herd._lines.pipeline.owed == 5
            await herd.close()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(one) for one in ended] == [asyncio.CancelledError] * 10 + [ClientClosed] * 10

    with line_server(lambda _: None) as ann:
        run(body(ann))
    assert len(ann.told) == 5


def breaks_after(lines: int) -> Answer:
    """Return a server whose first connection breaks: it has read so many lines, and answered all but the last two."""
    read = itertools.count(1)

    def answer(line: bytes) -> bytes | None:
        number = next(read)
        if number == lines:
            return HANG_UP
        return None if number == lines - 1 else as_a_server_does(line)

    return answer


def test_what_a_broken_connection_has_not_answered_goes_to_another_server_in_the_same_order() -> None:
    async def body(*servers: str) -> None:
        async with Client(*servers, rng=Random(3)) as herd:
            taken = await asyncio.gather(*(herd.report(f"c{number}", number, 0) for number in range(50)))
            assert [one.client for one in taken] == [f"c{number}" for number in range(50)]

    with line_server(breaks_after(20)) as ann, line_server(breaks_after(25)) as bob:
        run(body(ann.address, bob.address))
    is_ann_first = ann.told[0].split()[1] == b"c0"
    told = [ann.told, bob.told] if is_ann_first else [bob.told, ann.told]
    assert told[1][0] == told[0][18 if is_ann_first else 23], (
        "the first that was not answered, with the same time"
    )
    for lines in told:
        begun = [int(line.split()[1][1:]) for line in lines]
        assert begun[:20] == [*range(begun[0], begun[0] + 20)]


@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize(
    "answer",
    [
        lambda _: HANG_UP,
        lambda _: b"HTTP/1.1 400 Bad Request\r\n",
        lambda _: b"AT Ann +0.1 plum +1+2 5\n",
        lambda _: b"x" * 5_000,
        lambda _: None,
        lambda line: as_a_server_does(line)[:-5],
    ],
    ids=["hangs up", "a web server", "another client", "an endless line", "silence", "half an answer"],
)
def test_a_hostile_server_costs_time_and_nothing_else(answer: Callable[[bytes], bytes | None]) -> None:
    async def body(*servers: str) -> None:
        async with Client(*servers, patience=0.5, most_bytes=1_000) as herd:
            taken = await asyncio.gather(*(herd.report(f"c{number}", number, 0) for number in range(5)))
            assert [one.client for one in taken] == [f"c{number}" for number in range(5)]

    with line_server(answer) as bad, line_server() as good:
        run(body(bad.address, good.address))
    assert good.told[0] == bad.told[0]


def test_a_call_that_is_cancelled_or_late_does_not_move_the_others_answers() -> None:
    """Its answer comes, and is nobody's."""
    held: list[bytes] = []

    def answer(line: bytes) -> bytes | None:
        held.append(as_a_server_does(line))
        return b"".join(held) if b"last" in line else None

    async def body(ann: LineServer) -> None:
        async with Client(ann.address) as herd:
            first = asyncio.create_task(herd.report("first", 1, 1))
            cancelled = asyncio.create_task(herd.report("cancelled", 1, 1))
            late = asyncio.create_task(herd.report("late", 1, 1, timeout=0.05))
            await until(lambda: len(ann.told) >= 3)
            cancelled.cancel()
            with pytest.raises(NoAnswer, match="has not answered yet"):
                await late
            assert (await herd.report("last", 1, 1)).client == "last"
            assert (await first).client == "first"
            assert cancelled.cancelled()

    with line_server(answer) as ann:
        run(body(ann))
    assert ann.connections == 1


def test_a_silent_connection_is_left_even_if_nobody_waits_any_more() -> None:
    """Else each call with a time shorter than the patience would go there again."""

    async def body(ann: LineServer) -> None:
        async with Client(ann.address, patience=0.2) as herd:
            with pytest.raises(NoAnswer):
                await herd.locate("silent", timeout=0.1)
            assert ann.told == [b"WHATSAT silent 0 0\n"]
            await until(lambda: herd._lines.choice.reasons)
            assert "has kept an answer back for 0.2 s" in herd._lines.choice.reasons[0]
            assert (await herd.locate("kiwi")).client == "kiwi"

    with line_server(lambda line: None if b"silent" in line else as_a_server_does(line)) as ann:
        run(body(ann))
    assert ann.connections == 2


def test_without_retry_a_broken_connection_is_an_error_and_each_reason_is_told() -> None:
    [nobody] = free_ports(1)

    async def body(*servers: str) -> None:
        async with Client(*servers, retry=False) as herd:
            for _ in range(2):
                with pytest.raises(Unreachable) as raised:
                    await herd.report("kiwi", 1, 2)
                assert str(raised.value).endswith(
                    "closed the connection without a word, as a port does that speaks TLS, or is full"
                )

    with line_server(lambda _: HANG_UP) as bob:
        run(body(f"127.0.0.1:{nobody}", bob.address))

    async def alone() -> None:
        async with Client(f"127.0.0.1:{nobody}", f"localhost:{nobody}", retry=False) as herd:
            with pytest.raises(Unreachable) as raised:
                await herd.report("kiwi", 1, 2)
            assert len(raised.value.reasons) == 2
            assert str(raised.value).count(f":{nobody}") >= 2

    run(alone())


def test_a_connection_that_ends_after_an_answer_is_none_to_a_port_with_tls() -> None:
    said = iter([b"? FOO\n", HANG_UP])

    async def body(address: str) -> None:
        async with Client(address, retry=False) as herd:
            await herd.command("FOO")
            with pytest.raises(Unreachable, match=r"closed the connection$"):
                await herd.command("FOO")

    with line_server(lambda _: next(said)) as ann:
        run(body(ann.address))


def test_tls_where_a_port_speaks_plain_is_told() -> None:
    """The server takes the handshake for a command, and copies it."""
    options: dict[str, Any] = {"retry": False, "tls": ssl.create_default_context()}

    async def body(address: str) -> None:
        async with Client(address, **options) as herd:
            with pytest.raises(Unreachable, match="the port does not speak TLS"):
                await herd.locate("kiwi")

    with line_server() as ann:
        run(body(ann.address))
        with (
            SyncHerdClient(ann.address, **options) as herd,
            pytest.raises(Unreachable, match="the port does not speak TLS"),
        ):
            herd.locate("kiwi")


def test_when_the_time_is_over_the_error_says_what_was_seen() -> None:
    [nobody] = free_ports(1)

    async def body() -> None:
        async with Client(f"127.0.0.1:{nobody}") as herd:
            with pytest.raises(
                NoAnswer, match=rf"^no answer within 0\.3 s; 127\.0\.0\.1:{nobody}: .*refused"
            ):
                await herd.report("kiwi", 1, 2, timeout=0.3)

    run(body())


def test_what_the_herd_does_not_take_is_no_reason_to_ask_others() -> None:
    async def body(address: str) -> None:
        async with Client(address) as herd:
            with pytest.raises(ReportRefused):
                await herd.report("kiwi", 1, 2)

    with line_server(lambda line: b"? " + line) as ann:
        run(body(ann.address))
    assert len(ann.told) == 1


def test_an_idle_connection_that_the_server_has_closed_is_made_again() -> None:
    async def body(ann: LineServer) -> None:
        async with Client(ann.address) as herd:
            await herd.locate("kiwi")
            ann.ending.set()
            await until(lambda: ann.closed)
            ann.ending.clear()
            await herd.locate("kiwi")

    with line_server() as ann:
        run(body(ann))
    assert ann.connections == 2


def test_a_closed_client_says_so() -> None:
    async def body() -> None:
        async with Client("127.0.0.1:1") as herd:
            pass
        with pytest.raises(ClientClosed):
            await herd.locate("kiwi")

    run(body())


def test_a_client_that_is_closed_in_the_instant_of_its_first_call_lets_nobody_wait() -> None:
    async def body() -> None:
        herd = Client("127.0.0.1:1")
        call = asyncio.create_task(herd.locate("kiwi"))
        await asyncio.sleep(0)
        await herd.close()
        with pytest.raises(ClientClosed):
            await call

    run(body())


def test_without_retry_the_reason_of_each_server_is_one_of_the_error_s() -> None:
    ports = free_ports(2)

    async def body() -> None:
        async with Client(*(f"127.0.0.1:{port}" for port in ports), retry=False) as herd:
            calls = [herd.locate("kiwi"), herd.locate("fig")]
            first, second = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(first, Unreachable)
            assert isinstance(second, Unreachable)
            assert len(first.reasons) == len(second.reasons) == 2
            assert first is not second, "each has its own traceback"

    run(body())


def test_wrong_settings_and_arguments_are_named_and_nothing_is_sent() -> None:
    async def body(ann: LineServer) -> None:
        async with Client(ann.address) as herd:
            with pytest.raises(ValueError, match="timeout is -1"):
                await herd.locate("kiwi", timeout=-1)
            with pytest.raises(TypeError, match="client is 5"):
                await herd.locate(5)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="line is None"):
                await herd.command(None)  # type: ignore[arg-type]
            for question in (herd.near((1, 2)), herd.within(1, 2, 3, 4)):
                with pytest.raises(ValueError, match="to ask about areas needs WebSockets"):
                    await question

    with line_server() as ann:
        run(body(ann))
    assert ann.told == []


@pytest.mark.parametrize("kind", [HerdClient, SyncHerdClient])
@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": "5"}, TypeError),
        ({"patience": float("nan")}, ValueError),
        ({"patience": None}, TypeError),
        ({"most_bytes": 0}, ValueError),
        ({"tls": True}, TypeError),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(kind: type[Any], settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{next(iter(settings))} is "):
        kind("127.0.0.1:1", **settings)


def test_no_commands_at_once_and_a_token_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="outstanding is 0"):
        HerdClient("127.0.0.1:1", outstanding=0)
    with pytest.raises(TypeError, match="token"):
        HerdClient("ws://127.0.0.1:1", token=b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a str of its own"):
        HerdClient(["127.0.0.1:1"])  # type: ignore[arg-type]
