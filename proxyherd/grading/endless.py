"""Floods that never end: an update that goes round and round, and is in the logs again and again.

The rule: a herd is accused by its logs, in which one report may cause no more lines than it takes to pass it on once over
each link in both directions; or, in a sandbox, by packets between its servers, which nobody else can have sent there.

A herd that goes on when nothing is sent to it has no time for anything else. What it does then cannot be judged, so one of
its servers is judged alone, where nobody passes anything on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from proxyherd.grading.by_hand import is_client
from proxyherd.grading.dialect import Dialect
from proxyherd.grading.faults import Fault, NotSeen, Step
from proxyherd.grading.herds import GradedHerd, Log, UnreachableError
from proxyherd.grading.keeping import Restarter, StartError
from proxyherd.grading.servers import PREFIX, GradedServer, clock, new_client, spelled, spot

HOPELESS_FACTOR: Final = 100
"""A multiple of the lines that one report may cause: with more, a herd is taken for one that never ends to flood, though
it is quiet. Its servers may have been ended for writing so much."""

FLOOD_QUIET_SECONDS: Final = 0.5
"""A flood has ended when no log has mentioned its client for this long."""

ENDLESS_SECONDS: Final = 2.0
"""How long a herd that is sent nothing may go on to log reports before it is looked at for floods that do not end."""

MOST_FLOOD_SECONDS: Final = 10.0
"""How long a flood is followed."""

MOST_PACKETS: Final = 3_000.0
"""Packets a second that servers may send one another without a report, such as heartbeats."""

LINES_A_MESSAGE: Final = 3
"""Lines of a log that one message between servers may cause: its receipt, its content, and what was done."""

LINES_OF_THE_REPORT: Final = 8
"""Other lines: the connection, the command, the answer, and how they were understood."""

UPDATES: Final = 2
"""Reports of one client whose floods must end."""


async def check_end(herd: GradedHerd) -> None:
    """Check that the floods of reports end. Raises Fault and NotSeen."""
    herd.needs_links()
    logs = logs_from_now(herd)
    clients = {new_client(): server for server in herd.with_company()}
    results = await _reports_at_once(herd, clients)
    herd.logs()  # without all of them, it is only seen whether the herd comes to rest (find_endless)
    lines = await _until_quiet(herd, logs, list(clients))
    for server, counts in lines.items():
        most, links = _most_lines(herd, logs, server, UPDATES)
        for client, count in counts.items():
            if count > most:
                sent = b"IAMAT %b at two servers at once, one of them %b"
                raise Fault(
                    server.name,
                    sent % (client, clients[client].name.encode()),
                    f"at most {most} lines of {server.name}'s log that mention the client, for {links} links",
                    f"{count:,}",
                )
    # A server that never ends to flood may not find the time to answer.
    for result in results:
        if isinstance(result, BaseException):
            raise result
    if not any(count for counts in lines.values() for count in counts.values()):
        raise NotSeen("the logs mention none of the clients")


async def _reports_at_once(
    herd: GradedHerd, clients: Mapping[bytes, GradedServer]
) -> Sequence[bytes | BaseException]:
    """Let each client report to its server and to another one at once: with one report, the flood would also end if a
    server took every different line for news. Return the answers, or why there are none.
    """
    when = time.time_ns()
    return await asyncio.gather(
        *(server.report(client, spelled(when), spot(1)) for client, server in clients.items()),
        *(
            herd.reach(server)[-1].report(client, spelled(when + 1), spot(2))
            for client, server in clients.items()
        ),
        return_exceptions=True,
    )


async def _until_quiet(
    herd: GradedHerd, logs: list[Log], clients: list[bytes]
) -> dict[GradedServer, Counter[bytes]]:
    """Return how many lines of each log mention each client, when no more come, or when they are too many and go on."""
    counted: dict[GradedServer, Counter[bytes]] = {log.server: Counter() for log in logs}
    tails = {log.server: log.tail() for log in logs}
    most = {log.server: _most_lines(herd, logs, log.server, UPDATES)[0] for log in logs}
    began = quiet_since = clock()
    while clock() - quiet_since < FLOOD_QUIET_SECONDS and clock() - began < MOST_FLOOD_SECONDS:
        await asyncio.sleep(0.1)
        for server, tail in tails.items():
            found = _mentions(tail.lines(), clients)
            counted[server] += found
            quiet_since = clock() if found else quiet_since
        is_too_much = any(max(one.values(), default=0) > most[server] for server, one in counted.items())
        if is_too_much and clock() - began >= ENDLESS_SECONDS:
            break
    return counted


def _mentions(lines: Iterable[bytes], clients: Sequence[bytes]) -> Counter[bytes]:
    """Return how many lines mention each client."""
    return Counter(client for line in lines if PREFIX in line for client in clients if client in line)


def _most_lines(herd: GradedHerd, logs: Sequence[Log], server: GradedServer, reports: int) -> tuple[int, int]:
    """Return how many lines of a server's log may mention a client that has reported so often, and over how many links.
    Servers may share a log.
    """
    sharing = [log.server for log in logs if log.server.log == server.log]
    links = sum(len(herd.neighbours(one)) for one in sharing)
    return reports * (LINES_A_MESSAGE * 2 * links + LINES_OF_THE_REPORT * len(sharing)), links


def logs_from_now(herd: GradedHerd) -> list[Log]:
    """Return the logs that there are, from their present ends."""
    return [] if herd.one_table else [Log(server) for server in herd.servers if server.log is not None]


def lone_packets() -> int:
    """Return how many packets have gone over loopback in this sandbox; always 0 outside one, where they may be a
    stranger's.
    """
    with contextlib.suppress(OSError):
        if Path("/proc/1/comm").read_text(encoding="ascii", errors="replace").strip() == "bwrap":
            rows = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()[2:]
            packets = {
                name.strip(): int(row.split()[1]) for name, _, row in (row.partition(":") for row in rows)
            }
            lone = packets.pop("lo", 0)
            return 0 if any(packets.values()) else lone
    return 0


async def _unrest(herd: GradedHerd) -> float | None:
    """Watch a herd while nothing is sent to it. If it goes on to log reports or to send packets, return how many packets
    a second, as far as they can be seen; None if it comes to rest.
    """
    tails = [log.tail() for log in logs_from_now(herd)]
    began = last = clock()
    packets = lone_packets()
    while clock() - last < FLOOD_QUIET_SECONDS:
        if clock() - began >= ENDLESS_SECONDS:
            return (lone_packets() - packets) / (clock() - began)
        since, before = clock(), lone_packets()
        await asyncio.sleep(0.1)
        mentions = sum(PREFIX in line for tail in tails for line in tail.lines())
        if mentions or lone_packets() - before > MOST_PACKETS * (clock() - since):
            last = clock()
    return None


async def find_endless(herd: GradedHerd, logs: Sequence[Log], steps: Sequence[Step]) -> Fault | None:
    """Return the fault of a herd that goes on and on about one of the reports in `steps`, which were sent since these
    logs were taken; None if it comes to rest soon, or if what it does cannot be told from something else.
    """
    if herd.one_table:
        return None
    packets = await _unrest(herd)
    factor = HOPELESS_FACTOR if packets is None else 1
    silence = f"when nothing is sent for {ENDLESS_SECONDS:g} s"
    for log in logs:
        most, links = _most_lines(herd, logs, log.server, 1)
        counted = Counter(client for line in log.tail().lines() for client in set(is_client.findall(line)))
        for client, count in counted.most_common(1):
            if count > factor * most:
                sent = next((step.data for step in steps if client in step.data), b"IAMAT %b" % client)
                expected = f"at most {most} lines of {log.server.name}'s log that mention the client, for {links} links"
                return Fault(
                    log.server.name,
                    sent,
                    f"{expected}, and no more {silence}",
                    f"{count:,}" + (", and more all the time" if factor == 1 else ""),
                )
    if packets is None or packets <= MOST_PACKETS:
        return None
    names = ", ".join(server.name for server in herd.servers)
    sent = steps[-1].data if steps else b"reports at all servers"
    return Fault(
        names,
        sent,
        f"that the servers say nothing to one another {silence}",
        f"{packets:,.0f} packets a second",
    )


class Seclusion:
    """One server of a herd alone, because its floods do not end."""

    def __init__(self, herd: GradedHerd) -> None:
        self._herd = herd
        self._away: list[GradedServer] = []

    async def begin(self) -> GradedHerd | None:
        """End all servers, start one again, and return it as a herd; None if that is impossible."""
        herd = self._herd
        if herd.keeper is None:
            return None
        one = herd.servers[0]
        alone = GradedHerd([one], [], herd.keeper, herd.max_line_bytes, google=herd.google)
        one.dialect, one.findings = Dialect(), {}
        try:
            for server in reversed(herd.servers):
                self._away.append(server)
                await self._lose(herd.keeper, server)
            await herd.keeper.regain(one)
            self._away.remove(one)
            alone.forgiven = len(herd.keeper.deaths())
            await alone.greet()
            await alone.meet()
        except (NotSeen, StartError, UnreachableError):
            return None
        return alone

    async def _lose(self, keeper: Restarter, server: GradedServer) -> None:
        try:
            await keeper.lose(server)
        except NotSeen:  # it may have ended by itself
            with contextlib.suppress(Fault):
                async with server.connect():
                    raise

    async def end(self) -> None:
        """Start the others again."""
        keeper = self._herd.keeper
        if keeper is None:
            return
        for server in self._away:
            with contextlib.suppress(StartError):
                await keeper.regain(server)
