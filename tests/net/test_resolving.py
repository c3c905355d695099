"""Names and the addresses that they stand for, however silent name servers are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from asked import ask_once
from herd_process import PATIENCE_SECONDS, free_port, wait_until

from proxyherd.client import HerdClient, NoAnswer, Unreachable
from proxyherd.config.address import Address
from proxyherd.config.herd_file import Server, parse
from proxyherd.core.notes import LinkFailed
from proxyherd.engines.herd.peers import Peers
from proxyherd.net.resolving import look_up, new_event_loop

NAME = "silent.example"


class NameServers:
    """Answer for one name when they are told to; what is an address already is the system's."""

    def __init__(self) -> None:
        self.asked = 0
        self.found: list[Any] = []
        self.failure: OSError | None = None
        self._speak = threading.Event()
        self._really = socket.getaddrinfo

    def speak(self, *hosts: str, port: int = 80, failure: OSError | None = None) -> None:
        self.found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]
        self.failure = failure
        self._speak.set()

    def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, kind: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        if host != NAME or flags & socket.AI_NUMERICHOST:
            return self._really(host, port, family, kind, proto, flags)
        self.asked += 1
        assert self._speak.wait(PATIENCE_SECONDS)
        if self.failure is not None:
            raise self.failure
        return self.found


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServers]:
    """Silent ones; when the test ends nothing is under way any more."""
    servers = NameServers()
    monkeypatch.setattr(socket, "getaddrinfo", servers.getaddrinfo)
    yield servers
    servers._speak.set()
    wait_until(
        lambda: all(one.name != "look-up" for one in threading.enumerate()), "the last look-up has ended"
    )


