"""A server of the engine `herd`, put together: what it tells its neighbours, when it is ready, and why it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import cost
import fake_redis
import pytest
from turns import Pipeliner

from proxyherd.config.secrets import read_all
from proxyherd.core.messages import Entry
from proxyherd.engines.herd.journal import record
from proxyherd.engines.herd.server import Replica, make_table, make_terms


def play(
    folder: Path,
    body: Callable[[cost.Server, Any], Coroutine[Any, Any, Any]],
    herd: str = "",
    journal: bytes = b"",
) -> Any:
    """Run a body with Bob's server, and its replica, which has not been started; with this segment in its journal."""

    class Server(cost.Server):
        pass

    if herd:
        Server.herd = herd
    server = Server(folder)
    if journal:
        (folder / "state/journal").mkdir()
        (folder / "state/journal/000000000001.segment").write_bytes(journal)

    async def run() -> Any:
        server.assemble()
        try:
            return await body(server, server.daemon._backend)
        finally:
            server.daemon._clients._sweeper.cancel()

    try:
        return fake_redis.run(run())
    finally:
        server._log.close()


def secrets_of(folder: Path, text: bytes) -> Any:
    folder.mkdir(exist_ok=True)
    (folder / "secret").touch(0o600)
    (folder / "secret").write_bytes(text)
    return read_all(folder / "secret")


def test_tables_of_one_herd_have_equal_digests_and_strangers_cannot_tell_them(tmp_path: Path) -> None:
    keys = [secrets_of(tmp_path / name, text * 32) for name, text in (("1", b"a"), ("2", b"a"), ("3", b"b"))]
    tables = [make_table(key) for key in keys]
    leaves = [table.leaf(b"kiwi") for table in tables]
    assert leaves[0] == leaves[1]
    more = [[table.leaf(b"client%d" % number) for number in range(50)] for table in tables]
    assert more[0] == more[1] != more[2]


def test_neighbours_are_told_and_held_to_what_the_file_says(tmp_path: Path) -> None:
    text = (
        cost.HERD
        + "[limits]\nmax_line_bytes = 2000\n[timing]\nheartbeat_seconds = 0.25\nhandshake_seconds = 3\n"
    )

    async def body(server: cost.Server, replica: Any) -> None:
        secrets = secrets_of(tmp_path, cost.SECRET)
        herd = replica._herd
        terms = make_terms(herd, herd.servers["Bob"], secrets)
        assert (terms.name, terms.neighbours) == ("Bob", frozenset({"Abe", "Ann"}))
        assert terms.secrets == secrets.accepted
        assert (terms.line_bytes, terms.heartbeat, terms.handshake) == (2_256, 0.25, 3)
        assert replica.peers.terms == terms
        replica.renew(secrets_of(tmp_path, b"b" * 32), replica.peers._contexts)
        assert replica.peers.terms.secrets[0] == b"b" * 32

    play(tmp_path, body, text)


