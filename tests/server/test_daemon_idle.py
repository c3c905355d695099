"""An idle server: how often its process wakes, counted on a clock that jumps from one thing that is due to the next."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import Any, cast

import cost
import fake_redis
import pytest

BEAT = b"BEAT\n"
SECONDS = 60


class Neighbours:
    """The socket of a neighbour's link: holds a heartbeat for each that was due since it was read."""

    def __init__(self, heartbeat: float) -> None:
        self._heartbeat = heartbeat
        self._read_at = asyncio.get_running_loop().time()
        self.marks: list[int] = []
        self.is_up = False

    def rise(self, mark: int) -> None:
        self.marks.append(mark)
        self.is_up = True

    def take(self) -> bytes:
        now = asyncio.get_running_loop().time()
        beats = math.floor(now / self._heartbeat) - math.floor(self._read_at / self._heartbeat)
        self._read_at = now
        return beats * BEAT

    def age(self) -> float:
        return asyncio.get_running_loop().time() % self._heartbeat


async def idle(server: cost.BareServer, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a server that has two neighbours be idle for a minute; return at which moments it woke."""
    server.assemble()
    loop, daemon = asyncio.get_running_loop(), cast("Any", server.daemon)
    backend, clock = daemon._backend, cast("Any", loop)._jumping
    links = [await server.link(name) for name in cost.NEIGHBOURS]
    await backend._durability.replay()
    backend._node.start(loop.time())
    backend._node._walks.ended = backend._node.ready = backend._replayed = True
    for neighbour in backend._node._neighbours.values():
        backend._node._walks.forget(neighbour)  # nothing is compared meanwhile
        neighbour.compare_at = math.inf
    tasks = [loop.create_task(work) for work in (backend._durability.watch(), backend._durability.keep())]
    sockets = [Neighbours(daemon._herd.timing.heartbeat_seconds) for _ in links]
    for (connection, _), water in zip(links, sockets, strict=True):
        connection.data_received(BEAT)
        connection._water = cast("Any", water)
    daemon._expected = time.monotonic()
    daemon._tick()
    await asyncio.sleep(5)
    woke: list[float] = []
    real = clock.select

    def select(timeout: float | None = None) -> Any:
        if timeout is None or timeout > 0:
            woke.append(loop.time() + (timeout or 0))
        return real(timeout)

    with monkeypatch.context() as patch:
        patch.setattr(clock, "select", select)
        began = loop.time()
        clients = [transport for _, transport in server.clients]
        for _, transport in links:
            transport.take()
        await asyncio.sleep(SECONDS)
    assert [transport.take() for _, transport in links] == [BEAT * 2 * SECONDS] * 2
    assert [water.marks for water in sockets] == [[len(BEAT)]] * 2
    assert not any(transport.take() for transport in clients)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    daemon._ticker.cancel()
    daemon._clients._sweeper.cancel()
    return [moment - began for moment in woke]


def test_an_idle_server_wakes_for_its_heartbeats_and_for_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's files are looked for, clients that do not speak are looked for, neighbours are heard: all of it then,
    also while eight clients are connected.
    """
    server = cost.BareServer(tmp_path)
    try:
        woke = fake_redis.run(idle(server, monkeypatch))
    finally:
        server._log.close()
    assert woke == pytest.approx([number / 2 for number in range(1, 2 * SECONDS + 1)], abs=0.001)
