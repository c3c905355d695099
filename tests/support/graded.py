"""Herds of broken_herd.py graded in this process: on a clock that jumps, and a network that is memory.

Nothing waits, so a grading takes as long as its work, and comes out the same on the busiest machine. Logs are files.
"""

from __future__ import annotations

import asyncio
import errno
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import broken_herd
import fake_redis
from broken_ways import WAYS

from proxyherd.grading import judging, servers
from proxyherd.grading.checks import Section
from proxyherd.grading.faults import NotSeen
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.keeping import StartError
from proxyherd.grading.outside import GoogleReach
from proxyherd.grading.report import GradingReport

NAMES = ["Ann", "Bob", "Cid", "Dan"]
EDGES = [["Ann", "Bob"], ["Bob", "Cid"], ["Cid", "Dan"], ["Dan", "Ann"], ["Ann", "Cid"]]
PORTS = {name: number for number, name in enumerate(NAMES, 1)}


class Wire(asyncio.Transport):
    """One end of a connection. What is written is read at the other end a step of the event loop later."""

    peer: Wire
    packets = 0
    """How many have been sent on all wires."""

    def __init__(self, protocol: StreamReaderProtocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        Wire.packets += 1
        if not self._is_closing:
            self._loop.call_soon(self.peer.receive, bytes(data))

    def receive(self, data: bytes) -> None:
        if not self._is_closing:
            self._protocol.data_received(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._loop.call_soon(self.peer.hear_the_end)

    def hear_the_end(self) -> None:
        if not self._is_closing:
            self._protocol.eof_received()

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self.write_eof()
            self.lose(None)

    def abort(self) -> None:
        if not self._is_closing:
            self._loop.call_soon(self.peer.lose, ConnectionResetError(errno.ECONNRESET, "reset"))
            self.lose(None)

    def lose(self, error: Exception | None) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._protocol.connection_lost, error)


class InProcessNetwork:
    """Who listens at which port."""

    def __init__(self) -> None:
        self.listeners: dict[int, InProcess] = {}

    async def dial(self, _host: str, port: int, limit: int = 1 << 16) -> tuple[StreamReader, StreamWriter]:
        """Open a connection, as asyncio.open_connection does."""
        reader, writer, _ = self.connect(port, limit)
        return reader, writer

    def connect(self, port: int, limit: int = 1 << 16) -> tuple[StreamReader, StreamWriter, Wire]:
        if (place := self.listeners.get(port)) is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        loop, reader, theirs = asyncio.get_running_loop(), StreamReader(limit), StreamReader()
        protocol = StreamReaderProtocol(reader)
        answering = StreamReaderProtocol(theirs, place.serve)
        wire, other = Wire(protocol), Wire(answering)
        wire.peer, other.peer = other, wire
        place.wires.append(other)
        protocol.connection_made(wire)
        answering.connection_made(other)
        return reader, StreamWriter(wire, protocol, reader, loop), wire


class InProcess:
    """The place of one server in this process."""

    serve: broken_herd.Serve

    def __init__(self, network: InProcessNetwork, file: Path) -> None:
        self._network = network
        self._file = file
        self._log: IO[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self.wires: list[Wire] = []
        self.has_ended = False

    def run(self, server: broken_herd.BreakableServer) -> None:
        self._task = asyncio.ensure_future(server.run())

    async def listen(self, serve: broken_herd.Serve, port: int) -> None:
        self.serve = serve
        self._network.listeners[port] = self

    async def dial(self, port: int) -> tuple[StreamReader, StreamWriter]:
        reader, writer, wire = self._network.connect(port)
        self.wires.append(wire)
        return reader, writer

    def log(self, text: str) -> None:
        if not self.has_ended:
            if self._log is None:
                self._log = self._file.open("ab", buffering=0)
            self._log.write(text.encode())

    def end(self) -> None:
        assert self._task is not None
        self.has_ended = True
        if self._log is not None:
            self._log.close()
        self._task.cancel()
        for port in [port for port, place in self._network.listeners.items() if place is self]:
            del self._network.listeners[port]
        for wire in self.wires:
            wire.abort()


class Kept:
    """Starts and ends the servers of a herd that is broken in a way; what graders call a keeper."""

    def __init__(self, way: str, folder: Path) -> None:
        self._server = WAYS.get(way, broken_herd.BreakableServer)
        self._folder = folder
        self._places: dict[str, InProcess] = {}
        self._deaths: list[str] = []
        self._lost: set[str] = set()
        self.network = InProcessNetwork()

    def start(self, name: str) -> None:
        place = InProcess(self.network, self._folder / f"{name}.log")
        self._places[name] = place
        self._lost.discard(name)
        place.run(self._server({"ports": PORTS, "edges": EDGES}, name, place))

    def end(self) -> None:
        for place in self._places.values():
            place.end()

    async def lose(self, server: servers.GradedServer) -> None:
        self._lost.add(server.name)
        if self._places[server.name].has_ended:
            raise NotSeen(f"{server.name} has ended by itself")
        self._places[server.name].end()

    async def regain(self, server: servers.GradedServer) -> None:
        self.start(server.name)
        await asyncio.sleep(0.01)
        if self._places[server.name].has_ended:
            raise StartError(f"{server.name}: has ended at its start")

    async def revive(self) -> None:
        for name, place in list(self._places.items()):
            if place.has_ended and name not in self._lost:
                self._deaths.append(f"{name} has ended")
                self.start(name)
                await asyncio.sleep(0.01)

    def deaths(self) -> list[str]:
        return self._deaths

    def end_of(self, server: servers.GradedServer) -> str:
        ended = self._places[server.name].has_ended and server.name not in self._lost
        return "the server has ended (status 1)" if ended else ""


def grade(
    way: str,
    folder: Path,
    sections: Sequence[Section] = judging.SECTIONS,
    *,
    is_kept: bool = True,
    is_logged: bool = True,
    is_linked: bool = True,
    google: GoogleReach | None = None,
    seconds: float = 300.0,
    patience: float = 1.0,
) -> GradingReport:
    """Judge a herd that is broken in this way, or a whole one: ""."""

    async def graded() -> GradingReport:
        kept = Kept(way, folder)
        for name in NAMES:
            kept.start(name)
        await asyncio.sleep(0.01)
        logs = {name: folder / f"{name}.log" if is_logged else None for name in NAMES}
        judged = [
            servers.GradedServer(
                name, "127.0.0.1", port, seconds=patience, log=logs[name], dial=kept.network.dial
            )
            for name, port in PORTS.items()
        ]
        edges = [(one, other) for one, other in EDGES] if is_linked else None
        herd = GradedHerd(judged, edges, kept if is_kept else None, google=google)
        try:
            return await judging.judge(herd, settle_seconds=1.0, sections=sections, seconds=seconds)
        finally:
            kept.end()
            await asyncio.sleep(100)  # for all that was going on to end

    report: GradingReport = fake_redis.run(graded())
    return report


def faults(report: GradingReport) -> set[str]:
    return {one.id for one in report.of("fault")}
