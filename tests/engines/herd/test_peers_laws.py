"""Connections with neighbours, by what is dialled, written, paused and told: scripted sockets on a clock that jumps."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import cost
import fake_redis
import pytest
from cost import settled

from proxyherd.config.address import Address
from proxyherd.config.herd_file import Server
from proxyherd.core.handshake import State
from proxyherd.core.link import BEAT
from proxyherd.core.news import News
from proxyherd.core.notes import LinkDown, LinkFailed
from proxyherd.core.peer_messages import (
    AskDigests,
    AskLeaf,
    AskRange,
    BatchHeader,
    Changed,
    Clock,
    Digests,
    Done,
    write_message,
)
from proxyherd.engines.herd.peers import PeerConnection

CID = Server(
    name="Cid",
    addresses={"peers": (Address("cid.example", 7), Address("192.0.2.9", 8))},
    neighbours=("Bob",),
)


def play(folder: Path, body: Callable[[cost.BareServer, Any], Coroutine[Any, Any, Any]]) -> Any:
    """Run a body with the server of tests/support/cost.py, Bob, and his peers; he has Cid for a neighbour, too."""
    server = cost.BareServer(folder)

    async def run() -> Any:
        server.assemble()
        peers = cast("Any", server.daemon._backend).peers
        peers._herd.servers["Cid"] = CID
        cast("Any", server.daemon._backend)._node.start(0.0)
        try:
            return await body(server, peers)
        finally:
            server.daemon._clients._sweeper.cancel()

    try:
        return fake_redis.run(run())
    finally:
        server._log.close()


class Watched(cost.Transport):
    """A connection that says what was done with it."""

    def __init__(self, *, can_half_close: bool = True) -> None:
        super().__init__(1)
        self.done: list[str] = []
        self.waits = 0
        self.closing = False
        self._can_half_close = can_half_close

    def get_write_buffer_size(self) -> int:
        return self.waits

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return self._can_half_close

    def write_eof(self) -> None:
        self.done.append("eof")

    def close(self) -> None:
        self.done.append("close")
        self.closing = True

    def abort(self) -> None:
        self.done.append("abort")
        self.closing = True

    def pause_reading(self) -> None:
        self.done.append("pause")

    def resume_reading(self) -> None:
        self.done.append("resume")


class Network:
    """Answers each dial by its host: an error, silence, or a connection whose life is scripted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): hosts for name, hosts in names.items()}
        self.dialled: list[tuple[str, int]] = []
        self.tls: list[dict[str, Any]] = []
        self.made: dict[str, Callable[[PeerConnection], None]] = {}
        self.errors: dict[str, Exception] = {}
        self.transports: list[Watched] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", self.getaddrinfo)
        monkeypatch.setattr(loop, "create_connection", self.create_connection)

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[Any]:
        hosts = self.names.get(host, [host])
        if not hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if hosts == ["silence"]:
            await asyncio.sleep(1_000)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in hosts]

    async def create_connection(
        self, protocol: Callable[[], PeerConnection], host: str, port: int, **tls: Any
    ) -> None:
        self.dialled.append((host, port))
        self.tls.append(tls)
        if host in self.errors:
            raise self.errors[host]
        if host not in self.made:
            await asyncio.sleep(1_000)
        connection = protocol()
        self.transports.append(Watched())
        connection.connection_made(cast("asyncio.Transport", self.transports[-1]))
        self.made[host](connection)


def told(peers: Any) -> list[Any]:
    notes, peers.node.notes = peers.node.notes, []
    return cast("list[Any]", notes)


# Dialling. -----------------------------------------------------------------------------------------------------


def test_every_address_of_a_neighbour_is_dialled_once_in_turn_and_all_failures_are_told_together_in_one_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(_: cost.BareServer, peers: Any) -> None:
        network = Network(monkeypatch, cid_example=["192.0.2.2", "192.0.2.1", "192.0.2.2"])
        network.errors["192.0.2.1"] = ConnectionRefusedError(111, "Connection refused")
        began = peers.loop.time()
        assert await peers._visit("Cid") == 0.0
        assert peers.loop.time() - began == pytest.approx(2 * 1.5)
        assert network.dialled == [("192.0.2.2", 7), ("192.0.2.1", 7), ("192.0.2.9", 8)]
        assert network.tls == [{}, {}, {}]
        (note,) = told(peers)
        assert (note.neighbour, note.dialled) == ("Cid", True)
        assert note.reason.split("; ") == [
            "192.0.2.9:8: no connection within 1.5 s",
            "cid.example:7 (192.0.2.1): Connection refused",
            "cid.example:7 (192.0.2.2): no connection within 1.5 s",
        ]
        assert not peers.connections

    play(tmp_path, body)


