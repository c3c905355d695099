"""Taking connections where the system has no descriptor: few attempts, each told, and none lost."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from typing import Any

import pytest

from proxyherd.net import listening
from proxyherd.net.listening import Listener


class Starved(socket.socket):
    """A listening socket of a process that has no descriptor left, until `starved` is False."""

    starved = True
    accepts = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.accepts += 1
        if self.starved:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


class Taken(asyncio.Protocol):
    """Counts the connections that were taken, and closes them."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Taken.count += 1
        transport.close()


def test_without_descriptors_accepts_are_few_and_what_waited_is_taken_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that the test moves: however often the loop turns, there is one attempt in each pause."""
    waiting, refusals = 5, list[str]()
    monkeypatch.setattr(Taken, "count", 0)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        late = list[tuple[float, Any, tuple[Any, ...]]]()
        listener = Listener(
            Taken,
            None,
            backlog=16,
            handshake_seconds=1,
            shutdown_seconds=1,
            room=lambda: 16,
            refused=lambda who, _, why: refusals.append(f"{who}: {why}"),
        )
        with Starved() as sock, monkeypatch.context() as patched:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            patched.setattr(loop, "call_later", lambda after, what, *args: late.append((after, what, args)))
            await listener.listen(sock)
            clients = [socket.create_connection(sock.getsockname()) for _ in range(waiting)]
            for attempts in range(1, 6):
                for _ in range(100):  # turns of the loop
                    await asyncio.sleep(0)
                assert sock.accepts == len(late) == len(refusals) == attempts
                after, again, arguments = late[-1]
                assert 0.05 <= after <= 0.5, "some ten attempts a second"
                again(*arguments)
            assert set(refusals) == {"unknown: no connection can be taken: Too many open files"}
            sock.starved = False
            for _ in range(100):
                await asyncio.sleep(0)
            assert Taken.count == waiting, "all that had waited"
            for client in clients:
                client.close()
            listener.close()

    asyncio.run(scenario())


def test_a_flood_of_connections_is_taken_in_portions() -> None:
    """Between two portions whatever else is ready has its turn."""

    async def scenario() -> None:
        listener = Listener(
            Taken,
            None,
            backlog=256,
            handshake_seconds=1,
            shutdown_seconds=1,
            room=lambda: 16,
            refused=lambda *_: None,
        )
        with Starved() as sock:
            sock.starved = False
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            sock.listen(256)
            clients = [socket.create_connection(sock.getsockname()) for _ in range(2 * listening._ACCEPTS)]
            for portion in (1, 2):
                listener._take(sock)
                assert sock.accepts == portion * listening._ACCEPTS
            for client in clients:
                client.close()
            while listener._plain:
                await asyncio.wait(listener._plain)
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_who_is_not_admitted_is_closed_at_once_and_costs_no_protocol_and_no_tls_handshake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Taken, "count", 0)

    async def scenario() -> None:
        loop, asked = asyncio.get_running_loop(), list[object]()

        def refuse(peer: object) -> bool:
            asked.append(peer)
            return False

        for context in (None, ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)):
            listener = Listener(
                Taken,
                context,
                backlog=16,
                handshake_seconds=60,
                shutdown_seconds=1,
                room=lambda: 16,
                refused=lambda *_: None,
                admits=refuse,
            )
            sock = socket.create_server(("127.0.0.1", 0))
            sock.setblocking(False)
            await listener.listen(sock)
            with socket.create_connection(sock.getsockname()) as client:
                client.setblocking(False)
                assert await loop.sock_recv(client, 1) == b""
                assert asked.pop() == client.getsockname()
            assert not listener._handshakes
            listener.close()
        assert Taken.count == 0

    asyncio.run(scenario())
