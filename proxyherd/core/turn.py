"""One turn of a server: gathers what clients said, lets the engine decide, and lets everything out in order.

A turn has no event loop, no clock and no I/O. Time is an argument of `run`; what is to happen are calls on ports: the
engine with its journal and its links, the clients, the log, and the questions for Places. They are calls and not a list
of effects: so the order of effects is here alone, costs nothing, and is what the simulation tries to break:

1. The engine hears what came otherwise than from clients, then decides about what clients sent, all of it at once.
2. The engine keeps what it has stored. Where that waits for the disk, the turn waits too, and no other one begins.
3. The engine tells those who must know before the clients: the neighbours.
4. The clients get their answers, in order on each connection, one write to each; with them what Places answer at once.
5. The log and the metrics. Then some queries of Places begin.

The engine `herd` has its outcomes in the same turn; `redis` has them later, and wakes another turn. What is too much
for one turn waits for the next, so that nobody's flood holds up another's answer for long.

What is done for one client or one neighbour may raise. Then its connection ends, the log has the traceback, and the
turn goes on for all the others.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Container, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, Protocol, cast

from proxyherd.core.engine import Client, Engine, Said, Settled
from proxyherd.core.framing import Overlong
from proxyherd.core.notes import Note
from proxyherd.core.reply import Reply, leave
from proxyherd.core.sizes import SIZES, Sizes

_LATELY_SECONDS: Final = 0.05
"""How long after a client's line the next one is expected: until then, neighbours have the smaller share of a turn."""

_line = attrgetter("line")


class CommandLog(Protocol):
    """Where commands are told of, each in the turn in which its answer leaves."""

    def reports(self, client: bytes, lines: list[bytes], answers: list[bytes]) -> None:
        """Tell of a client's reports that were stored, and of their answers."""

    def command(self, client: str, line: bytes | Overlong, reply: Reply) -> None:
        """Tell of any other command."""


class TurnLog(Protocol):
    """Where a turn tells what has happened."""

    @property
    def commands(self) -> CommandLog:
        """Where commands are told of."""

    def note(self, notes: Sequence[Note]) -> None:
        """Tell what the engine has noted."""

    def end_turn(self) -> None:
        """Write what was told."""

    def fault(self, what: str, error: Exception) -> None:
        """Tell of a fault of the program."""


class PlacesQueries(Protocol):
    """The queries of Places: those whose client is known go there, and come back with their answer."""

    def __bool__(self) -> bool:
        """Whether there is something left for another turn."""

    def answer_at_once(self, reply: Reply) -> bool:
        """Answer a query if that takes a fraction of a millisecond, and return whether it did."""

    def add(self, client: Client, reply: Reply) -> None:
        """Let a query be asked in this turn or a later one."""

    def drop(self, gone: Container[Client]) -> None:
        """Forget what has not been asked of clients that are let go."""

    def cancel(self, client: Client) -> None:
        """Break off what a client has asked: nobody wants it any more."""

    def ask_some(self, answered: Callable[[Client], None]) -> None:
        """Begin queries, as many as hold nobody up; call `answered` with a client one of whose replies has its answer."""


