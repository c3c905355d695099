"""A small herd of another make, for graders to be tried on: whole, or broken in one way.

    python broken_herd.py HERD.json NAME [FAULT]

HERD.json has `ports`, by the servers' names, and `edges`. Nothing is shared with proxyherd but the client protocol:
it is on asyncio's streams, servers take each other's connections at their client ports, each pair keeps one in each
direction, and what a line of their log looks like is its own. FAULT is one of

    float      differences are computed with floats
    no-flood   what a server takes it tells nobody
    loops      what a server hears it tells everybody, news or not (so often at most that the machine survives)
    at         AT is believed, whoever says it
    crash      a command with a word missing ends the server
    mute-at    answers to IAMAT are not logged; that they are flooded is
    mute-json  answers to WHATSAT are not logged
    mute-links connections of servers are not logged, neither made nor lost, only what is told to whom
    first      of two reports of the same time the one that came first counts

or a way to be whole and yet to mislead a grader:

    fields     each line of the log ends in `"error":null dropped=0`
    own-log    the log is the file NAME.log; what is printed is no more than a greeting
    escape     the server says something to the terminal, and ends
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
from collections import Counter
from fractions import Fraction
from pathlib import Path

FAULTS = ("float", "no-flood", "loops", "at", "crash")
"""What is tried with all checks; the others are about a section."""

LIMIT = 8_192
LOOPS = 15
"""How often a server that loops tells the same thing again."""

PLACES = b'{"html_attributions": [],\n"results": [],\n"status": "ZERO_RESULTS"}'


def fraction(pattern: str, text: bytes) -> Fraction | None:
    return Fraction(text.decode()) if re.fullmatch(pattern.encode(), text) else None


class Server:
    def __init__(self, herd: dict[str, dict[str, int] | list[list[str]]], name: str, fault: str) -> None:
        ports, edges = herd["ports"], herd["edges"]
        assert isinstance(ports, dict)
        assert isinstance(edges, list)
        self.name = name
        self.fault = fault
        self.port = ports[name]
        self.neighbours = {
            other: ports[other] for edge in edges if name in edge for other in edge if other != name
        }
        self.links: dict[str, StreamWriter] = {}
        self.known: dict[bytes, tuple[Fraction, bytes]] = {}
        self.told: Counter[bytes] = Counter()

    def log(self, what: str, line: bytes = b"") -> None:
        fields = ' "error":null dropped=0' if self.fault == "fields" else ""
        text = f"{time.strftime('%H:%M:%S')} {self.name}: {what} {line.decode('latin-1')!r}{fields}\n"
        if self.fault == "own-log":
            with Path(f"{self.name}.log").open("a") as file:
                file.write(text)
        else:
            sys.stdout.write(text)

    def log_link(self, what: str) -> None:
        if self.fault != "mute-links":
            self.log(what)

    async def run(self) -> None:
        if self.fault == "own-log":
            sys.stdout.write(f"{self.name} at port {self.port}\n")
        if self.fault == "escape":
            sys.stdout.write("\x1b]0;pwned\a\x1b[8m\0\n")
            return
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve_forever())
            for other, port in self.neighbours.items():
                tasks.create_task(self.keep_link(other, port))

    # Lines. --------------------------------------------------------------------------------------------------

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Cut what comes into lines, and answer each, until the other side has said all."""
        peer, rest, dropping, ended = "", b"", False, False
        try:
            while data := await reader.read(65_536):
                if ended:
                    continue
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if not dropping:
                        peer = self.take(line, peer, writer)
                    dropping = False
                    if not peer and re.fullmatch(rb"\s*[A-Za-z]+\s+\S+\s+HTTP/1\.\d\s*", line):
                        ended, rest = True, b""
                        writer.write_eof()
                        break
                if len(rest) > LIMIT and not dropping:
                    writer.write(b"? " + rest[:1024] + b"\n")
                    dropping = True
                rest = b"" if dropping else rest
                await writer.drain()
            if rest:
                self.take(rest, peer, writer)
            await writer.drain()
        except OSError:
            pass
        finally:
            if peer:
                self.log_link(f"{peer} disconnected")
            writer.close()

    def take(self, line: bytes, peer: str, writer: StreamWriter) -> str:
        """Answer a line, or learn from it; return whose connection this is, "" for a client's."""
        if len(line) > LIMIT:
            writer.write(b"? " + line[:1024] + b"\n")
            return peer
        if not peer and (hello := re.fullmatch(rb"HELLO-FROM (\w+) secret", line)):
            return hello[1].decode()
        words = line.split()
        if peer or (self.fault == "at" and words[:1] == [b"AT"] and len(words) == 6):
            self.log(f"received from {peer or 'somebody'}:", line)
            self.learn(line, peer)
            if peer:
                return peer
        else:
            self.log("received:", line)
        answer = self.answer(words) or b"? " + line
        if not (
            answer.startswith(b"AT ")
            and self.fault == {b"IAMAT": "mute-at", b"WHATSAT": "mute-json"}[words[0]]
        ):
            self.log("sent:", answer)
        writer.write(answer + b"\n")
        return peer

    def answer(self, words: list[bytes]) -> bytes | None:
        if self.fault == "crash" and words[:1] == [b"IAMAT"] and len(words) < 4:
            os._exit(1)
        match words:
            case [b"IAMAT", client, place, when]:
                return self.iamat(client, place, when)
            case [b"WHATSAT", client, radius, bound]:
                return self.whatsat(client, radius, bound)
        return None

    # What clients say. ---------------------------------------------------------------------------------------

    def iamat(self, client: bytes, place: bytes, when: bytes) -> bytes | None:
        received = time.time_ns()
        degrees = re.fullmatch(rb"([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)", place)
        sent = fraction(r"\d{1,12}(\.\d{1,9})?", when)
        if degrees is None or sent is None:
            return None
        if abs(Fraction(degrees[1].decode())) > 90 or abs(Fraction(degrees[2].decode())) > 180:
            return None
        difference = received - int(sent * 10**9)
        text = f"{'-' if difference < 0 else '+'}{abs(difference) // 10**9}.{abs(difference) % 10**9:09d}"
        if self.fault == "float":
            text = f"{received / 1e9 - float(when):+.9f}"
        line = b" ".join((b"AT", self.name.encode(), text.encode(), client, place, when))
        if client not in self.known or sent > self.known[client][0]:
            self.known[client] = (sent, line)
            self.flood(line, "")
        return line

    def whatsat(self, client: bytes, radius: bytes, bound: bytes) -> bytes | None:
        kilometres, most = fraction(r"\d+(\.\d+)?", radius[:21]), fraction(r"\d+", bound[:21])
        if kilometres is None or most is None or client not in self.known:
            return None
        if len(radius) > 20 or len(bound) > 20 or kilometres > 50 or most > 20:
            return None
        return self.known[client][1] + b"\n" + PLACES + b"\n"

    # What servers say. ---------------------------------------------------------------------------------------

    def learn(self, line: bytes, peer: str) -> None:
        _, _, _, client, _, when = line.split()
        sent = Fraction(when.decode())
        held = self.known.get(client, (Fraction(-1), b""))
        is_news = sent > held[0] if self.fault == "first" else (sent, line) > held
        if is_news:
            self.known[client] = (sent, line)
        if self.fault == "loops":
            self.told[line] += 1
            if self.told[line] <= LOOPS:
                self.flood(line, "")
        elif is_news:
            self.flood(line, peer)

    def flood(self, line: bytes, origin: str) -> None:
        if self.fault == "mute-links":
            for other in self.neighbours.keys() - self.links.keys():
                self.log(f"sent to {other}:", line)
        for other, writer in self.links.items():
            if other != origin and self.fault != "no-flood":
                self.log(f"sent to {other}:", line)
                writer.write(line + b"\n")

    async def keep_link(self, other: str, port: int) -> None:
        """Dial a neighbour for ever; tell it all there is to know first."""
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            self.log_link(f"connected to {other}")
            writer.write(f"HELLO-FROM {self.name} secret\n".encode())
            if self.fault != "no-flood":
                writer.writelines(line + b"\n" for _, line in self.known.values())
            self.links[other] = writer
            with contextlib.suppress(OSError):
                await reader.read()
            del self.links[other]
            writer.close()
            self.log_link(f"lost {other}")


if __name__ == "__main__":
    asyncio.run(Server(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], (*sys.argv[3:], "")[0]).run())
