"""Turns of one server, its real parts put together without sockets: what one destination does costs no other one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cost
import fake_redis
import pytest
from cost import invalid, report, settled, update

from proxyherd.config.address import Address
from proxyherd.config.herd_file import parse
from proxyherd.core.engine import Said, Settled
from proxyherd.core.notes import Heard, LinkUp
from proxyherd.engines.herd.engine import _FEWEST_SHARES, share
from proxyherd.engines.herd.peers import Peers
from proxyherd.net.listening import Listener
from proxyherd.net.resolving import new_event_loop
from proxyherd.server.clients.tcp import ClientConnection, line_connection

Body = Callable[["Bob"], Coroutine[Any, Any, None]]


class Transport(cost.Transport):
    """One connection's other side. Calls named in `broken` raise, as all do of one that uvloop has closed."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.broken: set[str] = set()
        self.write = self._write
        self.aborted = False

    def _write(self, data: bytes) -> None:
        self._do("write")
        self.written.append(data)

    def _do(self, what: str) -> None:
        if what in self.broken:
            raise RuntimeError(f"unable to perform {what}")

    def get_write_buffer_size(self) -> int:
        self._do("get_write_buffer_size")
        return 0

    def pause_reading(self) -> None:
        self._do("pause_reading")

    def resume_reading(self) -> None:
        self._do("resume_reading")

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._do("write_eof")

    def close(self) -> None:
        self._do("close")

    def abort(self) -> None:
        self.aborted = True


class Bob(cost.BareServer):
    """The server of tests/support/cost.py, with a neighbour Abe and a neighbour Ann, and clients."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    async def start(self) -> None:
        self.assemble()
        self.abe, self.ann = [await self.meet(name) for name in ("Abe", "Ann")]

    async def meet(self, name: str) -> tuple[Any, Transport]:
        transport = Transport(1)
        connection, _ = await self.link(name, transport)
        transport.take()
        return connection, transport

    def client(self, port: int) -> tuple[ClientConnection, Transport]:
        connection, transport = line_connection(self.daemon._clients), Transport(port)
        connection.connection_made(cast("asyncio.Transport", transport))
        return connection, transport

    @property
    def engine(self) -> Any:
        return cast("Any", self.daemon._backend).engine

    @property
    def links(self) -> Any:
        return cast("Any", self.daemon._backend).peers

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = map(json.loads, (self.folder / "log").read_text().splitlines())
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Body], None]:
    """Run a test's body with a server that has met its neighbours."""

    def run_it(body: Body) -> None:
        async def whole() -> None:
            bob = Bob(tmp_path)
            await bob.start()
            await body(bob)
            bob.daemon._clients._sweeper.cancel()
            bob._log.close()

        fake_redis.run(whole())

    return run_it


# One destination raises. ---------------------------------------------------------------------------------------

CLIENT_FAULTS: dict[str, tuple[str, bytes]] = {
    "the answer to a report cannot be written": ("write", report(0, 5) + b"\n"),
    "the answer to something else cannot be written": ("write", invalid(0) + b"\n"),
    "it cannot be read on": ("resume_reading", (b"x" * 8_000 + b"\n") * 9),
}


@pytest.mark.parametrize("fault", CLIENT_FAULTS)
def test_a_client_whose_connection_raises_costs_no_other_one_its_turn(
    fault: str, run: Callable[[Body], None]
) -> None:
    call, said = CLIENT_FAULTS[fault]

    async def body(bob: Bob) -> None:
        broken, before, behind = bob.client(1), bob.client(2), bob.client(3)
        broken[1].broken = {call}
        before[0].data_received(report(1, 5) + b"\n")
        broken[0].data_received(said)
        behind[0].data_received(report(2, 5) + b"\n" + invalid(2) + b"\n")
        await asyncio.sleep(0)
        assert before[1].take().count(b"\n") == 1
        assert behind[1].take().count(b"\n") == 2
        for _, link in (bob.abe, bob.ann):
            assert b"client0001" in (flooded := link.take())
            assert b"client0002" in flooded
        await settled()
        assert broken[0] not in bob.daemon._clients.connections, "it has left the set"
        assert broken[0].gone
        assert broken[1].aborted
        behind[0].data_received(report(2, 6) + b"\n")
        await asyncio.sleep(0)
        assert behind[1].take().startswith(b"AT Bob")
        await settled()
        assert [fault["reason"] for fault in bob.logged("internal_error")] == ["a client cannot be served"]

    run(body)


