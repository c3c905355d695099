"""What happens, told to the log and the metrics: the one room that knows the names of events.

What happens often - commands, floods, bytes - is counted in plain numbers, which become metrics when somebody asks for
them: they would be a fifth of the steps of a turn that holds one report. Failures that
repeat themselves or come in numbers are limited, and say how many were left out. So are commands that changed nothing,
which one line counts; those that may have changed something and those that told where a client is are always logged.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Literal

import prometheus_client
from structlog.typing import FilteringBoundLogger

from proxyherd.core.framing import Overlong
from proxyherd.core.limiters import CommandLimiter, Limiter
from proxyherd.core.messages import NANOSECONDS
from proxyherd.core.notes import (
    REPLACED,
    CaughtUp,
    Flooded,
    Heard,
    LinkDown,
    LinkFailed,
    LinkUp,
    Note,
    Skipped,
)
from proxyherd.core.reply import Reply
from proxyherd.places import STATES, BreakerState, CallOutcome, Spared
from proxyherd.telemetry.logs import Each, LogFile, names
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.recent import Recent

_CLIENTS_BURST: Final = 20_000
_CLIENTS_REFILL_SECONDS: Final = 0.1
_LINKS_BURST: Final = 100
_LINKS_REFILL_SECONDS: Final = 1.0
_LEFT_OUT_SECONDS: Final = 10.0
"""Between two lines that count the commands that were left out."""

_ALWAYS_LOGGED: Final = {"stored", "answered", "unanswered"}
"""Outcomes of commands that changed something, or may have, or told where a client is."""

_WORTH_A_LINE: Final = {"shed", "late", "budget", "unrecorded"}
_LEVELS: Final = {"peer_closed": 30, "internal_error": 40}


class Observer:
    """Turns what happened to one server into log events and figures."""

    def __init__(
        self,
        log: FilteringBoundLogger,
        file: LogFile,
        metrics: Metrics,
        neighbours: Iterable[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log = log
        self.metrics = metrics
        self.recent = Recent()
        self.links: dict[str, Literal["live", "catching up", "cut"]] = dict.fromkeys(neighbours, "cut")
        self._file = file
        self._info = log.info
        # Of this turn's stored reports, not logged yet: who sent them, and what, and the answers.
        self._clients: list[bytes] = []
        self._lines: list[bytes] = []
        self._answers: list[bytes] = []
        self._commands: Counter[tuple[str, str]] = Counter()  # command, outcome
        self._updates: Counter[tuple[str, str, str]] = Counter()  # neighbour, direction, whether it was news
        self._batches: Counter[tuple[str, str]] = Counter()  # neighbour, direction
        self._journal = 0, 0, False
        self._limiters: dict[tuple[str | None, str], Limiter] = {}
        self._clock = clock
        self._unchanging = CommandLimiter()
        self._refilled = self._told_left_out = clock()
        self._told: dict[prometheus_client.Counter, int] = {}  # totals that the metrics know of
        for neighbour in self.links:
            metrics.links_up.labels(neighbour)
            metrics.links_failed.labels(neighbour)
        for state in STATES:
            metrics.places_breaker.labels(state).set(state == "closed")

    # Clients. ------------------------------------------------------------------------------------------------

    def reports(self, client: bytes, lines: list[bytes], answers: list[bytes]) -> None:
        """Note reports that were stored, and their answers; call in the turn in which the answers leave."""
        self._clients += [client] * len(lines)
        self._lines += lines
        self._answers += answers

    def _tell_reports(self) -> None:
        """Log the stored reports that have gathered: one event, which is one line each."""
        if self._lines:
            clients, lines, answers = self._clients, self._lines, self._answers
            self._clients, self._lines, self._answers = [], [], []
            self._commands["iamat", "stored"] += len(lines)
            several = Each if len(lines) > 1 else _only
            self._info(
                "command",
                client=several(clients),
                kind="iamat",
                outcome="stored",
                command=several(lines),
                answer=several(answers),
            )
            if self.recent.wanted:
                self.recent.reports(lines, answers)

    def command(self, client: str, line: bytes | Overlong, reply: Reply) -> None:
        """Note one command and its answer; call in the turn in which the answer leaves."""
        self._tell_reports()
        self._commands[reply.kind, reply.outcome] += 1
        if self.recent.wanted:
            self.recent.command(line, reply)
        if reply.outcome not in _ALWAYS_LOGGED and not self._unchanging.passes(
            client, reply.kind, reply.outcome
        ):
            return
        command = line.start if isinstance(line, Overlong) else line
        if reply.entry is None:
            self._info(
                "command",
                client=client,
                kind=reply.kind,
                outcome=reply.outcome,
                command=command,
                answer=reply.answer,
            )
        else:
            assert reply.answer is not None
            self._info(
                "command",
                client=client,
                kind=reply.kind,
                outcome=reply.outcome,
                command=command,
                answer=reply.entry.line,
                status=reply.status,
                results=reply.results,
                bytes=len(reply.answer) + 1,
            )

    def client_opened(self, client: str, connections: int) -> None:
        """Note a new connection of a client; there are so many now."""
        self.metrics.connections_opened.inc()
        self.metrics.connections.set(connections)
        self._often("client_opened", client=client)

    def line_unfinished(self, client: str, size: int, seconds: float) -> None:
        """Note that a client has sent so many bytes without LF, and then nothing that ended the line for so long."""
        self._often(
            "line_unfinished",
            client=client,
            bytes=size,
            seconds=round(seconds, 3),
            remedy="end each line with LF, or close the sending half behind the last one",
        )

    def client_closed(self, client: str, reason: str, connections: int) -> None:
        """Note the end of a client's connection."""
        self.metrics.connections_closed.labels(reason).inc()
        self.metrics.connections.set(connections)
        self._often("client_closed", client=client, reason=reason)

    def client_refused(self, client: str, reason: str) -> None:
        """Note that a client was turned away before it could say anything."""
        self.metrics.connections_closed.labels("refused").inc()
        self._limited(None, "client_refused", reason, client=client)

    def places(self, provider: str, status: str, outcome: str, seconds: float) -> None:
        """Note one query of Places; `outcome` is one of few words."""
        self.metrics.places_seconds.labels(provider, outcome).observe(seconds)
        self._info("places", provider=provider, status=status, seconds=round(seconds, 6))

    def places_called(self, provider: str, outcome: CallOutcome, seconds: float, dollars: float) -> None:
        """Note one call to Google, and what it may have cost."""
        self.metrics.places_calls.labels(provider, outcome).inc()
        self.metrics.places_cost.labels(provider).inc(dollars)
        self._info("places_call", provider=provider, outcome=outcome, seconds=round(seconds, 6))

    def places_spared(self, why: Spared) -> None:
        """Note a query of Places, or a further attempt at it, that cost no call."""
        self.metrics.places_spared.labels(why).inc()
        if why in _WORTH_A_LINE:
            self._limited(None, "places_spared", why)

    def places_breaker(self, state: BreakerState) -> None:
        """Note that the circuit breaker of Places has changed."""
        for one in STATES:
            self.metrics.places_breaker.labels(one).set(one == state)
        if state == "open":
            self.log.warning("places_breaker", state=state)
        else:
            self.log.info("places_breaker", state=state)

    def fault(self, what: str, error: BaseException | None) -> None:
        """Note a fault of ours, with its traceback."""
        self._seldom(None, "internal_error", reason=what, exc_info=error)

    # Neighbours. ---------------------------------------------------------------------------------------------

    def note(self, notes: Iterable[Note]) -> None:
        """Note what the core has left."""
        self._tell_reports()
        for note in notes:
            try:
                self._note(note)
            except Exception as error:  # noqa: BLE001 - the other notes are told
                self.fault("a note of the core cannot be told", error)

    def _note(self, note: Note) -> None:
        if isinstance(note, Flooded):
            self._updates[note.neighbour, "out", "true"] += len(note.clients)
            self._flood("flood_sent", note.neighbour, note.clients, "out")
        elif isinstance(note, Heard):
            repeated = len(note.clients) - note.news
            if note.news:
                self._updates[note.neighbour, "in", "true"] += note.news
            if repeated:
                self._updates[note.neighbour, "in", "false"] += repeated
            if note.late is not None:
                self.metrics.propagation.observe(max(0, note.late) / NANOSECONDS)
            if self.recent.wanted:
                self.recent.heard(note.clients)
            self._flood("flood_received", note.neighbour, note.clients, "in", news=note.news)
        else:
            self._link(note)

    def _link(self, note: CaughtUp | LinkUp | LinkDown | LinkFailed | Skipped) -> None:
        match note:
            case CaughtUp(neighbour, lines, news, seconds):
                self.links[neighbour] = "live"
                self.metrics.mended.labels(neighbour).set(news)
                self.metrics.checks.labels(neighbour).inc()
                self._now_and_then(neighbour, "caught_up", lines=lines, news=news, seconds=round(seconds, 3))
            case LinkUp(neighbour, dialled):
                for event in ("peer_unreachable", "peer_refused"):
                    self._limiters.pop((neighbour, event), None)  # the next time is news
                self.links[neighbour] = "catching up"
                self.metrics.links_up.labels(neighbour).set(1)
                self._now_and_then(neighbour, "peer_opened", dialled=dialled)
            case LinkDown(neighbour, reason):
                self.links[neighbour] = "cut"
                self.metrics.links_up.labels(neighbour).set(0)
                if reason == REPLACED:  # again and again where two servers have one name
                    self.metrics.links_failed.labels(neighbour).inc()
                self._now_and_then(neighbour, "peer_closed", reason=reason)
            case LinkFailed(neighbour, dialled, reason):
                self.link_failed(neighbour, reason, dialled=dialled)
            case Skipped(neighbour, line, reason):
                self.metrics.lines_skipped.labels(neighbour).inc()
                self._limited(neighbour, "peer_line_skipped", reason, neighbour=neighbour, line=line)

    def link_failed(self, neighbour: str | None, reason: str, *, dialled: bool) -> None:
        """Note an attempt at a link that came to nothing, ours or, where not `dialled`, another's."""
        self.metrics.links_failed.labels(neighbour or "unknown").inc()
        event = "peer_unreachable" if dialled else "peer_refused"
        self._limited(neighbour, event, reason, neighbour=neighbour)

    def _flood(self, event: str, neighbour: str, clients: list[bytes], direction: str, **more: int) -> None:
        self._batches[neighbour, direction] += 1
        shown = names(clients, 1024)
        self._info(event, neighbour=neighbour, updates=len(clients), **more, clients=shown)

    def _often(self, event: str, **fields: object) -> None:
        """Log what happens often, unless it happens so often that it does nothing but fill the log."""
        self._let_through(self._limiter(None, event, _CLIENTS_BURST, _CLIENTS_REFILL_SECONDS), event, fields)

    def _now_and_then(self, neighbour: str, event: str, **fields: object) -> None:
        """Likewise, of a neighbour, whose links come and go seldom."""
        self._seldom(neighbour, event, neighbour=neighbour, **fields)

    def _seldom(self, of: str | None, event: str, **fields: object) -> None:
        """Likewise, of one of several or of nobody, and of what happens seldom."""
        self._let_through(self._limiter(of, event, _LINKS_BURST, _LINKS_REFILL_SECONDS), event, fields)

    def _limiter(self, of: str | None, event: str, burst: int, refill: float) -> Limiter:
        found = self._limiters.get((of, event))
        return found or self._limiters.setdefault((of, event), Limiter(burst, refill, 0))

    def _let_through(self, limiter: Limiter, event: str, fields: dict[str, object]) -> None:
        left_out = limiter.pass_on("", self._clock())
        if left_out:
            fields["left_out"] = left_out
        if left_out is not None:
            self.log.log(_LEVELS.get(event, 20), event, **fields)

    def _limited(self, of: str | None, event: str, reason: str, **fields: object) -> None:
        """Log a failure, unless it repeats itself or comes in numbers; what is let through says what was not."""
        limiter = self._limiters.setdefault((of, event), Limiter())
        left_out = limiter.pass_on(reason, self._clock())
        if left_out is not None:
            self.log.warning(event, **fields, reason=reason, left_out=left_out)

    def journal(self, written: int, failures: int, *, failing: bool) -> None:
        """Note how the journal stands: all bytes written since the start, all failures, and whether it fails now."""
        self._journal = written, failures, failing

    # The cluster. --------------------------------------------------------------------------------------------

    def batch(self, commands: int, seconds: float) -> None:
        """Note a batch that a master has carried out, and its replicas have."""
        self.metrics.batch_commands.observe(commands)
        self.metrics.batch_seconds.observe(seconds)

    def retried(self, why: str, commands: int) -> None:
        """Note that so many reports and queries are to be sent again."""
        self.metrics.retried.labels(why).inc(commands)

    def master(self, master: str, trouble: str) -> None:
        """Note that a master can be had, or not."""
        if not trouble:
            self._limiters.pop((master, "master_down"), None)  # the next time is news
            self._seldom(master, "master_up", master=master)
        else:
            self._limited(master, "master_down", trouble, master=master)

    def master_full(self, master: str, *, full: bool) -> None:
        """Note that a master has no memory for reports, or has room again."""
        if full:
            reason = "its memory is full: raise maxmemory there, or add a shard"
            self.log.warning("master_full", master=master, reason=reason)
        else:
            self.log.info("master_has_room", master=master)

    def masters(self, parts: dict[str, int]) -> None:
        """Note how many parts of the table each master has now."""
        self.log.info("masters", parts=parts)

    def node_failed(self, node: str, reason: str) -> None:
        """Note that a node did not say who is master of what."""
        self._limited(node, "node_failed", reason, node=node)

    def master_unsafe(self, master: str, reason: str) -> None:
        """Note a setting of a master that costs answered reports one day."""
        self._limited(master, "master_unsafe", reason, master=master)

    # The turn. -----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let time pass; call a few times a heartbeat."""
        now = self._clock()
        self._unchanging.refill(now - self._refilled)
        self._refilled = now
        if now - self._told_left_out >= _LEFT_OUT_SECONDS:
            self._told_left_out = now
            self.tell_left_out()

    def tell_left_out(self) -> None:
        """Count in one line the commands that were not logged one by one since the last such line."""
        outcomes, addresses = self._unchanging.take_left_out()
        if outcomes:
            self.log.warning(
                "commands_left_out", commands=sum(outcomes.values()), outcomes=outcomes, addresses=addresses
            )

    def end_turn(self) -> None:
        """Write the turn's log lines."""
        self._tell_reports()
        self._file.flush()

    def settle(self) -> None:
        """Bring the metrics up to what has been counted."""
        metrics, file = self.metrics, self._file
        for counts, counter in (
            (self._commands, metrics.commands),
            (self._updates, metrics.flood_updates),
            (self._batches, metrics.flood_batches),
        ):
            for labels, number in counts.items():
                counter.labels(*labels).inc(number)
            counts.clear()
        self._add(metrics.log_bytes, file.bytes_written)
        self._add(metrics.log_lines_lost, file.lines_lost)
        self._add(metrics.log_failures, file.failures)
        written, failures, failing = self._journal
        self._add(metrics.journal_bytes, written)
        self._add(metrics.journal_failures, failures)
        metrics.journal_failing.set(failing)

    def _add(self, counter: prometheus_client.Counter, total: int) -> None:
        """Bring a counter up to a total that is kept elsewhere."""
        told = self._told.get(counter, 0)
        if total > told:
            counter.inc(total - told)
            self._told[counter] = total


def _only(values: list[bytes]) -> bytes:
    (value,) = values
    return value
