"""Clients that follow others, and the laws of what they are told.

Each belongs to one server at a time. It holds the server to these laws: of each client, and in each area, what it is told
makes sense behind what it was told before, and rises in the total order; nothing is told that the server knows to be erased,
or that it never stored, or of whom the follower may not see. And when the world is whole again, whoever reads believes what
is in the table of its server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxyherd.core.follows.event import Event
from proxyherd.core.follows.follow import Follow, Unfollow
from proxyherd.core.follows.follower import Follower
from proxyherd.core.framing import Line
from proxyherd.core.messages import Entry
from proxyherd.core.reply import Reply
from proxyherd.core.spatial.areas import Area, Box, Circle
from proxyherd.core.spatial.index import degrees
from simulation.clients import LineClient
from simulation.laws import NOTHING, Order

if TYPE_CHECKING:
    from simulation.servers import Server

AREAS: Final[tuple[Area, ...]] = (
    Circle(1.0, 1.0, 1_000.0),
    Box(100.0, -90.0, 130.0, 0.0),
    Box(-180.0, -90.0, 180.0, 90.0),
)
_OUTCOMES: Final = {"following", "invalid", "unfollowed", "unknown", "left"}
_Key = tuple[bytes, bytes]


def order_of(entry: Entry) -> Order:
    return entry.nanoseconds, entry.line


class SimulatedFollower(LineClient):
    """One connection that follows. It sees no client whose number ends with `unseen`."""

    def __init__(self, server: Server, name: str, unseen: bytes = b"") -> None:
        super().__init__(server, name, tls=False)
        self.follower = Follower(self)
        self.follower.form = "simulated"
        self.reads = True
        self.unseen = unseen
        self.follows: dict[bytes, Follow] = {}  # by name, those that were answered
        self.complete: set[bytes] = set()  # names of those whose snapshot was complete
        self.belief: dict[_Key, Order] = {}
        self.latest: dict[_Key, Order] = {}  # also of those who have left an area since
        self._commands: list[Follow | Unfollow] = []

    def sees(self, client: bytes) -> bool:
        return not self.unseen or not client.endswith(self.unseen)

    # What it does. -------------------------------------------------------------------------------------------

    def command(self, command: Follow | Unfollow) -> None:
        """Say that it follows, or no longer does."""
        if not self.gone and not self.lost:
            self._commands.append(command)
            self._server.turn.client_said(self)

    def stop_reading(self) -> None:
        self.reads, self.follower.send = False, None

    def read_on(self) -> None:
        if not self.lost:
            self.reads = True
            self.follower.resume()
            self._server.turn.client_said(self)

    def drain(self) -> None:
        self.lose(broken=False)

    def lose(self, *, broken: bool) -> None:
        self.follower.close()
        super().lose(broken=broken)

    @property
    def waits(self) -> bool:
        """Whether it is there and has not been told all yet."""
        return (
            not self.gone
            and not self.lost
            and (
                bool(self._commands or self.unlogged)
                or not self.complete >= self.follows.keys()
                or self.follower.waits
                or self._server.engine.follows.has_more
            )
        )

    # What a turn wants. --------------------------------------------------------------------------------------

    def take(self, most: int, now: float) -> list[Line]:
        taken, self._commands = self._commands[:most], self._commands[most:]
        if self._commands:
            self._server.turn.client_said(self)
        self.unlogged.extend((line, NOTHING) for line in taken)
        # Its snapshot may be told before its answer, which waits for the answers before it.
        self.complete -= {line.name for line in taken if isinstance(line, Follow)}
        return [*taken]

    def answer(self, answers: list[bytes]) -> None:
        self.heard.extend(answers)
        if answers:
            self._server.answered.append(self)

    def release(self) -> list[tuple[Line, Reply]]:
        released, _ = self.conversation.release()
        self.answer([reply.answer or b"" for _, reply in released])
        return released

    def log(self, line: Line, outcome: str, answer: bytes | None) -> None:
        super().log(line, outcome, answer)
        if outcome not in _OUTCOMES:
            self._server.world.broken(f"{self._server.name} answers {line!r}: {outcome}")
        if outcome == "following":
            assert isinstance(line, Follow)
            if (before := self.follows.get(line.name)) is not None:
                line = Follow(
                    line.follower, line.name, (*before.clients, *line.clients), None, 0.0, line.sees
                )
            self.follows[line.name] = line
        elif outcome == "unfollowed":
            assert isinstance(line, Unfollow)
            self._end(line.name)

    def _end(self, name: bytes) -> None:
        """Believe nothing any more of a follow that has ended."""
        ended = self.follows.pop(name)
        self.complete.discard(name)
        still = {client for one in self.follows.values() for client in one.clients}
        for key in [*self.latest]:
            if key[0] == name if ended.area is not None else not key[0] and key[1] not in still:
                del self.latest[key]
                self.belief.pop(key, None)

    # What it is told. ----------------------------------------------------------------------------------------

    def push(self) -> None:
        if self.lost:
            return
        if not self.reads:
            if self.follower.is_too_slow:
                self._server.world.broken(f"{self.name} is told of more clients than there are")
            return
        self.follower.send = self._hear_spelled
        for event in self.follower.take():
            self._hear_event(event)

    def _hear_spelled(self, spelled: bytes) -> None:
        """Hear an event that another follower has spelled, the short way."""
        if not self.reads or self.lost:
            self._server.world.broken(f"{self.name} is sent something, and does not read")
        self._server.laws.sent_at_once += 1
        self._hear_event(self._server.laws.spelled[spelled])

    def _hear_event(self, event: Event) -> None:
        server, key, kind = self._server, (event.name, event.client), event.kind
        self._keep(event)
        server.laws.told_events[kind] += 1
        broken = server.world.broken
        if server.node.all_wait and (event.initial or kind == "snapshot"):
            broken(f"{self.name} is told {event}, and {server.name} does not answer yet")
        if kind == "snapshot":
            if event.complete:
                self.complete.add(event.name)
            return
        if not self.sees(event.client):
            broken(f"{self.name} is told of {event.client!r}, and may not see it")
        believed = self.belief.pop(key, None)
        if (believed is None) is not (kind == "enter"):
            broken(f"{self.name} is told {event}, and believes {believed}")
        if event.entry is None:
            self.latest.pop(key, None)
            return
        order = order_of(event.entry)
        laws = server.laws
        may_be_earlier = kind == "enter" and (
            laws.erasures.until(event.client) or event.client in laws.doubted
        )
        if order <= self.latest.get(key, NOTHING) and not may_be_earlier:
            broken(f"{self.name} is told {event}, and was told {self.latest[key]}")
        self._look_at(event.client, order[1])
        self.latest[key] = order
        if kind != "leave":
            self.belief[key] = order

    def _keep(self, event: Event) -> None:
        """Let others be sent this event the short way."""
        world, spelled = self._server.world, self._server.laws.spelled
        if world.trace is not None:
            world.say(f"{self.name} is told {event}")
        if not event.spelled:
            event.spelled["simulated"] = b"%d" % len(spelled)
            spelled[event.spelled["simulated"]] = event

    def _look_at(self, client: bytes, line: bytes) -> None:
        """A line is told: one that the server has stored and kept, and does not know to be erased."""
        server, broken = self._server, self._server.world.broken
        if line not in server.table.came_from:
            broken(f"{server.name} tells {self.name} {line!r}, which it has never stored")
        if server.table.covers(client, line):
            broken(f"{server.name} tells {self.name} {line!r}, which was erased")
        refuser, life = server.laws.refused.get(line, (None, 0))
        if refuser is server and life == server.life:
            broken(f"{server.name} tells {self.name} {line!r}, which it has refused")

    # The end. ------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """What it believes must be what is true, if its server was ever ready."""
        if self.lost or not self._server.node.ready:
            return
        table, truth = self._server.table, dict[_Key, Order]()
        for follow in self.follows.values():
            for client, order in table.greatest.items():
                followed = client in follow.clients
                if follow.area is not None:
                    followed = follow.area.contains(*degrees(order[1]))
                if followed and self.sees(client):
                    truth[follow.name if follow.area is not None else b"", client] = order
        if self.belief != truth:
            self._server.world.broken(
                f"{self.name} follows {sorted(self.follows)} of {self._server.name}, "
                f"and believes {self.belief}, not {truth}"
            )
