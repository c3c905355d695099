"""What `websockets` brings for this: `broadcast`. Whoever connects is told what is sent to `/report`; nothing is kept, parsed,
or asked of another server.

python -m contenders.websockets_broadcast HERD.json NAME [--uvloop]
"""

from __future__ import annotations

import asyncio

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from contenders.rules import read_arguments

FOLLOWERS: set[ServerConnection] = set()


async def handle(connection: ServerConnection) -> None:
    """Serve one connection: that of a reporter, or of a follower."""
    assert connection.request is not None
    if connection.request.path == "/report":
        async for message in connection:
            broadcast(FOLLOWERS, message)
        return
    FOLLOWERS.add(connection)
    try:
        await connection.wait_closed()
    finally:
        FOLLOWERS.remove(connection)


async def run(port: int) -> None:
    """Serve until the process is ended."""
    async with serve(
        handle, "127.0.0.1", port, backlog=1_024, compression=None, ping_interval=None
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    herd = read_arguments("--uvloop")
    (uvloop if herd.options.uvloop else asyncio).run(run(herd.port))
