"""Clients that ask too fast wait, over real sockets; nothing is lost, and whoever is not counted waits for nobody."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from listening import Listening, rates, read_all, run, until

from proxyherd.config.rates import RateSettings
from proxyherd.core.buckets import PAY_COMMANDS
from proxyherd.core.sizes import SIZES

LINES = 640


async def open_from(host: str, port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((host, 0))
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


@pytest.mark.parametrize("limit", ["connection", "address"])
def test_a_flood_is_answered_whole_and_in_order_but_no_faster_than_the_rate(
    limit: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        few = rates(**{f"commands_per_{limit}": 1_000.0})
        with Listening(tmp_path, few) as listening:
            loop = asyncio.get_running_loop()
            sock = await open_from("127.0.0.1", await listening.port())
            began = loop.time()
            sent = b"".join(b"%d\n" % number for number in range(LINES))
            await loop.sock_sendall(sock, sent)
            sock.shutdown(socket.SHUT_WR)
            assert await read_all(sock) == b"".join(b"? %b\n" % line for line in sent.splitlines())
            free = 100 + PAY_COMMANDS + SIZES.client_lines
            assert loop.time() - began > (LINES - free) / 1_000
            assert listening.value("proxyherd_client_waits_total", limit=limit) >= 2
            assert listening.value("proxyherd_clients_over_rate") == 0
            [event] = listening.events("client_over_rate")
            assert (event["limit"], event["via"]) == (limit, "lines")
            assert 0 < event["seconds"] < 0.2
            sock.close()

    run(scenario())


def test_what_a_client_over_its_rate_sends_stays_in_the_socket_and_other_connections_do_not_wait(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        with Listening(tmp_path, rates(commands_per_connection=1.0)) as listening:
            loop = asyncio.get_running_loop()
            port = await listening.port()
            flooder = await open_from("127.0.0.1", port)
            sending = loop.create_task(loop.sock_sendall(flooder, b"x\n" * (8 << 20)))
            await until(lambda: listening.value("proxyherd_clients_over_rate") == 1)
            [connection] = listening.connections
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(sending), 0.1)
            assert not connection._reading
            assert connection._conversation._framer.waiting < 1 << 20  # type: ignore[attr-defined] # a Conversation
            other = await open_from("127.0.0.1", port)
            await loop.sock_sendall(other, b"FOO\n")
            assert await loop.sock_recv(other, 100) == b"? FOO\n"
            sending.cancel()
            flooder.close()
            other.close()

    run(scenario())


@pytest.mark.parametrize("how", ["server stops", "broken by client"])
def test_a_client_that_waits_is_answered_when_the_server_stops_and_forgotten_when_it_goes(
    how: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        with Listening(tmp_path, rates(commands_per_connection=1.0)) as listening:
            loop = asyncio.get_running_loop()
            sock = await open_from("127.0.0.1", await listening.port())
            await loop.sock_sendall(sock, b"x\n" * LINES)
            await until(lambda: listening.value("proxyherd_clients_over_rate") == 1)
            [connection] = listening.connections
            if how == "server stops":
                listening.stop()
                assert (await read_all(sock)).count(b"? x\n") == LINES, "all had been read"
                sock.close()
            else:
                sock.close()
                connection.end(how)  # what a reader's reset does, when it is read again
            await until(lambda: not listening.connections)
            assert listening.value("proxyherd_clients_over_rate") == 0
            assert connection._timer is None
            assert len(listening.clients.allowances.addresses) == 1
            assert {one["reason"] for one in listening.events("client_closed")} == {how}

    run(scenario())


def test_connections_of_one_address_are_bounded_counted_by_reason_and_leave_room_for_others(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        with Listening(tmp_path, rates(connections_per_address=3)) as listening:
            loop = asyncio.get_running_loop()
            port = await listening.port()
            inside = [await open_from("127.0.0.1", port) for _ in range(3)]
            await until(lambda: len(listening.connections) == 3)
            outside = await open_from("127.0.0.1", port)
            assert await read_all(outside) == b""
            reasons = "proxyherd_client_connections_refused_total"
            assert listening.value(reasons, reason="connections_per_address") == 1
            assert listening.value("proxyherd_client_connections_closed_total", reason="refused") == 1
            [refused] = listening.events("client_refused")
            assert "connections_per_address, 3" in refused["reason"]
            other = await open_from("127.0.0.2", port)
            await loop.sock_sendall(other, b"FOO\n")
            assert await loop.sock_recv(other, 100) == b"? FOO\n"
            inside.pop().close()
            await until(lambda: len(listening.connections) == 3)
            again = await open_from("127.0.0.1", port)
            await loop.sock_sendall(again, b"BAR\n")
            assert await loop.sock_recv(again, 100) == b"? BAR\n"
            for sock in (*inside, outside, other, again):
                sock.close()

    run(scenario())


def test_too_many_new_connections_wait_for_their_first_answer_and_then_they_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyherd.core.buckets.CONNECT_WAIT_SECONDS", 0.25)

    async def scenario() -> None:
        with Listening(tmp_path, rates(new_connections_per_address=10.0)) as listening:
            loop = asyncio.get_running_loop()
            port = await listening.port()
            took, refused = list[float](), 0
            began = loop.time()
            socks = [await open_from("127.0.0.1", port) for _ in range(8)]
            for sock in socks:
                await loop.sock_sendall(sock, b"FOO\n")
            for sock in socks:
                try:
                    answer = await loop.sock_recv(sock, 100)
                except ConnectionError:
                    answer = b""
                assert answer in (b"? FOO\n", b"")
                refused += not answer
                if answer:
                    took.append(loop.time() - began)
                sock.close()
            assert len(took) >= 4, "one at once, and those that wait for up to a quarter of a second"
            assert took[0] < 0.1 < took[-1]
            assert refused >= 1
            limit = "new_connections_per_address"
            name = "proxyherd_client_connections_refused_total"
            assert listening.value(name, reason=limit) == refused

    run(scenario())


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_new_connection_that_waits_is_not_read(loop_factory: Callable[[], Any], tmp_path: Path) -> None:
    """A transport begins to read behind `connection_made`, where it was told not to."""

    async def scenario() -> None:
        with Listening(tmp_path, rates(new_connections_per_address=1.0)) as listening:
            loop, port = asyncio.get_running_loop(), await listening.port()
            late = await open_from("127.0.0.1", port)  # one token is more than the tenth of one that there is
            sending = loop.create_task(loop.sock_sendall(late, b"x\n" * (8 << 20)))
            await until(lambda: listening.value("proxyherd_clients_over_rate") == 1)
            [connection] = listening.connections
            await asyncio.sleep(0.05)
            assert not sending.done()
            assert connection._conversation._framer.waiting < 1 << 20  # type: ignore[attr-defined] # a Conversation
            sending.cancel()
            late.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())


def test_who_is_exempt_is_not_counted_at_all(tmp_path: Path) -> None:
    async def scenario() -> None:
        few = RateSettings(connections_per_address=1, commands_per_connection=0.001, burst_seconds=0.1)
        with Listening(tmp_path, few) as listening:
            loop = asyncio.get_running_loop()
            port = await listening.port()
            socks = [await open_from("127.0.0.1", port) for _ in range(3)]
            for sock in socks:
                await loop.sock_sendall(sock, b"x\n" * LINES)
                sock.shutdown(socket.SHUT_WR)
                assert (await read_all(sock)).count(b"? x\n") == LINES
                sock.close()
            assert len(listening.clients.allowances.addresses) == 0

    run(scenario())
