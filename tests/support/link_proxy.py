"""A herd's links through proxies that a test can hold still, slow down, cut, and count.

Each link gets a proxy of its own, and the server that dials gets a herd's file in which its neighbour's peer
address is the proxy's. Held still, a link is what a power cut or a dropped route makes of it: connections stay,
nothing arrives, and no FIN says so; what was on its way arrives when the link is let go again.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, TypeVar

from herd_process import RunningHerd, free_port

T = TypeVar("T")
Direction = Literal["both", "there", "back"]
"""`there` is from the dialler to the listener."""

_CHUNK_BYTES: Final = 65_536


class LinkProxy:
    """One link's proxy. Everything but the counts is to be called on the proxy's own loop: see `Links`."""

    def __init__(self, name: str, target: int) -> None:
        self.name = name
        self.port = free_port()
        self.carried = {"there": 0, "back": 0}
        """Bytes that have passed, each way."""
        self._target = target
        self._delay = 0.0
        self._open = {"there": asyncio.Event(), "back": asyncio.Event()}
        self._transports: set[asyncio.WriteTransport] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        for event in self._open.values():
            event.set()

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=128)

    def hold(self, direction: Direction) -> None:
        for name, event in self._open.items():
            if direction in ("both", name):
                event.clear()

    def slow(self, seconds: float) -> None:
        """Let everything arrive so much later, a piece at a time: a slow link is a narrow one too."""
        self._delay = seconds

    def cut(self) -> None:
        """Break every connection, as a router does that forgets them."""
        for transport in tuple(self._transports):
            transport.abort()

    def heal(self) -> None:
        self._delay = 0.0
        for event in self._open.values():
            event.set()

    async def end(self) -> None:
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._transports.add(writer.transport)
        try:
            await self._open[
                "there"
            ].wait()  # whoever dials a link that is held is connected, and hears nothing
            with contextlib.suppress(OSError):
                await self._join(reader, writer)
        except asyncio.CancelledError:
            pass  # asyncio's streams log what a connection's task ends with
        finally:
            writer.transport.abort()
            self._transports.discard(writer.transport)
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_listener = await asyncio.open_connection("127.0.0.1", self._target)
        self._transports.add(to_listener[1].transport)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump("there", reader, to_listener[1]))
                pumps.create_task(self._pump("back", to_listener[0], writer))
        except* OSError:
            pass
        finally:
            to_listener[1].transport.abort()
            self._transports.discard(to_listener[1].transport)

    async def _pump(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing = self._open[way]
        while data := await reader.read(_CHUNK_BYTES):
            if self._delay:
                await asyncio.sleep(self._delay)
            await passing.wait()
            self.carried[way] += len(data)
            writer.write(data)
            await writer.drain()
        await passing.wait()
        writer.close()


class Links(Mapping[str, LinkProxy]):
    """The proxies of a herd by name, such as `Bona-Clark`, on an event loop in a thread of its own."""

    def __init__(self, herd: RunningHerd) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._proxies = self.call(lambda: self._make(herd))
        self._servers = [
            asyncio.run_coroutine_threadsafe(proxy.listen(), self.loop).result(20) for proxy in self.values()
        ]

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the proxies' loop."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(20)

    def heal(self) -> None:
        for proxy in self.values():
            self.call(proxy.heal)

    def carried(self) -> dict[str, int]:
        """Return the bytes that each link has carried, both ways together."""
        return {name: sum(proxy.carried.values()) for name, proxy in self.items()}

    def end(self) -> None:
        async def end() -> None:
            for server in self._servers:
                server.close()
            for proxy in self.values():
                await proxy.end()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _make(self, herd: RunningHerd) -> dict[str, LinkProxy]:
        """Make the proxies, and a herd's file for each dialler."""
        proxies: dict[str, LinkProxy] = {}
        for name, server in herd.items():
            text = herd.file.read_text()
            for neighbour in server.neighbours:
                if neighbour > name:
                    proxy = proxies[f"{name}-{neighbour}"] = LinkProxy(
                        f"{name}-{neighbour}", herd[neighbour].peer_port
                    )
                    text = re.sub(rf"\b{herd[neighbour].peer_port}\b", str(proxy.port), text)
            file = herd.folder / f"deploy/{name}.toml"
            file.write_text(text)
            server.options += ["--config", str(file)]
        return proxies

    def __getitem__(self, name: str) -> LinkProxy:
        return self._proxies[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._proxies)

    def __len__(self) -> int:
        return len(self._proxies)


@contextlib.contextmanager
def proxied(herd: RunningHerd) -> Iterator[Links]:
    """Lead all links of a herd that is not started yet through proxies."""
    links = Links(herd)
    try:
        yield links
    finally:
        links.end()
