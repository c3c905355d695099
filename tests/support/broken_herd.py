"""A small herd of another make, for graders to be tried on: whole, or broken in one way.

    python broken_herd.py HERD.json NAME [FAULT]

HERD.json has `ports`, by the servers' names, and `edges`. Nothing is shared with proxyherd but the client protocol:
it is on asyncio's streams, servers take each other's connections at their client ports, each pair keeps one in each
direction, and what a line of their log looks like is its own. FAULT is the name of one of broken_ways.py.

A server runs as a process of its own, or in this one: whoever runs it gives it its place, which opens connections,
takes its log and ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeAlias

LIMIT = 8_192
PLACES = b'{"html_attributions": [],\n"results": [],\n"status": "ZERO_RESULTS"}'
REDIAL_SECONDS = 0.1

Serve: TypeAlias = Callable[[StreamReader, StreamWriter], Coroutine[Any, Any, None]]


class Place(Protocol):
    """Where a server runs."""

    async def listen(self, serve: Serve, port: int) -> None:
        """Serve each connection to this port from now on."""

    async def dial(self, port: int) -> tuple[StreamReader, StreamWriter]:
        """Open a connection. Raises OSError."""

    def log(self, text: str) -> None:
        """Keep a line of the log."""

    def end(self) -> None:
        """End the server, as a crash does."""


class OwnProcess:
    """A process for one server, that logs to stdout."""

    async def listen(self, serve: Serve, port: int) -> None:
        await asyncio.start_server(serve, "127.0.0.1", port)

    async def dial(self, port: int) -> tuple[StreamReader, StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)

    def log(self, text: str) -> None:
        sys.stdout.write(text)

    def end(self) -> None:
        os._exit(1)


def fraction(pattern: str, text: bytes) -> Fraction | None:
    return Fraction(text.decode()) if re.fullmatch(pattern.encode(), text) else None


class BreakableServer:
    """A whole one. What can be broken stands in a method of its own."""

    limit = LIMIT

    def __init__(self, herd: dict[str, Any], name: str, place: Place) -> None:
        ports, edges = herd["ports"], herd["edges"]
        self.name = name
        self.place = place
        self.port = ports[name]
        self.neighbours = {
            other: ports[other] for edge in edges if name in edge for other in edge if other != name
        }
        self.links: dict[str, StreamWriter] = {}
        self.known: dict[bytes, tuple[Fraction, bytes]] = {}

    def log(self, what: str, line: bytes = b"") -> None:
        self.place.log(f"{time.strftime('%H:%M:%S')} {self.name}: {what} {line.decode('latin-1')!r}\n")

    def log_link(self, what: str) -> None:
        self.log(what)

    async def run(self) -> None:
        await self.place.listen(self.serve, self.port)
        async with asyncio.TaskGroup() as tasks:
            for other, port in self.neighbours.items():
                tasks.create_task(self.keep_link(other, port))
            tasks.create_task(asyncio.sleep(10**9))

    # Lines. --------------------------------------------------------------------------------------------------

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Cut what comes into lines, and answer each, until the other side has said all."""
        peer, rest, dropping, ended = "", b"", False, False
        try:
            while data := await reader.read(65_536):
                if ended:
                    continue
                *lines, rest = self.lines(rest + data)
                for line in lines:
                    if not dropping:
                        peer = await self.take(line, peer, writer)
                    dropping = False
                    if ended := not peer and self.is_last(line):
                        rest = b""
                        writer.write_eof()
                        break
                rest, dropping = self.beginning(rest, writer, dropping=dropping)
                await writer.drain()
            if rest:
                await self.take_unended(rest, peer, writer)
            self.leave(writer)
            await writer.drain()
        except OSError:
            self.broken_off()
        finally:
            if peer:
                self.log_link(f"{peer} disconnected")
            writer.close()

    def beginning(self, rest: bytes, writer: StreamWriter, *, dropping: bool) -> tuple[bytes, bool]:
        """Return what is kept of a line that has no end yet, and whether the rest of it is dropped."""
        if self.is_overlong(rest) and not dropping:
            self.answer_overlong(rest, writer)
            dropping = True
        return (b"", True) if dropping else (rest, False)

    def is_last(self, line: bytes) -> bool:
        """Whether a client is not read any further behind this line: it is a request of HTTP."""
        return re.fullmatch(rb"\s*[A-Za-z]+\s+\S+\s+HTTP/1\.\d\s*", line) is not None

    def lines(self, data: bytes) -> list[bytes]:
        return data.split(b"\n")

    def is_overlong(self, line: bytes) -> bool:
        return len(line) > self.limit

    def answer_overlong(self, start: bytes, writer: StreamWriter) -> None:
        writer.write(b"? " + start[:1024] + b"\n")

    async def take_unended(self, line: bytes, peer: str, writer: StreamWriter) -> None:
        """Take the line that the stream ended in."""
        await self.take(line, peer, writer)

    def leave(self, writer: StreamWriter) -> None:
        """All has been answered that came on a connection."""

    def broken_off(self) -> None:
        """A connection broke off."""

    async def take(self, line: bytes, peer: str, writer: StreamWriter) -> str:
        """Answer a line, or learn from it; return whose connection this is, "" for a client's."""
        if self.is_overlong(line):
            self.answer_overlong(line, writer)
            return peer
        if not peer and (hello := re.fullmatch(rb"HELLO-FROM (\w+) secret", line)):
            return hello[1].decode()
        if peer:
            self.log(f"received from {peer}:", line)
            self.learn(line, peer)
            return peer
        self.log("received:", line)
        words = self.words(line)
        answer = self.answer(words)
        if answer is None:
            answer = self.invalid(line)
        self.log_answer(words, answer)
        await self.send(answer + b"\n", writer)
        return peer

    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        writer.write(answer)

    def log_answer(self, words: list[bytes], answer: bytes) -> None:
        self.log("sent:", answer)

    def words(self, line: bytes) -> list[bytes]:
        return line.split()

    def invalid(self, line: bytes) -> bytes:
        return b"? " + line

    def answer(self, words: list[bytes]) -> bytes | None:
        match words:
            case [b"IAMAT", client, place, when]:
                return self.iamat(client, place, when)
            case [b"WHATSAT", client, radius, bound]:
                return self.whatsat(client, radius, bound)
        return None

    # What clients say. ---------------------------------------------------------------------------------------

    def iamat(self, client: bytes, place: bytes, when: bytes) -> bytes | None:
        received = time.time_ns()
        sent = self.time(when)
        if sent is None or not self.is_location(place):
            return None
        line = b" ".join(
            (b"AT", self.name.encode(), self.difference(received, sent).encode(), client, place, when)
        )
        if client not in self.known or self.is_later(sent, when, self.known[client]):
            self.known[client] = (sent, line)
            self.flood(line, "")
        return line

    def is_location(self, place: bytes) -> bool:
        degrees = re.fullmatch(rb"([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)", place)
        return degrees is not None and self.is_within(degrees[1], degrees[2])

    def is_within(self, latitude: bytes, longitude: bytes) -> bool:
        return abs(Fraction(latitude.decode())) <= 90 and abs(Fraction(longitude.decode())) <= 180

    def time(self, when: bytes) -> Fraction | None:
        return fraction(r"\d{1,12}(\.\d{1,9})?", when)

    def is_later(self, sent: Fraction, when: bytes, held: tuple[Fraction, bytes]) -> bool:
        return sent > held[0]

    def difference(self, received: int, sent: Fraction) -> str:
        return self.spelled(received - int(sent * 10**9))

    def spelled(self, nanoseconds: int) -> str:
        sign, size = "-" if nanoseconds < 0 else "+", abs(nanoseconds)
        return f"{sign}{size // 10**9}.{size % 10**9:09d}"

    def whatsat(self, client: bytes, radius: bytes, bound: bytes) -> bytes | None:
        if client not in self.known or not self.is_radius(radius) or not self.is_bound(bound):
            return None
        return self.known[client][1] + b"\n" + self.places(radius, bound) + b"\n"

    def is_radius(self, radius: bytes) -> bool:
        kilometres = fraction(r"\d+(\.\d+)?", radius[:21])
        return kilometres is not None and len(radius) <= 20 and kilometres <= 50

    def is_bound(self, bound: bytes) -> bool:
        most = fraction(r"\d+", bound[:21])
        return most is not None and len(bound) <= 20 and most <= 20

    def places(self, radius: bytes, bound: bytes) -> bytes:
        return PLACES

    # What servers say. ---------------------------------------------------------------------------------------

    def learn(self, line: bytes, peer: str) -> None:
        _, _, _, client, _, when = line.split()
        sent = self.time(when) or Fraction(0)
        if self.is_news(sent, line, self.known.get(client, (Fraction(-1), b""))):
            self.known[client] = (sent, line)
            self.flood(line, peer)

    def is_news(self, sent: Fraction, line: bytes, held: tuple[Fraction, bytes]) -> bool:
        return (sent, line) > held

    def flood(self, line: bytes, origin: str) -> None:
        for other, writer in self.links.items():
            if other != origin:
                self.log(f"sent to {other}:", line)
                writer.write(line + b"\n")

    async def keep_link(self, other: str, port: int) -> None:
        """Dial a neighbour for ever; tell it all there is to know first."""
        while True:
            try:
                reader, writer = await self.place.dial(port)
            except OSError:
                await asyncio.sleep(REDIAL_SECONDS)
                continue
            self.log_link(f"connected to {other}")
            writer.write(f"HELLO-FROM {self.name} secret\n".encode())
            self.catch_up(writer)
            self.links[other] = writer
            with contextlib.suppress(OSError):
                await reader.read()
            del self.links[other]
            writer.close()
            self.log_link(f"lost {other}")
            await self.lost(other)

    def catch_up(self, writer: StreamWriter) -> None:
        writer.write(b"".join(line + b"\n" for _, line in self.known.values()))

    async def lost(self, other: str) -> None:
        """A link is lost, and is dialled again when this returns."""


if __name__ == "__main__":
    from broken_ways import WAYS

    way = WAYS[sys.argv[3]] if sys.argv[3:] else BreakableServer
    asyncio.run(way(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], OwnProcess()).run())