@pytest.mark.parametrize("call", ["write", "get_write_buffer_size"])
def test_a_neighbour_whose_connection_raises_costs_no_other_one_its_turn(
    call: str, run: Callable[[Body], None]
) -> None:
    async def body(bob: Bob) -> None:
        (connection, transport), (_, other) = bob.abe, bob.ann
        client = bob.client(1)
        transport.broken = {call}
        client[0].data_received(report(1, 5) + b"\n")
        await asyncio.sleep(0)
        assert client[1].take().startswith(b"AT Bob")
        assert other.take().startswith(b"AT Bob")
        await settled()
        assert connection not in bob.links.connections, "it has left the sets"
        assert connection not in bob.engine._links._peers
        assert await asyncio.wait_for(connection.ended, 1), "who has dialled it dials again"
        assert [*bob.engine._node.linked] == ["Ann"]
        assert transport.aborted
        client[0].data_received(report(1, 6) + b"\n")
        await asyncio.sleep(0)
        assert client[1].take().startswith(b"AT Bob")
        await settled()
        (fault,) = bob.logged("internal_error")
        assert fault["reason"] == "the connection with Abe cannot be served"
        (closed,) = bob.logged("peer_closed")
        assert closed["reason"] == "internal error; the log has its traceback"

    run(body)


def test_a_neighbour_that_makes_the_core_raise_costs_no_other_one_its_turn(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bob: Bob) -> None:
        (connection, _), (_, other) = bob.abe, bob.ann
        client = bob.client(1)
        receive = bob.engine._node.receive

        def stumble(link: Any, most: int, now: float) -> None:
            if link is connection.link:
                raise ZeroDivisionError
            receive(link, most, now)

        monkeypatch.setattr(bob.engine._node, "receive", stumble)
        connection.data_received(b"DONE\n")
        client[0].data_received(report(1, 5) + b"\n")
        await asyncio.sleep(0)
        assert client[1].take().startswith(b"AT Bob")
        assert b"AT Bob" in other.take()
        await settled()
        assert connection not in bob.links.connections
        assert not bob.engine.more, "and it is not tried again and again"

    run(body)


