"""Connections to a real redis-server: what is checked before one is used, and how its errors are told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import socket
import subprocess
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from debian import needs
from fake_redis import Silent
from fake_redis import words as spoken
from function_answers import answers
from herd_process import free_port, wait_until
from redis_cluster import Argument, Refused, Session

from proxyherd.config.herd_file import Address
from proxyherd.config.schema import RedisSettings
from proxyherd.engines.redis.commands import LIBRARY, code, encode, spell_word
from proxyherd.engines.redis.layout import PREFIXES
from proxyherd.engines.redis.opening import Opener, UnusableError, _Parser
from proxyherd.telemetry.observer import Observer

pytestmark = [needs("redis-server"), pytest.mark.xdist_group("redis-function")]


class Lone:
    """One redis-server, and what an operator tells it."""

    def __init__(self, port: int) -> None:
        self.address = Address("127.0.0.1", port)

    def admitted(self) -> Session:
        """Connect as the operator."""
        session = Session(socket.create_connection(("127.0.0.1", self.address.port)))
        session.ask("AUTH", "admin", "secret")

        def has_read_its_file() -> bool:
            with contextlib.suppress(Refused):
                return bool(session.ask("DBSIZE") >= 0)
            return False

        wait_until(has_read_its_file, "it has read its file")
        return session

    def told(self, *words: Argument) -> Any:
        with Session(socket.create_connection(("127.0.0.1", self.address.port))) as session:
            return session.ask(*words)

    def opener(self, user: str = "default", password: str = "") -> Opener:
        environ = {"PROXYHERD_REDIS_PASSWORD": password} if password else {}
        settings = RedisSettings(nodes=(str(self.address),), user=user)
        return Opener(settings, Path("herd.toml"), environ, cast("Observer", Silent()))

    def refusal(
        self, command: Sequence[bytes] = (b"PING",), *, user: str = "default", password: str = ""
    ) -> str:
        """Connect as servers do, and say a command; return what that fails with, and nothing where all is well."""

        async def connect() -> str:
            opener = self.opener(user, password)
            try:
                connection = await opener.connect(self.address)
            except opener.library.errors as error:
                return str(error)
            [reply] = await connection.exchange(encode(*command), 1)
            await connection.disconnect(nowait=True)
            return str(reply) if isinstance(reply, Exception) else ""

        async def connect_and_close() -> str:
            try:
                return await connect()
            finally:
                gc.collect()
                await asyncio.sleep(0)  # what was told to close does

        return asyncio.run(connect_and_close())


@contextlib.contextmanager
def started(folder: Path, port: int, *options: str) -> Iterator[Lone]:
    """Run a redis-server in a folder, and kill it."""
    where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    process = subprocess.Popen(
        ["redis-server", *where, "--save", "", "--appendonly", "yes", *options],
        stdout=subprocess.DEVNULL,
        env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
    )
    try:
        wait_until(lambda: answers(port), "redis-server answers")
        yield Lone(port)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lone]:
    with started(tmp_path_factory.mktemp("opening"), free_port()) as lone:
        yield lone


@pytest.fixture
def redis(running: Lone) -> Lone:
    """Lend it with the function."""
    running.told("FUNCTION", "FLUSH")
    running.told("FUNCTION", "LOAD", code())
    return running


def test_a_master_with_this_servers_function_is_used_and_not_told_to_load_any(redis: Lone) -> None:
    assert redis.refusal() == ""


@pytest.mark.parametrize(
    ("loaded", "said"),
    [
        (None, "has no function proxyherd_1:"),
        (code().replace(b"proxyherd_1", b"proxyherd_2"), "has the function proxyherd_2, and this server's"),
        (code() + b"-- and more\n", "has another function proxyherd_1 than this server's"),
    ],
    ids=["none", "another version", "another of this name"],
)
def test_without_it_the_operator_is_told_what_to_run_and_nothing_is_loaded(
    redis: Lone, loaded: bytes | None, said: str
) -> None:
    redis.told("FUNCTION", "FLUSH")
    if loaded is not None:
        redis.told("FUNCTION", "LOAD", loaded)
    before = redis.told("FUNCTION", "LIST", "WITHCODE")
    refusal = redis.refusal()
    assert said in refusal
    assert f"deploy/redis/load-function.sh {redis.address}" in refusal
    assert redis.told("FUNCTION", "LIST", "WITHCODE") == before


def test_versions_stand_beside_each_other(redis: Lone) -> None:
    redis.told("FUNCTION", "LOAD", code().replace(b"proxyherd_1", b"proxyherd_2"))
    assert redis.refusal() == ""


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


def test_errors_of_commands_and_of_the_login_are_told_with_their_first_word(redis: Lone) -> None:
    assert redis.refusal([b"FCALL", LIBRARY + b"_none", b"0"]).startswith("ERR ")
    assert redis.refusal([b"SET", b"key"]).startswith("ERR ")
    assert redis.refusal(user="proxyherd", password="wrong").startswith("WRONGPASS ")
    redis.told("CONFIG", "SET", "maxmemory", 1)
    try:
        assert redis.refusal([b"SET", b"key", b"1"]).startswith("OOM ")
    finally:
        redis.told("CONFIG", "SET", "maxmemory", 0)


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
    scene: Callable[[Opener, Address, FakeNode, FakeNode], Coroutine[Any, Any, None]], flags: str
) -> None:
    """Play a scene with a master and its replica, which says `flags` of the master."""

    async def play() -> None:
        master, replica = FakeNode(), FakeNode()
        for node in (master, replica):
            await node.start()
        where = [f"127.0.0.1:{node.port}@1" for node in (master, replica)]
        rest = f"b {where[1]} slave a 0 0 1 connected\n"
        master.nodes = f"a {where[0]} myself,master - 0 0 1 connected 0-16383\n{rest}"
        replica.nodes = f"a {where[0]} {flags} - 0 0 1 connected 0-16383\n{rest}"
        settings = RedisSettings(nodes=(where[0],), timeout_seconds=0.4)
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

    dialled(scene, "master,fail")


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
            loop.call_later(0.11, master.answers.set)
        assert "is being replaced" in await refusal(opener, address)
        assert pauses == [0.1]
        monkeypatch.undo()
        replica.nodes = replica.nodes.replace("master,fail", "master")
        assert await refusal(opener, address) == ""
        monkeypatch.setattr(asyncio, "sleep", agree)
        assert await refusal(opener, address) == ""  # once it has been used, without a pause again
        assert pauses == [0.1]

    dialled(scene, "master")


def test_servers_user_may_call_the_function_and_not_load_one(redis: Lone) -> None:
    """As deploy/redis/users.acl.example says."""
    example = (Path(__file__).parents[3] / "deploy/redis/users.acl.example").read_text()
    [rights] = [line.split()[4:] for line in example.splitlines() if line.startswith("user proxyherd ")]
    redis.told("ACL", "SETUSER", "proxyherd", "reset", "on", ">secret", *rights)
    assert redis.refusal(user="proxyherd", password="secret") == ""
    for words in (
        [b"FUNCTION", b"LOAD", b"REPLACE", code()],
        [b"FUNCTION", b"RESTORE", b"x"],
        [b"FUNCTION", b"DELETE", LIBRARY],
        [b"EVAL", b"while true do end", b"0"],
    ):
        assert redis.refusal(words, user="proxyherd", password="secret").startswith("NOPERM "), words


def test_a_node_with_our_users_reads_all_of_its_file_when_it_starts_again(tmp_path: Path) -> None:
    """Several reports of one call stand in it as a transaction, which Redis judges by the rights of its user default."""
    example = (Path(__file__).parents[3] / "deploy/redis/users.acl.example").read_text()
    lines = [line for line in example.splitlines() if line.startswith(("user default ", "user admin "))]
    secret = hashlib.sha256(b"secret").hexdigest()
    (tmp_path / "users.acl").write_text("\n".join(lines).replace("SHA256-OF-ADMIN-PASSWORD", secret) + "\n")
    port, users = free_port(), ["--aclfile", "users.acl", "--appendfsync", "no"]  # so no flush delays a write
    clients = [b"a", b"b"]
    values = [b"%021d x" % 5, b"%021d y" % 6]
    keys = [PREFIXES[0] + client for client in clients]
    with started(tmp_path, port, *users) as lone, lone.admitted() as session:
        session.ask("FUNCTION", "LOAD", code())
        assert session.ask("FCALL", LIBRARY + b"_advance", 2, *keys, *values) == b"11"
    with started(tmp_path, port, *users) as lone, lone.admitted() as session:
        assert session.ask("MGET", *keys) == values
