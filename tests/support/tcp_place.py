"""Servers of broken_herd.py in this process, at ports of this machine: to be tried with programs of the system."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from typing import Any

from broken_herd import REDIAL_SECONDS, BreakableServer, Serve
from broken_ways import WAYS


class TcpPlace:
    """The place of one server."""

    def __init__(self) -> None:
        self._writers: list[StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._listener: asyncio.Server | None = None
        self.listens = asyncio.Event()

    def run(self, server: BreakableServer) -> None:
        self._tasks.append(asyncio.ensure_future(server.run()))

    async def listen(self, serve: Serve, port: int) -> None:
        def accept(reader: StreamReader, writer: StreamWriter) -> None:
            self._writers.append(writer)
            self._tasks.append(asyncio.ensure_future(serve(reader, writer)))

        self._listener = await asyncio.start_server(accept, "127.0.0.1", port)
        self.listens.set()

    async def dial(self, port: int) -> tuple[StreamReader, StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._writers.append(writer)
        return reader, writer

    def log(self, text: str) -> None:
        """Keep no log."""

    def end(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """End it, and wait for all that it was doing."""
        self.end()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class TcpHerd:
    """A herd that is broken in this way."""

    def __init__(self, way: str, herd: dict[str, Any]) -> None:
        self._server = WAYS[way]
        self._herd = herd
        self.places: dict[str, TcpPlace] = {}

    async def start(self, *names: str) -> None:
        """Start servers; return when they listen, and the others have had time to dial them."""
        for name in names:
            place = self.places[name] = TcpPlace()
            place.run(self._server(self._herd, name, place))
            await place.listens.wait()
        await asyncio.sleep(2 * REDIAL_SECONDS)

    async def end(self, *names: str) -> None:
        for name in names or [*self.places]:
            await self.places.pop(name).ended()
