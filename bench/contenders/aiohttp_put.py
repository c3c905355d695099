"""A report by HTTP as most would write it: a handler of aiohttp, the shared rules with their dict, a log of JSON lines.

python -m contenders.aiohttp_put HERD.json NAME --equal
"""

from __future__ import annotations

import asyncio
import json
from functools import partial

import uvloop
from aiohttp import web

from contenders.rules import Herd, JsonLog, Rules, read_arguments

_read = partial(json.loads, parse_float=str)
"""So that the digits of numbers stay as they are."""


class Server:
    """One server."""

    def __init__(self, herd: Herd) -> None:
        self.herd = herd
        self.rules = Rules(herd.name)
        self.log = JsonLog(herd)
        self.lines: dict[str, bytes] = {}

    async def run(self) -> None:
        """Serve until the process is ended."""
        app = web.Application()
        app.add_routes([web.put("/v1/clients/{id}", self.put), web.get("/table", self.table)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.herd.port, backlog=1_024).start()
        await asyncio.Event().wait()

    async def put(self, request: web.Request) -> web.Response:
        """Take a report."""
        client = request.match_info["id"]
        report = await request.json(loads=_read)
        line = f"IAMAT {client} +{report['lat']}{report['lon']} {report['time']}".encode()
        outcome = self.rules.handle(line)
        self.log.command(request.remote or "", line, outcome)
        if outcome.kind != "iamat" or outcome.answer is None:
            raise web.HTTPBadRequest
        self.lines[client] = outcome.answer
        return web.json_response({"outcome": "stored", "at": outcome.answer.decode()})

    async def table(self, _: web.Request) -> web.Response:
        """Return the AT lines of all clients."""
        return web.Response(body=b"\n".join(self.lines.values()))


if __name__ == "__main__":
    uvloop.run(Server(read_arguments()).run())
