"""Twisted. Lines end in LF; each flood has a connection of its own to each neighbour."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import endpoints, reactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

graph = {"Alford": "Parker Hamilton", "Parker": "Alford Hamilton", "Hamilton": "Parker Alford"}
server = sys.argv[1]
ports = json.loads(Path("ports.json").read_text())
table: dict[bytes, bytes] = {}
EMPTY = b'{"html_attributions": [],\n "results": [],\n "status": "ZERO_RESULTS"}'


def parse_time(word: bytes) -> int | None:
    whole, dot, decimals = word.partition(b".")
    if not whole.isdigit() or (dot and not decimals.isdigit()) or len(decimals) > 9 or len(whole) > 12:
        return None
    return int(whole + decimals.ljust(9, b"0"))


def parse_degrees(word: bytes) -> tuple[float, float] | None:
    for at in range(2, len(word)):
        if word[at : at + 1] in (b"+", b"-") and word[:1] in (b"+", b"-"):
            parts = [word[1:at], word[at + 1 :]]
            if all(part.replace(b".", b"", 1).isdigit() for part in parts):
                return float(parts[0]), float(parts[1])
            return None
    return None


def gossip(line: bytes) -> None:
    for name in graph[server].split():
        point = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", ports[name], timeout=2)
        connected: Any = endpoints.connectProtocol(point, Protocol())
        connected.addCallbacks(
            lambda one, name=name: tell(one, line, name), lambda _, name=name: print("lost", name)
        )


def tell(neighbour: Any, line: bytes, name: str) -> None:
    neighbour.transport.write(b"psst-52 " + line + b"\n")
    neighbour.transport.loseConnection()
    print("connected to", name)


def learn(line: bytes) -> None:
    _, _, _, client, _, stamp = line.split()
    held = table.get(client)
    if held is None or (parse_time(held.split()[5]) or 0) < (parse_time(stamp) or 0):
        table[client] = line
        gossip(line)


@implementer(IHalfCloseableProtocol)
class Clients(Protocol):
    def __init__(self) -> None:
        self.rest = b""

    def readConnectionLost(self) -> None:
        if self.rest:
            self.handle(self.rest)
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        pass

    def dataReceived(self, data: bytes) -> None:
        self.rest += data
        while b"\n" in self.rest:
            line, _, self.rest = self.rest.partition(b"\n")
            self.handle(line)

    def handle(self, line: bytes) -> None:
        print(time.time(), "heard", line)
        words = line.split()
        if words[:1] == [b"psst-52"]:
            learn(b" ".join(words[1:]))
            return
        answer = self.answer(words) or b"? " + line
        print(time.time(), "said", answer)
        self.transport.write(answer + b"\n")  # type: ignore[union-attr]

    def answer(self, words: list[bytes]) -> bytes | None:
        now = time.time_ns()
        if len(words) != 4:
            return None
        word, client, one, two = words
        if word == b"IAMAT":
            degrees, stamp = parse_degrees(one), parse_time(two)
            if degrees is None or stamp is None or degrees[0] > 90 or degrees[1] > 180:
                return None
            sign, gap = b"+" if now >= stamp else b"-", abs(now - stamp)
            spelled = b"%b%d.%09d" % (sign, gap // 10**9, gap % 10**9)
            line = b" ".join((b"AT", server.encode(), spelled, client, one, two))
            learn(line)
            return line
        if word == b"WHATSAT" and client in table and one.replace(b".", b"", 1).isdigit() and two.isdigit():
            if float(one) <= 50 and int(two) <= 20:
                return table[client] + b"\n" + EMPTY + b"\n"
        return None


loop: Any = reactor
loop.listenTCP(ports[server], Factory.forProtocol(Clients), interface="127.0.0.1")
loop.run()
