"""Turns without an event loop, sockets or disks: a driver, a journal, Places and clients that tests hold in their hands."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

from proxyherd.config.herd_file import PEER_LINE_SLACK
from proxyherd.config.schema import Limits, Timing
from proxyherd.core.engine import Client
from proxyherd.core.framing import Line
from proxyherd.core.handshake import State, Terms
from proxyherd.core.link import Link
from proxyherd.core.node import Node
from proxyherd.core.reply import Reply, leave
from proxyherd.core.sizes import SIZES
from proxyherd.core.table import Table
from proxyherd.core.turn import Turn
from proxyherd.engines.herd.engine import HerdEngine
from proxyherd.places import Answer, no_results

CLOCK = 5 * 10**9


class Turns:
    """Runs turns when a test says so, on a clock that the test turns."""

    def __init__(self) -> None:
        self.turn: Turn
        self.now = 0.0
        self.is_due = False
        self.soon: list[Callable[[float], None]] = []
        """What is to be done before the next turn."""

    def wake(self) -> None:
        self.is_due = True

    def one(self) -> None:
        """Run a turn if one is due."""
        if self.is_due:
            self.is_due = False
            self.turn.run(self.now, CLOCK)

    def rest(self, most: int = 1_000) -> int:
        """Run turns until none is due; return how many those were."""
        for count in range(most):
            soon, self.soon = self.soon, []
            for action in soon:
                action(self.now)
            if not self.is_due:
                return count
            self.one()
        raise AssertionError("turns do not come to rest")


class Asked:
    """Questions for Places that know of nothing near; each is answered in the turn that asks it, or at once if told so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Client, Reply]] = []
        self.at_once = False
        self.admitted: list[str] = []
        self.too_fast: set[str] = set()
        self.seconds = SIZES.search_seconds / 3.9
        """What such an answer takes, so that there is time for four in a turn."""

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def admit(self, client: Client, reply: Reply) -> bool:
        self.admitted.append(client.payer)
        if client.payer in self.too_fast:
            self._answer(reply)
            return False
        return True

    def answer_at_once(self, reply: Reply) -> float:
        if self.at_once:
            self._answer(reply)
        return self.seconds

    def add(self, client: Client, reply: Reply) -> None:
        if client.gone:
            leave(reply)
        else:
            self.waiting.append((client, reply))

    def drop(self, gone: Container[Client]) -> None:
        self.waiting = [one for one in self.waiting if one[0] not in gone]

    def cancel(self, client: Client) -> None:
        pass

    def ask_some(self, answered: Callable[[Client], None]) -> None:
        waiting, self.waiting = self.waiting, []
        for client, reply in waiting:
            self._answer(reply)
            answered(client)

    def _answer(self, reply: Reply) -> None:
        assert reply.entry is not None
        reply.outcome, reply.answer = "answered", reply.entry.line + b"\nnothing\n"


class Held:
    """A journal, as under `fsync = "always"` if told so, whose disk is slow: a sync lasts until it is released."""

    def __init__(self, *, always: bool = True) -> None:
        self.always = always
        self.takes_reports = True
        self.appended: list[bytes] = []
        self.appends = 0
        self.synced: set[bytes] = set()
        self.syncs = 0
        self.fails = False
        self._syncing: list[tuple[list[bytes], Callable[[bool], None]]] = []

    def append(self, lines: list[bytes]) -> bool:
        self.appends += 1
        self.appended += lines
        return self.takes_reports

    def sync(self, done: Callable[[bool], None]) -> None:
        self.syncs += 1
        self._syncing.append((list(self.appended), done))

    def release(self) -> None:
        """Let the sync that is under way end, if any is."""
        syncing, self._syncing = self._syncing, []
        for covered, done in syncing:
            if self.fails:
                self.takes_reports = False
            else:
                self.synced.update(covered)
            done(self.takes_reports)


