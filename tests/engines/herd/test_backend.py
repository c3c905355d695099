"""The engine `herd`, put together: what it tells its neighbours, when it is ready, and why it is not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import cost
import fake_redis
import pytest
from turns import Pipeliner

from proxyherd.config.secrets import read_all
from proxyherd.core.flood_paths import SPARE_COPY_SECONDS
from proxyherd.core.messages import Entry, parse_at
from proxyherd.engines.herd.backend import HerdBackend, make_table, make_terms
from proxyherd.engines.herd.delays import LEARNED_SECONDS
from proxyherd.engines.herd.journal import files, read, record


def play(
    folder: Path,
    body: Callable[[cost.BareServer, Any], Coroutine[Any, Any, Any]],
    herd: str = "",
    journal: bytes = b"",
) -> Any:
    """Run a body with Bob's server, and its backend, which has not been started; with this segment in its journal."""

    class Server(cost.BareServer):
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
    fingerprints = [table.fingerprint for table in tables]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert [len(one) for one in fingerprints] == [16] * 3


def test_neighbours_are_told_and_held_to_what_the_file_says(tmp_path: Path) -> None:
    text = (
        cost.HERD
        + "[limits]\nmax_line_bytes = 2000\n[timing]\nheartbeat_seconds = 0.25\nhandshake_seconds = 3\n"
    )

    async def body(server: cost.BareServer, backend: Any) -> None:
        secrets = secrets_of(tmp_path, cost.SECRET)
        herd = backend._herd
        terms = make_terms(herd, herd.servers["Bob"], secrets, backend._node)
        assert (terms.name, terms.neighbours) == ("Bob", frozenset({"Abe", "Ann"}))
        assert terms.secrets == secrets.accepted
        assert (terms.line_bytes, terms.heartbeat, terms.handshake) == (2_256, 0.25, 3)
        assert backend.peers.terms == terms
        backend.renew(secrets_of(tmp_path, b"b" * 32), backend.peers.contexts)
        assert backend.peers.terms.secrets[0] == b"b" * 32
        assert backend.peers.terms.fingerprint == terms.fingerprint, "the table's key is that of the start"

    play(tmp_path, body, text)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", "tombstone_seconds=2592000 on_full=refuse"),
        (
            "[limits]\nmax_clients = 5\n[erasure]\ntombstone_seconds = 86400.5\n",
            "tombstone_seconds=86400.5 on_full=refuse",
        ),
        (
            '[limits]\non_full = "evict"\nmax_clients = 5000\nmax_table_bytes = 9000000\n',
            "tombstone_seconds=2592000 on_full=evict max_clients=5000 max_table_bytes=9000000",
        ),
    ],
    ids=["refuses", "forgets early", "evicts"],
)
def test_neighbours_are_told_the_settings_that_must_be_the_same(
    text: str, settings: str, tmp_path: Path
) -> None:
    async def body(server: cost.BareServer, backend: Any) -> None:
        assert " ".join(f"{key}={value}" for key, value in backend.peers.terms.settings) == settings

    play(tmp_path, body, cost.HERD + text)


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

    async def body(_: cost.BareServer, backend: Any) -> None:
        backend._binder = binder = Binder()
        dialled: list[bool] = []
        monkeypatch.setattr(backend.peers, "dial", lambda: dialled.append(True))
        assert backend.trouble == "replaying the journal: 0%"
        backend._durability.replayed = 0.5
        assert backend.trouble == "replaying the journal: 50%"
        assert not backend.tick()
        tasks: list[asyncio.Task[None]] = []
        backend.start(lambda part: tasks.append(asyncio.ensure_future(part)))
        assert len(tasks) == 2
        await asyncio.sleep(0.5)
        assert binder.asked == [("peers", backend._server.peers)]
        assert dialled == [True]
        assert backend.trouble == "catching up"
        assert not backend.tick()
        backend._durability._journal.fail(OSError(5, "Input/output error", "segment"))
        assert backend.trouble == "the journal cannot be written: segment: Input/output error"
        await asyncio.sleep(2.0)
        backend.tick()
        assert backend.trouble == ""
        assert backend.tick()
        gauge = backend._durability._observer.metrics.registry.get_sample_value
        backend._node.replay([parse_at(b"AT Ann +0.100000000 kiwi +1+1 5")])
        assert backend.figures() == {"clients": 1, "links": 0}
        assert gauge("proxyherd_clients") == 1.0
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
    monkeypatch.setattr("time.time_ns", lambda: 7 * cost.SECOND)
    line = b"AT Ann +0.100000000 kiwi +1+1 5"

    async def body(server: cost.BareServer, backend: Any) -> None:
        met: list[object] = []

        class Meets(Binder):
            async def listen(self, *_: object) -> None:
                met.append(dict(backend.table))

        backend._binder = Meets()
        monkeypatch.setattr(backend.peers, "dial", lambda: met.append("dialled"))
        if not lacks:
            backend._durability.lacks = ""
        asks = Pipeliner(server.daemon._turn, [b"WHATSAT kiwi 0 0"])
        await cost.settled()
        assert asks.answers == []
        assert backend._node.all_wait
        tasks: list[asyncio.Task[None]] = []
        backend.start(lambda part: tasks.append(asyncio.ensure_future(part)))
        await asyncio.sleep(0.5)
        assert met == [{b"kiwi": Entry(line, 5 * 10**9)}, "dialled"]
        assert backend._node.all_wait == lacks
        assert [answer.split(b"\n")[0] for answer in asks.answers] == ([] if lacks else [line])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    play(tmp_path, body, journal=record(line))