class Binder:
    """Says what was to be listened on."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, object]] = []

    async def listen(self, what: str, addresses: object, _: object) -> None:
        self.asked.append((what, addresses))


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def test_it_replays_then_listens_for_neighbours_then_catches_up_and_then_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyherd.engines.herd.durability.asyncio.to_thread", at_once)

    async def body(_: cost.Server, replica: Any) -> None:
        replica._binder = binder = Binder()
        dialled: list[bool] = []
        monkeypatch.setattr(replica.peers, "dial", lambda: dialled.append(True))
        assert replica.trouble == "replaying the journal: 0%"
        replica._durability.replayed = 0.5
        assert replica.trouble == "replaying the journal: 50%"
        replica.tick()
        assert not replica.started
        tasks: list[asyncio.Task[None]] = []
        replica.start(lambda part: tasks.append(asyncio.ensure_future(part)))
        assert len(tasks) == 2
        await asyncio.sleep(0.5)
        assert binder.asked == [("peers", replica._server.peers)]
        assert dialled == [True]
        assert replica.trouble == "catching up"
        assert not replica.started
        replica._durability._journal.fail(OSError(5, "Input/output error", "segment"))
        assert replica.trouble == "the journal cannot be written: segment: Input/output error"
        await asyncio.sleep(2.0)
        replica.tick()
        assert replica.trouble == ""
        assert replica.started
        observer = replica._durability._observer
        replica.refresh(observer)
        assert observer.metrics.registry.get_sample_value("proxyherd_clients") == 0.0
        assert replica.figures() == {"clients": 0, "links": 0}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    play(tmp_path, body)


@pytest.mark.parametrize("lacks", [True, False])
def test_neighbours_are_met_when_the_journal_has_been_replayed_and_then_those_who_waited_have_their_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lacks: bool
) -> None:
    """Unless records may be missing: then all wait on."""
    monkeypatch.setattr("proxyherd.engines.herd.durability.asyncio.to_thread", at_once)
    line = b"AT Ann +0.100000000 kiwi +1+1 5"

    async def body(server: cost.Server, replica: Any) -> None:
        met: list[object] = []

        class Meets(Binder):
            async def listen(self, *_: object) -> None:
                met.append(dict(replica.table))

        replica._binder = Meets()
        monkeypatch.setattr(replica.peers, "dial", lambda: met.append("dialled"))
        if not lacks:
            replica._durability.lacks = ""
        asks = Pipeliner(server.daemon._turn, [b"WHATSAT kiwi 0 0"])
        await cost.settled()
        assert asks.answers == []
        assert replica._node.all_wait
        tasks: list[asyncio.Task[None]] = []
        replica.start(lambda part: tasks.append(asyncio.ensure_future(part)))
        await asyncio.sleep(0.5)
        assert met == [{b"kiwi": Entry(line, 5 * 10**9)}, "dialled"]
        assert replica._node.all_wait == lacks
        assert [answer.split(b"\n")[0] for answer in asks.answers] == ([] if lacks else [line])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    play(tmp_path, body, journal=record(line))


def test_time_passes_on_the_links_from_the_end_of_the_replay_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(_: cost.Server, replica: Any) -> None:
        ticks: list[float] = []
        monkeypatch.setattr(replica.peers, "tick", ticks.append)
        replica.tick()
        assert ticks == []
        replica._replayed = True
        await asyncio.sleep(7.0)
        replica.tick()
        assert ticks == [asyncio.get_running_loop().time()]

    play(tmp_path, body)


def test_a_server_that_ends_lets_go_of_clients_that_wait_then_of_neighbours_and_leaves_word_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyherd.engines.herd.durability.asyncio.to_thread", at_once)

    async def body(server: cost.Server, replica: Any) -> None:
        asks = Pipeliner(server.daemon._turn, [b"WHATSAT kiwi 0 0"])
        await cost.settled()
        replica.drain()
        await cost.settled()
        assert asks.given_up == "server stops"
        deadlines: list[float] = []

        async def flush(deadline: float) -> None:
            deadlines.append(deadline)

        monkeypatch.setattr(replica.peers, "flush", flush)
        await replica.flush(12.5)
        assert deadlines == [12.5]
        assert not replica.peers.parting
        await replica.part()
        assert replica.peers.parting
        replica._durability.lacks = ""
        await replica.close()
        assert (tmp_path / "state/journal.mark").read_bytes().startswith(b"closed\n")

    play(tmp_path, body)


@pytest.mark.parametrize("alone", [True, False])
def test_a_server_that_has_no_neighbours_is_ready_when_it_has_replayed(
    tmp_path: Path, *, alone: bool
) -> None:
    lone = '[servers]\nBob = { clients = "127.0.0.1:7", peers = "127.0.0.1:8", admin = "127.0.0.1:9" }\n'

    async def body(_: cost.Server, replica: Any) -> None:
        cast("Replica", replica)._node.start(0.0)
        assert replica._node.ready == alone

    play(tmp_path, body, lone if alone else "")
