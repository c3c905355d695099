"""A herd on asyncio's streams: `readline`, `write` and `drain`, a coroutine for each connection, links that stay.

    python -m contenders.asyncio_streams_herd HERD.json NAME [--equal] [--uvloop]

The log is the standard library's `logging`; with `--equal` it is one of JSON lines.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from asyncio import StreamReader, StreamWriter

import uvloop

from contenders.rules import Herd, JsonLog, Outcome, Rules, read_arguments


class TextLog:
    """The standard library's log."""

    def __init__(self, herd: Herd) -> None:
        logging.basicConfig(
            filename=herd.log, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
        )
        self._log = logging.getLogger(herd.name)

    def command(self, client: str, line: bytes, _: Outcome) -> None:
        self._log.info("received from %s: %s", client, line.decode("utf-8", "backslashreplace"))

    def event(self, event: str, **fields: str) -> None:
        self._log.info("%s %s", event, " ".join(fields.values()))


class Server:
    """One server of the herd."""

    def __init__(self, herd: Herd) -> None:
        self.herd = herd
        self.rules = Rules(herd.name)
        self.log = JsonLog(herd) if herd.options.equal else TextLog(herd)
        self.links: dict[str, StreamWriter] = {}

    async def run(self) -> None:
        """Serve, and dial the neighbours, until the process is ended."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.herd.port, backlog=1_024)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve_forever())
            for name, port in self.herd.neighbours.items():
                tasks.create_task(self.keep_link(name, port))

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer one connection, of a client or of another server."""
        peer = ""
        host, port = writer.get_extra_info("peername")
        client = f"{host}:{port}"
        try:
            while raw := await reader.readline():
                line = raw.removesuffix(b"\n")
                outcome = self.rules.handle(line)
                self.log.command(client, line, outcome)
                if outcome.kind == "peer":
                    peer = line.split()[1].decode()
                if outcome.news is not None:
                    await self.flood(outcome.news, peer)
                if outcome.answer is not None:
                    writer.write(outcome.answer + b"\n")
                    await writer.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    async def flood(self, line: bytes, origin: str) -> None:
        """Tell every neighbour that is there, but the one it came from."""
        for name, writer in list(self.links.items()):
            if name != origin:
                writer.write(line + b"\n")
                await writer.drain()

    async def keep_link(self, neighbour: str, port: int) -> None:
        """Dial a neighbour for ever."""
        delay = 0.05
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(delay)
                delay = min(2 * delay, 5.0)
                continue
            delay = 0.05
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            writer.write(b"PEER %b\n" % self.herd.name.encode())
            self.links[neighbour] = writer
            self.log.event("linked", neighbour=neighbour)
            await reader.read()  # the neighbour says nothing here: what ends is the link
            del self.links[neighbour]
            writer.close()


def main() -> None:
    """Serve until the process is ended."""
    herd = read_arguments("--uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if herd.options.uvloop else None) as runner:
        runner.run(Server(herd).run())


if __name__ == "__main__":
    main()
