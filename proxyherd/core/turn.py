"""One turn of a server: it gathers the clients' lines, lets the engine decide, and sends the results in a fixed order.

A turn has no event loop, no clock and no I/O. Time is an argument of `run`. Effects are calls on ports: the engine with
its journal and its links, the clients, the log, and the queries for places. Calls cost less than a list of effects, and
so the order of effects is written here; the simulation tests it. A report that is all a turn has to decide takes a
short way, in the same order:

1. The engine handles what came from neighbours or from Redis. Then it decides about all that clients have sent.
2. The engine keeps what it has stored. If it must wait for the disk, the turn waits too, and no other turn begins.
3. The engine sends the updates to the neighbours, before the clients get their answers.
4. The clients get their answers, in order, one write for each client. Some queries for places are answered here too.
   Then those who follow clients or areas are told what has changed.
5. The log is written, and events are counted. Then some queries for places begin.

The engine `herd` has its results in the same turn. The engine `redis` has them later, and wakes another turn. What is
too much for one turn waits for the next, so a flood from one side does not delay the answers of others for long.

Work for one client or one neighbour may raise an exception. Then its connection is closed, the log has the traceback,
and the turn goes on for all others.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple, cast

from proxyherd.core.engine import Client, Engine, Said, Settled
from proxyherd.core.follows.follower import Pushed
from proxyherd.core.framing import Line
from proxyherd.core.reply import Reply, leave
from proxyherd.core.sizes import SIZES, Sizes
from proxyherd.core.turn_ports import PlacesQueries, TurnLog

_LATELY_SECONDS: Final = 0.05
"""For this long after a client's line, more are expected, and a turn handles fewer lines from neighbours."""

_line = attrgetter("line")
_its_answer = attrgetter("answer")
_its_outcome = attrgetter("outcome")


class _Stored(NamedTuple):
    """Stored reports as columns: of each its client's label, its line and its answer."""

    labels: list[bytes]
    lines: list[bytes]
    answers: list[bytes]

    def add(self, label: bytes, lines: Sequence[bytes], answers: Iterable[bytes]) -> None:
        """Add stored reports of a client."""
        self.labels.extend([label] * len(lines))
        self.lines.extend(lines)
        self.answers.extend(answers)