@pytest.mark.parametrize(
    ("hosts", "seconds", "why"),
    [([], 0.0, "Name or service not known"), (["silence"], 1.5, "no connection within")],
)
def test_a_name_that_cannot_be_looked_up_does_not_keep_the_next_address_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: list[str], seconds: float, why: str
) -> None:
    async def body(_: cost.BareServer, peers: Any) -> None:
        network = Network(monkeypatch, cid_example=hosts)
        network.errors["192.0.2.9"] = OSError(113, "No route to host")
        began = peers.loop.time()
        assert await peers._visit("Cid") == 0.0
        assert peers.loop.time() - began == pytest.approx(seconds)
        assert network.dialled == [("192.0.2.9", 8)]
        (note,) = told(peers)
        assert note.reason.startswith("192.0.2.9:8: No route to host; cid.example:7: ")
        assert why in note.reason

    play(tmp_path, body)


@pytest.mark.parametrize("proved", [True, False])
def test_a_visit_ends_with_the_link_that_was_live_and_goes_on_to_the_next_address_after_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, proved: bool
) -> None:
    async def body(_: cost.BareServer, peers: Any) -> None:
        def made(connection: PeerConnection) -> None:
            def end() -> None:
                connection.link.proved = proved
                connection.connection_lost(None)

            peers.loop.call_later(4.0, end)

        network = Network(monkeypatch, cid_example=["192.0.2.1"])
        network.made["192.0.2.1"] = made
        network.errors["192.0.2.9"] = OSError(113, "No route to host")
        lasted = await peers._visit("Cid")
        assert lasted == pytest.approx(4.0 if proved else 0.0)
        assert len(network.dialled) == (1 if proved else 2)
        assert not peers.connections
        reasons = [note.reason for note in told(peers) if isinstance(note, LinkFailed)]
        assert ("192.0.2.9:8: No route to host" in reasons) == (not proved)

    play(tmp_path, body)


def test_with_tls_the_other_must_be_who_is_meant_within_the_time_of_a_handshake_also_after_certificates_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(_: cost.BareServer, peers: Any) -> None:
        network = Network(monkeypatch, cid_example=[])
        network.errors["192.0.2.9"] = OSError(113, "No route to host")
        renewed: list[object] = []
        monkeypatch.setattr(peers.listener, "renew", renewed.append)
        for context in (object(), object()):

            class Contexts:
                dialling = context
                peers = "for the listener"

            peers.renew(peers.terms, Contexts())
            await peers._visit("Cid")
            assert network.tls.pop() == {
                "ssl": context,
                "server_hostname": "Cid",
                "ssl_handshake_timeout": 1.5,
                "ssl_shutdown_timeout": 1.5,
            }
        assert renewed == ["for the listener"] * 2

    play(tmp_path, body)


def test_a_link_whose_certificate_is_revoked_is_told_of_nothing_any_more(tmp_path: Path) -> None:
    class Contexts:
        dialling = peers = None

        def shows_revoked(self, transport: object) -> bool:
            return True

    async def body(server: cost.BareServer, peers: Any) -> None:
        connection, _ = await server.link("Ann", Watched())
        told(peers)
        peers.renew(peers.terms, Contexts())
        assert connection.link.state is State.CLOSED
        assert [*peers.node.linked] == []
        assert told(peers) == [LinkDown("Ann", connection.link.reason)]
        await settled()
        assert told(peers) == [], "that is told once"

    play(tmp_path, body)


# What a link has to say. ---------------------------------------------------------------------------------------


