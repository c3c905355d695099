"""What a load sends: a plan small enough to hand to another process, from which both know every command.

Every report is news. A client belongs to one connection, so its reports arrive in the order of their times; times
increase with every report, and a later plan's are later. Positions change with every report, and all lie in Los Angeles,
where much is near.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

NANOSECONDS = 1_000_000_000


class Report(NamedTuple):
    """A client, its location and time, as they stand in an IAMAT line."""

    client: bytes
    location: bytes
    time: bytes

    @property
    def operands(self) -> bytes:
        """What every AT line of this report ends with."""
        return b"%b %b %b" % self


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """So many commands over so many connections; each `asks_every`th of a connection asks about its last report.

    `base`: nanoseconds of POSIX time, of the first report. `asks_every`: 0 for reports alone, 1 for questions
    alone, 10 for nine reports and a question. `stride`: how far on the next client is; a prime far from a divisor of how
    many there are goes through all of them in another order than `1` does. `word`: what the clients' names begin with.
    """

    commands: int
    connections: int
    clients: int = 100_000
    asks_every: int = 0
    stride: int = 1
    word: str = "client"
    base: int = msgspec.field(default_factory=time.time_ns)

    def __post_init__(self) -> None:
        if self.clients < self.connections:
            raise ValueError(f"{self.clients} clients are too few for {self.connections} connections")

    def share(self, connection: int) -> int:
        """Return how many commands a connection has to send."""
        return self.commands // self.connections + (connection < self.commands % self.connections)

    def asks(self, number: int) -> bool:
        """Return whether a connection's command of that number is a question."""
        return bool(self.asks_every) and number % self.asks_every == self.asks_every - 1

    def report(self, connection: int, number: int) -> Report:
        """Return the report that a connection's command of that number makes, or asks about."""
        if self.asks(number) and self.asks_every > 1:
            number -= 1
        own = (self.clients - connection + self.connections - 1) // self.connections
        client = connection + self.connections * (number * self.stride % own)
        moved = (number * 7_919 + connection * 104_729) % 100_000
        seconds, rest = divmod(self.base + number * self.connections + connection, NANOSECONDS)
        return Report(
            b"%b%06d.example.com" % (self.word.encode(), client),
            b"+34.0%05d-118.2%05d" % (moved, 99_999 - moved),
            b"%d.%09d" % (seconds, rest),
        )

    def made(self, connection: int) -> Iterator[Report]:
        """Yield the reports of one connection, in the order of their times."""
        return (
            self.report(connection, number)
            for number in range(self.share(connection))
            if not self.asks(number)
        )