class Turn:
    """The turns of one server. The connections of clients call `client_said` and `client_left`. `wake` asks for a call
    of `run` after everything that is ready has been read; several requests until then count as one.
    """

    def __init__(
        self,
        engine: Engine,
        queries: PlacesQueries,
        log: TurnLog,
        wake: Callable[[], None],
        sizes: Sizes = SIZES,
    ) -> None:
        self._engine = engine
        self._keeper = engine.keeper
        self._queries = queries
        self._log = log
        self._commands = log.commands
        self._wake = wake
        self._sizes = sizes
        self._clients: deque[Client] = deque()
        self._asked = False  # whether a client has asked for a turn since the latest one began
        self._given_up: deque[tuple[Client, str]] = deque()
        self.received = 0  # when what this turn decides about has arrived, in nanoseconds of POSIX time
        self._search_seconds: float
        self._lately, self._lately_until = 0, 0.0
        # What clients have sent in this turn. The first list: only stored reports, and no earlier answer is owed.
        # The second list: everything else.
        self._reported: list[Said] = []
        self._said: list[Said] = []
        self._stored = _Stored([], [], [])  # in this turn, answered and not logged yet
        self._waits = False  # for the disk
        self._kept: bool | None  # what this turn has stored; None: not known yet

    def client_said(self, client: Client) -> None:
        """Note that a client has sent something, or can take answers again."""
        if not client.queued:
            client.queued = True
            self._clients.append(client)
            if not self._asked:
                self._asked = True
                self._wake()

    def client_left(self, client: Client) -> None:
        """Note that a client is gone: nobody needs the answers to its queries for places."""
        self._queries.cancel(client)

    def run(self, now: float, received: int) -> None:
        """Run a turn, or the rest of a turn that has waited for the disk.

        `now`: seconds of one monotonic clock. `received`: nanoseconds of POSIX time.
        """
        self._asked = False
        if not self._waits:
            self._kept = True
            if self._begin(now, received):
                self._finish(self._engine.end(now))
                return
        if self._kept is None:
            self._waits = True
            return
        self._waits = False
        if not self._kept:
            self._decide_again()
        self._end(now)

    def _begin(self, now: float, received: int) -> bool:
        """Decide about what has arrived, and keep it. Return whether it was one report and nothing else, which is kept,
        sent and answered by now.
        """
        engine = self._engine
        self.received, self._search_seconds = received, self._sizes.search_seconds
        if self._clients:
            self._lately = self._lately or 1
        elif self._lately and now > self._lately_until:
            self._lately = 0
        engine.begin(now, received, self._lately)
        if self._clients and not engine.full:
            if len(self._clients) > 1:
                self._hear_clients(now)
            elif self._hear_one(now):
                return True
        if self._keeper is not None:
            try:
                self._kept = self._keeper.keep(self._was_kept)
            except Exception as error:  # noqa: BLE001 - as where it says that it could not keep them
                self._fault("what this turn has stored cannot be kept", error)
                self._kept = False
            if self._kept is False:
                self._keeper.undo()
        return False

    def _was_kept(self, kept: bool) -> None:
        """Note the result of waiting for the disk. What is not kept is removed at once: nobody may read it before the
        turn goes on.
        """
        self._kept = kept
        if not kept:
            assert self._keeper is not None
            self._keeper.undo()
        self._wake()

    def _end(self, now: float) -> None:
        """Let the engine send its updates, then answer the clients, then write the log."""
        self._engine.send(now)
        settled = self._engine.end(now)
        if self._reported:
            self._answer_reports()
        for one in self._said:
            try:
                self._answer(one)
            except Exception as error:  # noqa: BLE001 - likewise
                self._failed(one.client, error)
        self._said.clear()
        self._finish(settled)

    def _answer_reports(self) -> None:
        """Answer the clients of whose lines all are stored reports."""
        labels, lines, answers = self._stored  # what `add` does, without calling it for each client
        for one in self._reported:
            client, reports = one.client, one.reports
            own = [reports[0].line] if len(reports) == 1 else [*map(_line, reports)]
            try:
                client.answer(own)
            except Exception as error:  # noqa: BLE001 - the others' answers leave
                self._failed(client, error)
            labels += [client.label] * len(own)
            lines += one.lines  # type: ignore[arg-type]  # those of reports are bytes
            answers += own
        self._reported.clear()

    def _finish(self, settled: Settled) -> None:
        """Answer those who have waited, write the log, and ask for another turn if something is left."""
        engine, queries = self._engine, self._queries
        # After the answers of this turn: a client that is given up is owed those too.
        if settled.clients or settled.given_up or settled.pushes or self._given_up:
            self._settle(settled)
        if self._stored.lines:
            self._log_stored()
        try:
            if settled.notes:
                self._log.note(settled.notes)
            self._log.end_turn()
        except Exception as error:  # noqa: BLE001 - queries are asked, and the next turn comes
            self._fault("the turn cannot be logged", error)
        asks = bool(queries)
        if asks:
            queries.ask_some(self.client_said)
            asks = bool(queries)
        if asks or settled.more or self._given_up or (self._clients and not engine.full):
            self._wake()

    def _decide_again(self) -> None:
        """Decide again about all commands of this turn, because its reports could not be kept."""
        judge, said = self._engine.rules.judge, [*self._reported, *self._said]
        self._reported.clear()
        self._said.clear()
        for one in said:
            one.reports, one.others = judge(one.lines, self.received)
            one.stored, one.replies = 0, ()
        self._decide(said)

    def _settle(self, settled: Settled) -> None:
        """Answer the clients whose replies have waited for the engine, give up those that shall wait no more, and tell
        followers what has changed.
        """
        done = [*settled.clients]
        for client, reply in settled.found:
            if client.gone or self._queries.admit(client, reply):
                self._queries.add(client, reply)
            else:
                done.append(client)
        for client in done:
            try:
                self._tell_released(client, client.release())
            except Exception as error:  # noqa: BLE001 - the others' answers leave
                self._failed(client, error)
        for one, raised in settled.failed:
            self._failed(one, raised)
        self._given_up.extend(settled.given_up)
        if self._given_up:
            self._give_up_some()
        for follower in settled.pushes:
            try:
                follower.push()
            except Exception as error:  # noqa: BLE001 - the others are told
                self._failed(follower.pushed, error)

    def _give_up_some(self) -> None:
        """Close clients without the answers that they are owed, as many as delay nobody."""
        lines_left, gone = self._sizes.turn_lines, set[Client]()
        while self._given_up and lines_left > 0:
            client, reason = self._given_up.popleft()
            self.client_left(client)
            gone.add(client)
            try:
                unanswered = client.give_up(reason)
                for _, reply in unanswered:
                    reply.outcome, reply.answer, reply.entry = "unanswered", None, None
                self._tell_released(client, unanswered)
            except Exception as error:  # noqa: BLE001 - the others go too
                self._failed(client, error)
                continue
            lines_left -= len(unanswered)
        self._queries.drop(gone)

    def _answer(self, one: Said) -> None:
        """Send a client the answers that are ready."""
        client, replies = one.client, one.replies
        if client.gone or None in map(_its_answer, replies):
            self._answer_at_once(client, replies)
        if one.stored:
            replies = [Reply("iamat", "stored", line) for line in map(_line, one.reports[: one.stored])]
            replies += one.replies
        answers = [*map(_its_answer, replies)]
        if None not in answers and not client.owed:
            client.answer(answers)
            self._tell(client, one.lines, replies)
            return
        client.owe(zip(one.lines, replies, strict=True))
        for reply in one.replies:
            if reply.answer is None and reply.entry is not None:
                self._queries.add(client, reply)
        self._tell_released(client, client.release())

    def _answer_at_once(self, client: Client, replies: Iterable[Reply]) -> None:
        """Let Places answer queries now, if that is quick, no earlier query waits, and this turn has time left for
        it.
        """
        for reply in replies:
            if reply.entry is None:
                continue
            if client.gone:
                leave(reply)
            elif (
                reply.answer is None
                and self._queries.admit(client, reply)
                and self._search_seconds > 0
                and not self._queries
            ):
                self._search_seconds -= self._queries.answer_at_once(reply)

    def _tell(self, client: Client, lines: Sequence[Line], replies: Sequence[Reply]) -> None:
        """Log commands with their answers. Several in a row with the same outcome are logged in one call."""
        at = 0
        for outcome, run in groupby(replies, _its_outcome):
            alike = [*run]
            said = lines[at : at + len(alike)]
            at += len(alike)
            if outcome == "stored":
                self._stored.add(client.label, cast("Sequence[bytes]", said), map(_its_answer, alike))
            else:
                if self._stored.lines:
                    self._log_stored()
                self._commands.alike(client.label, said, alike)

    def _tell_released(self, client: Client, released: list[tuple[Line, Reply]]) -> None:
        if released:
            lines, replies = zip(*released, strict=True)
            self._tell(client, lines, replies)

    def _failed(self, client: Client | Pushed, error: Exception) -> None:
        """Close one client's connection, because work for it has raised an exception."""
        self._fault("a client cannot be served", error)
        with contextlib.suppress(Exception):
            client.fail()

    def _fault(self, what: str, error: Exception) -> None:
        with contextlib.suppress(Exception):  # it may be the log that fails
            self._log.fault(what, error)

    def _log_stored(self) -> None:
        """Log the stored reports that have gathered."""
        stored, self._stored = self._stored, _Stored([], [], [])
        try:
            self._commands.reports(*stored)
        except Exception as error:  # noqa: BLE001 - as where the turn is logged
            self._fault("reports cannot be logged", error)

    def _hear_one(self, now: float) -> bool:
        """Do what `_hear_clients` does, for one client. If it has sent one report, take the short way: the same steps,
        without lists. Return whether that was possible.
        """
        client = self._clients.popleft()
        client.queued = False
        try:
            lines = client.take(self._sizes.client_lines, now)
        except Exception as error:  # noqa: BLE001 - the neighbours are heard
            self._failed(client, error)
            return False
        self._lately, self._lately_until = len(lines) + client.besides, now + _LATELY_SECONDS
        reports, others = self._engine.rules.judge(lines, self.received)
        if len(reports) == 1 and self._keeper is not None and not others and not client.owed:
            report = reports[0]
            if self._keeper.report(report, now):
                try:
                    client.answer([report.line])
                except Exception as error:  # noqa: BLE001 - it is logged, and the turn goes on
                    self._failed(client, error)
                try:
                    self._commands.report(client.label, cast("bytes", lines[0]), report.line)
                except Exception as error:  # noqa: BLE001 - as where the turn is logged
                    self._fault("a report cannot be logged", error)
                return True
        self._decide([Said(client, lines, reports, others)])
        return False

    def _hear_clients(self, now: float) -> None:
        """Take lines from the clients, and let the engine decide about them."""
        taken: dict[Client, list[Line]] = {}
        lines_left, most = self._sizes.turn_lines, self._sizes.client_lines
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
            lines_left -= len(lines) + client.besides
            taken[client] = lines
        self._lately, self._lately_until = self._sizes.turn_lines - lines_left, now + _LATELY_SECONDS
        reports, others = self._engine.rules.judge_each([*taken.values()], self.received)
        self._decide([*map(Said, taken, taken.values(), reports, others)])

    def _decide(self, said: list[Said]) -> None:
        """Let the engine decide about these lines."""
        self._engine.decide(said)
        for one in said:
            if one.stored == len(one.lines) and not one.client.owed:
                self._reported.append(one)
            elif one.error is not None:
                self._failed(one.client, one.error)
            else:
                self._said.append(one)
