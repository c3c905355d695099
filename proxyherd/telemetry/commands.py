"""Commands of clients: each is counted, and logged with its answer.

Two kinds of commands are always logged: those that may have changed something, and those that told where a client is.
The others are limited, and one line counts those that were left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from operator import attrgetter, methodcaller
from typing import Final, TypeAlias

from proxyherd.core.area_queries import AreaReply
from proxyherd.core.framing import Line, spell_line
from proxyherd.core.limiters import CommandLimiter
from proxyherd.core.messages import is_http_request
from proxyherd.core.reply import Reply
from proxyherd.telemetry.connections import PROTOCOLS
from proxyherd.telemetry.event_limits import Events
from proxyherd.telemetry.frequent import (
    FrequentEvent,
    Label,
    SeveralEvents,
    label,
    labelled_name,
    labelled_via,
)
from proxyherd.telemetry.metrics import LabelValues, Metrics
from proxyherd.telemetry.recent import Recent
from proxyherd.telemetry.web import APP_NAMES

COMMANDS: Final = (
    ("iamat", "stored", "taken, and flooded"),
    ("iamat", "stale", "in form, but not later than what is held"),
    (
        "iamat",
        "refused",
        "in form, but the table is full, the journal cannot be written, its ID is longer than max_client_bytes, or Redis has no room or a stranger's key there",
    ),
    (
        "iamat",
        "unanswered",
        "nobody could serve its part of the table for deadline_seconds; engine redis only",
    ),
    ("iamat", "denied", "the token does not allow it to report this client"),
    ("iamat", "invalid", "out of form or bounds"),
    ("whatsat", "answered", "with an AT line and places, whatever their status"),
    ("whatsat", "unknown", "in form, but no such client"),
    ("whatsat", "denied", "the token does not allow it to see this client; answered as for an unknown one"),
    (
        "whatsat",
        "refused",
        "before the server was ready, behind 65,536 others that wait; or the client's ID is longer than max_client_bytes",
    ),
    ("whatsat", "unanswered", "as above"),
    ("whatsat", "left", "the client had gone before places were asked"),
    ("whatsat", "invalid", "out of form or bounds"),
    ("forget", "erased", "the client is erased herd-wide; no line says this command"),
    ("forget", "stayed", "a server has heard of the client since the moment up to which it was to be erased"),
    (
        "forget",
        "refused",
        "seven eighths of max_tombstones are held already (all, for a revocation), the journal cannot be written, or the server is not ready and the erasure is up to an earlier moment",
    ),
    ("forget", "unanswered", "as above"),
    ("forget", "denied", "the token does not allow it"),
    ("near", "answered", "with the clients that are near, perhaps none; no line says this command"),
    ("near", "unknown", "near a client that there is not"),
    ("near", "denied", "the token does not allow it to see anybody, or not the client in the middle"),
    ("near", "refused", "256 queries of areas wait already, or the engine is redis"),
    ("near", "unanswered", "the server stops before it can answer, or its search has failed"),
    ("near", "left", "the client had gone before the search ended"),
    ("near", "invalid", "the area is none"),
    ("within", "answered", "with the clients inside, perhaps none; no line says this command"),
    ("within", "denied", "the token does not allow it to see anybody"),
    ("within", "refused", "as above"),
    ("within", "unanswered", "as above"),
    ("within", "left", "as above"),
    ("within", "invalid", "the area is none, because its edges cross for example"),
    ("follow", "following", "clients, or an area; no line says this command"),
    (
        "follow",
        "refused",
        "the connection would follow more clients or areas than it may, or the engine is redis",
    ),
    ("follow", "invalid", "the area is none, or the connection has another follow with this ID"),
    ("follow", "denied", "the token does not allow it to see anybody"),
    ("follow", "left", "the client had gone before it was carried out"),
    ("unfollow", "unfollowed", "nothing more is told; no line says this command"),
    ("unfollow", "unknown", "the connection has no follow with this ID"),
    ("unfollow", "refused", "the engine is redis"),
    ("unfollow", "left", "as above"),
    ("at", "invalid", "an AT from a client"),
    ("other", "invalid", "any other word, or none"),
    ("other", "overlong", "longer than max_line_bytes"),
)
"""The values of `command` and `outcome` in proxyherd_commands_total, and what they mean."""

REFUSALS: Final[LabelValues] = {
    "full": "no room: the table is at max_clients or max_table_bytes, Redis has no memory for it, 65,536 queries wait for the server to be ready, 256 queries of areas wait, or a connection or the server follows as much as it may",
    "journal": "the journal cannot be written",
    "not_ready": "an erasure up to an earlier moment, before the server is ready",
    "no_index": "a query of an area, or a follow, with the engine redis, which has no index of positions and hears of no changes",
    "key": "Redis has a stranger's value at its key; engine redis only",
    "long_id": "the client's ID is longer than max_client_bytes",
    "overlong": "the line is longer than max_line_bytes",
    "limit": "a request of the web port came too fast, and was answered with 429 before its commands were read",
}
"""Why commands are refused: the values of `reason`. They are those of `core.reply.Refusal`; `overlong` for this outcome; and
`limit`, which is no outcome."""

WAYS: Final[LabelValues] = {
    **PROTOCOLS,
    "http": "requests of the web port, without those of apps",
    **APP_NAMES,
}
"""How a command came: the values of `via`."""

_BY_LINES: Final = label("", "lines")
"""The end of the labels of clients that speak the line protocol."""

_LEFT_OUT_SECONDS: Final = 10.0
"""The least time between two lines that count the commands that were left out."""

_ALWAYS_LOGGED: Final = {"stored", "erased", "stayed", "answered", "unanswered", "following"}
"""Outcomes of commands that changed something, may have changed something, or told where a client is or will be."""


_REFUSED: Final = {"refused", "overlong"}
"""Outcomes that have a reason."""

_token = re.compile(rb"(/t/)[^\s/?#]+", re.IGNORECASE)
"""A token in the path of a request for the web port."""

_is_by_lines = methodcaller("endswith", _BY_LINES)
_at_line = attrgetter("entry.line")
_its_entry = attrgetter("entry")
_kind = attrgetter("kind")
_results = attrgetter("results")


class CommandEvent(FrequentEvent):
    """A line of a client, and its answer if it has one."""

    name = "command"
    client: Label
    kind: bytes
    outcome: bytes
    command: bytes
    answer: bytes | None


class RefusedEvent(CommandEvent):
    """A line that was refused, and why: a key of `REFUSALS`."""

    reason: bytes


_Bytes: TypeAlias = bytes
"""The type `bytes`, for a class that has a field of this name."""


class QueryEvent(CommandEvent):
    """A query about a known client. `answer` is the AT line; `bytes` is the size of the whole answer."""

    status: _Bytes
    results: int
    bytes: int


class AreaEvent(FrequentEvent):
    """A query of an area, and how many clients were found."""

    name = "command"
    client: Label
    kind: bytes
    outcome: bytes
    command: bytes
    results: int


class CommandObserver:
    """Counts and logs commands. `recent` keeps the latest ones, while somebody views the status page."""

    def __init__(self, events: Events, metrics: Metrics, recent: Recent) -> None:
        self._counts = metrics.tally(
            "proxyherd_commands_total",
            "Commands answered, by what they were and what became of them",
            command=None,
            outcome=None,
        )
        self.counter = self._counts.counter
        for command, outcome, _ in COMMANDS:  # to Prometheus, a counter's first appearance is no increase
            self.counter.labels(command, outcome)
        self._refused = metrics.tally(
            "proxyherd_commands_refused_total",
            "Commands refused, by reason",
            reason=REFUSALS,
        )
        for reason in REFUSALS:
            self._refused.counter.labels(reason)
        # Until `settle`, only what did not come by the line protocol.
        self._by_way = metrics.tally(
            "proxyherd_commands_by_protocol_total",
            "Commands answered, by how they came and what became of them",
            via=WAYS,
            outcome=None,
        )
        self._expect("lines")
        self._events = events
        self._frequent = events.frequent
        self._clock = events.clock
        self._recent = recent
        self._unchanging = CommandLimiter()
        self._refilled = self._told_left_out = self._clock()

    def reports(self, clients: Sequence[bytes], lines: Sequence[bytes], answers: Sequence[bytes]) -> None:
        """Note reports that were stored, and of each its client's label and its answer. Call it in the turn in which the
        answers are sent.
        """
        count = len(lines)
        if count < 2:
            if lines:
                self.report(clients[0], lines[0], answers[0])
            return
        if not all(map(_is_by_lines, clients)):
            for client, number in Counter(clients).items():
                if not _is_by_lines(client):
                    self._by_way[labelled_via(client), "stored"] += number
        self._counts["iamat", "stored"] += count
        columns = clients, [b"iamat"] * count, [b"stored"] * count, lines, answers
        self._frequent(SeveralEvents(CommandEvent, columns))
        if self._recent.wanted:
            self._recent.reports(lines, answers)

    def report(self, client: bytes, line: bytes, answer: bytes) -> None:
        """Note a report that was stored, alone in its turn, and its answer. `client`: its label."""
        if not _is_by_lines(client):
            self._by_way[labelled_via(client), "stored"] += 1
        self._counts["iamat", "stored"] += 1
        self._frequent(CommandEvent(client, b"iamat", b"stored", line, answer))
        if self._recent.wanted:
            self._recent.reports([line], [answer])

    def alike(self, client: bytes, lines: Sequence[Line], replies: Sequence[Reply]) -> None:
        """Note other commands in a row of one client, and their answers. All have the same outcome. Call it in the turn in
        which the answers are sent.
        """
        if replies[0].outcome == "invalid" and _has_token(lines[-1]):  # nothing is read behind such a request
            lines, replies = [*map(_without_token, lines)], [*map(_tell_no_token, lines, replies)]
        outcome, kinds = replies[0].outcome, [*map(_kind, replies)]
        if not _is_by_lines(client):
            self._by_way[labelled_via(client), outcome] += len(replies)
        for kind in {*kinds}:
            self._counts[kind, outcome] += kinds.count(kind)
        if outcome in _REFUSED:
            for reply in replies:
                self._refused[(_reason(reply),)] += 1
        if self._recent.wanted:
            for line, reply in zip(lines, replies, strict=True):
                self._recent.command(line, reply)
        if outcome not in _ALWAYS_LOGGED:
            name = labelled_name(client)
            passes = [self._unchanging.passes(name, kind, outcome) for kind in kinds]
            lines, replies = [*compress(lines, passes)], [*compress(replies, passes)]
        for event in _events(client, lines, replies):
            self._frequent(event)

    def came_too_fast(self) -> None:
        """Note a request that was refused because its client asks too fast."""
        self._refused[("limit",)] += 1

    def open_web(self) -> None:
        """Have the series of the protocols of the web port from now on."""
        for via in WAYS:
            self._expect(via)

    def _expect(self, via: str) -> None:
        for command, outcome, _ in COMMANDS:
            if command == "iamat" or via not in APP_NAMES:
                self._by_way.counter.labels(via, outcome)

    def settle(self) -> None:
        """Count the commands of the line protocol, before the metrics settle: those that came in no other way."""
        others = [*self._by_way.items()]
        for (_, outcome), number in self._counts.items():
            self._by_way["lines", outcome] += number
        for (_, outcome), number in others:
            self._by_way["lines", outcome] -= number

    def tick(self) -> None:
        """Let time pass; call every few seconds."""
        now = self._clock()
        self._unchanging.refill(now - self._refilled)
        self._refilled = now
        if now - self._told_left_out >= _LEFT_OUT_SECONDS:
            self._told_left_out = now
            self.tell_left_out()

    def tell_left_out(self) -> None:
        """Log one line with the number of commands that were left out since the last such line."""
        outcomes, addresses = self._unchanging.take_left_out()
        if outcomes:
            self._events.log.warning(
                "commands_left_out", commands=sum(outcomes.values()), outcomes=outcomes, addresses=addresses
            )


def _reason(reply: Reply) -> str:
    """Return why a command was refused."""
    return reply.refusal or reply.outcome


def _has_token(line: Line) -> bool:
    """Whether a line is a request that was meant for the web port, with a token in its path."""
    return isinstance(line, bytes) and _token.search(line) is not None and is_http_request(line)


def _without_token(line: Line) -> Line:
    return _token.sub(rb"\1...", line) if isinstance(line, bytes) and _has_token(line) else line


def _tell_no_token(line: Line, reply: Reply) -> Reply:
    if reply.answer is None or not _has_token(line):
        return reply
    return Reply(reply.kind, reply.outcome, _token.sub(rb"\1...", reply.answer))


def _event(client: bytes, line: Line, reply: Reply) -> FrequentEvent:
    start = client, reply.kind.encode(), reply.outcome.encode(), spell_line(line)
    if reply.outcome in _REFUSED:
        return RefusedEvent(*start, reply.answer, _reason(reply).encode())
    if isinstance(reply, AreaReply) and reply.result is not None:
        return AreaEvent(*start, len(reply.result.found))
    if reply.entry is None:
        return CommandEvent(*start, reply.answer)
    size = len(reply.answer or b"") + 1
    return QueryEvent(*start, reply.entry.line, reply.status.encode(), reply.results, size)


def _events(
    client: bytes, lines: Sequence[Line], replies: Sequence[Reply]
) -> list[FrequentEvent] | list[SeveralEvents]:
    """Return the events of commands with the same outcome."""
    if len(replies) < 2 or (replies[0].outcome == "answered" and None in map(_its_entry, replies)):
        return [_event(client, line, reply) for line, reply in zip(lines, replies, strict=True)]
    return [_columns(client, lines, replies)]


def _columns(client: bytes, lines: Sequence[Line], replies: Sequence[Reply]) -> SeveralEvents:
    """Return the events of several commands with the same outcome, as columns: these cost half as much as one event for
    each command.
    """
    count, outcome = len(replies), replies[0].outcome.encode()
    kinds = [*map(str.encode, map(_kind, replies))]
    commands = [line if isinstance(line, bytes) else spell_line(line) for line in lines]
    start = [client] * count, kinds, [outcome] * count, commands
    answers = [reply.answer for reply in replies]
    if replies[0].outcome in _REFUSED:
        return SeveralEvents(RefusedEvent, (*start, answers, [*map(str.encode, map(_reason, replies))]))
    if replies[0].entry is None:
        return SeveralEvents(CommandEvent, (*start, answers))
    statuses = [reply.status.encode() for reply in replies]
    sizes = [len(answer or b"") + 1 for answer in answers]
    columns = (*start, [*map(_at_line, replies)], statuses, [*map(_results, replies)], sizes)
    return SeveralEvents(QueryEvent, columns)
