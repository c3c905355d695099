"""Connections to a real redis-server: what is checked before one is used, and how its errors are told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from debian import needs
from fake_redis import Silent
from function_answers import answers
from herd_process import free_port, wait_until
from redis_cluster import Argument, Refused, Session

from proxyherd.config.address import Address
from proxyherd.config.schema import RedisSettings
from proxyherd.engines.redis.commands import LIBRARY, code, encode
from proxyherd.engines.redis.layout import PREFIXES
from proxyherd.engines.redis.opening import Opener
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
        (None, "has no function proxyherd_2:"),
        (code().replace(b"proxyherd_2", b"proxyherd_3"), "has the function proxyherd_3, and this server's"),
        (code() + b"-- and more\n", "has another function proxyherd_2 than this server's"),
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
    redis.told("FUNCTION", "LOAD", code().replace(b"proxyherd_2", b"proxyherd_3"))
    assert redis.refusal() == ""


def test_errors_of_commands_and_of_the_login_are_told_with_their_first_word(redis: Lone) -> None:
    assert redis.refusal([b"FCALL", LIBRARY + b"_none", b"0"]).startswith("ERR ")
    assert redis.refusal([b"SET", b"key"]).startswith("ERR ")
    assert redis.refusal(user="proxyherd", password="wrong").startswith("WRONGPASS ")
    redis.told("CONFIG", "SET", "maxmemory", 1)
    try:
        assert redis.refusal([b"SET", b"key", b"1"]).startswith("OOM ")
    finally:
        redis.told("CONFIG", "SET", "maxmemory", 0)


def test_servers_user_may_call_the_function_and_not_load_one(redis: Lone) -> None:
    """As deploy/redis/users.acl.example says."""
    example = (Path(__file__).parents[2] / "deploy/redis/users.acl.example").read_text()
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
    example = (Path(__file__).parents[2] / "deploy/redis/users.acl.example").read_text()
    lines = [line for line in example.splitlines() if line.startswith(("user default ", "user admin "))]
    secret = hashlib.sha256(b"secret").hexdigest()
    (tmp_path / "users.acl").write_text("\n".join(lines).replace("SHA256-OF-ADMIN-PASSWORD", secret) + "\n")
    port, users = free_port(), ["--aclfile", "users.acl", "--appendfsync", "no"]  # so no flush delays a write
    clients = [b"a", b"b"]
    values = [b"%021d x" % 5, b"%021d y" % 6]
    keys = [PREFIXES[0] + client for client in clients]
    with started(tmp_path, port, *users) as lone, lone.admitted() as session:
        session.ask("FUNCTION", "LOAD", code())
        assert session.ask("FCALL", LIBRARY + b"_advance", 2, *keys, *values, 0) == b"11"
    with started(tmp_path, port, *users) as lone, lone.admitted() as session:
        assert session.ask("MGET", *keys) == values
