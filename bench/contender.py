"""A contender as the measuring side sees it: started on ports and in a folder of its own, stopped, and checked.

    with Node(edges) as contender:  # from lineup
        ...  # drive contender.ports, note what was sent
        assert contender.check(sent) == []

Nobody's figures count before `check` agrees: as many right answers as commands, as many command events in the log as
were sent, the last report of every client in every server's table, and the same bytes on all of them.
"""

from __future__ import annotations

import contextlib
import operator
import socket
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import BinaryIO, Self, TypeVar

from graphs import Edges
from load import Result
from plan import Plan, Report

T = TypeVar("T")
ALONE = "Clark"
"""The server of a herd without edges."""

LOG_SECONDS = 10.0
"""How long a log may lag behind the answers."""

TABLE_SECONDS = 20.0
"""How long floods may take to arrive when the load has ended."""

_ASKED_AT_ONCE = 200
_ASKED_AT_MOST = 20_000
"""Clients that a server is asked about, evenly taken from all; journal and counts are of all of them."""


class Sent:
    """What a contender was sent: by it, `check` knows what has to be there."""

    def __init__(self) -> None:
        self.reports: Counter[str] = Counter()
        """By server that took them."""
        self.latest: dict[bytes, bytes] = {}
        """The operands of each client's last report."""
        self.faults: list[str] = []

    def add(self, plan: Plan, result: Result, servers: Sequence[str]) -> None:
        """Note a load that went over connections to these servers, counted round."""
        for connection in range(plan.connections):
            for report in plan.made(connection):
                self.report(servers[connection % len(servers)], report)
        if result.sent != plan.commands or result.answered != plan.commands:
            self.faults.append(f"{plan.commands} commands, {result.sent} sent, {result.answered} answered")
        if result.wrong:
            self.faults.append(f"{result.wrong} wrong answers, the first: {result.first_wrong}")

    def report(self, server: str, report: Report) -> None:
        """Note one report."""
        self.reports[server] += 1
        self.latest[report.client] = report.operands


class Contender(ABC):
    """Servers that can be measured. Starts when entered, is gone when left."""

    name: str
    wire = "lines"
    is_herd = True
    """Whether its servers tell each other."""

    has_turns = False
    """Whether all that it takes in one turn of its event loop has the same receiving time, so that turns can be counted."""

    def __init__(self, edges: Edges = ()) -> None:
        self.edges = edges
        self.names = sorted({name for edge in edges for name in edge}) or [ALONE]
        self._stack = contextlib.ExitStack()

    @classmethod
    def missing(cls) -> str:
        """Return what this machine lacks for it, and how to get it; nothing if it can run."""
        return ""

    @property
    @abstractmethod
    def pids(self) -> list[int]:
        """The ids of all its processes."""

    @property
    @abstractmethod
    def ports(self) -> dict[str, int]:
        """Where each server listens for clients."""

    @property
    def targets(self) -> dict[str, int]:
        """Where each server takes the load."""
        return self.ports

    @abstractmethod
    def start(self) -> None:
        """Start all servers; return when they serve, linked."""

    def stop(self) -> None:
        """End its processes and remove its files."""
        self._stack.close()

    def check(self, sent: Sent) -> list[str]:
        """Return what does not agree with what was sent, in words; nothing when all does."""
        return [*sent.faults, *self._check_log(sent), *self._check_tables(sent)]

    @abstractmethod
    def logged(self, server: str) -> int | None:
        """Return how many IAMAT events stand in a server's log, None if it keeps none."""

    def table(self, server: str, clients: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the AT lines that a server holds of these clients."""
        return ask_table(self.ports[server], clients)

    def _check_log(self, sent: Sent) -> Iterator[str]:
        for name in self.names:
            wanted = sent.reports[name]
            seen = within(LOG_SECONDS, partial(self.logged, name), (wanted, None).__contains__)
            if seen not in (wanted, None):
                yield f"{self.name}: {name} was sent {wanted} reports, and its log has {seen}"

    def _check_tables(self, sent: Sent) -> Iterator[str]:
        clients = list(sent.latest)[:: len(sent.latest) // _ASKED_AT_MOST + 1]
        first: dict[bytes, bytes] = {}
        for name in self.names:
            differing = partial(self._differing, name, clients, sent, first)
            table = within(TABLE_SECONDS, differing, operator.not_)
            if table:
                client, line = next(iter(table.items()))
                yield (
                    f"{self.name}: {name} differs about {len(table)} of {len(clients)} clients; of {client!r} it has "
                    f"{line!r}, reported last was {sent.latest[client]!r}, and {self.names[0]} has {first[client]!r}"
                )

    def _differing(
        self, name: str, clients: Sequence[bytes], sent: Sent, first: dict[bytes, bytes]
    ) -> dict[bytes, bytes]:
        """Return what is not the last report, or not the same bytes as the first server has; `first` learns those."""
        table = self.table(name, clients)
        if name == self.names[0]:
            first.update((client, table.get(client, b"")) for client in clients)
        return {
            client: line
            for client in clients
            if not (line := table.get(client, b"")).endswith(b" " + sent.latest[client])
            or line != first[client]
        }

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def within(seconds: float, read: Callable[[], T], is_done: Callable[[T], bool]) -> T:
    """Return what `read` says once that is enough, or when so many seconds have passed."""
    deadline = time.monotonic() + seconds
    while not is_done(seen := read()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen


def ask_table(port: int, clients: Sequence[bytes]) -> dict[bytes, bytes]:
    """Ask a server about each client, so that nobody is asked for places; return the AT lines of those it knows."""
    table: dict[bytes, bytes] = {}
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        answers = connection.makefile("rb")
        for first in range(0, len(clients), _ASKED_AT_ONCE):
            asked = clients[first : first + _ASKED_AT_ONCE]
            connection.sendall(b"".join(b"WHATSAT %b 0 0\n" % client for client in asked))
            for client in asked:
                line = read_at(answers)
                if line:
                    table[client] = line
        answers.close()
    return table


def read_at(answers: BinaryIO) -> bytes:
    """Read one answer to a WHATSAT; return its AT line without LF, nothing if the client is not known."""
    line = answers.readline()
    if not line.startswith(b"AT "):
        return b""
    while answers.readline() not in (b"\n", b""):
        pass
    return line.removesuffix(b"\n")
