"""An asyncio Protocol. The difference is a float as Python prints it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

with open("ports.json") as file:
    PORTS = json.load(file)
TALKS_TO = dict(Alford="Parker Hamilton", Hamilton="Parker Alford", Parker="Alford Hamilton")
SERVER = sys.argv[1]
seen: dict[bytes, list[bytes]] = {}
EMPTY = b'{"html_attributions":[],"results":[],"status":"ZERO_RESULTS"}'


class Herd(asyncio.Protocol):
    buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            self.line_received(line)

    def eof_received(self) -> None:
        if self.buffer:
            self.line_received(self.buffer)

    def line_received(self, line: bytes) -> None:
        words = line.split()
        print("in:", line)
        if words[:1] == [b"IAMAT"] and len(words) == 4:
            self.iamat(line, *words[1:])
        elif words[:1] == [b"WHATSAT"] and len(words) == 4:
            self.whatsat(line, *words[1:])
        elif words[:1] == [b"sibling"] and len(words) == 7:
            learn(words[1:])
        else:
            self.say(b"? " + line)

    def say(self, line: bytes) -> None:
        print("out:", line)
        self.transport.write(line + b"\n")

    def iamat(self, line: bytes, name: bytes, place: bytes, sent: bytes) -> None:
        place_ok = re.fullmatch(rb"([+-]\d+\.?\d*)([+-]\d+\.?\d*)", place)
        if not place_ok or not re.fullmatch(rb"\d+(\.\d+)?", sent):
            return self.say(b"? " + line)
        if abs(float(place_ok[1])) > 90 or abs(float(place_ok[2])) > 180:
            return self.say(b"? " + line)
        difference = time.time() - float(sent)
        at = [b"AT", SERVER.encode(), f"{difference:+}".encode(), name, place, sent]
        self.say(b" ".join(at))
        learn(at)

    def whatsat(self, line: bytes, name: bytes, radius: bytes, most: bytes) -> None:
        good = re.fullmatch(rb"\d+(\.\d+)?", radius) and re.fullmatch(rb"\d+", most) and name in seen
        if good and float(radius) <= 50 and int(most) <= 20:
            self.say(b" ".join(seen[name]) + b"\n" + EMPTY + b"\n")
        else:
            self.say(b"? " + line)


class Sibling(asyncio.Protocol):
    """A connection for one flood."""

    def __init__(self, line: bytes) -> None:
        self.line = line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.line)
        transport.close()


def learn(at: list[bytes]) -> None:
    name, sent = at[3], float(at[5])
    if name in seen and float(seen[name][5]) >= sent:
        return
    seen[name] = at
    for other in TALKS_TO[SERVER].split():
        asyncio.ensure_future(flood(PORTS[other], b"sibling " + b" ".join(at) + b"\n"))


async def flood(port: int, line: bytes) -> None:
    try:
        await asyncio.get_running_loop().create_connection(lambda: Sibling(line), "127.0.0.1", port)
        print("connected to port", port)
    except OSError:
        print("lost the server at port", port)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Herd, "127.0.0.1", PORTS[SERVER])
    await server.serve_forever()


asyncio.run(main())