class Pipeliner:
    """A client that has sent all its lines at once, and may send more."""

    queued = False
    gone = False

    def __init__(self, turn: Turn, lines: Sequence[Line], name: str = "pipeliner") -> None:
        self.name = name
        self.label, self.payer = name.encode(), name
        self._turn = turn
        self._lines: list[Line] = []
        self.owed: deque[tuple[Line, Reply]] = deque()
        self.answers: list[bytes] = []
        # Kind and outcome of what was logged otherwise than as a run.
        self.released: list[tuple[str, str]] = []
        self.given_up = ""
        self.send(*lines)

    def send(self, *lines: Line) -> None:
        self._lines += lines
        if self._lines:
            self._turn.client_said(self)

    besides = 0

    def may_ask_places(self, now: float) -> bool:
        return True

    def take(self, most: int, now: float) -> list[Line]:
        taken, self._lines = self._lines[:most], self._lines[most:]
        if self._lines:
            self._turn.client_said(self)
        return list(taken)

    def answer(self, answers: list[bytes]) -> None:
        self.answers += answers

    def owe(self, commands: Iterable[tuple[Line, Reply]]) -> None:
        self.owed.extend(commands)

    def release(self) -> list[tuple[Line, Reply]]:
        released = []
        while self.owed and (answer := self.owed[0][1].answer) is not None:
            self.answers.append(answer)
            released.append(self.owed.popleft())
        self.released += [(reply.kind, reply.outcome) for _, reply in released]
        return released

    def give_up(self, reason: str) -> list[tuple[Line, Reply]]:
        self.given_up = reason
        owed = list(self.owed)
        self.owed.clear()
        return owed

    def fail(self) -> None:
        raise AssertionError("its turn has raised")


_NOTHING_NEAR = no_results("ZERO_RESULTS")


class NoPlaces:
    """Knows of nothing near."""

    name = "none"
    in_flight = 0

    def answer_at_once(self, _: object) -> Answer:
        return _NOTHING_NEAR

    async def nearby(self, *_: object) -> Answer:
        return _NOTHING_NEAR


def node(limits: Limits | None = None, *, alone: bool = True, **more: Any) -> Node:
    return Node("Ann", Table(bytes(32)), limits or Limits(), Timing(), alone=alone, now=0.0, **more)


class Neighbour:
    """A neighbour of Ann's that has dialled her (its name sorts before hers), whose link is live: `tell` has it say something, and what Ann tells it gathers in `told`."""

    queued = False

    def __init__(self, server_node: Node, engine: HerdEngine, name: str) -> None:
        self._engine = engine
        self.told: list[bytes] = []
        self.link = Link(terms(server_node.name, name), dial=None, nonce=name.encode().ljust(32), now=0.0)
        self.far = Link(terms(name, server_node.name), dial=server_node.name, nonce=bytes(32), now=0.0)
        for _ in range(3):
            self.link.receive_data(self.far.data_to_send(0.0), 0.0)
            server_node.receive(self.link, 100, 0.0)
            self.far.receive_data(self.link.data_to_send(0.0), 0.0)
            self.far.events(100)
        assert self.link.state is self.far.state is State.LIVE
        engine.add_link(self)

    def tell(self, *lines: bytes) -> None:
        """Let this neighbour say these lines, all at once."""
        data = b"".join(line + b"\n" for line in lines)
        if not self._engine.hear_few(self, data, 0.0, CLOCK):
            self.link.receive_data(data, 0.0)
            self._engine.peer_said(self)

    def heard(self) -> None:
        pass

    def release(self, now: float) -> None:
        self.told += self.link.data_to_send(now).splitlines()

    def fail(self, error: Exception) -> None:
        raise AssertionError("something done for it has raised") from error


def terms(name: str, neighbour: str) -> Terms:
    limits, timing = Limits(), Timing()
    return Terms(
        name=name,
        neighbours=frozenset({neighbour}),
        secrets=(bytes(32),),
        line_bytes=limits.max_line_bytes + PEER_LINE_SLACK,
        lead=limits.clock_lead,
        fingerprint=b"0" * 16,
        heartbeat=timing.heartbeat_seconds,
        handshake=timing.handshake_seconds,
    )