class Turn:
    """The turns of one server. The client listener calls `client_said` and `client_left`; `wake` asks for a call of
    `run` when everything that is ready has been read: several requests at a time are one.
    """

    def __init__(
        self,
        engine: Engine,
        questions: PlacesQueries,
        log: TurnLog,
        wake: Callable[[], None],
        sizes: Sizes = SIZES,
    ) -> None:
        self._engine = engine
        self._keeper = engine.keeper
        self._questions = questions
        self._log = log
        self._commands = log.commands
        self._wake = wake
        self._sizes = sizes
        self._clients: deque[Client] = deque()
        self._given_up: deque[tuple[Client, str]] = deque()
        self._received: int
        self._searches: int
        self._lately, self._lately_until = 0, 0.0
        # What clients have said in this turn: reports alone, all stored, with their answers; and all else.
        self._reported: list[Said] = []
        self._said: list[Said] = []
        self._waits = False  # for the disk
        self._kept: bool | None  # what this turn has stored; None: not known yet

    def client_said(self, client: Client) -> None:
        """A client has sent something, or can take answers again."""
        if not client.queued:
            client.queued = True
            self._clients.append(client)
            self._wake()

    def client_left(self, client: Client) -> None:
        """A client's connection has broken: what it has asked of Places is wanted by nobody."""
        self._questions.cancel(client)

    def run(self, now: float, received: int) -> None:
        """Run a turn, or the rest of one that has waited for the disk.

        `now`: seconds of one monotonic clock; `received`: nanoseconds of POSIX time.
        """
        if not self._waits:
            self._kept = True
            self._begin(now, received)
        if self._kept is None:
            self._waits = True
            return
        self._waits = False
        if not self._kept:
            self._decide_again()
        self._end(now)

    def _begin(self, now: float, received: int) -> None:
        engine = self._engine
        self._received, self._searches = received, self._sizes.turn_searches
        if self._clients:
            self._lately = self._lately or 1
        elif self._lately and now > self._lately_until:
            self._lately = 0
        engine.begin(now, received, self._lately)
        if self._clients and not engine.full:
            self._hear_clients(now)
        if self._keeper is not None:
            try:
                self._kept = self._keeper.keep(self._was_kept)
            except Exception as error:  # noqa: BLE001 - as where it says that it could not keep them
                self._fault("what this turn has stored cannot be kept", error)
                self._kept = False
            if self._kept is False:
                self._keeper.undo()

    def _was_kept(self, kept: bool) -> None:
        """Take note of what came of waiting for the disk. What is not kept is undone at once: before the turn goes on,
        nobody may read it.
        """
        self._kept = kept
        if not kept:
            assert self._keeper is not None
            self._keeper.undo()
        self._wake()

    def _end(self, now: float) -> None:
        """Let the engine tell whom it must, then answer clients; the log and the metrics last."""
        engine, questions = self._engine, self._questions
        settled = engine.end(now)
        for one in self._reported:
            client, answers = one.client, [*map(_line, one.reports)]
            try:
                client.answer(answers)
            except Exception as error:  # noqa: BLE001 - the others' answers leave
                self._failed(client, error)
            self._commands.reports(client.label, cast("list[bytes]", one.lines), answers)
        self._reported.clear()
        for one in self._said:
            try:
                self._answer(one)
            except Exception as error:  # noqa: BLE001 - likewise
                self._failed(one.client, error)
        self._said.clear()
        # Behind what was said: who is given up is owed that too.
        if settled.clients or settled.given_up or self._given_up:
            self._settle(settled)
        try:
            if settled.notes:
                self._log.note(settled.notes)
            self._log.end_turn()
        except Exception as error:  # noqa: BLE001 - queries are asked, and the next turn comes
            self._fault("the turn cannot be logged", error)
        if questions:
            questions.ask_some(self.client_said)
        if settled.more or questions or self._given_up or (self._clients and not engine.full):
            self._wake()

    def _decide_again(self) -> None:
        """Decide again about all commands of this turn: its reports could not be kept."""
        judge, said = self._engine.rules.judge, [*self._reported, *self._said]
        self._reported.clear()
        self._said.clear()
        for one in said:
            one.reports, one.others = judge(one.lines, self._received)
            one.stored, one.replies = 0, ()
        self._decide(said)

    def _settle(self, settled: Settled) -> None:
        """Answer those whose replies have waited for the engine, and let go of those who are to wait no more."""
        for client, reply in settled.found:
            self._questions.add(client, reply)
        for client in settled.clients:
            try:
                self._tell(client, client.release())
            except Exception as error:  # noqa: BLE001 - the others' answers leave
                self._failed(client, error)
        self._given_up.extend(settled.given_up)
        if self._given_up:
            self._give_up_some()

    def _give_up_some(self) -> None:
        """Let go of clients without the answers that they are owed, as many as hold nobody up."""
        lines_left, gone = self._sizes.turn_lines, set[Client]()
        while self._given_up and lines_left > 0:
            client, reason = self._given_up.popleft()
            self.client_left(client)
            gone.add(client)
            try:
                unanswered = client.give_up(reason)
                for _, reply in unanswered:
                    reply.outcome, reply.answer, reply.entry = "unanswered", None, None
                self._tell(client, unanswered)
            except Exception as error:  # noqa: BLE001 - the others go too
                self._failed(client, error)
                continue
            lines_left -= len(unanswered)
        self._questions.drop(gone)

    def _answer(self, one: Said) -> None:
        """Let a client have the answers that are there."""
        client, replies = one.client, one.replies
        if one.stored:
            stored = [Reply("iamat", "stored", report.line) for report in one.reports[: one.stored]]
            replies = [*stored, *replies]
        for reply in one.replies:
            if reply.entry is not None:
                if client.gone:
                    leave(reply)
                elif reply.answer is None:
                    self._answer_at_once(reply)
        answers = [reply.answer for reply in replies]
        if None not in answers and not client.owed:
            client.answer(cast("list[bytes]", answers))
            self._tell(client, [*zip(one.lines, replies, strict=True)])
            return
        client.owe(zip(one.lines, replies, strict=True))
        for reply in one.replies:
            if reply.answer is None and reply.entry is not None:
                self._questions.add(client, reply)
        self._tell(client, client.release())

    def _answer_at_once(self, reply: Reply) -> None:
        """Let Places answer a query now, if that is short, no earlier one waits, and this turn has answered few."""
        if self._searches and not self._questions:
            self._searches -= self._questions.answer_at_once(reply)

    def _tell(self, client: Client, released: list[tuple[bytes | Overlong, Reply]]) -> None:
        """Log commands with their answers, runs of stored reports at once."""
        for outcome, run in groupby(released, _outcome):
            several = list(run)
            if outcome == "stored":
                lines, answers = [line for line, _ in several], [reply.answer for _, reply in several]
                self._commands.reports(client.label, cast("list[bytes]", lines), cast("list[bytes]", answers))
            else:
                for line, reply in several:
                    self._commands.command(client.name, line, reply)

    def _failed(self, client: Client, error: Exception) -> None:
        """End one client's connection, for which something could not be done."""
        self._fault("a client cannot be served", error)
        with contextlib.suppress(Exception):
            client.fail()

    def _fault(self, what: str, error: Exception) -> None:
        with contextlib.suppress(Exception):  # also where it is the log that fails
            self._log.fault(what, error)

    def _hear_clients(self, now: float) -> None:
        """Let the engine decide about what clients have sent."""
        judge, received, most = self._engine.rules.judge, self._received, self._sizes.client_lines
        said: list[Said] = []
        lines_left = self._sizes.turn_lines
        for _ in range(len(self._clients)):
            if lines_left <= 0:
                break
            client = self._clients.popleft()
            client.queued = False
            try:
                lines = client.take(most, now)
            except Exception as error:  # noqa: BLE001 - the others are heard
                self._failed(client, error)
                continue
            lines_left -= len(lines)
            reports, others = judge(lines, received)
            said.append(Said(client, lines, reports, others))
        self._lately, self._lately_until = self._sizes.turn_lines - lines_left, now + _LATELY_SECONDS
        self._decide(said)

    def _decide(self, said: list[Said]) -> None:
        """Let the engine decide about what was said."""
        self._engine.decide(said)
        for one in said:
            if one.error is not None:
                self._failed(one.client, one.error)
            elif one.stored == len(one.lines) and not one.client.owed:
                self._reported.append(one)
            else:
                self._said.append(one)


def _outcome(released: tuple[bytes | Overlong, Reply]) -> str:
    return released[1].outcome
