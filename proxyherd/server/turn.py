"""One turn of the event loop: gathers what clients said, lets the engine decide, and lets everything out in order.

Everything that is ready is read first; then the engine stores and looks up what the turn wants, all of it at once.
The engine `herd` has the outcomes in the same turn, and hands them to journal and peers before any client has its
answer; `redis` has them later, and wakes another turn. Answers keep their order on a connection either way, one write
to each client; the log and the metrics come last. So the busier a server is, the less a command costs it. What is too
much for one turn waits for the next, so that nobody's flood holds up another's answer for long.

What is done for one client or one neighbour may raise. Then its connection ends, the log has the traceback, and the
turn goes on for all the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable
from itertools import groupby
from operator import attrgetter
from typing import Final, cast

from proxyherd.core.engine import Client, Engine, Said, Settled
from proxyherd.core.framing import Overlong
from proxyherd.core.reply import Reply
from proxyherd.core.sizes import SIZES, Sizes
from proxyherd.places import Places
from proxyherd.server.questions import Questions
from proxyherd.telemetry.observer import Observer

_LATELY_SECONDS: Final = 0.05
"""How long after a client's line the next one is expected: until then, neighbours have the smaller share of a turn."""


_line = attrgetter("line")


class Turn:
    """Runs the turns of one server. The client listener calls `client_said`, the engine `wake`.

    `places` can be awaited as often as needed; until it is there, queries wait for it.
    """

    def __init__(
        self,
        engine: Engine,
        places: Awaitable[Places],
        observer: Observer,
        loop: asyncio.AbstractEventLoop,
        sizes: Sizes = SIZES,
    ) -> None:
        self._sizes = sizes
        self._engine = engine
        self._questions = Questions[Client](places, observer, loop, self.client_said)
        self._observer = observer
        self._commands = observer.commands
        self._loop = loop
        self._clients: deque[Client] = deque()
        self._given_up: deque[tuple[Client, str]] = deque()
        self._scheduled = False
        self._received = 0
        self._lately, self._lately_until = 0, 0.0
        # What clients have said in this turn: reports alone, all stored, with their answers; and all else.
        self._reported: list[Said] = []
        self._said: list[Said] = []
        self._commit: asyncio.Task[None] | None = None
        engine.wake = self.wake

    def client_said(self, client: Client) -> None:
        """A client has sent something, or can take answers again."""
        if not client.queued:
            client.queued = True
            self._clients.append(client)
            if not self._scheduled:
                self.wake()

    def client_left(self, client: Client) -> None:
        """A client's connection has broken: what it has asked of Places is wanted by nobody."""
        self._questions.cancel(client)

    def wake(self) -> None:
        """Let there be a turn, when everything that is ready now has been read."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        if self._commit is not None:  # it wakes the next turn
            return
        engine, now = self._engine, self._loop.time()
        self._received = time.time_ns()
        if self._clients:
            self._lately = self._lately or 1
        elif self._lately and now > self._lately_until:
            self._lately = 0
        engine.begin(now, self._received, self._lately)
        if self._clients and not engine.full:
            self._hear_clients(now)
        try:
            kept = engine.keep()
        except Exception as error:  # noqa: BLE001 - as where it says that it could not keep them
            self._fault("what this turn has stored cannot be kept", error)
            kept = False
        if kept is True:
            self._let_out()
        elif kept is False:
            self._decide_again()
            self._let_out()
        else:
            self._commit = self._loop.create_task(self._let_out_after(kept))

    async def _let_out_after(self, kept: Awaitable[bool]) -> None:
        is_kept = False
        try:
            is_kept = await kept
        except Exception as error:  # noqa: BLE001 - likewise
            self._fault("what this turn has stored cannot be kept", error)
        finally:
            self._commit = None
        if not is_kept:
            self._decide_again()
        self._let_out()

    def _decide_again(self) -> None:
        """Decide again about all commands of this turn: its reports could not be kept."""
        self._engine.undo()
        judge, said = self._engine.rules.judge, [*self._reported, *self._said]
        self._reported.clear()
        self._said.clear()
        for one in said:
            one.reports, one.others = judge(one.lines, self._received)
            one.stored, one.replies = 0, ()
        self._decide(said)

    def _let_out(self) -> None:
        """Let the engine tell whom it must, then answer clients; the log and the metrics last."""
        engine, observer = self._engine, self._observer
        settled = engine.end(self._loop.time())
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
        if settled.clients or settled.given_up:
            self._settle(settled)
        if self._given_up:
            self._give_up_some()
        try:
            if settled.notes:
                observer.note(settled.notes)
            observer.end_turn()
        except Exception as error:  # noqa: BLE001 - queries are asked, and the next turn comes
            self._fault("the turn cannot be logged", error)
        self._questions.ask_some()
        if settled.more or self._questions or self._given_up or (self._clients and not engine.full):
            self.wake()

    def _settle(self, settled: Settled) -> None:
        """Answer those whose replies have waited for the engine."""
        for client, reply in settled.found:
            self._questions.add(client, reply)
        for client in settled.clients:
            try:
                self._log(client, client.release())
            except Exception as error:  # noqa: BLE001 - the others' answers leave
                self._failed(client, error)
        self._given_up.extend(settled.given_up)

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
                self._log(client, unanswered)
            except Exception as error:  # noqa: BLE001 - the others go too
                self._failed(client, error)
                continue
            lines_left -= len(unanswered)
        self._questions.drop(gone)

    def _answer(self, one: Said) -> None:
        """Let a client have the answers that are there."""
        client, reports = one.client, one.reports[: one.stored]
        stored = [Reply("iamat", "stored", report.line) for report in reports]
        client.owe(zip(one.lines, (*stored, *one.replies), strict=True))
        for reply in one.replies:
            if reply.entry is not None:
                self._questions.add(client, reply)
        self._log(client, client.release())

    def _log(self, client: Client, released: list[tuple[bytes | Overlong, Reply]]) -> None:
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
            self._observer.fault(what, error)

    def _hear_clients(self, now: float) -> None:
        """Let the engine decide about what clients have sent."""
        judge, received = self._engine.rules.judge, self._received
        said: list[Said] = []
        client_lines, lines_left = self._sizes.client_lines, self._sizes.turn_lines
        for _ in range(len(self._clients)):
            if lines_left <= 0:
                break
            client = self._clients.popleft()
            client.queued = False
            try:
                lines = client.take(client_lines, now)
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
