"""The low-water mark of a socket, with real sockets: what wakes a process, and what waits without waking it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from proxyherd.net.low_water import LowWater, low_water
from proxyherd.net.resolving import new_event_loop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no marks")

MARK = 5


class Ears(asyncio.Protocol):
    """Notes what wakes it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.ended = asyncio.Event()
        self.transport: asyncio.BaseTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def eof_received(self) -> None:
        self.heard.append(b"the end")
        self.ended.set()


Body = Callable[[Ears, LowWater, Callable[[bytes], Coroutine[Any, Any, None]], socket.socket], Any]


def waiting(sock: Any) -> int:
    """Return how many bytes wait in a socket."""
    count: int = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))[0]
    return count


@pytest.fixture(params=[new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def listen(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    """Run a body with one end of a connection that has a mark, and a function that lets the other end say something."""

    async def run(body: Body) -> None:
        loop = asyncio.get_running_loop()
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as far,
        ):
            near, _ = server.accept()
            near.setblocking(False)
            transport, ears = await loop.connect_accepted_socket(Ears, near)
            water = low_water(transport)

            async def say(data: bytes) -> None:
                """Say something; return when what has arrived has woken whom it may wake."""
                before = waiting(transport.get_extra_info("socket"))
                far.sendall(data)
                for _ in range(1_000):
                    if waiting(transport.get_extra_info("socket")) != before:
                        break
                    await asyncio.sleep(0)
                for _ in range(5):
                    await asyncio.sleep(0.001)

            await body(ears, water, say, far)
            transport.close()

    def play(body: Body) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(run(body))

    return play


def test_no_more_bytes_than_the_mark_wake_nobody_and_can_be_taken(listen: Callable[[Body], None]) -> None:
    async def body(ears: Ears, water: LowWater, say: Any, _: socket.socket) -> None:
        water.rise(MARK)
        await say(b"BEAT\n")
        assert ears.heard == []
        assert water.take() == b"BEAT\n"
        assert water.take() == b""
        await say(b"BEAT\n")
        assert ears.heard == []
        await say(b"A")
        assert ears.heard == [b"BEAT\nA"]

    listen(body)


def test_bytes_that_wait_wake_it_when_the_mark_drops_and_each_one_after_that(
    listen: Callable[[Body], None],
) -> None:
    async def body(ears: Ears, water: LowWater, say: Any, _: socket.socket) -> None:
        water.rise(MARK)
        await say(b"B")
        assert ears.heard == []
        water.drop()
        await asyncio.sleep(0.005)
        assert ears.heard == [b"B"]
        await say(b"E")
        assert ears.heard == [b"B", b"E"]

    listen(body)


def test_the_end_of_the_connection_wakes_it_with_the_bytes_before_it(listen: Callable[[Body], None]) -> None:
    async def body(ears: Ears, water: LowWater, say: Any, far: socket.socket) -> None:
        water.rise(MARK)
        await say(b"BEAT\n")
        far.shutdown(socket.SHUT_WR)
        await asyncio.wait_for(ears.ended.wait(), 20)
        assert ears.heard == [b"BEAT\n", b"the end"]

    listen(body)


def test_it_is_known_how_long_ago_the_last_bytes_arrived_whenever_they_are_taken(
    listen: Callable[[Body], None],
) -> None:
    async def body(_: Ears, water: LowWater, say: Any, __: socket.socket) -> None:
        water.rise(MARK)
        began = time.monotonic()
        await say(b"BEAT\n")
        said = time.monotonic()
        await asyncio.sleep(0.1)
        water.take()
        least = time.monotonic() - said
        age = water.age()
        assert least - 0.02 <= age <= time.monotonic() - began + 0.02

    listen(body)


def test_a_connection_that_has_failed_says_so(listen: Callable[[Body], None]) -> None:
    async def body(_: Ears, water: LowWater, __: Any, far: socket.socket) -> None:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()  # by a reset, which the loop has not seen yet

        def take_until_it_fails() -> None:
            for _ in range(1_000_000):
                water.take()

        with pytest.raises(ConnectionResetError):
            take_until_it_fails()

    listen(body)


class Carrier:
    """A transport of which some things are known."""

    def __init__(self, **extra: object) -> None:
        self._extra = extra

    def get_extra_info(self, name: str) -> object:
        return self._extra.get(name)


def test_there_is_no_mark_where_a_library_reads_the_socket_or_it_is_none_of_tcp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rises(**extra: object) -> bool:
        water = low_water(cast("asyncio.BaseTransport", Carrier(**extra)))
        water.rise(MARK)
        was_up = water.is_up
        water.drop()
        assert not water.is_up
        return was_up

    near, far = socket.socketpair()
    with near, far, socket.socket() as tcp, socket.socket(socket.AF_INET6) as tcp6:
        assert not rises()
        assert not rises(socket=near)
        assert not rises(socket=tcp, ssl_object=object())
        assert rises(socket=tcp)
        assert rises(socket=tcp6)
        monkeypatch.setattr(sys, "platform", "darwin")
        assert not rises(socket=tcp)


class Lacking:
    """A socket of a system that lacks an option."""

    def __init__(self, *, info: int | None, has_marks: bool) -> None:
        self.marks: list[int] = []
        self._info = info
        self._has_marks = has_marks

    def fileno(self) -> int:
        return -1

    def getsockopt(self, *_: int) -> bytes:
        if self._info is None:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        return bytes(self._info)

    def setsockopt(self, _: int, option: int, mark: int) -> None:
        assert option == socket.SO_RCVLOWAT
        if not self._has_marks:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        self.marks.append(mark)


@pytest.mark.parametrize(
    ("info", "has_marks", "rises"),
    [(56, True, True), (55, True, False), (0, True, False), (None, True, False), (56, False, False)],
)
def test_there_is_no_mark_where_the_system_cannot_set_it_or_does_not_tell_how_old_the_last_bytes_are(
    info: int | None, *, has_marks: bool, rises: bool
) -> None:
    """Each heartbeat wakes the process there, as without this module."""
    sock = Lacking(info=info, has_marks=has_marks)
    water = LowWater(sock)
    for _ in range(2):
        water.rise(MARK)
        assert water.is_up == rises
        water.drop()
        assert not water.is_up
    assert sock.marks == [MARK + 1, 1] * 2 * rises
