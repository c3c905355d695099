"""The laws of erasure. Who was erased is unknown to each server that knows it, and nothing else is lost by that."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from proxyherd.core.erasures import REACH
from proxyherd.core.link import Link
from proxyherd.core.messages import Forget, parse_at, received
from proxyherd.core.table import Table
from proxyherd.core.tombstones import Tombstone, parse_gone
from simulation.world import SimulatedWorld

if TYPE_CHECKING:
    from simulation.laws import Order
    from simulation.servers import Server


class ErasureLaws:
    """What was erased in one run, until when, and what is known of it."""

    def __init__(self, world: SimulatedWorld, key: bytes) -> None:
        self._world = world
        table = Table(key, world.plan.depth)
        names = [b"c%d" % number for number in range(world.plan.clients)]
        self._clients = {table.tombstone(name, 1).digest: name for name in names}
        self.moments: dict[bytes, set[int]] = {}  # of each client's tombstones that were ever kept
        self.promised: dict[bytes, int] = {}  # the latest that no crash may lose
        self.told = 0  # erasures that were answered
        self.known: dict[
            bytes, int
        ] = {}  # until when clients are erased, which all know but one that is cut off
        self._made = Counter[bytes]()  # tombstones that commands have set: two servers may set the same one

    def client(self, digest: bytes) -> bytes:
        """Return whose tombstone has this hash."""
        return self._clients[digest]

    def until(self, client: bytes) -> int:
        """Return until when a client was erased at the latest, on any server; 0: never."""
        return max(self.moments.get(client, ()), default=0)

    # What servers know. --------------------------------------------------------------------------------------

    def held(self, server: Server, client: bytes, tombstone: Tombstone) -> None:
        """A table has a new tombstone."""
        laws, broken = server.laws, self._world.broken
        self.moments.setdefault(client, set()).add(tombstone.until)
        if server.table.forgets:
            laws.refused.pop(tombstone.line, None)
            self._made[tombstone.line] += 1
        elif tombstone.line in laws.refused:
            refuser, life = laws.refused[tombstone.line]
            if refuser.life == life or not refuser.disk.always:
                broken(f"{server.name} holds what {refuser.name} has refused: {tombstone.line!r}")

    def took_back(self, tombstone: Tombstone) -> bool:
        """An erasure could not be kept: it is refused. Return whether no other server has set the same tombstone."""
        self._made[tombstone.line] -= 1
        if self._made[tombstone.line]:
            return False
        self.moments.get(self.client(tombstone.digest), set()).discard(tombstone.until)
        return True

    def forgot(self, server: Server, command: Forget, until: int) -> None:
        """A server has carried out a command. It covers what the server has received until now, and no later report: none of a
        later turn. The lines of a client's turn are received a nanosecond apart.
        """
        table, clock, broken = server.table, server.node.rules.clock, self._world.broken
        held = table.get(command.client)
        if command.before is None:
            if held is not None:
                broken(f"{server.name} erases {command.client!r}, and holds {held.line!r}")
            if until < clock - 1:
                broken(f"{server.name} erases {command.client!r} until {until} at {clock}")
            if until >= clock + self._world.plan.client_lines and not self._world.plan.skew:
                broken(
                    f"{server.name} erases {command.client!r} until {until} at {clock}: it cannot report again"
                )
        elif held is not None and received(held.line) <= command.before:
            broken(f"{server.name} erases {command.client!r} until {command.before}, and holds {held.line!r}")
        if table.gone_until.get(command.client, 0) < until and not (
            command.before is not None and held is not None and command.before <= clock - server.keep // REACH
        ):
            broken(
                f"{server.name} answers that {command.client!r} is erased until {until}, and does not know it"
            )

    def answered(self, server: Server, command: Forget, line: bytes) -> None:
        """A client is told that another one was erased: after that was kept, and after all live links have it."""
        self.told += 1
        table, tombstone = server.table, parse_gone(line)
        assert tombstone is not None
        if table.gone_until.get(command.client, 0) < tombstone.until:
            return  # nothing was to be erased
        if not server.has_kept(line):
            self._world.broken(f"{server.name} answers {line!r} before that is kept")
        if line in table.own:
            server.laws.let_out(server, line)
        if server.network.isolated not in ("", server.name):
            self.known[command.client] = max(tombstone.until, self.known.get(command.client, 0))
        if server.disk.holds(line):
            self.promised[command.client] = max(tombstone.until, self.promised.get(command.client, 0))

    def started(self, server: Server) -> None:
        """A server has replayed its journal: what it has kept of erasures it knows again."""
        for client, until in server.erased.items():
            if server.table.gone_until.get(client, 0) < until and not self.is_expired(server, until):
                self._world.broken(
                    f"{server.name} does not know any more that {client!r} was erased until {until}"
                )

    def crashed(self, server: Server, *, lost: bool) -> None:
        """A server's life has ended, and perhaps its journal has `lost` something."""
        if lost:
            server.erased = {}
            return
        for client, until in server.table.gone_until.items():
            if server.disk.holds(server.table.tombstone(client, until).line):
                server.erased[client] = max(until, server.erased.get(client, 0))

    @staticmethod
    def is_expired(server: Server, until: int) -> bool:
        """Whether a server may have forgotten a tombstone."""
        return until + server.keep < server.clock

    # What servers tell. --------------------------------------------------------------------------------------

    def told_line(self, server: Server, line: bytes, link: Link) -> None:
        """A server hands a line to a link: none that was erased, and no tombstone to who does not understand it."""
        broken = self._world.broken
        at = parse_at(line)
        if at is not None and server.table.covers(at.client, line):
            broken(f"{server.name} tells {link.peer} {line!r}, which was erased")
        if link.is_old and server.table.gone_until:
            broken(f"{server.name} holds tombstones, and tells {link.peer} {line!r}, which speaks version 1")

    # The end. ------------------------------------------------------------------------------------------------

    def judge(self, server: Server) -> None:
        """What must hold at the end."""
        table, broken = server.table, self._world.broken
        if table.tombstones_held != table.gone_until:
            broken(
                f"{server.name} holds the tombstones {table.tombstones_held}, and has learned {table.gone_until}"
            )
        for client, until in self.promised.items():
            if table.gone_until.get(client, 0) < until and not self.is_expired(server, until):
                broken(
                    f"{server.name} does not know that {client!r} was erased until {until}, which was answered"
                )
        for client, until in self.known.items():
            _, line = table.greatest.get(client, (0, b""))
            if line and received(line) <= until:
                broken(f"{server.name} has {line!r} again, which was erased while a server was cut off")
        expired = [client for client, until in table.gone_until.items() if self.is_expired(server, until)]
        if expired and self._world.plan.absences:
            broken(f"{server.name} still has the tombstones of {expired}")
        for client, lines in server.laws.durable.items():
            held = table.greatest.get(client, (-1, b""))
            for order in lines:
                if order > held and not self._may_be_lost(server, client, order):
                    broken(
                        f"{server.name} has lost {order[1].decode()}, which was answered; it has {held[1]!r}"
                    )

    def _may_be_lost(self, server: Server, client: bytes, order: Order) -> bool:
        """Whether a line was erased, or has lost against one that was erased later."""
        until = self.until(client)
        stored = server.laws.stored_lines[client]
        return any(received(one[1]) <= until for one in stored if one >= order)
