"""Floods: a report that one server took reaches all others, once; and only reports to servers count."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from proxyherd.grading.checks import Check
from proxyherd.grading.endless import check_end
from proxyherd.grading.faults import Fault, NotSeen, shown
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.servers import (
    LOCATION,
    GradedServer,
    new_client,
    now,
    spelled,
    spot,
    together,
    until,
)

END: Final = "floods.end"
"""The check for floods that never end: it is run first (judging.py)."""

TRIES: Final = 8

TIES: Final = 4
TIED_CLIENTS: Final = 5
"""How often two servers get reports with equal times at once, and of how many clients each time: a flood between the two
reports would hide how the tie is decided."""


def checks(herd: GradedHerd) -> list[Check]:
    return [
        Check(
            "floods.reach-every-server",
            "A report at any server is soon known at every other, as the same AT line",
            "A server passes on each update that is news to all its neighbours, so every server that can be reached "
            "comes to hold the AT line of the one that took the report, byte for byte.",
            lambda: _reach(herd),
        ),
        Check(
            "floods.neighbours-know-at-once",
            "A neighbour asked right after the answer already knows",
            "An update is handed to every live link before the answer is handed to the client.",
            lambda: _at_once(herd),
            follows=frozenset(("floods.reach-every-server",)),
        ),
        Check(
            "floods.newest-wins-everywhere",
            "The latest report of a client counts everywhere, whichever servers took the others",
            "What a server learns replaces what it holds if it is later.",
            lambda: _newest_wins(herd),
            follows=frozenset(("floods.reach-every-server",)),
        ),
        Check(
            "floods.stale-reports-stay",
            "A report that comes late is passed on to nobody, and replaces nothing anywhere",
            "A report that is not later than what is held is answered, and flooded nowhere.",
            lambda: _stale_stays(herd),
            follows=frozenset(("floods.reach-every-server",)),
        ),
        Check(
            "floods.equal-times-end-alike",
            "Two reports of one client with equal times, taken by two servers at once, end alike everywhere",
            "One total order decides: the time as a number, then the bytes of the whole AT line.",
            lambda: _equal_times(herd),
            follows=frozenset(("floods.reach-every-server", "floods.newest-wins-everywhere")),
        ),
        Check(
            END,
            "A flood ends: no update goes round and round",
            "What a server learns it passes on once, only if it was news, and not to whom it came from; so one update "
            "crosses a link at most twice. Seen in the logs, by lines that mention the client, or in a sandbox by packets "
            "while nothing is sent.",
            lambda: check_end(herd),
        ),
        Check(
            "at.answered-as-invalid",
            "AT from a client is an invalid command",
            "Locations are only learned from servers that have proved to be of the herd: AT on a client's connection "
            "is answered with `? ` and the line.",
            lambda: _at_is_invalid(herd),
            follows=frozenset(("at.teaches-nobody",)),
        ),
        Check(
            "at.teaches-nobody",
            "AT from a client makes no client known",
            "Locations are only learned from servers that have proved to be of the herd.",
            lambda: _at_teaches_nobody(herd),
        ),
        Check(
            "at.replaces-nothing",
            "AT from a client replaces no report",
            "Locations are only learned from servers that have proved to be of the herd.",
            lambda: _at_replaces_nothing(herd),
            follows=frozenset(("at.teaches-nobody",)),
        ),
    ]


async def _reach(herd: GradedHerd) -> None:
    async def from_one(server: GradedServer) -> None:
        at = await server.report(new_client())
        await together(*(to_another(server, other, at) for other in herd.reach(server)))

    async def to_another(server: GradedServer, other: GradedServer, at: bytes) -> None:
        await other.until_holds(at)
        herd.deaf.discard((server, other))

    await together(*map(from_one, herd.with_company()))


async def _at_once(herd: GradedHerd) -> None:
    herd.with_company()
    if herd.edges is None:
        raise NotSeen("who is linked with whom is not known: --topology")

    async def between(server: GradedServer, neighbour: GradedServer) -> None:
        late = []
        for _ in range(TRIES):
            client = new_client()
            at = await server.report(client)
            if await neighbour.held(client) != at:
                late.append(at)
        # Behind a backlog it may lag; always behind is no backlog.
        if len(late) > TRIES // 2:
            raise Fault(
                neighbour.name,
                b"WHATSAT, right after %b had answered a report" % server.name.encode(),
                f"that it knows the report: {shown(late[-1])}",
                f"that it did not know it {len(late)} times of {TRIES}",
            )

    pairs = [(server, other) for server in herd.servers for other in herd.neighbours(server)]
    # One after another at each server: a busy one has a backlog.
    for shift in range(max(len(herd.neighbours(server)) for server in herd.servers)):
        now_on = [pair for pair in pairs if herd.neighbours(pair[0])[shift : shift + 1] == [pair[1]]]
        await together(*(between(*pair) for pair in now_on))


async def _newest_wins(herd: GradedHerd) -> None:
    for first in herd.with_company()[:2]:
        second = herd.reach(first)[-1]
        client, when = new_client(), time.time_ns()
        at = await first.report(client, spelled(when), spot(1))
        await second.until_holds(at)
        at = await second.report(client, spelled(when + 1_000_000), spot(2))
        await _all_hold(herd, first, at)
        at = await first.report(client, spelled(when + 2_000_000), spot(3))
        await _all_hold(herd, first, at)


async def _stale_stays(herd: GradedHerd) -> None:
    for first in herd.with_company()[:2]:
        second = herd.reach(first)[-1]
        client, when = new_client(), time.time_ns()
        at = await first.report(client, spelled(when), spot(1))
        await _all_hold(herd, first, at)
        await second.report(client, spelled(when - 1_000_000), spot(2))
        await _all_hold(herd, second, await second.report(new_client()))
        for server in (first, *herd.reach(first)):
            if (held := await server.held(client)) != at:
                raise Fault(
                    server.name,
                    b"a report at %b, then an earlier one at %b"
                    % (first.name.encode(), second.name.encode()),
                    shown(at),
                    shown(held),
                )


async def _equal_times(herd: GradedHerd) -> None:
    await together(*(_equal_times_at(herd, one, herd.reach(one)[-1]) for one in herd.with_company()[:2]))


async def _equal_times_at(herd: GradedHerd, first: GradedServer, second: GradedServer) -> None:
    when = now()
    told: dict[bytes, set[bytes]] = {}
    for _ in range(TIES):
        told |= await _tie(first, second, [new_client() for _ in range(TIED_CLIENTS)], when)
    await together(
        *(_end_alike(herd, (first, second), client, when, lines) for client, lines in told.items())
    )


async def _tie(
    one: GradedServer, other: GradedServer, clients: list[bytes], when: bytes
) -> dict[bytes, set[bytes]]:
    """Let each client report to two servers at the same moment; return the AT lines of the answers."""
    servers = {spot(1): one, spot(2): other}
    lines = {where: [b"IAMAT %b %b %b" % (client, where, when) for client in clients] for where in servers}
    told = await asyncio.gather(*(server.ask_all(lines[where]) for where, server in servers.items()))
    answers: dict[bytes, set[bytes]] = {client: set() for client in clients}
    for (where, server), said in zip(servers.items(), told, strict=True):
        for client, line, answer in zip(clients, lines[where], said, strict=True):
            answers[client].add(server.checked(line, answer))
    return answers


async def _end_alike(
    herd: GradedHerd,
    tellers: tuple[GradedServer, GradedServer],
    client: bytes,
    when: bytes,
    lines: set[bytes],
) -> None:
    first, second = tellers
    held: dict[str, bytes] = {}

    async def alike() -> bool:
        for server in (first, *herd.reach(first)):
            held[server.name] = await server.held(client)
        return len(set(held.values())) == 1 and set(held.values()) <= lines

    if not await until(alike, first.seconds):
        raise Fault(
            first.name,
            b"reports of %b at the time %b at %b and at %b, at once"
            % (client, when, first.name.encode(), second.name.encode()),
            "the same one of both AT lines at every server",
            "; ".join(f"{name}: {shown(line)}" for name, line in held.items()),
        )


async def _all_hold(herd: GradedHerd, server: GradedServer, at: bytes) -> None:
    await together(*(one.until_holds(at) for one in (server, *herd.reach(server))))


def _at_line(server: GradedServer, client: bytes, when: bytes) -> bytes:
    return b"AT %b +0.100000000 %b %b %b" % (server.name.encode(), client, LOCATION, when)


async def _at_is_invalid(herd: GradedHerd) -> None:
    for server in herd.servers:
        line = _at_line(server, new_client(), now())
        async with server.connect() as connection:
            await connection.say(line)
            await connection.expect_rejection(line)


async def _at_teaches_nobody(herd: GradedHerd) -> None:
    async def at(server: GradedServer) -> None:
        client = new_client()
        line = _at_line((herd.others(server) or [server])[0], client, now())
        await _tell(server, line)
        await herd.expect_nobody_knows(server, client, line)

    await together(*map(at, herd.servers))


async def _at_replaces_nothing(herd: GradedHerd) -> None:
    for server in herd.servers:
        client, when = new_client(), time.time_ns()
        at = await server.report(client, spelled(when), spot(1))
        line = _at_line(server, client, spelled(when + 1_000_000_000))
        await _tell(server, line)
        if (held := await server.held(client)) != at:
            raise Fault(server.name, line, f"that {server.name} still holds {shown(at)}", shown(held))


async def _tell(server: GradedServer, line: bytes) -> None:
    """Send a line and wait until the server has handled it, whatever it answers."""
    async with server.connect() as connection:
        await connection.say(line)
        await connection.whatever(min(1.0, server.seconds), lambda data: data.endswith(b"\n"))
