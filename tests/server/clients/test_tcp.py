"""The shell around a client's conversation: what it tells the conversation and the log, by a clock that the tests move;
and that whoever is disconnected has all answers, through real sockets. Who is disconnected, and when: see
tests/core/test_conversation.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from listening import SLOW, Listening, SilentTransport, read_all, run, until

from proxyherd.core.conversation import Conversation
from proxyherd.server.clients.tcp import ClientConnection, TcpListener

LONG = b"x" * 1_000 + b"\n"


def seconds(start: float, step: float, number: int) -> Iterator[float]:
    return (start + step * count for count in range(1, number + 1))


def ended(connection: ClientConnection, wire: SilentTransport) -> str:
    """Return why the server has ended this connection, "" if it has not."""
    return connection._conversation.reason if wire.aborted else ""


# Slow readers. -------------------------------------------------------------------------------------------------


def test_a_reader_that_takes_one_byte_in_time_stays_and_one_that_takes_none_goes(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            reader, wire = listening.connected()
            wire.unsent = 1_000_000
            reader.pause_writing()
            began = listening.clients.loop.time()
            reader.check(began)
            for now in seconds(began, 0.9 * SLOW, 100):
                wire.unsent -= 1
                reader.check(now)
                assert not ended(reader, wire)
            reader.check(now + SLOW)
            assert not ended(reader, wire)
            reader.check(now + SLOW + 0.001)
            assert ended(reader, wire) == "slow reader"

    run(scenario())


# Bytes without LF. ---------------------------------------------------------------------------------------------


def test_bytes_without_a_line_feed_are_logged_once_after_a_while(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            client, _ = listening.connected()
            client.data_received(b"IAMAT kiwi +1+1 5")
            await asyncio.sleep(0)
            now = listening.clients.loop.time()
            client.check(now)
            client.check(now + 4.9)
            assert listening.events("line_unfinished") == []
            client.data_received(b" ")  # more of the same line
            await asyncio.sleep(0)
            for later in seconds(now, 5.0, 5):
                client.check(later)
            [event] = listening.events("line_unfinished")
            assert (event["client"], event["bytes"], event["seconds"]) == ("10.0.0.1:5", 18, 5.0)
            assert "LF" in event["remedy"]
            assert "sending half" in event["remedy"]
            client.data_received(b"\nhalf")
            await asyncio.sleep(0)
            for later in seconds(now, 5.0, 5):
                client.check(later)
            assert len(listening.events("line_unfinished")) == 1, "once a connection"

    run(scenario())


# How connections end. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quiet", [False, True], ids=["busy", "quiet"])
def test_a_client_whose_bytes_were_not_all_read_has_its_answers_when_the_server_stops(
    quiet: bool, tmp_path: Path
) -> None:
    """Its socket is not closed with bytes in it: that would reset the connection, and take answers with it."""

    async def scenario() -> None:
        with Listening(tmp_path, max_answers_outstanding=4) as listening:
            loop = asyncio.get_running_loop()
            with socket.create_connection(("127.0.0.1", await listening.port())) as sock:
                sock.setblocking(False)
                await loop.sock_sendall(sock, b"hold\n" * 4)
                pouring = loop.create_task(loop.sock_sendall(sock, LONG * 10_000))
                await until(lambda: len(listening.engine.held) == 4 and paused(listening))
                [connection] = listening.connections
                if quiet:
                    cast("Conversation", connection._conversation)._heard = -math.inf
                listening.stop()
                listening.engine.release()
                answers = await read_all(sock)
                assert answers.startswith(b"? hold\n" * 4)
                assert answers.replace(b"? hold\n", b"").replace(b"? " + LONG, b"") == b""
                pouring.cancel()
                await asyncio.gather(pouring, return_exceptions=True)
            await listening.clients.gone.wait()

    run(scenario())


def paused(listening: Listening) -> bool:
    return any(not one._reading for one in listening.connections)


def test_a_quiet_client_is_closed_at_once_when_the_server_stops(tmp_path: Path) -> None:
    """And a busy one is read on for a while, so what it sends meanwhile resets nothing."""

    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            loop = asyncio.get_running_loop()
            port = await listening.port()
            with (
                socket.create_connection(("127.0.0.1", port)) as quiet,
                socket.create_connection(("127.0.0.1", port)) as busy,
            ):
                for sock in (quiet, busy):
                    sock.setblocking(False)
                    await loop.sock_sendall(sock, b"FOO\n")
                    assert await loop.sock_recv(sock, 100) == b"? FOO\n"
                [of_quiet] = [
                    one for one in listening.connections if one.name.endswith(f":{quiet.getsockname()[1]}")
                ]
                cast("Conversation", of_quiet._conversation)._heard = -math.inf
                listening.stop()
                await read_all(quiet)
                await loop.sock_sendall(busy, b"FOO\n" * 1_000)
                assert len(listening.connections) == 1
                assert await read_all(busy) == b""
            await listening.clients.gone.wait()

    run(scenario())


def test_connections_past_the_limit_end_and_those_inside_stay(tmp_path: Path) -> None:
    """No clock ends any of them here."""

    async def scenario() -> None:
        with Listening(tmp_path, max_connections=3, idle_seconds=86_400) as listening:
            loop = asyncio.get_running_loop()
            port = await listening.port()
            inside = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
            await until(lambda: len(listening.connections) == 3)
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", port)) as outside:
                    outside.setblocking(False)
                    with contextlib.suppress(ConnectionError):
                        assert await loop.sock_recv(outside, 1) == b""
                refused = listening.events("client_refused")
                assert "max_connections" in refused[-1]["reason"]
                assert len(listening.connections) == 3
            for sock in inside:
                sock.setblocking(False)
                await loop.sock_sendall(sock, b"FOO\n")
                assert await loop.sock_recv(sock, 100) == b"? FOO\n"
                sock.close()

    run(scenario())


@pytest.mark.parametrize(
    ("lines", "peer", "admits"),
    [
        ("loopback", ("127.0.0.1", 7), True),
        ("loopback", ("::1", 7, 0, 0), True),
        ("loopback", ("192.0.2.1", 7), False),
        ("loopback", "", False),
        ("open", ("192.0.2.1", 7), True),
    ],
)
def test_the_line_port_may_be_for_this_machine_alone(
    tmp_path: Path, lines: str, peer: object, admits: bool
) -> None:
    async def scenario() -> None:
        with Listening(tmp_path) as listening:
            loopback_only = lines == "loopback"
            listener = TcpListener(listening.clients, None, drain_seconds=5, loopback_only=loopback_only)
            assert listener._admits(peer) is admits
            refused = [one["reason"] for one in listening.events("client_refused")]
            assert refused == ([] if admits else ['lines = "loopback" in [auth] lets only this machine in'])

    run(scenario())
