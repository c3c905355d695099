"""What is kept of other servers, and that none of them holds up this one."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from admin_port import THIRTY, until
from herd_process import PATIENCE_SECONDS
from other_admin_port import CHUNKED, OtherAdminPort, answering, http
from states import a_state
from steps import measured_steps

from proxyherd.admin.status_page import state
from proxyherd.admin.status_page.others import Others
from proxyherd.admin.status_page.state import ServerState
from proxyherd.config.herd_file import parse
from proxyherd.net.resolving import new_event_loop
from proxyherd.telemetry.recent import Command


@contextlib.asynccontextmanager
async def telling(*said: ServerState) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Another server's admin port: what it says, the last for ever, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(EOFError, OSError):  # whoever asks may be gone
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(http(state.write_state(said[min(len(asked), len(said)) - 1])))
            await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


def others_at(host: str, port: int, wants_commands: Callable[[], bool]) -> Others:
    pair = (
        '[servers]\nAnn = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }\n'
        f'Bob = {{ clients = "127.0.0.1:4", peers = "127.0.0.1:5", admin = "{host}:{port}" }}\n'
    )
    return Others(parse(pair, Path("herd.toml")), "Ann", wants_commands)


BUSY = msgspec.structs.replace(
    a_state("Bob"),
    commands=[Command(number, 1.0, "other", "invalid", "FOO", "? FOO") for number in (1, 2)],
    cursor=2,
)


def test_what_others_answer_holds_up_nobodys_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.admin.status_page.others._EVERY_SECONDS", 0.01)
    with OtherAdminPort(0, answering(CHUNKED)) as bob:

        async def scenario() -> float:
            others = others_at("127.0.0.1", bob.port, lambda: True)
            with measured_steps() as steps:
                others.start()
                try:
                    await until(lambda: bob.requests >= 4)
                    await until(lambda: all(one.problem != "not asked yet" for one in others))
                finally:
                    await others.stop()
            return steps.longest

        longest = asyncio.run(scenario())
        print(f"the longest step took {1e3 * longest:.1f} ms")
        assert longest < 0.005  # a reader that knows all of HTTP takes 13 ms


def test_others_commands_are_kept_while_somebody_looks_who_may_see_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxyherd.admin.status_page.others._EVERY_SECONDS", 0.02)

    async def scenario() -> None:
        may_see = True
        later = msgspec.structs.replace(BUSY, uptime=2.0)
        async with telling(BUSY, later) as (port, asked):
            others = others_at("127.0.0.1", port, lambda: may_see)
            others.start()
            [bob] = others
            await until(lambda: len(bob.history) == 2)
            assert bob.commands
            assert b"life=1&after=2 " in asked[1]
            assert all(one.commands is None for one in bob.history)
            may_see = False
            before = len(asked)
            await until(lambda: len(asked) > before + 1)
            assert b"commands=no" in asked[-1]
            assert (bob.commands, bob.missed, bob.cursor) == ([], 0, 0)  # though it has told some
            may_see = True
            await until(lambda: bob.commands)
            assert not bob.missed
            await others.stop()
            assert [(len(one.history), one.commands) for one in others] == [(0, [])]

    asyncio.run(scenario())


def test_of_a_name_the_address_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(_: object, port: int, *__: object) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (host, port)) for host in ("127.0.0.3", "127.0.0.2", "127.0.0.1")]

    async def scenario() -> None:
        with socket.create_server(("127.0.0.2", 0), backlog=0) as silent, contextlib.ExitStack() as stack:
            port = silent.getsockname()[1]
            for _ in range(4):  # its queue is full: it swallows packets
                queued = stack.enter_context(socket.socket())
                queued.setblocking(False)
                queued.connect_ex(silent.getsockname())
            with OtherAdminPort(port, answering(http(state.write_state(BUSY)))):
                others = others_at("bob.example", port, lambda: True)
                others.start()
                [bob] = others
                monkeypatch.setattr(socket, "getaddrinfo", found)
                await until(lambda: bob.at)
                await others.stop()
                monkeypatch.undo()

    asyncio.run(scenario())


def test_silent_name_servers_hold_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    speak, really = threading.Event(), socket.getaddrinfo

    def silent(host: Any, *arguments: Any, **named: Any) -> Any:
        if not str(host).endswith(".example"):
            return really(host, *arguments, **named)
        if arguments[-1:] != (socket.AI_NUMERICHOST,):
            assert speak.wait(PATIENCE_SECONDS)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr("proxyherd.admin.status_page.others._EVERY_SECONDS", 0.01)
    named = re.sub(r"127\.0\.0\.3:([0-9]+)", r"s\1.example:\1", THIRTY)

    async def scenario() -> None:
        others = Others(parse(named, Path("herd.toml")), "S1", lambda: False)
        others.start()
        try:
            await until(lambda: sum(one.name == "look-up" for one in threading.enumerate()) == 29)
            async with asyncio.timeout(PATIENCE_SECONDS / 2):
                assert await asyncio.to_thread(lambda: True)
            speak.set()
            await until(lambda: all("not known" in one.problem for one in others))
        finally:
            speak.set()
            await others.stop()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(scenario())
