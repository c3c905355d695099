"""Addresses that cannot be had at once."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import Coroutine
from typing import Any

import pytest
import structlog
from herd_process import free_port

from proxyherd.config.address import Address
from proxyherd.net import binding
from proxyherd.net.binding import Binder


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "_BIND_SECONDS", 0.01)


class Listening:
    """Holds the sockets that it is given, and runs what goes on in the background."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.sockets: list[socket.socket] = []
        self.log = structlog.testing.CapturingLogger()
        self.binder = Binder(
            structlog.wrap_logger(self.log, processors=[structlog.processors.JSONRenderer()]), self.spawn
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    async def listen(self, sock: socket.socket) -> None:
        sock.listen()
        self.sockets.append(sock)

    async def settle(self) -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(*self.tasks)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def infos(*hosts: str, port: int) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]


def test_one_address_of_a_name_that_is_taken_keeps_no_other_from_being_served_and_is_had_when_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()

    async def body() -> None:
        here = Listening()
        monkeypatch.setattr(
            here.binder, "_resolve", lambda _: resolved(infos("127.0.0.1", "127.0.0.2", port=port))
        )
        with socket.create_server(("127.0.0.1", port)):
            await here.binder.listen("clients", [Address("name", port)], here.listen)
            assert [sock.getsockname()[0] for sock in here.sockets] == ["127.0.0.2"]
            assert here.binder.unbound == {f"clients name:{port}"}
        await here.settle()
        assert sorted(sock.getsockname()[0] for sock in here.sockets) == ["127.0.0.1", "127.0.0.2"]
        assert not here.binder.unbound
        assert [call.method_name for call in here.log.calls] == ["error", "info"]
        assert json.loads(here.log.calls[0].args[0])["holder"].endswith(f"(process {os.getpid()})")
        here.close()

    asyncio.run(body())


def test_an_address_of_another_machine_is_no_obstacle_where_the_name_has_one_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()

    async def body() -> None:
        here = Listening()
        monkeypatch.setattr(
            here.binder, "_resolve", lambda _: resolved(infos("192.0.2.1", "127.0.0.1", port=port))
        )
        await here.binder.listen("clients", [Address("name", port)], here.listen)
        assert [sock.getsockname()[0] for sock in here.sockets] == ["127.0.0.1"]
        assert not here.binder.unbound
        assert not here.tasks
        here.close()

    asyncio.run(body())


def test_a_name_that_cannot_be_looked_up_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    answers: list[Any] = [
        UnicodeError("label too long"),
        socket.gaierror(-2, "unknown"),
        infos("127.0.0.1", port=port),
    ]

    async def resolve(_: Address) -> list[Any]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    async def body() -> None:
        here = Listening()
        monkeypatch.setattr(here.binder, "_resolve", resolve)
        await here.binder.listen("peers", [Address("name", port)], here.listen)
        assert here.binder.unbound
        await here.settle()
        assert not here.binder.unbound
        assert len(here.sockets) == 1
        here.close()

    asyncio.run(body())


def test_a_silent_name_server_keeps_no_other_address_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up takes 20 seconds and more then: the start, and whoever wants to stop the server, would wait for it."""
    port, other = free_port(), free_port()
    monkeypatch.setattr(binding, "_LOOK_UP_SECONDS", 0.01)

    async def body() -> None:
        here, speaks = Listening(), asyncio.Event()

        async def resolve(address: Address) -> list[Any]:
            if address.host == "name":
                await speaks.wait()
            return infos("127.0.0.1", port=address.port)

        monkeypatch.setattr(here.binder, "_resolve", resolve)
        async with asyncio.timeout(10):
            await here.binder.listen(
                "clients", [Address("name", port), Address("127.0.0.1", other)], here.listen
            )
        assert [sock.getsockname()[1] for sock in here.sockets] == [other]
        assert here.binder.unbound == {f"clients name:{port}"}
        assert json.loads(here.log.calls[0].args[0])["reason"] == "the name is not looked up yet after 0.01 s"
        speaks.set()
        await here.settle()
        assert [sock.getsockname()[1] for sock in here.sockets] == [other, port]
        here.close()

    asyncio.run(body())


def test_the_wildcard_of_ipv6_takes_no_ipv4_and_stands_beside_that_of_ipv4() -> None:
    """As docs/configuration.md says."""
    port = free_port()

    async def body() -> None:
        here = Listening()
        await here.binder.listen("clients", [Address("::", port)], here.listen)
        socket.create_connection(("::1", port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        await here.binder.listen("clients", [Address("0.0.0.0", port)], here.listen)
        socket.create_connection(("127.0.0.1", port)).close()
        assert not here.binder.unbound
        here.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.EADDRINUSE, "used"), "see who has it with `ss -ltnp`"),
        (
            OSError(errno.EACCES, "denied"),
            "give it a port above 1023, or the server the capability CAP_NET_BIND_SERVICE",
        ),
        (
            OSError(errno.EADDRNOTAVAIL, "not here"),
            "no interface of this machine has it: compare with `ip address`",
        ),
        (socket.gaierror(-2, "unknown"), "see what the name stands for with `getent ahosts name`"),
        (OSError(errno.ENOBUFS, "full"), ""),
    ],
    ids=["in use", "denied", "not here", "unknown name", "other"],
)
def test_the_remedy_fits_what_is_wrong(monkeypatch: pytest.MonkeyPatch, error: OSError, remedy: str) -> None:
    async def resolve(_: Address) -> list[Any]:
        if isinstance(error, socket.gaierror):
            raise error
        return infos("127.0.0.1", port=1)

    async def refuse(*_: object) -> None:
        raise error

    async def body() -> None:
        here = Listening()
        monkeypatch.setattr(here.binder, "_resolve", resolve)
        monkeypatch.setattr(binding, "_hand_over", refuse)
        await here.binder.listen("clients", [Address("name", 1)], here.listen)
        told = json.loads(here.log.calls[0].args[0])["remedy"]
        assert told == "; ".join([remedy] * bool(remedy) + ["it is tried again every second"])
        here.tasks[0].cancel()

    asyncio.run(body())


async def resolved(found: list[Any]) -> list[Any]:
    return found
