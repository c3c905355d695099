"""All clients of one server, over two transports that exist only here: one limit, one count, one end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from proxyherd.config.schema import Limits
from proxyherd.core.buckets import Allowance
from proxyherd.core.turn import Turn
from proxyherd.server.clients.clients import Clients, ConnectedClient
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer


class Left:
    """A turn that notes who has left."""

    def __init__(self) -> None:
        self.left: list[str] = []

    def client_left(self, client: Any) -> None:
        self.left.append(client.name)


class Toy:
    """A client over a toy transport: it notes what it is asked, and ends when it is told to."""

    def __init__(self, clients: Clients, name: str) -> None:
        self.name = name
        self.via = "lines"
        self.allowance: Allowance | None = None
        self.asked: list[str] = []
        self._clients = clients
        self.admitted = clients.admit(cast("ConnectedClient", self))

    def check(self, now: float) -> None:
        self.asked.append("check")

    def drain(self) -> None:
        self.asked.append("drain")

    def fail(self) -> None:
        self.end("internal error")

    def end(self, reason: str) -> None:
        self.asked.append(f"end: {reason}")
        self._clients.forget(cast("ConnectedClient", self), reason)


class Broken(Toy):
    """It cannot be looked at."""

    def check(self, now: float) -> None:
        raise RuntimeError("a bug")


class World:
    """The clients of one server, with its log and its gauge. Build it inside an event loop."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self._file = folder / "log"
        self._log = LogFile(self._file)
        log = make_logger(self._log, server="Clark", level="info", max_field_bytes=1_024)
        self.observer = Observer(log, self._log, Metrics(), ())
        self.turn = Left()
        self.clients = Clients(Limits(**limits), cast("Turn", self.turn), self.observer)

    @property
    def gauge(self) -> float:
        [family] = self.observer.connections.open.collect()
        return family.samples[0].value

    def close(self) -> list[tuple[str, str]]:
        """Return which events the log has, each with its client."""
        self._log.close()
        events = map(json.loads, self._file.read_text().splitlines())
        return [(event["event"], event.get("client", "")) for event in events]


Scene = Callable[[World], Any]


def play(folder: Path, scene: Scene, **limits: Any) -> list[tuple[str, str]]:
    async def run() -> list[tuple[str, str]]:
        world = World(folder, **limits)
        await scene(world)
        world.clients._sweeper.cancel()
        return world.close()

    return asyncio.run(run())


def test_the_clients_of_two_transports_share_one_limit_and_one_gauge(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        lines, web = Toy(world.clients, "lines"), Toy(world.clients, "web")
        assert (world.gauge, world.clients.room) == (2, 0)
        assert [one.admitted for one in (lines, web, Toy(world.clients, "third"))] == [True, True, False]
        assert world.gauge == 2
        lines.end("closed by client")
        assert (world.gauge, world.clients.room, world.turn.left) == (1, 1, ["lines"])
        assert Toy(world.clients, "fourth").admitted

    assert play(tmp_path, scene, max_connections=2) == [
        ("client_opened", "lines"),
        ("client_opened", "web"),
        ("client_refused", "third"),
        ("client_closed", "lines"),
        ("client_opened", "fourth"),
    ]


def test_all_are_gone_when_the_server_stops_and_the_last_of_any_transport_has_left(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        lines, web = Toy(world.clients, "lines"), Toy(world.clients, "web")
        world.clients.drain()
        assert (lines.asked, web.asked) == (["drain"], ["drain"])
        lines.end("server stops")
        assert not world.clients.gone.is_set()
        web.end("server stops")
        assert world.clients.gone.is_set()

    play(tmp_path, scene)


@pytest.mark.parametrize("left", [False, True], ids=["nobody came", "all have left"])
def test_a_server_without_clients_waits_for_none_when_it_stops_and_not_before(
    left: bool, tmp_path: Path
) -> None:
    async def scene(world: World) -> None:
        if left:
            Toy(world.clients, "lines").end("closed by client")
        assert not world.clients.gone.is_set()
        world.clients.drain()
        assert world.clients.gone.is_set()

    play(tmp_path, scene)


def test_whoever_is_left_at_the_deadline_is_ended(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        both = Toy(world.clients, "lines"), Toy(world.clients, "web")
        world.clients.drain()
        world.clients.abort()
        assert [one.asked[-1] for one in both] == ["end: server stops"] * 2
        assert world.clients.gone.is_set()

    play(tmp_path, scene)


def test_a_client_that_cannot_be_looked_at_is_ended_and_the_others_are_looked_at(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        before, broken = Toy(world.clients, "before"), Broken(world.clients, "broken")
        behind = Toy(world.clients, "behind")
        world.clients._sweeper.cancel()
        world.clients._sweep()
        assert (before.asked, behind.asked) == (["check"], ["check"])
        assert broken.asked == ["end: internal error"]

    assert ("client_closed", "broken") in play(tmp_path, scene)
