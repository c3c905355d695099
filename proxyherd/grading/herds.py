"""The herd under judgement: its servers, who is linked with whom as far as that is known, and its logs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from proxyherd.grading.answers import parse_at
from proxyherd.grading.faults import Fault, NotSeen, shown
from proxyherd.grading.keeping import Keeper
from proxyherd.grading.servers import LOCATION, Server, new_client, now, until

MOST_LOG_BYTES: Final = 1 << 26
"""Bytes of a log that are looked at for one check."""

QUESTIONS: Final = (b"0 0", b"1 1", b"10 5")
"""Radius and bound by which a herd is asked for a client, the first that it takes: 0 costs nothing."""


class NotReached(Exception):  # noqa: N818 - it is what the herd is
    """A server gave no answer at all; the text says which, where, and what was seen."""


class Log:
    """The log of one server, from where it stood when this was made."""

    def __init__(self, server: Server) -> None:
        if server.log is None:
            raise NotSeen(f"no log of {server.name} is named: --logs, --log")
        self.server = server
        self._file = server.log
        self._start, self._inode = self._stat()

    def _stat(self) -> tuple[int, int]:
        try:
            found = self._file.stat()
        except OSError:
            return 0, 0
        return found.st_size, found.st_ino

    def new(self) -> bytes:
        """Return what has been added; of a file that has been replaced, all there is."""
        size, inode = self._stat()
        start = self._start if inode == self._inode and size >= self._start else 0
        try:
            with self._file.open("rb") as file:
                file.seek(start)
                return file.read(MOST_LOG_BYTES)
        except OSError:
            return b""

    async def until_found(self, is_it: Callable[[bytes], object], seconds: float) -> bool:
        """Wait until this is true of a line that has been added; return whether it was in time."""

        async def found() -> bool:
            return any(map(is_it, self.new().split(b"\n")))

        return await until(found, seconds)


class Herd:
    """The servers of one herd. `edges` is None where nobody said who is linked with whom."""

    def __init__(
        self,
        servers: Iterable[Server],
        edges: Iterable[tuple[str, str]] | None = None,
        keeper: Keeper | None = None,
        max_line_bytes: int = 8_192,
    ) -> None:
        self.servers = list(servers)
        self.edges = None if edges is None else [frozenset(edge) for edge in edges]
        self.keeper = keeper
        self.max_line_bytes = max_line_bytes

    def turn(self, number: int) -> Server:
        """Return one server, in turn, so that all get their share."""
        return self.servers[number % len(self.servers)]

    def others(self, server: Server) -> list[Server]:
        return [other for other in self.servers if other is not server]

    def neighbours(self, server: Server) -> list[Server]:
        """Return who is linked with a server; where that is not known, all others may be."""
        if self.edges is None:
            return self.others(server)
        return [other for other in self.others(server) if {server.name, other.name} in self.edges]

    def reach(self, server: Server, without: Server | None = None) -> list[Server]:
        """Return the others that a report at a server is to reach, also while one is lost."""
        found, frontier = [server], [server]
        while frontier:
            frontier = [
                other
                for other in self.servers
                if other not in found
                and other is not without
                and any(other in self.neighbours(one) for one in frontier)
            ]
            found += frontier
        return found[1:]

    def pairs(self) -> Iterator[tuple[Server, Server]]:
        """Yield every two servers of which the second is to hear of the first's reports."""
        for server in self.servers:
            for other in self.reach(server):
                yield server, other

    def logs(self) -> list[Log]:
        """Return all servers' logs as they stand. Raises NotSeen where one is not named."""
        return [Log(server) for server in self.servers]

    async def meet(self) -> None:
        """Make sure that every server answers, and learn what those are called of whom only the address is known.

        Raises NotReached.
        """
        results = await asyncio.gather(*map(self._meet, self.servers), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, NotReached):
                raise result
        problems = [str(result) for result in results if isinstance(result, NotReached)]
        if problems:
            raise NotReached("; ".join(problems))
        for name, alike in itertools.groupby(sorted(server.name for server in self.servers)):
            if len(list(alike)) > 1:
                raise NotReached(f"two of the servers say that they are {name}; each is to be named once")

    async def _meet(self, server: Server) -> None:
        client = new_client()
        line = b"IAMAT %b %b %b" % (client, LOCATION, now())
        try:
            answer = await server.ask(line)
        except Fault as fault:
            where = f"{server.host}:{server.port}"
            called = "" if server.name == where else f"{server.name} at "
            raise NotReached(f"{called}{where}: {fault.got}") from fault
        at = parse_at(answer)
        if server.name == f"{server.host}:{server.port}":
            # One that answers otherwise is judged under its address: that it does is a fault of its own.
            server.name = at.server.decode("ascii", "backslashreplace") if at else server.name
        with contextlib.suppress(Fault):  # one that does not answer this is for the checks to judge
            for question in QUESTIONS if at else ():
                if (await server.ask(b"WHATSAT %b %b" % (client, question))).startswith(b"AT "):
                    server.question = question
                    return

    async def settle(self, seconds: float) -> None:
        """Wait until a report at each server is known at all that are to hear of it, so long at most.

        Servers that have just been started may still be finding one another; what is then still wrong is for the
        checks to say.
        """
        deadline = time.monotonic() + seconds
        pairs = set(self.pairs())
        while pairs and time.monotonic() < deadline:
            lines = dict(
                zip(
                    self.servers,
                    await asyncio.gather(*(self._report(server) for server in self.servers)),
                    strict=True,
                )
            )
            wait = min(0.5, seconds)
            known = await asyncio.gather(*(_holds(other, lines[server], wait) for server, other in pairs))
            pairs = {pair for pair, holds in zip(pairs, known, strict=True) if not holds}

    async def _report(self, server: Server) -> bytes:
        try:
            return await server.report(new_client())
        except Fault:
            return b""

    async def revive(self) -> None:
        """Start again what has ended and should not have; where nobody can, leave it."""
        if self.keeper is not None:
            await self.keeper.revive()

    async def until_serves(self, server: Server) -> None:
        """Wait until a server answers, started again if it has ended: one that is ending looks alive for a moment."""

        async def serves() -> bool:
            await self.revive()
            return bool(await self._report(server))

        if self.keeper is not None:
            await until(serves, server.seconds)

    async def expect_nobody_knows(self, server: Server, client: bytes, sent: bytes) -> None:
        """Every server must not know this client, also once what `server` told the others has come through."""
        sentinel = await server.report(new_client())
        await asyncio.gather(*(_holds(other, sentinel, 1.0) for other in self.reach(server)))
        for one in self.servers:
            if held := await one.held(client):
                raise Fault(
                    server.name, sent, "that nobody learns of this client", f"from {one.name}: {shown(held)}"
                )


async def _holds(server: Server, at: bytes, seconds: float) -> bool:
    if not at:
        return False
    try:
        await server.until_holds(at, seconds)
    except Fault:
        return False
    return True