def test_a_neighbour_that_does_not_read_is_let_go_past_peer_queue_bytes_and_no_earlier(
    tmp_path: Path,
) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        transport = Watched()
        connection, _ = await server.link("Ann", transport)
        told(peers)
        for waits, done in (
            (peers.limits.peer_queue_bytes, []),
            (peers.limits.peer_queue_bytes + 1, ["abort"]),
        ):
            transport.waits = waits
            server.clients[0][0].data_received(cost.report(1, waits) + b"\n")
            await settled()
            assert transport.done == done
        assert connection.link.state is State.CLOSED

    play(tmp_path, body)


def test_a_connection_that_closes_is_written_to_no_more(tmp_path: Path) -> None:
    async def body(server: cost.BareServer, _: Any) -> None:
        transport = Watched()
        await server.link("Ann", transport)
        transport.take()
        transport.closing = True
        server.clients[0][0].data_received(cost.report(1, 1) + b"\n")
        await settled()
        assert transport.take() == b""

    play(tmp_path, body)


def test_a_neighbour_that_says_more_than_is_learned_is_read_on_when_it_has_been(tmp_path: Path) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        transport = Watched()
        connection, _ = await server.link("Ann", transport)
        most = 262_144 + peers.terms.line_bytes
        lines = b"".join(cost.update(client, 1) for client in range(4_000))
        connection.data_received(lines[:most])
        assert transport.done == []
        connection.data_received(lines[most : most + 1])
        connection.data_received(lines[most + 1 :])
        assert transport.done == ["pause"], "asked for once"
        await settled()
        for _ in range(100):
            await asyncio.sleep(0)
        assert transport.done == ["pause", "resume"]
        assert len(cast("Any", server.daemon._backend).table) == 4_000
        connection.data_received(cost.updates(2) * 40)
        assert transport.done == ["pause", "resume", "pause"]

    play(tmp_path, body)


@pytest.mark.parametrize("error", [None, ConnectionResetError(104, "Connection reset by peer")])
def test_the_end_of_a_connection_is_told_once_with_its_reason_and_what_came_before_it_is_learned(
    tmp_path: Path, error: Exception | None
) -> None:
    async def body(server: cost.BareServer, peers: Any) -> list[Any]:
        connection, _ = await server.link("Ann", Watched())
        told(peers)
        down: list[Any] = []
        real = server.daemon._observer.note

        def note(notes: Any) -> None:
            down.extend(notes)
            real(notes)

        server.daemon._observer.note = note  # type: ignore[method-assign]
        connection.data_received(cost.update(7, 1))
        connection.connection_lost(error)
        connection.connection_lost(error)
        await settled()
        assert len(cast("Any", server.daemon._backend).table) == 1
        assert connection.ended.result() is True
        assert connection not in peers.connections
        return [note for note in down if isinstance(note, LinkDown)]

    (note,) = play(tmp_path, body)
    assert note.neighbour == "Ann"
    assert ("connection broke: " in note.reason) == (error is not None)
    assert note.reason


@pytest.mark.parametrize(("half", "done"), [(True, ["eof", "resume"]), (False, ["close"])])
def test_a_server_that_parts_says_so_and_waits_for_the_other_to_close(
    tmp_path: Path, *, half: bool, done: list[str]
) -> None:
    """Inside TLS nothing can be half closed."""

    async def body(server: cost.BareServer, peers: Any) -> None:
        transport = Watched(can_half_close=half)
        connection, _ = await server.link("Ann", transport)
        stranger = Watched()
        PeerConnection(peers, None).connection_made(cast("asyncio.Transport", stranger))
        await settled()
        assert peers.strangers == 1
        assert peers.linger
        connection._reading = False  # it has said more than was heard
        peers.part()
        await settled()
        assert transport.done == done
        assert stranger.done == ["close"]
        peers.engine.wake()
        await settled()
        assert transport.done.count("resume") == done.count("resume"), "once"
        connection.connection_lost(None)
        await settled()
        assert not peers.linger

    play(tmp_path, body)


def test_a_connection_that_is_given_up_is_gone_at_once_and_only_once(tmp_path: Path) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        transport = Watched()
        connection, _ = await server.link("Ann", transport)
        connection.give_up("why")
        assert transport.done == ["abort"]
        assert connection not in peers.connections
        assert connection.unsent == 0
        connection.give_up("why")
        connection.connection_lost(None)
        await settled()
        assert transport.done == ["abort"]

    play(tmp_path, body)