@pytest.mark.parametrize("lacks", [True, False])
def test_who_was_erased_is_not_known_until_the_replay_has_ended_or_until_it_is_ready_where_records_may_be_missing(
    tmp_path: Path, *, lacks: bool
) -> None:
    async def body(_: cost.BareServer, backend: Any) -> None:
        kiwi, now = b" token kiwi", asyncio.get_running_loop().time()
        assert backend.erased_until(kiwi) is None
        backend.table.erase(backend.table.tombstone(kiwi, 7))
        assert backend.erased_until(kiwi) is None, "there may be a later one"
        backend._node.start(now, lacks=lacks)
        assert [backend.erased_until(one) for one in (kiwi, b"plum")] == ([None, None] if lacks else [7, 0])
        await asyncio.sleep(3.0)
        backend._node.tick(asyncio.get_running_loop().time())
        assert backend._node.ready
        assert [backend.erased_until(one) for one in (kiwi, b"plum")] == [7, 0]

    play(tmp_path, body)


def test_time_passes_on_the_links_from_the_end_of_the_replay_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(_: cost.BareServer, backend: Any) -> None:
        ticks: list[float] = []
        monkeypatch.setattr(backend.peers, "tick", ticks.append)
        backend.tick()
        assert ticks == []
        backend._replayed = True
        await asyncio.sleep(7.0)
        backend.tick()
        assert ticks == [asyncio.get_running_loop().time()]
        backend.peers.parting = True
        backend.tick()
        assert len(ticks) == 1  # links that were told goodbye say no more

    play(tmp_path, body)


@pytest.mark.parametrize("broken", ["engine", "log", "log of faults"])
def test_what_fails_while_what_waited_is_written_ends_nobodys_connection_and_no_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """It runs inside whatever came late: bytes of a neighbour, or the end of a turn."""

    async def body(server: cost.BareServer, backend: Any) -> None:
        faults: list[tuple[str, Exception]] = []
        error = ZeroDivisionError("division by nothing")

        def fail(*_: object) -> Any:
            raise error

        backend._node.note(object())
        observer = backend._observer
        monkeypatch.setattr(
            observer, "fault", fail if broken == "log of faults" else lambda *it: faults.append(it)
        )
        if broken == "engine":
            monkeypatch.setattr(backend.engine, "settle", fail)
        else:
            monkeypatch.setattr(observer, "note", lambda _: None)
            monkeypatch.setattr(observer, "end_turn", fail)
        backend._settle()
        assert faults == (
            [] if broken == "log of faults" else [("what neighbours have told cannot be written", error)]
        )

    play(tmp_path, body)


def test_a_server_that_ends_lets_go_of_clients_that_wait_then_of_neighbours_and_leaves_word_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyherd.engines.herd.durability.asyncio.to_thread", at_once)

    async def body(server: cost.BareServer, backend: Any) -> None:
        asks = Pipeliner(server.daemon._turn, [b"WHATSAT kiwi 0 0"])
        await cost.settled()
        order: list[object] = []

        async def clients_gone() -> None:
            await cost.settled()
            assert asks.given_up == "server stops"
            order.append("clients")

        async def flush(deadline: float) -> None:
            assert not backend.peers.parting
            order.append(deadline)

        async def rewriting() -> None:
            try:
                await asyncio.sleep(1_000)
            finally:
                assert backend.peers.parting
                assert not mark().startswith(b"closed ")
                order.append("the background")

        def mark() -> bytes:
            file = tmp_path / "state/journal.mark"
            return file.read_bytes() if file.exists() else b""

        monkeypatch.setattr(backend.peers, "flush", flush)
        await backend._durability.replay()
        backend._durability.lacks = ""
        backend._tasks = [asyncio.ensure_future(rewriting())]
        await asyncio.sleep(0)
        await backend.stop(clients_gone(), 12.5)
        assert order == ["clients", 12.5, "the background"]
        assert mark().startswith(b"closed ")

    play(tmp_path, body)


async def without_a_turn() -> None:
    pass


