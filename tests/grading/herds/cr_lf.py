"""Twisted's LineReceiver as it is: lines end in CR LF, in both directions."""

import json
import re
import sys
import time
from decimal import Decimal
from typing import Any

from twisted.internet import protocol, reactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.protocols.basic import LineReceiver
from zope.interface import implementer

NEIGHBORS = {
    "Alford": ["Hamilton", "Parker"],
    "Hamilton": ["Alford", "Parker"],
    "Parker": ["Alford", "Hamilton"],
}
LOCATION = re.compile(r"^([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)\Z", re.ASCII)
SECRET = "walnut"
loop: Any = reactor


@implementer(IHalfCloseableProtocol)
class ServerProtocol(LineReceiver):
    factory: "ServerFactory"

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        pass

    def lineReceived(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        print("received:", text)
        fields = text.split()
        handled = False
        if len(fields) == 4 and fields[0] in ("IAMAT", "WHATSAT"):
            handled = getattr(self, "handle_" + fields[0].lower())(*fields[1:])
        elif len(fields) == 7 and fields[0] == SECRET:
            self.factory.update(fields[1:])
            handled = True
        if not handled:
            self.answer("? " + text)

    def answer(self, text: str) -> None:
        print("sent:", text)
        self.sendLine(text.encode())

    def handle_iamat(self, client: str, location: str, sent: str) -> bool:
        now = Decimal(time.time_ns()).scaleb(-9)
        match = LOCATION.match(location)
        if match is None or re.fullmatch(r"\d{1,12}(\.\d{1,9})?", sent, re.ASCII) is None:
            return False
        if abs(Decimal(match[1])) > 90 or abs(Decimal(match[2])) > 180:
            return False
        fields = ["AT", self.factory.name, f"{now - Decimal(sent):+.9f}", client, location, sent]
        self.factory.update(fields)
        self.answer(" ".join(fields))
        return True

    def handle_whatsat(self, client: str, radius: str, limit: str) -> bool:
        known = self.factory.clients.get(client)
        if known is None or not re.fullmatch(r"\d+(\.\d+)?", radius) or not limit.isdigit():
            return False
        if Decimal(radius) > 50 or int(limit) > 20:
            return False
        body = json.dumps({"html_attributions": [], "results": [], "status": "ZERO_RESULTS"})
        self.answer(" ".join(known) + "\r\n" + body + "\r\n")
        return True


class ServerFactory(protocol.ServerFactory):
    protocol = ServerProtocol

    def __init__(self, name: str, ports: dict[str, int]) -> None:
        self.name = name
        self.ports = ports
        self.clients: dict[str, list[str]] = {}

    def update(self, fields: list[str]) -> None:
        client, sent = fields[3], Decimal(fields[5])
        if client not in self.clients or Decimal(self.clients[client][5]) < sent:
            self.clients[client] = fields
            for neighbor in NEIGHBORS[self.name]:
                loop.connectTCP("127.0.0.1", self.ports[neighbor], Flood(neighbor, [SECRET, *fields]))


class FloodProtocol(LineReceiver):
    factory: "Flood"

    def connectionMade(self) -> None:
        self.sendLine(" ".join(self.factory.fields).encode())
        self.transport.loseConnection()  # type: ignore[union-attr]
        print("connected to", self.factory.neighbor)


class Flood(protocol.ClientFactory):
    protocol = FloodProtocol
    noisy = False

    def __init__(self, neighbor: str, fields: list[str]) -> None:
        self.neighbor = neighbor
        self.fields = fields

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        print("lost", self.neighbor, reason.getErrorMessage())


with open("ports.json") as file:
    herd = json.load(file)
loop.listenTCP(herd[sys.argv[1]], ServerFactory(sys.argv[1], herd), interface="127.0.0.1")
loop.run()