def test_where_the_other_is_no_internet_address_nobody_is_known_by_it(tmp_path: Path) -> None:
    async def body(_: cost.BareServer, peers: Any) -> None:
        transport = Watched()
        transport._address = cast("Any", "")
        connection = PeerConnection(peers, None)
        connection.connection_made(cast("asyncio.Transport", transport))
        assert connection.host == ""

    play(tmp_path, body)


def test_a_connection_that_cannot_be_served_is_ended_at_once_and_the_fault_is_logged(tmp_path: Path) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        transport = Watched()
        connection, _ = await server.link("Ann", transport)
        connection.fail(ValueError("why"))
        assert transport.done == ["abort"]
        assert connection not in peers.connections
        await settled()

    play(tmp_path, body)
    log = (tmp_path / "log").read_text()
    assert "the connection with Ann cannot be served" in log
    assert "ValueError: why" in log


def test_a_connection_that_was_half_made_when_its_time_was_over_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a TLS handshake that never ends; uvloop would tell its protocol nothing more."""

    async def body(_: cost.BareServer, peers: Any) -> None:
        network = Network(monkeypatch, cid_example=[])

        async def half(protocol: Callable[[], PeerConnection], *_: object, **__: object) -> None:
            network.transports.append(Watched())
            protocol().connection_made(cast("asyncio.Transport", network.transports[-1]))
            await asyncio.sleep(1_000)

        monkeypatch.setattr(peers.loop, "create_connection", half)
        assert await peers._visit("Cid") == 0.0
        assert [transport.done for transport in network.transports] == [["abort"]]
        assert [note.dialled for note in told(peers)] == [True], "it is told once"
        assert not peers.connections

    play(tmp_path, body)


# Whom a server dials and takes, and what it tells. -------------------------------------------------------------


def test_a_server_dials_its_neighbours_that_sort_behind_it_and_looks_names_up_each_compare_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(_: cost.BareServer, peers: Any) -> None:
        peers._server = Server(name="Bob", addresses={}, neighbours=("Ann", "Cid", "Boba", "Abe"))
        begun: list[object] = []

        async def for_ever(what: object) -> None:
            begun.append(what)
            await asyncio.sleep(1_000)

        monkeypatch.setattr(peers, "_keep_dialling", for_ever)
        monkeypatch.setattr(peers._hosts, "keep_looking_up", for_ever)
        peers.dial()
        await settled()
        assert begun == [peers._herd.timing.compare_seconds, "Cid", "Boba"]
        peers.part()
        await settled()
        assert all(task.cancelled() for task in peers._dialling)

    play(tmp_path, body)


def test_as_many_tls_handshakes_are_under_way_as_there_is_room_for_strangers(tmp_path: Path) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        most = peers.limits.max_peer_connections
        listener = peers.listener
        assert listener._room() == most
        for _ in range(3):
            PeerConnection(peers, None).connection_made(cast("asyncio.Transport", Watched()))
        PeerConnection(peers, "Ann").connection_made(cast("asyncio.Transport", Watched()))
        await server.link("Ann", Watched())
        assert peers.strangers == 3, "neither who was dialled nor who has proved itself is one"
        assert listener._room() == most - 3
        assert listener._handshake_seconds == listener._shutdown_seconds == 1.5

    play(tmp_path, body)


def test_what_is_told_of_connections_that_came_to_nothing_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(_: cost.BareServer, peers: Any) -> None:
        woken: list[bool] = []
        monkeypatch.setattr(peers.engine, "wake", lambda: woken.append(True))
        peers._refused("203.0.113.1", "tls", "it speaks plain")
        assert told(peers) == [
            LinkFailed(None, dialled=False, reason="it speaks plain", address="203.0.113.1")
        ]
        assert woken == [True]
        failures = ["b", "a"]
        peers._unreachable("Cid", failures)
        assert told(peers) == [LinkFailed("Cid", dialled=True, reason="a; b")]
        assert woken == [True, True]
        assert failures == [], "and once"
        peers._unreachable("Cid", failures)
        assert told(peers) == []
        assert len(woken) == 2

    play(tmp_path, body)


@pytest.mark.parametrize("dial", ["Cid", None])
@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("proving", [True, False])
def test_who_dials_with_tls_and_is_closed_before_a_word_is_told_to_think_of_its_certificate(
    tmp_path: Path, *, dial: str | None, tls: bool, proving: bool
) -> None:
    class WithTls(Watched):
        def get_extra_info(self, name: str) -> Any:
            certificate = {"subjectAltName": [("DNS", "Cid"), ("IP Address", "192.0.2.9")]}
            return {"ssl_object": tls or None, "peercert": certificate}.get(name)

    async def body(_: cost.BareServer, peers: Any) -> None:
        connection = PeerConnection(peers, dial)
        connection.connection_made(cast("asyncio.Transport", WithTls()))
        assert connection.link.certified == (frozenset({"Cid"}) if tls else None)
        assert connection.link.dialled == (dial is not None)
        if proving:
            connection.link.state = State.PROVING
        connection.connection_lost(None)
        connection.heard()
        if dial and tls and not proving:
            assert "did it take this server's certificate? see its log" in connection.link.reason
        else:
            assert connection.link.reason.startswith("closed by the other while waiting for")
        assert connection.ended.result() is False

    play(tmp_path, body)


def test_a_stranger_is_one_until_its_link_is_live_or_over(tmp_path: Path) -> None:
    async def body(_: cost.BareServer, peers: Any) -> None:
        connection = PeerConnection(peers, None)
        connection.connection_made(cast("asyncio.Transport", Watched()))
        found = []
        for state in State:
            connection.link.state = state
            found.append((state, connection.is_stranger))
        assert [state for state, is_stranger in found if is_stranger] == [State.HELLO, State.PROVING]

    play(tmp_path, body)


def test_a_link_whose_time_is_up_is_told_and_lets_everybody_know_that_time_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        connection, _ = await server.link("Ann", Watched())
        told(peers)
        passed: list[object] = []

        def tick(now: float) -> float:
            passed.append(now)
            return now

        monkeypatch.setattr(peers.node, "tick", tick)
        monkeypatch.setattr(peers.engine, "beat", lambda _: passed.append("beat"))
        now = peers.loop.time() + 60
        peers.tick(now)
        assert passed == [now, "beat"]
        assert connection.link.state is State.CLOSED
        (note,) = told(peers)
        assert isinstance(note, LinkDown)
        assert note.reason.startswith("silent for")

    play(tmp_path, body)


def test_a_server_that_parts_tells_that_it_stops_and_has_no_links_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        await server.link("Ann", Watched())
        told(peers)
        woken: list[bool] = []
        with monkeypatch.context() as patch:
            patch.setattr(peers.engine, "wake", lambda: woken.append(True))
            peers.part()
        assert told(peers) == [LinkDown("Ann", "server stops")]
        assert [*peers.node.linked] == []
        assert woken
        assert peers.listener._closed

    play(tmp_path, body)


@pytest.mark.parametrize(
    ("unsent", "out", "spare", "news", "seconds"),
    [
        (0, 0, 0, 0, 0.0),
        (1, 0, 0, 0, 3.0),
        (0, 1, 0, 0, 3.0),
        (0, 0, 1, 0, 3.0),
        (0, 0, 0, 1, 3.0),
        (2, 4, 3, 0, 3.0),
    ],
)
def test_neighbours_have_until_the_deadline_to_read_what_they_were_sent(
    tmp_path: Path, unsent: int, out: int, spare: int, news: int, seconds: float
) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        transport = Watched()
        connection, _ = await server.link("Ann", transport)
        PeerConnection(peers, "Cid")  # it has no connection yet
        transport.waits = unsent
        connection.link.out += [b"A"] * out
        connection.link.spare += [b"A"] * spare
        peers.node.news += [News(b"kiwi", b"A", None)] * news
        assert peers.unsent == unsent + out + spare
        began = peers.loop.time()
        await peers.flush(began + 3.0)
        assert peers.loop.time() - began == pytest.approx(seconds, abs=0.011)

    play(tmp_path, body)


def test_heartbeats_of_all_links_are_sent_together_at_each_multiple_of_a_heartbeat(tmp_path: Path) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        beat = peers.terms.heartbeat
        links = [await server.link(name) for name in ("Abe", "Ann")]
        began = asyncio.get_running_loop().time()
        assert began % beat == 0
        (left, left_wire), (right, right_wire) = links
        left.link._spoke, right.link._spoke = began, began + beat / 4
        for _, wire in links:
            wire.take()

        due = 0.0

        def beats(after: float) -> tuple[bytes, bytes]:
            nonlocal due
            for connection, _ in links:
                connection.link.receive_data(b"", began + after * beat)  # neither is silent
            due = peers.tick(began + after * beat)
            return left_wire.take(), right_wire.take()

        assert beats(0.75) == (b"", b"")
        assert beats(1.01) == (b"BEAT\n", b"BEAT\n")
        left.link._spoke += beat * 0.7  # it has said something
        assert beats(1.75) == (b"", b"")
        assert beats(2.0) == (b"BEAT\n", b"BEAT\n")
        left.link._spoke += beat * 0.8
        assert beats(3.0) == (b"", b"BEAT\n")
        assert due <= began + beat * 3.8
        assert beats(3.75) == (b"BEAT\n", b"")

    play(tmp_path, body)


# Links that doze. ----------------------------------------------------------------------------------------------


class Water:
    """A socket whose mark the test sees, and in which it puts what waits."""

    def __init__(self) -> None:
        self.mark = 0
        self.waits = b""
        self.arrived = 0.0
        self.asked = 0  # how often for their age
        self.error: OSError | None = None

    @property
    def is_up(self) -> bool:
        return self.mark > 0

    def rise(self, mark: int) -> None:
        self.mark = mark

    def drop(self) -> None:
        self.mark = 0

    def take(self) -> bytes:
        if self.error is not None:
            raise self.error
        waits, self.waits = self.waits, b""
        return waits

    def age(self) -> float:
        self.asked += 1
        return asyncio.get_running_loop().time() - self.arrived


async def dozing(server: cost.BareServer, peers: Any) -> tuple[PeerConnection, Water, Watched]:
    """Return a link whose neighbour has sent a heartbeat, and nothing else since the last tick."""
    transport, water = Watched(), Water()
    connection, _ = await server.link("Ann", transport)
    connection._water = cast("Any", water)
    peers.tick(peers.loop.time())
    assert not water.mark
    connection.data_received(b"BEAT\n")
    assert not water.mark
    peers.tick(peers.loop.time())
    assert water.mark == len(b"BEAT\n")
    told(peers)
    transport.take()
    return connection, water, transport


@pytest.mark.parametrize(
    ("data", "dozes"),
    [
        (b"BEAT\n", True),
        (b"BEAT\nBEAT\n", True),
        (cost.update(1, 1), False),
        (cost.update(1, 1)[:-4], False),
        (b"BEAT\nDONE\n", False),
        (b"B", False),
    ],
)
@pytest.mark.parametrize("wakes", [True, False])
def test_a_link_dozes_while_only_heartbeats_come_and_is_roused_by_all_else_until_one_comes_alone(
    tmp_path: Path, data: bytes, *, dozes: bool, wakes: bool
) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        connection, water, _ = await dozing(server, peers)
        if wakes:
            connection.data_received(data)
        else:
            water.waits = data
        peers.tick(peers.loop.time())
        assert bool(water.mark) == dozes
        await settled()
        if not dozes and connection.link.state is State.LIVE and data.endswith(b"\n"):
            peers.tick(peers.loop.time())
            assert not water.mark
            connection.data_received(b"BEAT\n")
            peers.tick(peers.loop.time())
            assert water.mark

    play(tmp_path, body)


def test_what_a_dozing_link_has_taken_is_handled_as_what_arrives(tmp_path: Path) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        _, water, _ = await dozing(server, peers)
        water.waits = b"BEAT\n" + cost.update(1, 1)
        peers.tick(peers.loop.time())
        await settled()
        assert [client for client, _ in peers.node.table] == [cost.update(1, 1).split()[3]]

    play(tmp_path, body)


def test_a_dozing_link_is_silent_from_when_its_last_heartbeat_arrived_and_not_from_when_it_was_read(
    tmp_path: Path,
) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        connection, water, _ = await dozing(server, peers)
        beat, began = peers.terms.heartbeat, peers.loop.time()
        water.waits, water.arrived = b"BEAT\n", began + 0.1 * beat
        for quarters, state in ((4, State.LIVE), (8, State.LIVE), (12, State.LIVE), (13, State.CLOSED)):
            cast("Any", peers.loop)._jumping.now = began + quarters / 4 * beat
            due = peers.tick(peers.loop.time())
            assert connection.link.state is state, quarters
            assert bool(water.asked) == (quarters > 8), (
                "only if it has been silent for longer than a heartbeat"
            )
            if quarters == 12:
                assert due <= began + 3.1 * beat

    play(tmp_path, body)


def test_a_dozing_link_whose_connection_fails_ends_with_the_reason_behind_what_it_has_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        connection, water, transport = await dozing(server, peers)
        water.error = ConnectionResetError(104, "Connection reset by peer")
        notes: list[Any] = []
        monkeypatch.setattr(peers.observer, "note", notes.extend)
        connection.data_received(cost.update(1, 1) + b"DIGESTS -\n")  # which waits for a turn
        water.mark = len(BEAT)  # so that the next tick reads the socket
        peers.tick(peers.loop.time())
        assert transport.done == ["abort"]
        connection.connection_lost(None)  # what an abort brings
        await settled()
        assert connection.link.state is State.CLOSED
        assert connection.ended.result()
        (note,) = [one for one in notes if isinstance(one, LinkDown)]
        assert note.reason == "connection broke: Connection reset by peer"
        assert [client for client, _ in peers.node.table] == [cost.update(1, 1).split()[3]]

    play(tmp_path, body)


SMALLEST: dict[type, Any] = {
    AskDigests: AskDigests(""),
    Digests: Digests("", [0] * 16),
    AskLeaf: AskLeaf(0, frozenset()),
    AskRange: AskRange(0, 0),
    BatchHeader: BatchHeader(0, 0, 0),
    Done: Done(),
    Changed: Changed(),
    Clock: Clock(0),
}


def test_only_heartbeats_and_the_end_of_a_walk_fit_under_the_mark() -> None:
    """There is no mark during a walk. An AT line is longer."""
    assert {*get_args(get_type_hints(write_message)["message"])} == SMALLEST.keys()
    assert [one for one in SMALLEST if len(write_message(SMALLEST[one])) <= len(BEAT)] == [Done]


def test_a_link_does_not_doze_while_its_neighbour_walks(tmp_path: Path) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        connection, water, _ = await dozing(server, peers)

        def dozes() -> bool:
            """Whether it does after a heartbeat that comes alone."""
            connection.data_received(BEAT)
            peers.tick(peers.loop.time())
            return water.is_up

        for _ in range(2):  # also when they compare again
            for request in (b"DIGESTS -\n", b"LEAF 0 -\n", b"RANGE 0 1\n"):
                connection.data_received(request)
                assert not dozes(), "no turn has handled it"
                await settled()
                assert not dozes()
            connection.data_received(b"DONE\n")
            await settled()
            assert dozes()

    play(tmp_path, body)


@pytest.mark.parametrize("gone", ["closing", "lost"])
def test_a_socket_that_is_closed_or_closes_is_left_alone(tmp_path: Path, gone: str) -> None:
    """Its number may be another one's by now."""

    async def body(server: cost.BareServer, peers: Any) -> None:
        connection, water, transport = await dozing(server, peers)
        water.error = OSError(9, "Bad file descriptor")
        if gone == "closing":
            transport.closing = True
        else:
            connection._transport = None
        peers.tick(peers.loop.time())
        assert connection.link.state is State.LIVE

    play(tmp_path, body)


def test_a_link_that_says_goodbye_reads_all_that_comes(tmp_path: Path) -> None:
    async def body(server: cost.BareServer, peers: Any) -> None:
        _, water, transport = await dozing(server, peers)
        peers.part()
        await settled()
        assert transport.done == ["eof"]
        assert not water.mark

    play(tmp_path, body)
