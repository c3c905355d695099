"""Connections to a node of Redis: what is asked of a master and its replicas before it is used."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
from fake_redis import Silent
from fake_redis import words as spoken

from proxyherd.config.address import Address
from proxyherd.config.schema import RedisSettings
from proxyherd.engines.redis.commands import LIBRARY, code, spell_word
from proxyherd.engines.redis.opening import Opener, UnusableError, _Parser
from proxyherd.telemetry.observer import Observer


@pytest.mark.parametrize(
    "said",
    [
        "MOVED 12182 10.0.0.2:7004",
        "ASK 12182 10.0.0.2:7004",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "CLUSTERDOWN Hash slot not served",
        "ERR Function not found",
    ],
    ids=lambda said: said.split()[0],
)
def test_an_error_is_told_with_its_first_word(said: str) -> None:
    assert str(_Parser.parse_error(said)) == said


class FakeNode:
    """A node as far as a server asks it before it uses its master: `nodes` is what it answers to CLUSTER NODES."""

    def __init__(self) -> None:
        self.nodes = ""
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.server: asyncio.Server

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    @property
    def port(self) -> int:
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while commands := await reader.read(65_536):
                for words in spoken(commands):
                    await self.answers.wait()
                    self.asked.append(b" ".join(words[:2]).decode())
                    writer.write(self._answer(words))

    def _answer(self, words: list[bytes]) -> bytes:
        texts = {
            b"INFO": "role:master\r\naof_enabled:1\r\ncluster_enabled:1\r\n",
            b"CLUSTER": self.nodes,
        }
        match words[0]:
            case b"FCALL":
                return b":1\r\n"
            case b"FUNCTION":
                return b"*1\r\n*4\r\n" + b"".join(map(spell_word, (b"", LIBRARY, b"", code())))
            case name:
                return spell_word(texts[name].encode()) if name in texts else b"+OK\r\n"


def dialled(
    scene: Callable[[Opener, Address, FakeNode, FakeNode], Coroutine[Any, Any, None]],
    flags: str,
    seconds: float = 10.0,
) -> None:
    """Play a scene with a master and its replica, which says `flags` of the master. `seconds`: what a batch has."""

    async def play() -> None:
        master, replica = FakeNode(), FakeNode()
        for node in (master, replica):
            await node.start()
        where = [f"127.0.0.1:{node.port}@1" for node in (master, replica)]
        rest = f"b {where[1]} slave a 0 0 1 connected\n"
        master.nodes = f"a {where[0]} myself,master - 0 0 1 connected 0-16383\n{rest}"
        replica.nodes = f"a {where[0]} {flags} - 0 0 1 connected 0-16383\n{rest}"
        settings = RedisSettings(nodes=(where[0],), timeout_seconds=seconds)
        opener = Opener(settings, Path("herd.toml"), {}, cast("Observer", Silent()))
        try:
            await scene(opener, Address("127.0.0.1", master.port), master, replica)
        finally:
            for node in (master, replica):
                node.answers.set()
                node.server.close()

    asyncio.run(play())


async def refusal(opener: Opener, address: Address) -> str:
    try:
        connection = await opener.connect(address)
    except UnusableError as error:
        return str(error)
    await connection.disconnect(nowait=True)
    return ""


@pytest.mark.parametrize(
    ("flags", "refused"), [("master", False), ("master,fail?", False), ("master,fail", True)]
)
def test_a_master_that_its_replica_takes_for_dead_is_refused(flags: str, refused: bool) -> None:
    """The replica is about to be elected, though the master answers again."""

    async def scene(opener: Opener, address: Address, _: FakeNode, replica: FakeNode) -> None:
        said = await refusal(opener, address)
        assert bool(said) is refused
        if refused:
            assert f"{address} is being replaced: its replica 127.0.0.1:{replica.port}" in said

    dialled(scene, flags)


@pytest.mark.parametrize("gone", [False, True], ids=["silent", "gone"])
def test_a_replica_that_does_not_answer_keeps_nobody_from_its_master(gone: bool) -> None:
    async def scene(opener: Opener, address: Address, _: FakeNode, replica: FakeNode) -> None:
        if gone:
            replica.server.close()
        replica.answers.clear()
        assert await refusal(opener, address) == ""

    dialled(scene, "master,fail", 2.0)


@pytest.mark.parametrize("cancelled", [False, True], ids=["answers late", "answers when dialled again"])
def test_of_a_master_that_was_silent_its_replicas_are_asked_after_a_pause(
    cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes agree that a master is dead also right after it has woken."""

    async def scene(opener: Opener, address: Address, master: FakeNode, replica: FakeNode) -> None:
        pauses, loop = [], asyncio.get_running_loop()

        async def agree(seconds: float) -> None:
            assert replica.asked == []
            pauses.append(seconds)
            replica.nodes = replica.nodes.replace("master", "master,fail")

        assert await refusal(opener, address) == ""  # one that was never silent: without a pause
        replica.asked.clear()
        monkeypatch.setattr(asyncio, "sleep", agree)
        master.answers.clear()
        if cancelled:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await opener.connect(address)
            master.answers.set()
        else:
            loop.call_later(1.01, master.answers.set)
        assert "is being replaced" in await refusal(opener, address)
        assert pauses == [1.0]
        monkeypatch.undo()
        replica.nodes = replica.nodes.replace("master,fail", "master")
        assert await refusal(opener, address) == ""
        monkeypatch.setattr(asyncio, "sleep", agree)
        assert await refusal(opener, address) == ""  # once it has been used, without a pause again
        assert pauses == [1.0]

    dialled(scene, "master", 4.0)
