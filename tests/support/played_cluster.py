"""The engine of Redis in front of a cluster of dicts, played step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from deciding import said
from fake_redis import Silent, World, run

from proxyherd.config.schema import Limits, RedisSettings
from proxyherd.core.framing import Line
from proxyherd.core.notes import Note
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.engine import RedisEngine
from proxyherd.telemetry.observer import Observer

SECOND = 10**9


KEPT_SECONDS = 80
"""How long a tombstone is kept: short, since the clock of the cluster stands still."""

NOW = 1_600_000_000 * SECOND


def namesakes(client: bytes, count: int) -> list[bytes]:
    """Return clients of the same tag, this one first."""
    found = [client]
    number = 0
    while len(found) < count:
        one = b"%b%d" % (client, number)
        number += 1
        if layout.tag_of(one) == layout.tag_of(client):
            found.append(one)
    return found


def one_of_each(world: World) -> list[bytes]:
    """Return a client for each master, in the order of the masters."""
    clients: dict[Any, bytes] = {}
    for number in range(1_000):
        client = b"client%d" % number
        clients.setdefault(world.of(client).address, client)
    return [clients[address] for address in world.masters]


def iamat(client: bytes, time: int) -> bytes:
    return b"IAMAT %b +1+1 %d" % (client, time)


def whatsat(client: bytes) -> bytes:
    return b"WHATSAT %b 10 5" % client


class Asker:
    """A client's connection, less the socket: what it has said, and what became of it."""

    gone = False

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.said: list[tuple[Line, Reply]] = []
        self.given_up = ""

    @property
    def outcomes(self) -> list[str]:
        waits = {"again": "waiting"}  # as far as a client can tell
        return [waits.get(reply.outcome, reply.outcome) for _, reply in self.said]

    @property
    def replies(self) -> list[Reply]:
        return [reply for _, reply in self.said]


class Front:
    """The engine with all that drives it: turns as soon as it wakes, a tick, a look at the cluster where it doubts."""

    def __init__(self, world: World, limits: Limits | None = None, **keys: Any) -> None:
        self.world = world
        self.observer = Silent()
        self.loop = asyncio.get_running_loop()
        self.looks = True
        self.received = NOW
        """When what is said arrives."""
        self.notes: list[Note] = []
        self._looking = False
        redis = RedisSettings(nodes=("127.0.0.1:7001",), **({"deadline_seconds": 3_600.0} | keys))
        self.engine = RedisEngine(
            Rules("Clark", limits or Limits()),
            redis,
            cast("Observer", self.observer),
            world.library,
            tombstone_seconds=KEPT_SECONDS,
            doubt=self.doubt,
            wake=lambda: cast("None", self.loop.call_soon(self._turn)),
        )
        self.engine.learn(world.owners)
        self.loop.call_later(0.1, self._tick)
        self.loop.call_later(5.0, self._look_again)

    def doubt(self) -> None:
        if not self._looking:
            self._looking = True
            self.loop.call_later(0.2, self._look)

    def _look(self) -> None:
        self._looking = False
        if self.looks:
            self.engine.learn(self.world.owners)

    def _look_again(self) -> None:
        self._look()
        self.loop.call_later(5.0, self._look_again)

    def _tick(self) -> None:
        self.engine.tick(self.loop.time())
        self.loop.call_later(0.1, self._tick)

    def _turn(self) -> None:
        settled = self.engine.end(self.loop.time())
        self.notes += settled.notes
        for client in settled.clients:
            if not isinstance(client, Asker):
                client.release()
        for client, reason in settled.given_up:
            if isinstance(client, Asker):
                client.given_up = reason
            else:
                client.give_up(reason)

    def say(self, asker: Asker, *lines: Line) -> None:
        self.engine.begin(self.loop.time(), self.received)
        asker.said.extend(zip(lines, said(self.engine, asker, lines, self.received), strict=True))

    async def all_settled(self, asker: Asker, seconds: float = 60.0) -> None:
        """Wait until nothing of it waits any more."""
        async with asyncio.timeout(seconds):
            while any(reply.answer is None and reply.entry is None for reply in asker.replies):  # noqa: ASYNC110 - nobody tells of it but the reply
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.looks = False
        await self.engine.close()


def played(body: Callable[[World, Front], Awaitable[None]], **keys: Any) -> None:
    """Play a scene on a cluster of three."""

    async def play() -> None:
        world = World()
        front = Front(world, **keys)
        await asyncio.sleep(0.1)
        try:
            await body(world, front)
            assert front.observer.faults == []
        finally:
            await front.close()

    run(play())