@pytest.fixture(params=["uvloop", "asyncio"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> asyncio.Runner:
    """What runs a server: on the loop that is there, and on the one that serves where that is missing."""
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    return asyncio.Runner(loop_factory=new_event_loop)


async def wanted() -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(NAME, 80)
    return [str(place[0]) for *_, place in found]


def test_a_look_up_that_was_given_up_holds_up_no_end(servers: NameServers, runner: asyncio.Runner) -> None:
    async def give_up() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await wanted()

    began = time.monotonic()
    with runner:
        runner.run(give_up())
    assert servers.asked == 1
    assert time.monotonic() - began < PATIENCE_SECONDS / 4


def test_of_a_name_one_look_up_is_under_way_and_answers_all_who_wait(
    servers: NameServers, runner: asyncio.Runner
) -> None:
    async def body() -> None:
        impatient, *patient = (asyncio.ensure_future(wanted()) for _ in range(4))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        servers.speak("192.0.2.1", "192.0.2.2")
        assert await asyncio.gather(*patient) == [["192.0.2.1", "192.0.2.2"]] * 3
        assert servers.asked == 1
        assert await wanted() == ["192.0.2.1", "192.0.2.2"]
        assert servers.asked == 2, "what was answered is asked anew"

    with runner:
        runner.run(body())


def test_a_failure_is_told_to_who_asked(servers: NameServers, runner: asyncio.Runner) -> None:
    servers.speak(failure=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    with runner, pytest.raises(socket.gaierror, match="not known"):
        runner.run(wanted())


def test_an_address_takes_no_thread_and_without_one_a_look_up_is_a_failure_of_the_system(
    servers: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "Thread", no_thread)
    assert {place[0] for *_, place in look_up("::1", 80).result(0)} == {"::1"}
    for _ in range(2):
        with pytest.raises(OSError, match="can't start new thread"):
            look_up(NAME, 80)
    assert servers.asked == 0


# A name whose order its name servers change. -------------------------------------------------------------------

PAIR = """
edges = [["Ann", "Bob"]]
[servers]
Ann = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }
Bob = { clients = "127.0.0.1:4", peers = "silent.example:5", admin = "127.0.0.1:6" }
"""


def test_a_neighbour_that_cannot_be_had_is_told_in_the_same_words_in_whatever_order_its_addresses_come(
    servers: NameServers,
) -> None:
    herd = parse(PAIR, Path("pair.toml"))
    notes = list[Any]()
    node = SimpleNamespace(note=notes.append)
    contexts = SimpleNamespace(peers=None, dialling=None)
    turn = SimpleNamespace(wake=lambda: None, hear_few=lambda *_: False)
    some: Any = None

    async def body() -> None:
        peers = Peers(
            herd, herd.servers["Ann"], some, cast("Any", node), cast("Any", turn), some, cast("Any", contexts)
        )
        for hosts in (("127.0.0.7", "127.0.0.8"), ("127.0.0.8", "127.0.0.7")):
            servers.speak(*hosts)
            await peers._visit("Bob")

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(body())
    first, second = notes
    assert isinstance(first, LinkFailed)
    assert "127.0.0.7" in first.reason
    assert "127.0.0.8" in first.reason
    assert first.reason == second.reason


# Commands. ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(host: str, port: int) -> Iterator[None]:
    """Answer one command there, if it comes."""

    def answer() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1_000)
                connection.sendall(b"? FOO\n")

    with socket.create_server((host, port)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextlib.contextmanager
def swallowing(host: str, port: int) -> Iterator[None]:
    """An address that swallows packets, as one does whose queue of connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(4):
            queued = stack.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(listener.getsockname())
        yield


def at(*addresses: Address) -> Server:
    return Server("Clark", addresses={"clients": addresses}, neighbours=())


def test_of_a_name_each_address_has_its_share_of_the_time(servers: NameServers) -> None:
    port = free_port()
    servers.speak("127.0.0.2", "127.0.0.3", "127.0.0.1", port=port)
    with swallowing("127.0.0.2", port), swallowing("127.0.0.3", port), answering("127.0.0.1", port):
        assert ask_once(at(Address(NAME, port)), b"FOO", 1.5) == b"? FOO\n"


def test_of_a_name_that_nobody_answers_at_all_addresses_are_told(servers: NameServers) -> None:
    servers.speak("127.0.0.2", "127.0.0.3", port=free_port())
    with pytest.raises(Unreachable) as raised:
        ask_once(at(Address(NAME, 9)), b"FOO", 5)
    assert str(raised.value) == "; ".join(
        f"{NAME}:9 ({host}): Connection refused" for host in ("127.0.0.2", "127.0.0.3")
    )


def test_silent_name_servers_leave_the_next_address_its_time(servers: NameServers) -> None:
    port = free_port()
    with answering("127.0.0.1", port):
        answer = ask_once(at(Address(NAME, port), Address("127.0.0.1", port)), b"FOO", 1.0)
    assert answer == b"? FOO\n"
    assert servers.asked == 1


def test_silent_name_servers_take_no_longer_than_the_time_given_and_are_told(servers: NameServers) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match=rf"^{NAME}:9: its name was not looked up in time$"):
        ask_once(at(Address(NAME, 9)), b"FOO", 0.1)
    assert time.monotonic() - began < PATIENCE_SECONDS / 4
    assert servers.asked == 1


def test_what_is_written_is_passed_on_at_once(runner: asyncio.Runner) -> None:
    """A turn writes to the neighbours and then to the clients: so who has an answer asks no neighbour too early."""

    async def write() -> list[bytes]:
        loop, arrived = asyncio.get_running_loop(), []
        for number in range(8):
            ours, theirs = socket.socketpair()
            with theirs:
                theirs.setblocking(False)
                transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=ours)
                transport.write(b"%d" % number)
                arrived.append(theirs.recv(8))
                transport.close()
        return arrived

    with runner:
        assert runner.run(write()) == [b"%d" % number for number in range(8)]


@pytest.mark.parametrize("server", [f"{NAME}:80", f"ws://{NAME}:80"])
def test_a_program_that_uses_the_library_does_not_wait_at_its_end_for_a_look_up_given_up_long_ago(
    servers: NameServers, server: str
) -> None:
    async def main() -> None:
        async with HerdClient(server, timeout=0.2, patience=0.05) as herd:
            with pytest.raises(NoAnswer):
                await herd.locate("kiwi")

    asyncio.run(main())
    assert servers.asked == 1
    assert [one.name for one in threading.enumerate()].count("look-up") == 1, "it is still under way"


def test_over_a_websocket_the_addresses_of_a_name_are_tried_and_its_failure_is_told(
    servers: NameServers,
) -> None:
    port = free_port()

    async def main() -> None:
        async with HerdClient(f"ws://{NAME}:{port}", timeout=5, retry=False) as herd:
            await herd.locate("kiwi")

    servers.speak("127.0.0.1", "127.0.0.2", port=port)
    with pytest.raises(Unreachable) as caught:
        asyncio.run(main())
    assert "refused" in str(caught.value) or "Multiple exceptions" in str(caught.value)
    servers.speak(failure=socket.gaierror(socket.EAI_NONAME, "no such name"))
    with pytest.raises(Unreachable, match="no such name"):
        asyncio.run(main())
