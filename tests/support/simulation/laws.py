"""The laws that hold while a herd runs. Each is told what happens, and ends the run where that must not be."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from proxyherd.core.follows.event import Event
from proxyherd.core.framing import Line
from proxyherd.core.handshake import REVOKED, State
from proxyherd.core.messages import parse_at, parse_report
from proxyherd.core.notes import OUTDATED
from proxyherd.core.tombstones import parse_gone
from simulation.erasures import ErasureLaws
from simulation.world import SimulatedWorld

if TYPE_CHECKING:
    from simulation.network import End
    from simulation.servers import Server

Order = tuple[int, bytes]
Crossing = tuple[str, int, str, int, bytes, int]
NOTHING: Order = (-1, b"")
KEY = b"k" * 32


class Laws:
    """What has been promised, and what may not come back."""

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world
        self.crossings: set[Crossing] = set()
        self.last_flood = 0.0
        self.servers: dict[str, Server] = {}
        self.erasures = ErasureLaws(world, KEY)
        self.durable: dict[bytes, set[Order]] = {}  # what no crash may lose
        self.stored_lines: dict[bytes, set[Order]] = {}  # what any table has ever held
        self.refused: dict[
            bytes, tuple[Server, int]
        ] = {}  # lines that were taken back: by whom, in which life
        self.doubted = set[bytes]()  # clients of whom a server has set a line aside after a long absence
        self.outcomes = Counter[str]()  # of commands that were logged
        self.told_events = Counter[str]()  # what followers were told
        self.spelled: dict[bytes, Event] = {}  # events by what stands for them
        self.sent_at_once = 0  # events that have taken the short way to a follower
        self.ways = Counter[str]()  # how clients of the web have asked, and what they were answered

    # Links. --------------------------------------------------------------------------------------------------

    def went_live(self, end: End) -> None:
        other, broken = end.other, self._world.broken
        self._world.say(f"{end.name}'s link with {end.link.peer} is live")
        if other.server is None or other.server.name != end.link.peer:
            broken(f"{end.name} takes a stranger for {end.link.peer}")
        if end.link.dialled and other.link._handshake.state in {State.HELLO, State.PROVING}:
            broken(f"{end.name}'s link is live, and {other.name} has not proved itself")
        if other.link.state is State.HELLO:
            broken(f"{end.name}'s link is live before {other.name} has heard of it")

    def flooded(self, end: End, lines: bytes) -> None:
        """A server hands news to a link: to a live one, once, not to whence they came, and no report that is not kept."""
        server = end.server
        assert server is not None
        name, peer, broken = end.name, end.other.name, self._world.broken
        self.last_flood = self._world.now
        if end.link.state is not State.LIVE:
            broken(f"{name} floods to {peer} over a link that is not live")
        for line in lines.splitlines():
            self.erasures.told_line(server, line, end.link)
            crossing = self._crossings(end, line)[-1]
            if crossing in self.crossings:
                broken(f"{name} floods to {peer} a second time: {line.decode()}")
            self.crossings.add(crossing)
            if server.table.came_from.get(line) == peer:
                broken(f"{name} floods back to {peer} what came from there: {line.decode()}")
            if line in server.table.own and not server.has_kept(line):
                broken(f"{name} tells {peer} of a report that it has not kept: {line.decode()}")
            if self.refused.get(line) == (server, server.life):
                broken(f"{name} tells {peer} of a report that it has refused: {line.decode()}")

    def must_be_told(self, end: End, client: bytes, line: bytes) -> None:
        """A server has passed on news: a live neighbour is told, or the copy waits, or all that is told is that the client
        was erased. That is certain: it is kept, or a neighbour has told it.
        """
        server, link = end.server, end.link
        assert server is not None
        if link.state is not State.LIVE or line in link.spare:
            return
        if not self.crossings.isdisjoint(self._crossings(end, line)):
            return
        tombstone, table = line[:5] == b"GONE ", server.table
        if tombstone or not table.covers(client, line):
            self._world.broken(f"{end.name} does not tell {end.other.name} {line!r}")
        erasure = table.tombstone(client, table.gone_until[client]).line
        if erasure in table.own and not server.has_kept(erasure):
            self._world.broken(
                f"{end.name} does not tell {end.other.name} {line!r}, erased by what is not kept"
            )

    def misspoken(self, end: End, reason: str) -> None:
        """A server ends a connection because of what the other has said: only strangers break the protocol."""
        if end.server and end.other.server and OUTDATED not in reason and REVOKED not in reason:
            self._world.broken(f"{end.name} ends its link with {end.other.name}: {reason}")

    @staticmethod
    def _crossings(end: End, line: bytes) -> list[Crossing]:
        """Return what happens once each: a line may be stored again when itself, or one that it lost against, was erased, and
        is news again. If nobody was told in between, then once for all.
        """
        assert end.server is not None
        between = end.name, end.life, end.other.name, end.other.life
        return [(*between, line, times) for times in range(end.server.table.stored[line] + 1)]

    # Tables. -------------------------------------------------------------------------------------------------

    def took_back(self, server: Server, line: bytes) -> None:
        """A report or an erasure could not be kept: it is refused."""
        self.refused[line] = server, server.life
        if (tombstone := parse_gone(line)) is not None:
            if not self.erasures.took_back(tombstone):
                del self.refused[line]
        elif (at := parse_at(line)) is not None:
            self.stored_lines.get(at.client, set()).discard((at.entry.nanoseconds, line))

    def lost(self, loser: Server) -> None:
        """A server has lost its journal. What no other one has on its disk may be gone."""
        others = [server.disk for server in self.servers.values() if server is not loser]
        records = [
            (at.client, (at.entry.nanoseconds, at.entry.line))
            for disk in others
            for line in disk.records
            if disk.holds(line) and (at := parse_at(line)) is not None
        ]
        for client, orders in self.durable.items():
            greatest = max((order for name, order in records if name == client), default=NOTHING)
            self.durable[client] = {order for order in orders if order <= greatest}
        for client, until in [*self.erasures.promised.items()]:
            digest = loser.table.tombstone(client, until).digest
            gone = [parse_gone(line) for disk in others for line in disk.records if disk.holds(line)]
            if not any(one and one.digest == digest and one.until >= until for one in gone):
                del self.erasures.promised[client]

    def dropped(self, server: Server, client: bytes, order: Order) -> None:
        """A server has dropped a line after a long absence. What no other one has on its disk may be gone."""
        if server.table.greatest.get(client, NOTHING) < order:
            server.voided[client] = max(order, server.voided.get(client, NOTHING))
            server.promised.pop(client, None)
        greatest = max(
            (
                (at.entry.nanoseconds, at.entry.line)
                for other in self.servers.values()
                for line in other.disk.records
                if other is not server and (at := parse_at(line)) is not None and at.client == client
            ),
            default=NOTHING,
        )
        if client in self.durable:
            self.durable[client] = {one for one in self.durable[client] if one <= greatest or one > order}

    def held(self, owner: Server, client: bytes, order: Order) -> None:
        """A table holds a line."""
        line = order[1]
        self.stored_lines.setdefault(client, set()).add(order)
        if line in self.refused:
            server, life = self.refused[line]
            # What was appended and could not be synced may be found after a crash.
            if server.life == life or not server.disk.always:
                self._world.broken(f"{owner.name} holds what {server.name} has refused: {line.decode()}")

    # Clients. ------------------------------------------------------------------------------------------------

    def told(self, server: Server, asked: bytes, line: bytes, least: Order) -> None:
        """A client has an AT line as an answer to what it has asked: from now on it may rely on it. `least`: what the
        server had answered about that client before it heard the question.
        """
        at, broken = parse_at(line), self._world.broken
        if at is None:
            broken(f"{server.name} answers {asked!r} with {line!r}")
        order = at.entry.nanoseconds, line
        words, question = line.split(b" "), asked.split(b" ")
        is_question = question[0] == b"WHATSAT"
        if (
            (words[3] != question[1])
            if is_question
            else (words[1] != server.bytes or words[3:] != question[1:])
        ):
            broken(f"{server.name} answers {asked!r} with {line!r}")
        if is_question:
            if not (server.has_kept(line) or server.disk.has_failed):
                broken(f"{server.name} answers {line.decode()}, which is not in its journal")
            if order < least and least > server.voided.get(at.client, NOTHING):
                broken(f"{server.name} has answered {least[1]!r}, and answers {asked!r} with {line!r} now")
        elif line not in server.table.own:
            return  # a stale one
        elif server.disk.kind in ("kept", "always"):
            self.durable.setdefault(at.client, set()).add(order)
        if line in server.table.own:
            self.let_out(server, line)
        if (
            server.table.greatest.get(at.client, NOTHING) >= order
        ):  # else it was erased while the answer waited
            server.promised[at.client] = max(order, server.promised.get(at.client, order))

    def let_out(self, server: Server, line: bytes) -> None:
        """A client is told of what it has brought: after it was kept, and after all links have it that were live when it came."""
        if not server.has_kept(line):
            self._world.broken(f"{server.name} answers {line.decode()} before that is kept")
        at = parse_at(line)
        if at is not None and server.table.covers(at.client, line):
            return  # erased in the same turn: nobody is told
        for end in server.table.own[line]:
            if end.link.state is State.LIVE and self.crossings.isdisjoint(self._crossings(end, line)):
                self._world.broken(f"{server.name} answers {line.decode()} before {end.other.name} is told")

    def found(self, server: Server, client: bytes, order: Order) -> None:
        """A server looks up what it answers a question with."""
        if server.lacks and not server.node.ready:
            self._world.broken(f"{server.name} finds {order[1]!r} though its journal lacks something")
        if server.table.covers(client, order[1]):
            self._world.broken(f"{server.name} finds {order[1]!r}, which was erased")
        if order < server.promised.get(client, NOTHING):
            self._world.broken(
                f"{server.name} finds {order[1]!r} and has answered {server.promised[client]!r}"
            )

    def stored(self, server: Server, line: Line, answer: bytes | None) -> None:
        """The log tells of a report as one that is stored."""
        if answer not in server.table.own:
            self._world.broken(f"{server.name} has not stored {line!r}, and says so")

    def unknown(self, server: Server, asked: bytes, least: Order) -> None:
        """A server answers a question as one about nobody."""
        client = asked.split(b" ")[1]
        if not server.node.ready and client not in server.table.gone_until:
            self._world.broken(f"{server.name} answers {asked!r} before it is ready")
        if least > server.voided.get(client, NOTHING):
            self._world.broken(f"{server.name} has answered {least[1]!r}, and does not know {asked!r} now")

    def decided(self, server: Server, line: bytes, outcome: str) -> None:
        """A server has decided about a report, or about the beginning of one, behind which its client has left."""
        report = parse_report(line, server.bytes, server.turn.received)
        if report is None:
            if outcome != "invalid":
                self._world.broken(f"{server.name} decides {outcome} about {line!r}")
            return
        client, table = report.client, server.table
        held = max(table.greatest.get(client, NOTHING), table.just_erased.get(client, NOTHING))
        is_stale = report.nanoseconds <= held[0] or server.table.covers(report.client, report.line)
        if (outcome == "refused") != server.refuses or (outcome == "stale" and not is_stale):
            self._world.broken(f"{server.name} decides {outcome} about {line!r}")
