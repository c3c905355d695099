"""What a server decides about its clients' commands, and when it may: the part of a node that needs no neighbours.

A report is stored if it is later than the present one. A stored line is news, which the node passes on. Until the server
is ready, queries about unknown clients wait. While the journal is replayed, and if it lacks records, all queries wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from proxyherd.config.schema import ErasureSettings, Limits
from proxyherd.core.area_queries import AreaQuery, AreaReply
from proxyherd.core.erasures import Erasures
from proxyherd.core.follows.follow import Follow, FollowReply, Unfollow
from proxyherd.core.messages import At, Entry, Forget, Report, Whatsat
from proxyherd.core.news import News, take_back
from proxyherd.core.notes import Note
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Judged, Rules, find, not_stored, refuse_to_erase
from proxyherd.core.table import Erasure, Room, Table
from proxyherd.core.tombstones import Learned


class Decider:
    """The commands of one server's clients. `now` is always seconds of one monotonic clock. `erased` is called with each
    erasure.
    """

    def __init__(
        self,
        name: str,
        table: Table,
        limits: Limits,
        erasure: ErasureSettings | None,
        erased: Callable[[Erasure], None],
        *,
        alone: bool,
        now: float,
    ) -> None:
        self.name = name
        self.table = table
        self.rules = Rules(name, limits)
        self.ready = alone
        self._all_wait = False  # every query, whether its client is known or not
        self.alone, self._started = alone, now
        self.news: list[News] = []
        self.notes: list[Note] = []
        self.has_urgent_notes = False  # whether some notes are about other events than floods
        self._too_old = self.rules.is_forgotten if self.rules.age else None
        self.erasures = Erasures(table, self.rules, limits, erasure, self.note, erased)
        self._room = Room(limits.max_clients, limits.max_table_bytes)
        self._room_to_learn = Room(self._room.clients * 5 // 4, self._room.bytes * 5 // 4)
        self._deciders: dict[type[Judged], Callable[[Any, Any], Reply]] = {  # by what a line was judged to be
            Report: self._take,
            Whatsat: self.look_up,
            Forget: self._forget,
            AreaQuery: lambda query, _: AreaReply(query.kind, "waiting"),
            Follow: lambda *_: FollowReply("follow", "waiting"),
            Unfollow: lambda *_: FollowReply("unfollow", "waiting"),
            Reply: lambda reply, _: reply,
        }

    def store(self, said: Iterable[Iterable[Report]]) -> list[int]:
        """Store the reports of each client, up to the first one that is not stored. Return the number of stored ones for
        each client. The first one that is not stored, and all lines behind it, are for `decide`.
        """
        advance, room, too_old = self.table.advance, self._room, self._too_old
        news, counts = self.news, []
        add = news.append
        for reports in said:
            before = len(news)
            for report in reports:
                held = advance(report.client, Entry(report.line, report.nanoseconds), room, too_old)
                if held is False:
                    break
                add(News(report.client, report.line, None, False, held))
            counts.append(len(news) - before)
        return counts

    def store_alone(self, report: Report) -> News | None:
        """Store a report that will be the only news. Return it, None if it was not stored."""
        client, line = report.client, report.line
        held = self.table.advance(client, Entry(line, report.nanoseconds), self._room, self._too_old)
        return News(client, line, None, False, held) if held is not False else None

    def take_back(self, news: News) -> None:
        """Undo what `store_alone` has stored."""
        take_back([news], self.table)

    def decide(self, line: Any, judged: Judged) -> Reply:
        """Store a report, look up a query or erase a client; return the reply. That of a query of an area waits. Of a `line`
        that is not bytes, only `judged` is used.
        """
        return self._deciders[type(judged)](judged, line)

    def _take(self, report: Report, line: bytes) -> Reply:
        if self.store([[report]])[0]:
            return Reply("iamat", "stored", report.line)
        if self.table.gone and self.table.is_erased(report.client, report.line):
            return Reply("iamat", "stale", report.line)
        return not_stored(report, line, self.rules.remembered(self.table.get(report.client)))

    def _forget(self, command: Forget, _: Any) -> Reply:
        if command.before is not None and not self.ready:  # it may yet learn that the client was seen since
            return refuse_to_erase("not_ready")
        reply, news = self.erasures.forget(command)
        self.news += news
        return reply

    def undo(self) -> None:
        """Take back what clients have changed since the last flood: it could not be journalled. Decide about it again."""
        self.erasures.undo()
        self.news = take_back(self.news, self.table)

    def begin_replay(self) -> None:
        """Let every query wait until `start`, because the first replayed records may be older than the last answers."""
        self.ready, self._all_wait = False, True

    def replay(self, ats: Iterable[Learned | None]) -> None:
        """Learn records of the journal. They are not news: neighbours find them when they catch up."""
        for at in ats:
            if at is not None:
                self.admit(at)

    def start(self, now: float, *, lacks: bool = False) -> None:
        """Begin to wait for neighbours; the replay has ended.

        Until the server is ready, queries about unknown clients wait; if the journal `lacks` records, all queries
        wait.
        """
        self._started = now
        self.ready, self._all_wait = self.alone, lacks

    @property
    def all_wait(self) -> bool:
        """Whether every query waits, whether its client is known or not."""
        return self._all_wait and not self.ready

    def look_up(self, question: Whatsat, line: bytes) -> Reply:
        """Decide about a WHATSAT; call again when the server has become ready, if it had to wait for that."""
        reply = Reply("whatsat", "waiting", None, question)
        if self.ready or not self._all_wait:
            held = self.table.get(question.client)
            if self._too_old is not None:
                held = self.rules.remembered(held)
            if held is not None or self.ready:
                find(reply, line, held)
        return reply

    def admit(self, at: Learned) -> bool | None:
        """Store it if it is greater than the present one. Return whether it was stored, None if there is no room for it. The
        caller makes it news.
        """
        return self._admit(at) if type(at) is At else self.erasures.admit(at)

    def _admit(self, at: At) -> bool | None:
        if self._too_old is not None and self.rules.is_too_old(at.received):
            return False
        return self.table.admit(at.client, at.entry, self._room_to_learn, self._too_old)

    def note(self, note: Note) -> None:
        """Note an event for the log and the metrics."""
        self.notes.append(note)
        self.has_urgent_notes = True

    def take_notes(self) -> list[Note]:
        """Return the events for the log and the metrics, and forget them."""
        notes, self.notes, self.has_urgent_notes = self.notes, [], False
        return notes