@pytest.mark.parametrize(
    ("call", "said"),
    [("send_batch", b"RANGE 0 10000\n"), ("send_updates", b"BEAT\n"), ("send", b"DIGESTS -\n")],
)
def test_work_for_a_neighbour_that_raises_costs_no_other_one_its_turn(
    call: str, said: bytes, run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has asked for, and what it is told of: none of it comes from its connection."""

    async def body(bob: Bob) -> None:
        (connection, transport), (ann, other) = bob.abe, bob.ann
        client = bob.client(1)

        def stumble(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(connection.link, call, stumble)
        connection.data_received(said)
        ann.data_received(b"RANGE 0 1\n")
        client[0].data_received(report(1, 5) + b"\n")
        await asyncio.sleep(0)
        assert client[1].take().startswith(b"AT Bob")
        told = other.take()
        assert b"AT Bob" in told
        await settled()
        assert b"BATCH 0 1 0\n" in told + other.take(), "what others have asked for is answered"
        assert connection not in bob.links.connections
        assert transport.aborted
        assert [*bob.engine._node.linked] == ["Ann"]
        assert not bob.engine.more, "and it is not tried again and again"
        (fault,) = bob.logged("internal_error")
        assert fault["reason"] == "the connection with Abe cannot be served"
        assert "ZeroDivisionError" in fault["exception"]

    run(body)


@pytest.mark.parametrize("always", [False, True])
def test_reports_are_refused_where_the_journal_raises_what_nobody_has_thought_of(
    always: bool, run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bob: Bob) -> None:
        client, journal = bob.client(1), bob.engine._journal

        def stumble(*_: object) -> bool:
            raise ZeroDivisionError

        async def stumble_later() -> bool:
            raise ZeroDivisionError

        journal.always = always
        with monkeypatch.context() as patch:
            patch.setattr(journal, "_sync" if always else "append", stumble_later if always else stumble)
            client[0].data_received(report(1, 5) + b"\n")
            await settled()
        assert client[1].take().startswith(b"? IAMAT")
        assert not bob.ann[1].take()
        journal.always = False
        client[0].data_received(report(1, 5) + b"\n")
        await settled()
        assert client[1].take().startswith(b"AT Bob"), "and the next turn is as ever"
        assert len(bob.logged("internal_error")) == 1

    run(body)


def test_a_note_that_cannot_be_told_costs_no_other_one(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bob: Bob) -> None:
        client, node = bob.client(1), bob.engine._node
        node.notes += [LinkUp(cast("Any", []), dialled=True), LinkUp("Ann", dialled=True)]
        told = len(bob.logged("peer_opened"))
        client[0].data_received(report(1, 5) + b"\n")
        await settled()
        assert client[1].take().startswith(b"AT Bob")
        assert len(bob.logged("peer_opened")) == told + 1
        assert len(bob.logged("internal_error")) == 1

    run(body)


def test_two_servers_of_one_name_show_in_the_metric_of_their_neighbour(run: Callable[[Body], None]) -> None:
    """Each proves itself, so that nothing fails: but the one displaces the other."""

    async def body(bob: Bob) -> None:
        failed = bob.daemon._observer.links._failures.labels("Abe")._value
        for twins in range(1, 4):
            await bob.meet("Abe")
            assert failed.get() == twins
        assert {one["reason"] for one in bob.logged("peer_closed")} == {"replaced by a newer link"}
        assert bob.daemon._observer.links._failures.labels("Ann")._value.get() == 0

    run(body)


def test_a_log_that_raises_costs_nobody_an_answer(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bob: Bob) -> None:
        client, observer = bob.client(1), bob.daemon._observer

        def stumble(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(observer._events, "_tell", stumble)
            patch.setattr(observer, "fault", stumble)
            for moment in (5, 6):
                client[0].data_received(report(1, moment) + b"\n")
                await settled()
                assert client[1].take().startswith(b"AT Bob")
            assert not observer._events._said, "what cannot be logged is not kept"

    run(body)


def test_the_sweep_looks_at_every_client_though_one_raises(run: Callable[[Body], None]) -> None:
    async def body(bob: Bob) -> None:
        clients = bob.daemon._clients
        pairs = [bob.client(port) for port in range(8)]
        for connection, transport in pairs:
            began = clients.loop.time() - clients.limits.slow_reader_seconds - 1
            connection._conversation.pause_writing(began)
            transport.broken = {"get_write_buffer_size"} if transport is pairs[3][1] else set()
        clients._sweep()
        assert all(transport.aborted for _, transport in pairs)
        assert pairs[3][0] not in clients.connections
        await settled()
        assert len(bob.logged("internal_error")) == 1

    run(body)


def test_time_passes_for_every_link_though_one_raises(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bob: Bob) -> None:
        (connection, _), (_, other) = bob.abe, bob.ann

        def stumble(now: float) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(connection.link, "tick", stumble)
        bob.links.tick(bob.links.loop.time() + 1)
        await settled()
        assert b"BEAT\n" in other.take()
        assert connection not in bob.links.connections

    run(body)


# How much goes into one turn. ------------------------------------------------------------------------------------

CLIENT_LINES, TURN_LINES, TURN_QUERIES, PEER_LINES = 64, 512, 32, 1_024
"""The bounds of docs/design.md."""

PEER_LINES_BESIDE_CLIENTS = 64


def flood(lines: int, moment: int = 5) -> bytes:
    return b"".join(update(client, moment) for client in range(lines))


def lines_a_write(transport: cost.Transport) -> list[int]:
    """Return the lines of each write, which is one a turn."""
    return [data.count(b"\n") for data in transport.written]


class Turns:
    """Counts, turn by turn, the lines that were heard of clients and of neighbours."""

    def __init__(self, bob: Bob, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clients: list[int] = []
        self.peers: list[int] = []
        engine = bob.engine
        decide, end = engine.decide, engine.end

        def count_clients(said: list[Said]) -> None:
            self._clients = sum(len(one.lines) for one in said)
            decide(said)

        def count_peers(now: float) -> Settled:
            settled: Settled = end(now)
            self.clients.append(self._clients)
            self.peers.append(sum(len(note.clients) for note in settled.notes if isinstance(note, Heard)))
            self._clients = 0
            return settled

        self._clients = 0
        monkeypatch.setattr(engine, "decide", count_clients)
        monkeypatch.setattr(engine, "end", count_peers)


async def rest(turns: Turns) -> None:
    """Let there be turns until none is due."""
    for _ in range(1_000):
        before = len(turns.peers)
        await settled()
        if len(turns.peers) == before:
            return
    pytest.fail("turns do not come to rest")


def test_a_turn_takes_64_lines_of_a_client_and_512_of_all(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bob: Bob) -> None:
        turns, pairs = Turns(bob, monkeypatch), [bob.client(port) for port in range(20)]
        for connection, _ in pairs:
            connection.data_received(b"FOO\n" * 150)
        await rest(turns)
        for _, transport in pairs:
            assert lines_a_write(transport) == [CLIENT_LINES, CLIENT_LINES, 150 - 2 * CLIENT_LINES]
        full = 20 * 150 // TURN_LINES
        assert [lines for lines in turns.clients if lines][:full] == [TURN_LINES] * full
        assert sum(turns.clients) == 20 * 150

    run(body)


def test_a_turn_takes_1024_lines_of_neighbours_where_no_client_is_about(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bob: Bob) -> None:
        turns = Turns(bob, monkeypatch)
        bob.abe[0].data_received(flood(3 * PEER_LINES))
        await rest(turns)
        assert [lines for lines in turns.peers if lines] == [PEER_LINES] * 3
        turns.peers.clear()
        for connection, _ in (bob.abe, bob.ann):
            connection.data_received(flood(PEER_LINES, 6))
        await rest(turns)
        assert [lines for lines in turns.peers if lines] == [PEER_LINES] * 2, "it is divided among them"

    run(body)


def test_a_neighbours_flood_has_64_lines_of_a_turn_while_a_client_asks_and_1024_when_it_is_quiet(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """582,000 updates in half a minute had clients wait for 125 ms each instead of 0.65."""

    async def body(bob: Bob) -> None:
        turns, (client, transport) = Turns(bob, monkeypatch), bob.client(1)
        bob.abe[0].data_received(flood(8 * PEER_LINES))
        for asked in range(1, 20):
            client.data_received(b"FOO\n")
            await asyncio.sleep(0)
            assert turns.clients[-1] == 1, "it is answered in the next turn"
            assert turns.peers[-1] == PEER_LINES_BESIDE_CLIENTS
            assert sum(lines_a_write(transport)) == asked
            for _ in range(asked % 3):  # it thinks
                await asyncio.sleep(0)
                assert turns.peers[-1] == PEER_LINES_BESIDE_CLIENTS
        asyncio.get_running_loop()._jumping.now += 0.06  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert turns.peers[-1] == PEER_LINES
        await rest(turns)
        assert sum(turns.peers) == 8 * PEER_LINES

    run(body)


@pytest.mark.parametrize(("clients", "share"), [(1, 256), (2, 512), (4, 1_024), (8, 1_024)])
def test_neighbours_have_four_lines_for_each_of_busy_clients(
    clients: int, share: int, run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a herd in which all are busy could not keep up with its own floods."""

    async def body(bob: Bob) -> None:
        turns, pairs = Turns(bob, monkeypatch), [bob.client(port) for port in range(clients)]
        bob.abe[0].data_received(flood(8 * PEER_LINES))
        for connection, _ in pairs:
            connection.data_received(b"FOO\n" * 200)
        for _ in range(3):
            await asyncio.sleep(0)
        assert turns.clients[:3] == [clients * CLIENT_LINES] * 3
        assert turns.peers[:3] == [PEER_LINES_BESIDE_CLIENTS, share, share]

    run(body)


def test_each_of_many_neighbours_has_something_of_a_turn() -> None:
    for lately in (0, 1, 16, 512):
        assert PEER_LINES_BESIDE_CLIENTS <= share(lately) <= PEER_LINES
    assert PEER_LINES_BESIDE_CLIENTS // _FEWEST_SHARES >= 1


# A connection that is given up just as it is made. ----------------------------------------------------------------

PAIR = """
edges = [["Ann", "Bob"]]
[servers]
Ann = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }
Bob = { clients = "127.0.0.1:4", peers = "127.0.0.1:5", admin = "127.0.0.1:6" }
"""


@pytest.fixture(params=["uvloop", "asyncio"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> asyncio.Runner:
    """What runs a server: on the loop that is there, and on the one that serves where that is missing."""
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    return asyncio.Runner(loop_factory=new_event_loop)


async def until_it_rests() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


def test_a_dial_whose_time_is_up_just_as_it_connects_leaves_nothing_behind(runner: asyncio.Runner) -> None:
    """uvloop closes that transport, says of it that it is not closing, and tells its protocol nothing."""
    herd = parse(PAIR, Path("pair.toml"))

    async def body() -> None:
        some: Any = None
        dial: asyncio.Task[Any]
        said: list[Any] = []
        engine = SimpleNamespace(
            add_link=said.append,
            remove_link=said.remove,
            peer_said=lambda one: one.heard(),
            hear_few=lambda *_: False,
            wake=lambda: None,
        )
        closed: list[Any] = []
        node = SimpleNamespace(notes=[], closed=closed.append, table=SimpleNamespace(gone={}))
        contexts = SimpleNamespace(peers=None, dialling=None)
        terms = SimpleNamespace(name="Ann", secrets=(b"s",), lead=0, handshake=1.5, heartbeat=0.5)
        peers = Peers(
            herd,
            herd.servers["Ann"],
            cast("Any", terms),
            cast("Any", node),
            cast("Any", engine),
            some,
            cast("Any", contexts),
        )
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = Address("127.0.0.1", listener.getsockname()[1])
            dial = asyncio.ensure_future(peers._connect("Bob", address, "127.0.0.1", []))
            peers.make_room = dial.cancel  # type: ignore[method-assign,assignment]
            with contextlib.suppress(asyncio.CancelledError):
                await dial
            await until_it_rests()
            accepted, _ = listener.accept()
            with accepted:
                accepted.setblocking(False)
                assert accepted.recv(10) == b"", "it is closed, and nothing was said"
        assert closed, "it had been made"
        assert not peers.connections
        assert not said

    with runner:
        runner.run(body())


def test_a_connection_taken_and_given_up_at_once_leaves_nothing_behind(runner: asyncio.Runner) -> None:
    """As one is whose TLS handshake is done when it is the oldest of too many."""

    class Protocol(asyncio.Protocol):
        lost = 0

        def connection_made(self, _: object) -> None:
            task.cancel()

        def connection_lost(self, _: object) -> None:
            self.lost += 1

    task: asyncio.Task[None]
    protocol = Protocol()

    async def body() -> None:
        nonlocal task
        listener = Listener(
            lambda: protocol,
            None,
            backlog=1,
            handshake_seconds=1,
            shutdown_seconds=1,
            room=lambda: 1,
            refused=lambda *_: None,
        )
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            task = asyncio.ensure_future(listener._hand_over(near, "far"))
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await until_it_rests()
            assert far.recv(10) == b""
        assert protocol.lost

    with runner:
        runner.run(body())


# Ticks. ------------------------------------------------------------------------------------------------------------


def test_a_tick_that_raises_is_not_the_last_one(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bob: Bob) -> None:
        daemon = cast("Any", bob.daemon)
        daemon._expected = 0.0

        def stumble() -> bool:
            raise ZeroDivisionError

        monkeypatch.setattr(daemon._backend, "tick", stumble)
        with pytest.raises(ZeroDivisionError):
            daemon._tick()
        assert 0 < daemon._ticker.when() - daemon._loop.time() < 0.13
        daemon._ticker.cancel()

    run(body)


def test_what_can_wait_to_be_logged_is_looked_for_every_five_seconds(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bob: Bob) -> None:
        daemon = cast("Any", bob.daemon)
        daemon._expected, daemon._told_ready = 0.0, True
        moments = [7.0, 7.5, 11.9, 12.0, 12.5, 17.1, 22.0]
        loop = SimpleNamespace(time=lambda: moments[0], call_later=lambda *_: None)
        looked: list[tuple[str, float]] = []
        with monkeypatch.context() as patch:
            patch.setattr(daemon, "_loop", loop)
            patch.setattr(daemon._backend, "figures", lambda: looked.append(("table", moments[0])))
            patch.setattr(daemon._observer, "tick", lambda: looked.append(("log", moments[0])))
            while moments:
                daemon._tick()
                del moments[0]
        assert looked == [(what, moment) for moment in (7.0, 12.0, 17.1) for what in ("table", "log")]

    run(body)
