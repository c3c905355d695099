"""The floor: what bytes cost that nobody reads. An echo in uvloop, the event loop under the herd.

python -m contenders.echo HERD.json NAME
"""

from __future__ import annotations

import asyncio
from typing import cast

import uvloop

from contenders.rules import read_arguments


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=1_024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(read_arguments().port))
