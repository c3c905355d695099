"""One server's decisions: messages come in, answers and floods come out. It has no socket, clock or log.

It keeps these rules:

- A report is stored if it is later than the present one; an update from a peer, if it is greater in the total order of
  `table`. A stored line is news. News is sent once to every live neighbour, except the one it came from. So a flood
  ends by itself on any graph.
- A newly authenticated link replaces an older one between the same two servers.
- When a link comes up, first its dialler catches up, then the other side. So a line that only one of them has crosses
  the link once. An empty server does not wait for its turn. A server catches up from one neighbour at a time.
- Lines from catching up are passed on only over links in step, that is, where both sides have caught up. A neighbour's
  walk may have been too early to find them. It is asked to walk again when catching up has ended.

- After a long time without a link, lines that are in doubt (`contact`) are set aside before anybody is told of them. Then
  it is as after a start.

The driver of a node calls `receive`, `store`, `decide`, `closed`, `tick` and `work` with what happened, then `flood`,
and sends what the links have to send. Events for the log and the metrics wait in `notes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from proxyherd.config.schema import ErasureSettings, Limits, Timing
from proxyherd.core.area_queries import AreaQuery, AreaReply
from proxyherd.core.contact import Contact
from proxyherd.core.erasures import Erasures, longest_absence
from proxyherd.core.expiry import Expiry
from proxyherd.core.follows.follow import Follow, FollowReply, Unfollow
from proxyherd.core.handshake import State
from proxyherd.core.link import Link
from proxyherd.core.messages import At, Entry, Forget, Malformed, Report, Whatsat, recent_parser
from proxyherd.core.news import LinkErrorHandler, News, its_client, pass_on, raise_it, take_back
from proxyherd.core.notes import (
    FROM_THE_FUTURE,
    OUTDATED,
    REPLACED,
    Heard,
    LinkDown,
    LinkFailed,
    LinkUp,
    Note,
    OtherClock,
    Skipped,
)
from proxyherd.core.peer_messages import (
    AskDigests,
    AskLeaf,
    AskRange,
    BatchHeader,
    Changed,
    Clock,
    Digests,
    Done,
    Erased,
    LinkEvent,
    Misspoken,
    Proved,
    Updates,
)
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Judged, Rules, find, not_stored, refuse_to_erase
from proxyherd.core.sizes import SIZES, Sizes
from proxyherd.core.spatial.searches import Searches
from proxyherd.core.table import Erasure, Room, Table
from proxyherd.core.ticks import TICKS
from proxyherd.core.tombstones import Learned
from proxyherd.core.walks import Neighbour, Walks


class Node:
    """One server. `now` is always seconds of one monotonic clock."""

    def __init__(
        self,
        name: str,
        table: Table,
        limits: Limits,
        timing: Timing,
        *,
        alone: bool,
        now: float,
        sizes: Sizes = SIZES,
        erasure: ErasureSettings | None = None,
    ) -> None:
        self.name = name
        self.table = table
        self.rules = Rules(name, limits)
        self.ready = alone
        self._all_wait = False  # every query, whether its client is known or not
        self.news: list[News] = []
        self._learned = False  # whether any of the news came from a neighbour
        self.notes: list[Note] = []
        self.has_urgent_notes = False  # whether some notes are about other events than floods
        self._timing = timing
        self._too_old = self.rules.is_forgotten if self.rules.age else None
        ticks = TICKS * timing.compare_seconds / timing.heartbeat_seconds
        self._expiry = Expiry(table, self._too_old, ticks)
        self.erasures = Erasures(table, self.rules, limits, erasure, self.note, self._erased)
        self.searches = Searches(table)
        self.contact = Contact(name, longest_absence(erasure or ErasureSettings()))
        self._room = Room(limits.max_clients, limits.max_table_bytes)
        self._room_to_learn = Room(self._room.clients * 5 // 4, self._room.bytes * 5 // 4)
        self.alone, self._started = alone, now
        self._deciders: dict[type[Judged], Callable[[Any, Any], Reply]] = {  # by what a line was judged to be
            Report: self._take,
            Whatsat: self.look_up,
            Forget: self._forget,
            AreaQuery: lambda query, _: AreaReply(query.kind, "waiting"),
            Follow: lambda *_: FollowReply("follow", "waiting"),
            Unfollow: lambda *_: FollowReply("unfollow", "waiting"),
            Reply: lambda reply, _: reply,
        }
        self._recent = recent_parser(self.rules.lead)
        self._neighbours: dict[str, Neighbour] = {}
        self._walks = Walks(
            table,
            sizes=sizes,
            line_bytes=limits.max_line_bytes,
            compare_seconds=timing.compare_seconds,
            tell=self.note,
        )

    # Clients. ------------------------------------------------------------------------------------------------

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

    @property
    def caught_up(self) -> bool:
        """Whether a first catch-up has ended, or there are no neighbours."""
        return self.alone or self._walks.ended

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

    # Neighbours. ---------------------------------------------------------------------------------------------

    @property
    def linked(self) -> Iterable[str]:
        """The neighbours with a live link."""
        return self._neighbours.keys()

    @property
    def in_step(self) -> dict[str, Link]:
        """The links over which both sides have caught up."""
        return {one.name: one.link for one in self._neighbours.values() if one.in_step}

    def receive(self, link: Link, most: int, now: float) -> None:
        """Handle up to `most` lines that this link has received."""
        if not link.proved:
            self.contact.look_at_clock(self.rules.clock)
        for event in link.events(most, self.rules.clock):
            if isinstance(event, Proved):
                if link.is_old and self.table.gone:
                    link.close(OUTDATED)  # the first was made during the handshake
                    break
                self._proved(link, now)
            else:  # as soon as it is proved, until it is closed
                assert link.peer is not None
                try:
                    self._act(self._neighbours[link.peer], event, now)
                except Misspoken as error:
                    link.close(str(error))
        if link.state is State.CLOSED:
            self.closed(link)

    def receive_few(self, link: Link, data: bytes, most: int, now: float, clock: int) -> bool:
        """Handle bytes that a link received, if they are only updates, and no more than `most` or none of them news. False:
        they must wait for `receive`. `clock`: nanoseconds of POSIX time.
        """
        lines = link.lines_in(data)
        if lines is None:
            return False
        assert link.peer is not None
        if len(lines) > most and not self._holds(self._recent(lines[0])):
            return False  # without parsing the others in vain
        ats: list[Any] = [*map(self._recent, lines)]
        if None in ats:
            return False
        if not all(map(self._holds, ats)):
            if len(ats) > most:
                return False
            self.rules.clock = clock
            self._learn(self._neighbours[link.peer], ats, False, self._admit)
        elif ats:
            self.notes.append(Heard(link.peer, [*map(its_client, ats)], 0, None))
        link.hear(now)
        return True

    def _holds(self, at: At | None) -> bool:
        if at is None:
            return False
        held = self.table.get(at.client)
        return held is not None and held.line == at.entry.line

    def note(self, note: Note) -> None:
        """Note an event for the log and the metrics."""
        self.notes.append(note)
        self.has_urgent_notes = True

    def take_notes(self) -> list[Note]:
        """Return the events for the log and the metrics, and forget them."""
        notes, self.notes, self.has_urgent_notes = self.notes, [], False
        return notes

    def closed(self, link: Link) -> None:
        """Forget a link that has ended; call once for each."""
        neighbour = self._neighbours.get(link.peer or "")
        if neighbour is None or neighbour.link is not link:
            if link.reason and not link.noted:
                self.note(LinkFailed(link.peer, link.dialled, link.reason))
            link.noted = True
            return
        link.noted = True
        del self._neighbours[neighbour.name]
        self._walks.forget(neighbour)
        self.note(LinkDown(neighbour.name, link.reason))

    def _proved(self, link: Link, now: float) -> None:
        assert link.peer is not None
        self._set_aside_if_lost(now)
        if (older := self._neighbours.get(link.peer)) is not None:
            older.link.close(REPLACED)
            self.closed(older.link)
        neighbour = Neighbour(link.peer, link, now + self._timing.compare_seconds)
        self._neighbours[link.peer] = neighbour
        self.note(LinkUp(link.peer, link.dialled, link.other_key, link.differing))
        if link.dialled or not len(self.table):
            self._walks.begin(neighbour)

    def _set_aside_if_lost(self, now: float) -> None:
        """If the server was without contact for too long, begin as after a start that has not found all records."""
        if not self.contact.was_lost(self.rules.clock):
            return
        self.contact.set_aside(self.table, self.rules.clock)
        self._walks.ended = False
        self.start(now, lacks=True)
        for neighbour in self._neighbours.values():
            self._walks.begin_again(neighbour)

    def _put_back(self, aside: dict[bytes, Entry]) -> None:
        """Put back what was set aside."""
        for client, entry in aside.items():
            if self._too_old is None or not self._too_old(entry):
                self.table.admit(client, entry, self._room_to_learn, self._too_old)
        for neighbour in self._neighbours.values() if aside else ():
            neighbour.link.send(Changed())  # its walk may have been too early

    def _erased(self, erasure: Erasure) -> None:
        """Close the links of neighbours that do not understand tombstones. If a line was removed here, ask the other ones for
        what they have: a later report may have lost against this line on its way, and only there is it still stored.
        """
        for neighbour in tuple(self._neighbours.values()):
            if neighbour.link.is_old:
                neighbour.link.close(OUTDATED)
                self.closed(neighbour.link)
            elif erasure.client is not None:
                self._walks.begin_again(neighbour)

    def _act(self, neighbour: Neighbour, event: LinkEvent, now: float) -> None:
        match event:
            case Updates(ats, caught_up):
                self._learn(neighbour, ats, caught_up, self._admit)
            case Erased(tombstones, caught_up):
                self._learn(neighbour, tombstones, caught_up, self.erasures.admit)
            case Malformed(line):
                self.note(Skipped(neighbour.name, line, f"no {'GONE' if line[:1] == b'G' else 'AT'} line"))
            case Clock(clock):
                self.note(OtherClock(neighbour.name, clock - self.rules.clock))
            case AskDigests() | AskLeaf() | AskRange():
                self._walks.serve(neighbour, event)
            case Digests() | BatchHeader():
                self._answered(neighbour, event, now)
            case Done():
                neighbour.served, neighbour.link.serves = True, False
                if not neighbour.link.dialled:
                    self._walks.begin(neighbour)
            case Changed():
                self._walks.begin_again(neighbour)

    def _answered(self, neighbour: Neighbour, event: Digests | BatchHeader, now: float) -> None:
        self._walks.answered(neighbour, event, now)
        if neighbour.pull is None:
            self._put_back(self.contact.caught_up(neighbour.link.began))
        self.ready = self.ready or self._walks.ended

    def _learn(
        self,
        neighbour: Neighbour,
        ats: Sequence[Learned],
        caught_up: bool,
        admit: Callable[[Any], bool | None],
    ) -> None:
        news, name = self.news, neighbour.name
        before, latest = len(news), self.rules.latest_receipt()
        taken: int | None = None  # when a server took the first report that is news
        for at in ats:
            if at.received > latest:
                self.note(Skipped(name, at.entry.line, FROM_THE_FUTURE))
                continue
            admitted = admit(at)
            if admitted:
                taken = taken or at.received
                news.append(News(at.client, at.entry.line, name, caught_up))
            elif admitted is None:
                self.note(Skipped(name, at.entry.line, "the table is at its limit"))
        learned = len(news) - before
        if learned:
            self._learned = True
        if caught_up:
            neighbour.lines += len(ats)
            neighbour.news += learned
        else:
            late = self.rules.clock - taken if taken is not None and type(ats[0]) is At else None
            self.notes.append(Heard(name, [*map(its_client, ats)], learned, late))

    def admit(self, at: Learned) -> bool | None:
        """Store it if it is greater than the present one. Return whether it was stored, None if there is no room for it. The
        caller makes it news.
        """
        return self._admit(at) if type(at) is At else self.erasures.admit(at)

    def _admit(self, at: At) -> bool | None:
        if self._too_old is not None and self.rules.is_too_old(at.received):
            return False
        return self.table.admit(at.client, at.entry, self._room_to_learn, self._too_old)

    def flood(self, failed: LinkErrorHandler = raise_it) -> None:
        """Pass the news to the live links. When catching up has ended, ask neighbours that may have missed something to
        walk again. Before that, it is not known which news was not sent to them.

        `failed` gets a link whose work has raised an exception: close it.
        """
        self.erasures.settle()
        news, self.news = self.news, []
        learned, self._learned = self._learned, False
        if self.table.gone and len(news) > 1:
            # What was erased meanwhile is no news; and what was learned again because of that is news once.
            once = {one.line: one for one in news}.values()
            news = [one for one in once if not self.table.is_erased(one.client, one.line)]
        self.notes += pass_on(news, tuple(self._neighbours.values()), self._walks, failed, learned)

    def work(self, now: float, failed: LinkErrorHandler = raise_it) -> bool:
        """Do one slice of long work, of a few milliseconds; return whether more is left. `failed`: as for `flood`."""
        return self._walks.work(now, failed)

    @property
    def has_work(self) -> bool:
        """Whether `work` has something to do."""
        return self._walks.has_work or self.searches.has_work

    # Time. ---------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Let time pass: compare with neighbours again, close links that don't answer, become ready."""
        self.contact.look_at_clock(self.rules.clock)
        if any(neighbour.pulled for neighbour in self._neighbours.values()):
            self._set_aside_if_lost(now)  # this process was suspended, and its links only seem to live
            self.contact.last = self.rules.clock
        for neighbour in list(self._neighbours.values()):
            if overdue := neighbour.overdue(now, self._timing.catch_up_seconds):
                neighbour.link.close(overdue)
                self.closed(neighbour.link)
            elif now >= neighbour.compare_at:
                neighbour.compare_at = now + self._timing.compare_seconds
                if not neighbour.link.is_old:
                    neighbour.link.send(Clock(self.rules.clock))
                self._walks.begin(neighbour)
        self._expiry.tick(self.erasures.oldest)
        self.searches.tick(now)
        if not self.ready:
            patience = self._timing.ready_seconds
            if self._neighbours:  # there is a live link, so a first catch-up can be expected
                patience += self._timing.catch_up_seconds
            walking = any(neighbour.pull is not None for neighbour in self._neighbours.values())
            self.ready = now - self._started >= patience and not walking

    @property
    def tick_at(self) -> float:
        """When `tick` has something to do at the earliest. -inf: `tick` has to be called a few times a heartbeat."""
        neighbours = self._neighbours.values()
        if not self.ready or self._too_old is not None or any(one.pull is not None for one in neighbours):
            return float("-inf")
        return min((one.compare_at for one in neighbours), default=float("inf"))
