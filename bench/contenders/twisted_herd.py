"""A herd on Twisted, the way its tutorials lead: a LineReceiver, and for each update a new connection to each neighbour.

With `--equal`: links that stay, by ReconnectingClientFactory, and a log of JSON lines. With `--bare`: neither links nor
a log.

    python -m contenders.twisted_herd HERD.json NAME [--equal | --bare]
"""

# Twisted is typed in part, and need not be installed where this is linted.
# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False, disable-error-code="import-not-found"

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet import reactor as installed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, ReconnectingClientFactory
from twisted.protocols.basic import LineReceiver
from twisted.python import log as twisted_log
from twisted.python.failure import Failure

from contenders.rules import Herd, JsonLog, Outcome, Rules, read_arguments

reactor: Any = installed  # which one that is, only the running program knows


class Log(Protocol):
    """Where commands are noted."""

    def command(self, client: str, line: bytes, outcome: Outcome) -> None: ...

    def event(self, event: str, **fields: str) -> None: ...


class TwistedLog:
    """Twisted's own log, a line of text each time."""

    def __init__(self, herd: Herd) -> None:
        twisted_log.startLogging(herd.log.open("a"), setStdout=False)

    def command(self, client: str, line: bytes, _: Outcome) -> None:
        twisted_log.msg(f"received from {client}: {line.decode('utf-8', 'backslashreplace')}")

    def event(self, event: str, **fields: str) -> None:
        twisted_log.msg(event, " ".join(fields.values()))


class Line(LineReceiver):
    """Lines that end in LF, and leave at once."""

    delimiter = b"\n"
    MAX_LENGTH = 8_192
    transport: Any

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)


class Server(Line):
    """One connection, of a client or of another server."""

    def __init__(self, herd: HerdFactory) -> None:
        self.herd = herd
        self.peer = ""  # the neighbour that said who it is
        self.client = ""

    def connectionMade(self) -> None:
        super().connectionMade()
        address = self.transport.getPeer()
        self.client = f"{address.host}:{address.port}"

    def lineReceived(self, line: bytes) -> None:
        outcome = self.herd.rules.handle(line)
        self.herd.log.command(self.client, line, outcome)
        if outcome.kind == "peer":
            self.peer = line.split()[1].decode()
        if outcome.news is not None:
            self.herd.flooding.flood(outcome.news, self.peer)
        if outcome.answer is not None:
            self.sendLine(outcome.answer)


class Bare(Line):
    """One connection of a client, with nothing but the rules behind it."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def lineReceived(self, line: bytes) -> None:
        answer = self.rules.handle(line).answer
        if answer is not None:
            self.sendLine(answer)


class BareFactory(Factory):
    """What all connections of a bare server share."""

    noisy = False

    def __init__(self, herd: Herd) -> None:
        self.rules = Rules(herd.name)

    def buildProtocol(self, _: IAddress | None) -> Bare:
        return Bare(self.rules)


class Flooding(Protocol):
    """How updates reach the neighbours."""

    def flood(self, line: bytes, origin: str) -> None: ...


class ConnectionEach:
    """A connection for each update to each neighbour; whom it came from is not known, and is told again."""

    def __init__(self, herd: Herd, log: Log) -> None:
        self._log = log
        self._endpoints = {
            name: TCP4ClientEndpoint(reactor, "127.0.0.1", port) for name, port in herd.neighbours.items()
        }

    def flood(self, line: bytes, _: str) -> None:
        for name, endpoint in self._endpoints.items():
            connectProtocol(endpoint, Update(line)).addErrback(self._failed, name)

    def _failed(self, failure: Failure, name: str) -> None:
        self._log.event("unreachable", neighbour=name, reason=failure.getErrorMessage())


class Update(Line):
    """Says one line and goes."""

    def __init__(self, line: bytes) -> None:
        self._line = line

    def connectionMade(self) -> None:
        self.sendLine(self._line)
        self.transport.loseConnection()


class Links:
    """A link to each neighbour that stays, and says first who speaks."""

    def __init__(self, herd: Herd, log: Log) -> None:
        self._links = {name: LinkFactory(herd.name, name, log) for name in herd.neighbours}
        for name, port in herd.neighbours.items():
            reactor.connectTCP("127.0.0.1", port, self._links[name])

    def flood(self, line: bytes, origin: str) -> None:
        for name, factory in self._links.items():
            if name != origin and factory.link is not None:
                factory.link.sendLine(line)


class LinkFactory(ReconnectingClientFactory):
    """Dials one neighbour for ever."""

    initialDelay: Any = 0.05
    maxDelay: Any = 5.0

    def __init__(self, name: str, neighbour: str, log: Log) -> None:
        self.hello = f"PEER {name}".encode()
        self.neighbour = neighbour
        self.log = log
        self.link: Link | None = None

    def buildProtocol(self, _: IAddress | None) -> Link:
        self.resetDelay()
        return Link(self)


class Link(Line):
    """The way to one neighbour."""

    def __init__(self, factory: LinkFactory) -> None:
        self._of = factory

    def connectionMade(self) -> None:
        super().connectionMade()
        self.sendLine(self._of.hello)
        self._of.link = self
        self._of.log.event("linked", neighbour=self._of.neighbour)

    def connectionLost(self, reason: Any = None) -> None:
        self._of.link = None
        super().connectionLost(reason)


class HerdFactory(Factory):
    """What all connections of one server share."""

    noisy = False

    def __init__(self, herd: Herd) -> None:
        self.rules = Rules(herd.name)
        self.log: Log = JsonLog(herd) if herd.options.equal else TwistedLog(herd)
        self.flooding: Flooding = (Links if herd.options.equal else ConnectionEach)(herd, self.log)

    def buildProtocol(self, _: IAddress | None) -> Server:
        return Server(self)


def main() -> None:
    """Serve until the process is ended."""
    herd = read_arguments("--bare")
    factory = (BareFactory if herd.options.bare else HerdFactory)(herd)
    reactor.listenTCP(herd.port, factory, backlog=1_024, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
