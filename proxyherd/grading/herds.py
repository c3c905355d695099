"""The herd to judge: its servers, their links as far as they are known, and its logs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from proxyherd.base.files import open_regular
from proxyherd.grading.faults import Fault, NotApplicable, NotJudged, NotSeen, shown
from proxyherd.grading.forms import Form
from proxyherd.grading.keeping import Restarter
from proxyherd.grading.meeting import Meeting, SilentError
from proxyherd.grading.outside import GoogleReach
from proxyherd.grading.servers import (
    CONNECTIONS_AT_ONCE,
    PREFIX,
    QUESTIONS_AT_ONCE,
    GradedServer,
    clock,
    new_client,
    until,
)

MOST_LOG_BYTES: Final = 1 << 26
"""Bytes of a log that one check looks at."""

READ_BYTES: Final = 1 << 20
"""Bytes of a log that are read at once; longer lines are cut."""

LEAVING_SECONDS: Final = 0.3
"""How long a server may take to end after it has closed a connection."""

HOPELESS_SECONDS: Final = 0.3
"""How long to wait for a report after an earlier wait was in vain."""


class UnreachableError(Exception):
    """A server gave no answer at all; the text says which, where, and what was seen."""

    def __init__(self, text: str, *, is_down: bool = False) -> None:
        super().__init__(text)
        self.is_down = is_down
        """Whether a server takes no connection."""


class Tail:
    """Reads what is added to a file after some place, line by line; a file that was replaced is read from its
    beginning.
    """

    def __init__(self, file: Path, start: int, inode: int) -> None:
        self._file = file
        self._at = start
        self._inode = inode
        self._left = MOST_LOG_BYTES
        self.rest = b""
        """The beginning of a line whose end has not come."""

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that were completed since the last call."""
        with contextlib.suppress(OSError), os.fdopen(open_regular(self._file, os.O_RDONLY), "rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._at:
                self._at, self._inode, self.rest = 0, found.st_ino, b""
            file.seek(self._at)
            while data := file.read(min(READ_BYTES, self._left)):
                self._at += len(data)
                self._left -= len(data)
                *lines, self.rest = (self.rest + data).split(b"\n")
                self.rest = self.rest[-READ_BYTES:]
                yield from lines


class Log:
    """The log of one server, from its end at the time when this was made."""

    def __init__(self, server: GradedServer) -> None:
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

    def tail(self) -> Tail:
        """Return a reader of added lines."""
        if self.server.log not in (None, self._file):  # it has been made since
            self._file, self._start, self._inode = self.server.log, 0, 0
        return Tail(self._file, self._start, self._inode)

    async def until_found(self, is_it: Callable[[bytes], object], seconds: float) -> bool:
        """Wait for an added line for which this is true; return whether it came in time."""
        tail = self.tail()

        async def found() -> bool:
            return any(map(is_it, tail.lines())) or bool(is_it(tail.rest))

        return await until(found, seconds)

    async def until_quiet_about(self, text: bytes, quiet_seconds: float, seconds: float) -> None:
        """Wait until lines with this text have come and no more come, for at most this long."""
        tail, last = self.tail(), 0.0

        async def quiet() -> bool:
            nonlocal last
            if any([text in line for line in tail.lines()]):  # noqa: C419 - all of them are to be read
                last = clock()
            return bool(last) and clock() - last > quiet_seconds

        await until(quiet, seconds)


class GradedHerd:
    """The servers of one herd. `edges` is None if the links are unknown. With `one_table` they have no links: all servers
    see what one has stored, so to clients each is a neighbour of every other.
    """

    def __init__(
        self,
        servers: Iterable[GradedServer],
        edges: Iterable[tuple[str, str]] | None = None,
        keeper: Restarter | None = None,
        max_line_bytes: int = 8_192,
        *,
        one_table: bool = False,
        google: GoogleReach | None = None,
    ) -> None:
        self.servers = list(servers)
        self.one_table = one_table
        if one_table:
            edges = itertools.combinations([server.name for server in self.servers], 2)
        self.edges = None if edges is None else {frozenset(edge) for edge in edges}
        self.keeper = keeper
        self.max_line_bytes = max_line_bytes
        self.deaf: set[tuple[GradedServer, GradedServer]] = set()
        """Pairs where the second server did not learn a report at the first one within the full time."""
        self.google = google or GoogleReach()
        self.forgiven = 0
        """How many deaths of its servers are not its own fault."""
        self._meetings: dict[GradedServer, Meeting] = {}
        self._reviving = asyncio.Lock()
        room, turns = asyncio.Semaphore(CONNECTIONS_AT_ONCE), asyncio.Semaphore(QUESTIONS_AT_ONCE)
        for server in self.servers:
            server.room, server.turns, server.google = room, turns, self.google

    def needs_links(self) -> None:
        """Raise NotApplicable if servers have no links."""
        if self.one_table:
            raise NotApplicable("its servers share one table, in Redis, and have no links with one another")

    def turn(self, number: int) -> GradedServer:
        """Return one server; calls take turns, so that each server gets its share."""
        return self.servers[number % len(self.servers)]

    def others(self, server: GradedServer) -> list[GradedServer]:
        return [other for other in self.servers if other is not server]

    def neighbours(self, server: GradedServer) -> list[GradedServer]:
        """Return the neighbours of a server; if links are unknown, all others may be."""
        if self.edges is None:
            return self.others(server)
        return [other for other in self.others(server) if frozenset((server.name, other.name)) in self.edges]

    def reach(self, server: GradedServer, without: GradedServer | None = None) -> list[GradedServer]:
        """Return the other servers that a report at a server must reach, also while one is lost."""
        found, frontier = [server], [server]
        while frontier:
            near = {other for one in frontier for other in self.neighbours(one)} - {*found, without}
            frontier = [other for other in self.servers if other in near]
            found += frontier
        return found[1:]

    def with_company(self) -> list[GradedServer]:
        """Return the servers whose reports must reach others. Raises NotSeen if there are none."""
        found = [server for server in self.servers if self.reach(server)]
        if not found:
            raise NotSeen("no two servers are to hear of one another")
        return found

    def pairs(self) -> Iterator[tuple[GradedServer, GradedServer]]:
        """Yield all pairs of servers where the second must learn the first one's reports."""
        for server in self.servers:
            for other in self.reach(server):
                yield server, other

    def logs(self) -> list[Log]:
        """Return all servers' logs from their present ends. Raises NotSeen if one is not named."""
        return [Log(server) for server in self.servers]

    def unlogged(self, fault: Fault) -> Fault | NotSeen:
        """Return the fault for a missing log line; if there is no sign of logs at all, it is not the herd's fault."""
        if any(map(_is_log, self.servers)):
            return fault
        where = ", ".join(sorted({str(server.chosen_log) for server in self.servers}))
        if all(server.log_is_named for server in self.servers):
            printed = any(server.output for server in self.servers)
            rest = ", and what the servers print mentions no client" if printed else ""
            return NotSeen(f"none of the logs that are named is a regular file: {where}{rest}")
        what = "what the servers print" if self.keeper is not None else where
        return NotSeen(f"{what} mentions no client, so the log is elsewhere, if there is one: --logs, --log")

    async def greet(self) -> None:
        """Find out what every server answers at all, and the names of servers that were given by address only.

        Raises UnreachableError.
        """
        self._meetings = {server: Meeting(server, self.end_of) for server in self.servers}
        await self._with_all(Meeting.first_words)
        for name, alike in itertools.groupby(sorted(server.name for server in self.servers)):
            if len(list(alike)) > 1:
                raise UnreachableError(
                    f"two of the servers say that they are {name}; each is to be named once"
                )

    async def meet(self) -> None:
        """Find out the dialect of every server. Raises UnreachableError."""
        await self._with_all(lambda meeting: meeting.go_on(self.until_serves))

    async def _with_all(self, step: Callable[[Meeting], Awaitable[None]]) -> None:
        results = await asyncio.gather(
            *(self._with_one(server, step) for server in self._meetings), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, UnreachableError):
                raise result
        problems = [str(result) for result in results if isinstance(result, UnreachableError)]
        if problems:
            is_down = any(one.is_down for one in results if isinstance(one, UnreachableError))
            raise UnreachableError("; ".join(problems), is_down=is_down)

    async def _with_one(self, server: GradedServer, step: Callable[[Meeting], Awaitable[None]]) -> None:
        where = f"{server.host}:{server.port}"
        called = where if server.name == where else f"{server.name} at {where}"
        try:
            await step(self._meetings[server])
        except SilentError as error:
            raise UnreachableError(f"{called}: {error}") from error
        except (Fault, NotSeen) as problem:
            got = problem.got if isinstance(problem, Fault) else problem
            raise UnreachableError(f"{called}: {got}", is_down=isinstance(problem, Fault)) from problem

    def departures(self) -> set[Form]:
        """Return the forms in which a server departs from the protocol."""
        return {form for server in self.servers for form in server.findings}

    async def settle(self, seconds: float) -> None:
        """Wait until a report at each server has reached all servers that it must reach, for at most this long.

        Servers that were just started may still be connecting. What is wrong after that is for the checks to report.
        """
        deadline = clock() + seconds
        pairs = set(self.pairs())
        while pairs and clock() < deadline:
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
            if pairs:  # don't ask again without a pause if a server answers at once but wrongly
                await asyncio.sleep(min(0.05, seconds))
        self.deaf = pairs

    def wait(self, server: GradedServer, other: GradedServer, seconds: float) -> float:
        """Return how long to wait for a report at one server to reach the other; after a wait in vain, only shortly."""
        return min(seconds, HOPELESS_SECONDS) if (server, other) in self.deaf else seconds

    async def _report(self, server: GradedServer) -> bytes:
        try:
            return await server.report(new_client())
        except (Fault, NotSeen, NotJudged):
            return b""

    def deaths(self) -> list[str]:
        """Return a sentence for each server that has ended by itself."""
        return [] if self.keeper is None else self.keeper.deaths()[self.forgiven :]

    async def end_of(self, server: GradedServer) -> str:
        """Return how a server has ended by itself; "" if it has not. One that is ending is given a moment for it."""
        if (keeper := self.keeper) is not None:
            await until(lambda: bool(keeper.end_of(server)), LEAVING_SECONDS)
            if end := keeper.end_of(server):
                return end
        return await server.absence()

    async def explained(self, fault: Fault, server: GradedServer) -> Fault:
        """Return a fault that says how its server has ended, if that is why there was no answer."""
        if (fault.cut or fault.down) and (end := await self.end_of(server)):
            return Fault(
                fault.server, fault.sent, fault.expected, end, cut=fault.cut, down=True, steps=fault.steps
            )
        return fault

    async def revive(self) -> None:
        """Restart servers that have crashed, if that is possible."""
        if self.keeper is not None:
            async with self._reviving:
                await self.keeper.revive()

    async def until_serves(self, server: GradedServer) -> None:
        """Wait until a server answers; restart it if it has ended. A server that is ending may seem alive for
        a moment.
        """

        async def serves() -> bool:
            await self.revive()
            return bool(await self._report(server))

        if self.keeper is not None:
            await until(serves, server.seconds)

    async def expect_nobody_knows(self, server: GradedServer, client: bytes, sent: bytes) -> None:
        """Check that no server knows this client, also after everything that `server` has sent to the others
        has arrived.
        """
        sentinel = await server.report(new_client())
        await asyncio.gather(
            *(_holds(other, sentinel, self.wait(server, other, 1.0)) for other in self.reach(server))
        )
        for one in self.servers:
            if held := await one.held(client):
                raise Fault(
                    server.name, sent, "that nobody learns of this client", f"from {one.name}: {shown(held)}"
                )


async def _holds(server: GradedServer, at: bytes, seconds: float) -> bool:
    if not at:
        return False
    try:
        await server.until_holds(at, seconds)
    except (Fault, NotSeen, NotJudged):
        return False
    return True


def _is_log(server: GradedServer) -> bool:
    """Whether there is a log at a named path; a guessed one must mention our clients."""
    if server.log is None:
        return False
    if server.log_is_named and server.log == server.chosen_log:
        return server.log.is_file()
    tail = Tail(server.log, 0, 0)
    return any(PREFIX in line for line in tail.lines())
