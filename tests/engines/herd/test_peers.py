"""Sockets under the peer links: when neighbours are dialled, for how long, who is let go first, and how links end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import cost
import fake_redis
import pytest
from cost import report, settled

from proxyherd.admin.status_page import others
from proxyherd.config.address import Address
from proxyherd.config.schema import PlacesSettings, RedisSettings, Timing
from proxyherd.engines.herd.neighbour_hosts import NeighbourHosts, canonical
from proxyherd.engines.herd.peers import PeerConnection
from proxyherd.remote import polling

# When, and for how long. ------------------------------------------------------------------------------------------

SYN_SENT_AGAIN = (1.0, 3.0, 7.0)
"""Seconds after which Linux sends a SYN again that was not answered (tcp(7), tcp_syn_retries; RFC 6298)."""


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("handshake_seconds", Timing().handshake_seconds),
        ("redis.timeout_seconds", RedisSettings(nodes=("10.0.0.1:6379",)).timeout_seconds),
        ("places.attempt_seconds", PlacesSettings().attempt_seconds),
        ("status", polling.DEADLINE_SECONDS),
        ("status page", others.STATE_SECONDS),
    ],
)
def test_the_time_to_connect_does_not_end_just_when_a_lost_syn_is_sent_again(
    name: str, seconds: float
) -> None:
    """Else the connection is made at the very moment at which it is given up, and is of no use to anybody."""
    assert all(abs(seconds - moment) > 0.15 for moment in SYN_SENT_AGAIN), name


@contextlib.contextmanager
def bob(folder: Path) -> Iterator[cost.BareServer]:
    """The server of tests/support/cost.py: Abe and Ann dial it."""
    server = cost.BareServer(folder)
    try:
        yield server
    finally:
        server._log.close()


def peers_of(server: cost.BareServer) -> Any:
    return cast("Any", server.daemon._backend).peers


def pauses(seconds: list[float], folder: Path) -> list[float]:
    """Dial a neighbour whose links last so many seconds each; return the pauses before each dial but the first."""
    began: list[float] = []
    ended: list[float] = []

    async def body(server: cost.BareServer) -> None:
        server.assemble()
        loop = asyncio.get_running_loop()
        lives = iter(seconds)

        async def visit(_: str) -> float:
            began.append(loop.time())
            life = next(lives, None)
            if life is None:
                raise asyncio.CancelledError
            await asyncio.sleep(life)
            ended.append(loop.time())
            return life

        peers = peers_of(server)
        peers._visit = visit
        with contextlib.suppress(asyncio.CancelledError):
            await peers._keep_dialling("Cid")
        server.daemon._clients._sweeper.cancel()

    with bob(folder) as server:
        fake_redis.run(body(server))
    return [dial - end for end, dial in zip(ended, began[1:], strict=True)]


def test_a_neighbour_that_is_away_is_dialled_after_pauses_that_double_from_a_twentieth_of_a_second(
    tmp_path: Path,
) -> None:
    found = pauses([0.0] * 9, tmp_path)
    assert len(found) == 9
    for number, pause in enumerate(found):
        whole = min(0.05 * 2**number, 1.0)
        assert whole / 2 <= pause <= whole * 1.000_001, number
    assert len(set(found)) == 9, "they are jittered"
    other = tmp_path / "other"
    other.mkdir()
    assert set(found).isdisjoint(pauses([0.0] * 9, other)), "and those of two servers differ"


def test_after_a_link_that_lasted_a_neighbour_is_dialled_at_once_and_then_after_a_short_pause(
    tmp_path: Path,
) -> None:
    found = pauses([0.0, 0.0, 0.0, 0.0, 0.9, 1.1, 0.0, 0.0], tmp_path)
    assert found[4] >= 0.4, "a link that did not last is a failure too"
    assert found[5] == 0.0
    assert 0.025 <= found[6] <= 0.050_001
    assert 0.05 <= found[7] <= 0.1


# Strangers. -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "spelled"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("bailey.example", "bailey.example"),
        ("", ""),
    ],
)
def test_an_address_has_one_spelling(host: str, spelled: str) -> None:
    assert canonical(host) == spelled


class NameServers:
    """Know some names, until they fall silent."""

    def __init__(self, **known: str) -> None:
        self.known = {name.replace("_", "."): host for name, host in known.items()}

    async def getaddrinfo(self, host: str, _: object, **__: object) -> list[Any]:
        if host not in self.known:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.known[host], 0))]


def test_neighbours_that_the_file_names_are_known_by_their_addresses_and_stay_so_while_names_servers_are_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers = NameServers(ann_example="192.0.2.7", abe_example="::ffff:192.0.2.8")

    async def body() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", servers.getaddrinfo)
        hosts = NeighbourHosts(
            Address(host, 1) for host in ("ann.example", "abe.example", "bob.example", "198.51.100.1")
        )
        assert "198.51.100.1" in hosts
        assert "192.0.2.7" not in hosts
        task = asyncio.ensure_future(hosts.keep_looking_up(30))
        await asyncio.sleep(1)
        for known in ("192.0.2.7", "192.0.2.8", "::ffff:192.0.2.7", "198.51.100.1"):
            assert canonical(known) in hosts
        assert "192.0.2.9" not in hosts
        servers.known = {"ann.example": "192.0.2.9"}
        await asyncio.sleep(30)
        assert "192.0.2.9" in hosts, "a name may come to stand for another address"
        assert "192.0.2.7" not in hosts
        assert "192.0.2.8" in hosts, "what the name servers said last"
        task.cancel()

    fake_redis.run(body())


def test_where_all_are_addresses_already_nothing_is_looked_up() -> None:
    hosts = NeighbourHosts([Address("192.0.2.7", 1), Address("::1", 1)])
    fake_redis.run(asyncio.wait_for(hosts.keep_looking_up(30), 1))


class From(cost.Transport):
    """A connection that comes from an address."""

    def __init__(self, host: str) -> None:
        super().__init__(1)
        self._address = (host, 1)
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_strangers_push_out_the_oldest_of_them_before_one_that_comes_from_a_neighbours_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(server: cost.BareServer) -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", NameServers(ann_example="192.0.2.7").getaddrinfo)
        server.assemble()
        peers = peers_of(server)
        peers._hosts = NeighbourHosts([Address("ann.example", 1)])
        peers.dial()
        await asyncio.sleep(0.01)
        most = peers.limits.max_peer_connections
        transports = [From(host) for host in ("192.0.2.7", *["203.0.113.1"] * (most + 1))]
        for transport in transports:
            PeerConnection(peers, None).connection_made(cast("asyncio.Transport", transport))
            await asyncio.sleep(0.001)  # each is younger than the one before
        assert [transport.closed for transport in transports] == [False, True, True] + [False] * (most - 1)
        for task in peers._dialling:
            task.cancel()
        server.daemon._clients._sweeper.cancel()

    with bob(tmp_path) as server:
        fake_redis.run(body(server))


# The end. ---------------------------------------------------------------------------------------------------------


class Slow(cost.Transport):
    """A neighbour that reads so many bytes a second, and closes when it has read all to the end."""

    def __init__(self, bytes_a_second: float) -> None:
        super().__init__(1)
        self._rate = bytes_a_second
        self._loop = asyncio.get_running_loop()
        self._empty_at = 0.0  # when it has read all that was written
        self.write = self._write
        self.connection: Any = None
        self.unsent_at_the_end: int | None = None

    def _write(self, data: bytes) -> None:
        self.written.append(data)
        self._empty_at = max(self._empty_at, self._loop.time()) + len(data) / self._rate

    def get_write_buffer_size(self) -> int:
        return int(max(0.0, self._empty_at - self._loop.time()) * self._rate)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.unsent_at_the_end = self.get_write_buffer_size()
        self._loop.call_at(self._empty_at, self.connection.connection_lost, None)


def parting(seconds: float, folder: Path) -> tuple[Slow, float]:
    """Stop a server whose neighbour takes so many seconds to read what it was sent; return how long it took."""

    async def body(server: cost.BareServer) -> tuple[Slow, float]:
        server.assemble()
        loop, daemon = asyncio.get_running_loop(), server.daemon
        transport = Slow(1e9)
        transport.connection, _ = await server.link("Ann", transport)
        transport.take()
        client, _ = server.clients[0]
        line = report(1, 5)
        transport._rate = 100 / seconds
        client.data_received(line + b"\n")
        await settled()
        assert transport.get_write_buffer_size()
        for connection, _ in server.clients:
            connection.connection_lost(None)
        daemon._ticker = loop.call_later(0.1, lambda: None)
        backend = cast("Any", daemon._backend)
        backend._durability.close = partial(
            asyncio.sleep, 0
        )  # it syncs in a thread, for which this clock does not wait
        began = loop.time()
        await daemon._drain()
        return transport, loop.time() - began

    with bob(folder) as server:
        found: tuple[Slow, float] = fake_redis.run(body(server))
        return found


def test_a_server_that_stops_lets_its_neighbours_read_what_they_were_sent_before_it_parts(
    tmp_path: Path,
) -> None:
    transport, took = parting(3.0, tmp_path)
    assert b"client0001" in transport.take()
    assert transport.unsent_at_the_end == 0
    assert 2.0 < took < Timing().drain_seconds


def test_a_server_that_stops_waits_for_a_neighbour_that_does_not_read_no_longer_than_drain_seconds(
    tmp_path: Path,
) -> None:
    transport, took = parting(1_000.0, tmp_path)
    assert transport.unsent_at_the_end
    timing = Timing()
    assert took == pytest.approx(timing.drain_seconds + 3 * timing.heartbeat_seconds, abs=0.1)
