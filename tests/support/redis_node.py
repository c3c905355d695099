"""A node of a cluster that plays what a test tells it to, behind a real socket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import hiredis

from proxyherd.config.address import Address
from proxyherd.config.schema import RedisSettings
from proxyherd.engines.redis.commands import code
from proxyherd.engines.redis.opening import Opener
from proxyherd.engines.redis.views import View
from proxyherd.telemetry.observer import Observer

OURS = [b"library_name", b"proxyherd_2", b"engine", b"LUA", b"functions", [], b"library_code", code()]


INFO = b"# Replication\r\nrole:master\r\n\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\naof_enabled:1\r\n"


NODES = b"a 127.0.0.1:7001@17001,node1 myself,master - 0 0 7 connected 0-16383\n"


def spell(reply: object) -> bytes:
    """Return a reply as Redis sends it."""
    match reply:
        case str():
            return f"-{reply}\r\n".encode()
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case int():
            return b":%d\r\n" % reply
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(spell, reply))
    raise AssertionError(reply)


class ScriptedNode:
    """Answers each command by its first word; a text is an error, None closes the connection."""

    def __init__(self) -> None:
        self.says: dict[bytes, object] = {
            b"AUTH": b"OK",
            b"INFO": INFO,
            b"FUNCTION": [OURS],
            b"FCALL": 1,
            b"CLUSTER": NODES,
        }
        self.heard: list[list[bytes]] = []
        self.cluster = self
        """It is also the observer that an opener is given."""
        self.unsafe: list[tuple[str, str]] = []
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader(notEnoughData=...)
        self.open += 1
        while data := await reader.read(65_536):
            parser.feed(data)
            while (command := parser.gets()) is not ...:
                self.heard.append(command)
                reply = self.says.get(command[0], b"OK")
                if reply is None:
                    writer.close()
                    break
                writer.write(spell(reply))
        writer.close()
        self.open -= 1

    def master_unsafe(self, master: str, reason: str) -> None:
        self.unsafe.append((master, reason))

    @property
    def words(self) -> tuple[bytes, ...]:
        return tuple(command[0] for command in self.heard)


async def use(opener: Opener, address: Address) -> list[object]:
    connection = await opener.connect(address)
    try:
        return await connection.exchange(b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nMGET\r\n$1\r\na\r\n", 2)
    finally:
        await connection.disconnect(nowait=True)


def play(
    body: Callable[[ScriptedNode, Opener, Address], Awaitable[Any]],
    says: Mapping[bytes, object] = {},
    *,
    password: str = "",
    folder: Path = Path(),
    context: ssl.SSLContext | None = None,
    **settings: Any,
) -> tuple[Any, ScriptedNode, str]:
    """Play a scene with a node that says these things; return what comes of it, the node, and its address.

    With a `context` the node speaks TLS.
    """

    async def played() -> tuple[Any, ScriptedNode, str]:
        node = ScriptedNode()
        node.says |= says
        server = await asyncio.start_server(node.serve, "127.0.0.1", 0, ssl=context)
        address = Address(*server.sockets[0].getsockname())
        environ = {"PROXYHERD_REDIS_PASSWORD": password} if password else {}
        opener = Opener(
            RedisSettings(nodes=(str(address),), **settings),
            folder / "herd.toml",
            environ,
            cast("Observer", node),
        )
        try:
            result = await body(node, opener, address)
        except opener.library.errors as error:
            result = error
        while node.open:  # noqa: ASYNC110 - nobody tells of it; if a connection were left open, for ever
            await asyncio.sleep(0)
        server.close()
        return result, node, str(address)

    async def in_time() -> tuple[Any, ScriptedNode, str]:
        async with asyncio.timeout(20):
            return await played()

    return asyncio.run(in_time())


async def connect(_: ScriptedNode, opener: Opener, address: Address) -> list[object]:
    return await use(opener, address)


async def view(_: ScriptedNode, opener: Opener, address: Address) -> View:
    return await opener.ask_view(address)