def test_time_has_to_pass_regularly_but_where_nothing_is_due_before_a_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(server: cost.BareServer, backend: Any) -> None:
        node, loop = backend._node, asyncio.get_running_loop()

        def due() -> float:
            backend.tick()
            moment: float = backend.tick_at
            return moment

        assert due() == -math.inf
        node.start(loop.time())
        backend._replayed = True
        peer, _ = await server.link("Ann")
        assert due() == -math.inf  # not ready
        node.ready = True
        neighbour = node._neighbours["Ann"]
        neighbour.pull = None
        beat_at = peer.link._spoke + peer.link.terms.heartbeat
        assert due() == beat_at < loop.time() + 1
        neighbour.compare_at = beat_at - 0.25
        assert due() == beat_at - 0.25
        neighbour.pull, neighbour.since, neighbour.heard = "under way", loop.time(), loop.time()
        assert due() == -math.inf
        neighbour.pull = None
        assert due() > 0
        monkeypatch.setattr(node, "_too_old", lambda entry: True)
        assert due() == -math.inf
        monkeypatch.setattr(node, "_too_old", None)
        backend.peers.parting = True
        assert due() == -math.inf

    play(tmp_path, body)


def on_disk(state: Path) -> list[bytes]:
    return [line for path in files(state / "journal") for lines in read(path) for line in lines]


def test_what_a_neighbour_tells_is_in_the_journal_after_a_moment_or_when_the_server_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyherd.engines.herd.durability.asyncio.to_thread", at_once)
    state = tmp_path / "state"

    async def body(server: cost.BareServer, backend: Any) -> None:
        backend._node.start(0.0)
        backend._node._walks.ended = True
        peer, _ = await server.link("Ann")
        peer.data_received(cost.update(1, 1))
        await asyncio.sleep(0)
        assert on_disk(state) == []
        await asyncio.sleep(LEARNED_SECONDS)
        await asyncio.sleep(0)
        assert on_disk(state) == [cost.update(1, 1)[:-1]]
        peer.data_received(cost.update(2, 1))
        await asyncio.sleep(0)
        assert len(on_disk(state)) == 1
        monkeypatch.setattr(backend.peers, "leave", without_a_turn)
        await backend.stop(without_a_turn(), 0.0)

    play(tmp_path, body)
    assert on_disk(state) == [cost.update(client, 1)[:-1] for client in (1, 2)]


RING = cost.HERD.replace("edges = [", 'edges = [["Abe", "Ann"], ')


def test_the_spare_copies_of_this_server_leave_after_25_ms(tmp_path: Path) -> None:
    async def body(server: cost.BareServer, backend: Any) -> None:
        backend._node.start(0.0)
        backend._node._walks.ended = True
        abe, _ = await server.link("Abe")
        _, ann = await server.link("Ann")
        ann.take()
        line = b"AT Abe +0.000000000 kiwi +1+1 1752000000.5\n"
        abe.data_received(line)
        await asyncio.sleep(SPARE_COPY_SECONDS * 0.9)
        assert ann.take() == b""
        await asyncio.sleep(SPARE_COPY_SECONDS * 0.2)
        assert ann.take() == line

    play(tmp_path, body, RING)


@pytest.mark.parametrize("waits", [True, False], ids=["as a spare copy", "for the next turn"])
def test_what_a_server_that_stops_is_to_pass_on_leaves_before_its_links_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    monkeypatch.setattr("proxyherd.engines.herd.durability.asyncio.to_thread", at_once)

    async def body(server: cost.BareServer, backend: Any) -> None:
        backend._node.start(0.0)
        backend._node._walks.ended = True
        abe, _ = await server.link("Abe")
        _, ann = await server.link("Ann")
        ann.take()
        line, left = b"AT Abe +0.000000000 kiwi +1+1 1752000000.5\n", list[bytes]()
        abe.data_received(line)
        if waits:
            await cost.settled()
            assert ann.take() == b""

        async def leave() -> None:
            left.append(ann.take())

        monkeypatch.setattr(backend.peers, "leave", leave)
        await backend.stop(without_a_turn(), asyncio.get_running_loop().time() + 1)
        assert left == [line]

    play(tmp_path, body, RING)


def test_time_passes_also_for_what_is_forgotten_where_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(_: cost.BareServer, backend: Any) -> None:
        monkeypatch.setattr("time.time_ns", lambda: 7 * cost.SECOND)
        backend._replayed = True
        backend.tick()
        assert backend._node.rules.clock == 7 * cost.SECOND

    play(tmp_path, body)


@pytest.mark.parametrize("alone", [True, False])
def test_a_server_that_has_no_neighbours_is_ready_when_it_has_replayed(
    tmp_path: Path, *, alone: bool
) -> None:
    lone = '[servers]\nBob = { clients = "127.0.0.1:7", peers = "127.0.0.1:8", admin = "127.0.0.1:9" }\n'

    async def body(_: cost.BareServer, backend: Any) -> None:
        cast("HerdBackend", backend)._node.start(0.0)
        assert backend._node.ready == alone

    play(tmp_path, body, lone if alone else "")
