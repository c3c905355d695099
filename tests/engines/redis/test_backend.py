"""What a server of the engine `redis` tells of its start and its troubles, against a cluster of dicts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
from deciding import said
from fake_redis import FullError, Silent, World, run
from played_cluster import Asker, iamat, one_of_each, whatsat

from proxyherd.config.herd_file import parse
from proxyherd.config.schema import Limits
from proxyherd.engines.redis import backend as backend_module
from proxyherd.engines.redis.backend import RedisBackend
from proxyherd.telemetry.observer import Observer

HERD = """
[timing]
ready_seconds = 3.0

[table]
engine = "redis"

[redis]
nodes = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"]
deadline_seconds = 2.0

[servers.Clark]
clients = "127.0.0.1:10003"
admin = "127.0.0.1:10203"
"""
NOW = 1_600_000_000 * 10**9


class Scene:
    """The engine as a server has it, on a cluster that is there or not."""

    def __init__(self, world: World) -> None:
        herd = parse(HERD, Path("herd.toml"))
        self.world = world
        self.observer = Silent()
        self.backend = RedisBackend(
            herd, herd.servers["Clark"], Limits(), cast("Observer", self.observer), lambda: None
        )
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    def figures(self) -> list[int]:
        self.backend.figures()
        return self.observer.figures

    def say(self, *lines: bytes) -> Asker:
        asker, engine = Asker(), self.backend.engine
        engine.begin(asyncio.get_running_loop().time(), NOW)
        asker.said += zip(lines, said(engine, asker, lines, NOW), strict=True)
        return asker


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Scene], Awaitable[None]]], None]:
    """Play a scene on a cluster of three, which every server finds."""

    def in_world(body: Callable[[Scene], Awaitable[None]]) -> None:
        async def played() -> None:
            world = World()
            monkeypatch.setattr(backend_module, "Opener", lambda *_: world)
            scene = Scene(world)
            await body(scene)
            for task in scene.tasks:
                task.cancel()
            await scene.backend.stop(asyncio.sleep(0), 0.0)
            assert scene.observer.faults == []
            assert all(shard.task.done() for shard in scene.backend.engine.routes.shards.values())

        run(played())

    return in_world


Play = Callable[[Callable[[Scene], Awaitable[None]]], None]


def test_the_start_is_over_when_all_masters_can_be_had_and_stays_over(play: Play) -> None:
    async def scene(scene: Scene) -> None:
        backend = scene.backend
        assert not backend.tick()
        assert backend.trouble == "512 of 512 parts of the table wait (no master is known)"
        backend.start(scene.spawn)
        await asyncio.sleep(0.1)
        assert backend.tick()
        assert backend.trouble == ""
        assert backend.figures() == {"masters": 3}
        next(iter(scene.world.masters.values())).is_down = True
        await asyncio.sleep(3)
        assert backend.tick()
        assert "127.0.0.1:7001: " in backend.trouble

    play(scene)


def test_the_start_is_over_after_ready_seconds_whatever_is_amiss(play: Play) -> None:
    async def scene(scene: Scene) -> None:
        backend = scene.backend
        await asyncio.sleep(3)
        assert not backend.tick()
        await asyncio.sleep(0.001)
        assert backend.tick()
        assert backend.trouble

    play(scene)


def test_trouble_is_told_with_why_nobody_tells_who_is_master_and_with_who_is_full(play: Play) -> None:
    async def scene(scene: Scene) -> None:
        backend, world = scene.backend, scene.world
        backend.start(scene.spawn)
        await asyncio.sleep(0.1)
        backend._lookout.silence = "10.0.0.1:7001: refuses"
        assert backend.trouble == ""  # as long as all is well nobody need tell
        backend._lookout.silence = ""
        world.of(b"kiwi").is_down = True
        await asyncio.sleep(2)
        lost = backend.engine.routes.trouble()
        assert backend.trouble == lost
        backend._lookout.silence = "10.0.0.1:7001: refuses"
        assert backend.trouble == f"{lost}; nobody tells who is master: 10.0.0.1:7001: refuses"
        backend._lookout.silence = ""
        full = backend.engine.routes.shards[world.of(one_of_each(world)[1]).address]
        full.full = True
        assert backend.trouble == f"{lost}; {backend.engine.routes.full()}"

    play(scene)


def test_figures_follow_masters_and_what_waits(play: Play) -> None:
    async def scene(scene: Scene) -> None:
        backend, world = scene.backend, scene.world
        assert scene.figures() == [0, 0, 0, 0]
        backend.start(scene.spawn)
        await asyncio.sleep(0.1)
        assert scene.figures() == [3, 3, 0, 0]
        world.fault = lambda _, function, __: FullError("OOM") if function == b"advance" else None
        world.of(b"kiwi").is_down = True
        await asyncio.sleep(2.5)
        scene.say(iamat(b"kiwi", 1), whatsat(b"kiwi"))
        assert scene.figures() == [3, 2, 2, 2]

    play(scene)


def test_what_waits_too_long_is_given_up_by_the_time_that_passes(play: Play) -> None:
    async def scene(scene: Scene) -> None:
        scene.backend.start(scene.spawn)
        await asyncio.sleep(0.1)
        scene.world.of(b"kiwi").is_down = True
        scene.say(iamat(b"kiwi", 1))
        await asyncio.sleep(1.99)
        assert scene.figures()[-1] == 1
        await asyncio.sleep(0.12)
        assert scene.figures()[-1] == 0

    play(scene)


def test_time_passes_ten_times_a_second(play: Play) -> None:
    async def scene(scene: Scene) -> None:
        ticks: list[float] = []
        scene.backend.engine.tick = ticks.append  # type: ignore[method-assign, assignment]
        began = asyncio.get_running_loop().time()
        scene.backend.start(scene.spawn)
        await asyncio.sleep(0.55)
        assert [round(at - began, 6) for at in ticks] == [0.1, 0.2, 0.3, 0.4, 0.5]

    play(scene)


def test_a_doubt_of_the_engine_has_masters_looked_up_soon(play: Play) -> None:
    async def scene(scene: Scene) -> None:
        scene.backend.start(scene.spawn)
        await asyncio.sleep(1)
        new = scene.world.add()
        scene.world.owners = [new.address] * len(scene.world.owners)
        scene.backend.engine._doubt()
        await asyncio.sleep(0.001)
        assert {master.address for master in scene.backend.engine.routes.masters} == {new.address}

    play(scene)
