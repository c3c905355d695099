"""A server in simulated turns whose clients report and follow each other, and what followers were told."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from turns import Asked, Held, Neighbour, Pipeliner, Turns, node

from proxyherd.config.schema import Limits
from proxyherd.core.follows.event import Event
from proxyherd.core.follows.follow import Follow, FollowReply, Unfollow
from proxyherd.core.follows.follower import Follower
from proxyherd.core.framing import Line
from proxyherd.core.messages import Forget
from proxyherd.core.reply import Reply
from proxyherd.core.spatial.areas import Area
from proxyherd.core.turn import Turn
from proxyherd.engines.herd.engine import HerdEngine
from proxyherd.telemetry.observer import Observer


class FollowingClient(Pipeliner):
    """Follows clients and areas. What it is told gathers while it reads."""

    def __init__(self, turn: Turn, name: str = "follower") -> None:
        super().__init__(turn, [], name)
        self.owed.append((b"", Reply("", "")))  # so that all replies come by `release`
        self._commands: deque[tuple[Line, Reply]] = deque()
        self.follower = Follower(self)
        self.reads = True
        self.pushes = 0
        self.was_too_slow = self.failed = False
        self.raises: Exception | None = None
        self.events: list[Event] = []
        self.replies: list[Reply] = []

    def follow(self, *clients: bytes, name: bytes = b"", area: Area | None = None, **more: Any) -> None:
        self.send(Follow(self.follower, name, clients, area, **more))

    def unfollow(self, name: bytes) -> None:
        self.send(Unfollow(self.follower, name))

    def owe(self, commands: Iterable[tuple[Line, Reply]]) -> None:
        self._commands.extend(commands)

    def release(self) -> list[tuple[Line, Reply]]:
        released = []
        while self._commands and self._commands[0][1].answer is not None:
            released.append(self._commands.popleft())
        self.replies += [reply for _, reply in released]
        return released

    @property
    def reply(self) -> FollowReply:
        """The last one."""
        reply = self.replies[-1]
        assert isinstance(reply, FollowReply)
        return reply

    def push(self) -> None:
        self.pushes += 1
        if self.raises is not None:
            raise self.raises
        if self.reads:
            self.events += self.follower.take()
        elif self.follower.is_too_slow:
            self.was_too_slow = True

    def read_on(self) -> None:
        self.reads = True
        self.follower.resume()
        self._turn.client_said(self)

    def fail(self) -> None:
        self.failed = True
        self.follower.close()

    def told(self) -> list[str]:
        """Return what was told since the last call."""
        events, self.events = self.events, []
        return [spell_event(event) for event in events]


def spell_event(event: Event) -> str:
    """Return an event in words: kind, client, time of the report, and the rest."""
    words = [event.kind, event.client.decode()]
    if event.entry is not None:
        words.append(event.entry.line.rsplit(b" ", 1)[1].decode())
    if event.kind == "snapshot":
        words.append(f"{event.clients}{'' if event.complete else ' incomplete'}")
    if event.name:
        words.append(f"of {event.name.decode()}")
    if event.initial:
        words.append("initial")
    return " ".join(filter(None, words))


class FollowedServer:
    """A server that has replayed its journal, if not told otherwise."""

    def __init__(
        self, observer: Observer, *, alone: bool = True, always: bool = False, **limits: Any
    ) -> None:
        self.turns = turns = Turns()
        self.node = node(Limits(**limits), alone=alone)
        self.journal = Held(always=always)
        self.engine = HerdEngine(self.node, self.journal, turns.wake, later=self)
        self.turn = turns.turn = Turn(self.engine, Asked(), observer, turns.wake)
        self.reporter = Pipeliner(self.turn, [], "reporter")

    def follower(self, name: str = "follower") -> FollowingClient:
        return FollowingClient(self.turn, name)

    def say(self, *lines: Line) -> None:
        """Let a client say these lines, in one turn, and wait until all is done."""
        self.reporter.send(*lines)
        self.turns.rest()

    def report(self, client: bytes, time: float, place: bytes = b"+1+1") -> None:
        self.say(b"IAMAT %b %b %.1f" % (client, place, time))

    def forget(self, client: bytes) -> None:
        self.say(Forget(client))

    def neighbour(self) -> Neighbour:
        return Neighbour(self.node, self.engine, "Aaron")

    def pass_on_soon(self) -> None:
        self.turns.soon.append(self.engine.pass_on)

    def send_spare_later(self) -> None:
        raise NotImplementedError

    def settle_later(self) -> None:
        pass

    def settled(self) -> None:
        pass
