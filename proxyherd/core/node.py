"""One server's decisions: messages come in, answers and floods come out. It has no socket, clock or log.

It keeps these rules:

- What clients' commands do is `decider`'s. An update from a peer is stored if it is greater in the total order of `table`.
  A stored line is news. News is sent once to every live neighbour, except the one it came from. So a flood
  ends by itself on any graph.
- A newly authenticated link replaces an older one between the same two servers.
- When a link comes up, first its dialler catches up, then the other side. So a line that only one of them has crosses
  the link once. An empty server does not wait for its turn. A server catches up from one neighbour at a time.
- Lines from catching up are passed on only over links in step, that is, where both sides have caught up. A neighbour's
  walk may have been too early to find them. It is asked to walk again when catching up has ended.

- After a long time without a link, lines that are in doubt (`contact`) are set aside before anybody is told of them. Then
  it is as after a start.

The driver of a node calls `receive`, `store`, `decide`, `closed`, `tick` and `work` with what happened, then `flood`, or
`store_alone` and `flood_alone` for a report that is the only news; and it sends what the links have to send. Events for
the log and the metrics wait in `notes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from proxyherd.config.schema import ErasureSettings, Limits, Timing
from proxyherd.core.contact import Contact
from proxyherd.core.decider import Decider
from proxyherd.core.erasures import longest_absence
from proxyherd.core.expiry import Expiry
from proxyherd.core.flood_paths import NO_SPARE_COPIES, SpareCopies, spared
from proxyherd.core.handshake import State
from proxyherd.core.link import Link
from proxyherd.core.messages import At, Entry, Malformed, recent_parser
from proxyherd.core.news import LinkErrorHandler, News, its_client, pass_on, raise_it
from proxyherd.core.notes import (
    FROM_THE_FUTURE,
    OUTDATED,
    REPLACED,
    SUSPENDED,
    Flooded,
    Heard,
    LinkDown,
    LinkFailed,
    LinkUp,
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
from proxyherd.core.sizes import SIZES, Sizes
from proxyherd.core.spatial.searches import Searches
from proxyherd.core.table import Erasure, Table
from proxyherd.core.ticks import step
from proxyherd.core.tombstones import Learned
from proxyherd.core.walks import Neighbour, Walks


class Node(Decider):
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
        spare_copies: SpareCopies = NO_SPARE_COPIES,
    ) -> None:
        super().__init__(name, table, limits, erasure, self._erased, alone=alone, now=now)
        self._learned = False  # whether any of the news came from a neighbour
        self._timing = timing
        self.spare_copies = spare_copies
        ticks = timing.compare_seconds / step(timing.heartbeat_seconds)
        self._expiry = Expiry(table, self._too_old, ticks)
        self.searches = Searches(table)
        self.contact = Contact(name, longest_absence(erasure or ErasureSettings()))
        self._recent = recent_parser(self.rules.lead)
        self._neighbours: dict[str, Neighbour] = {}
        self._walks = Walks(
            table,
            sizes=sizes,
            line_bytes=limits.max_line_bytes,
            compare_seconds=timing.compare_seconds,
            tell=self.note,
        )

    # Neighbours. ---------------------------------------------------------------------------------------------

    @property
    def linked(self) -> Iterable[str]:
        """The neighbours with a live link."""
        return self._neighbours.keys()

    @property
    def caught_up(self) -> bool:
        """Whether a first catch-up has ended, or there are no neighbours."""
        return self.alone or self._walks.ended

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
        if most and len(lines) == 1:
            return self._receive_one(link, lines[0], now, clock)
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

    def _receive_one(self, link: Link, line: bytes, now: float, clock: int) -> bool:
        """Handle one line that a link received, if it is an update for which there is room; return whether it was handled."""
        at = self._recent(line)
        if at is None:
            return False
        client, entry, name = at.client, at.entry, cast("str", link.peer)
        held = self.table.get(client)
        if held is not None and held.line == entry.line:
            self.notes.append(Heard(name, [client], 0, None))
        else:
            self.rules.clock = clock
            if at.received > self.rules.latest_receipt() or (admitted := self._admit(at)) is None:
                return False
            if admitted:
                self.news.append(News(client, entry.line, name, False))
                self._learned = True
                self.notes.append(Heard(name, [client], 1, clock - at.received))
            else:
                self.notes.append(Heard(name, [client], 0, None))
        link.hear(now)
        return True

    def _holds(self, at: At | None) -> bool:
        if at is None:
            return False
        held = self.table.get(at.client)
        return held is not None and held.line == at.entry.line

    def closed(self, link: Link) -> None:
        """Forget a link that has ended; call once for each."""
        neighbour = self._neighbours.get(link.peer or "")
        if neighbour is None or neighbour.link is not link:
            if link.reason and not link.noted:
                self.note(LinkFailed(link.peer, link.dialled, link.reason, link.address))
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
        """If the server was without contact for too long, begin as after a start that has not found all records. Links from
        before are closed: neighbours were suspended too, perhaps, and since when they have had the table is told at the
        handshake.
        """
        if not self.contact.was_lost(self.rules.clock):
            return
        self.contact.set_aside(self.table, self.rules.clock)
        self._walks.ended = False
        self.start(now, lacks=True)
        for neighbour in tuple(self._neighbours.values()):
            neighbour.link.close(SUSPENDED)
            self.closed(neighbour.link)

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

    def flood(self, failed: LinkErrorHandler = raise_it) -> None:
        """Pass the news to the live links. When catching up has ended, ask neighbours that may have missed something to
        walk again. Before that, it is not known which news was not sent to them.

        `failed` gets a link whose work has raised an exception: close it.
        """
        self.erasures.settle()
        news, self.news = self.news, []
        learned, self._learned = self._learned, False
        if len(news) == 1 and not news[0].caught_up:  # the usual case, if clients report now and then
            self.flood_alone(news[0], failed)
            return
        if self.table.gone and len(news) > 1:
            # What was erased meanwhile is no news; and what was learned again because of that is news once.
            once = {one.line: one for one in news}.values()
            news = [one for one in once if not self.table.is_erased(one.client, one.line)]
        spare = self.spare_copies if learned else NO_SPARE_COPIES
        self.notes += pass_on(news, tuple(self._neighbours.values()), self._walks, failed, learned, spare)

    def flood_alone(self, news: News, failed: LinkErrorHandler) -> None:
        """Pass on the only news, which did not come by catching up, as `flood` does."""
        data, source, told = news.line + b"\n", news.source, list[str]()
        spare = spared(self.spare_copies, source, news.line) if source is not None else ()
        for name, neighbour in tuple(self._neighbours.items()):
            try:
                if name in spare and not neighbour.link.out:
                    neighbour.link.spare.append(news.line)
                    told.append(name)
                elif name != source:
                    neighbour.link.send_updates(data)
                    told.append(name)
                if neighbour.owed:
                    self._walks.ask_again(neighbour)
            except Exception as error:  # noqa: BLE001 - the other neighbours are told
                failed(neighbour.link, error)
        if told:
            self.notes.append(Flooded((*told,), [news.client]))

    def send_spare(self, link: Link) -> None:
        """Send the spare copies that wait at a link, but none of lines that were erased meanwhile. While a turn waits for the
        disk, and its erasures may have to be undone, they wait too.
        """
        if self.erasures.unsettled:
            return
        if self.table.gone:
            link.spare = [
                line for line in link.spare if not self.table.is_erased(line.split(b" ", 4)[3], line)
            ]
        if link.spare and link.state is State.LIVE:
            link.send_spare()

    def work(self, now: float, failed: LinkErrorHandler = raise_it) -> bool:
        """Do one slice of long work, of a few milliseconds; return whether more is left. `failed`: as for `flood`."""
        return self._walks.work(now, failed)

    @property
    def has_work(self) -> bool:
        """Whether `work` has something to do."""
        return self._walks.has_work or self.searches.has_work

    # Time. ---------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> float:
        """Let time pass: compare with neighbours again, close links that don't answer, become ready. Return when there is
        something to do at the earliest. -inf: it has to be called a few times a heartbeat.
        """
        due = math.inf if self._too_old is None else -math.inf
        self.contact.look_at_clock(self.rules.clock)
        if any(neighbour.pulled for neighbour in self._neighbours.values()):
            self._set_aside_if_lost(now)  # this process was suspended, and its links only seem to live
            self.contact.last = self.rules.clock
        for neighbour in list(self._neighbours.values()):
            walks = neighbour.pull is not None
            if walks and (overdue := neighbour.overdue(now, self._timing.catch_up_seconds)):
                neighbour.link.close(overdue)
                self.closed(neighbour.link)
            elif now >= neighbour.compare_at:
                neighbour.compare_at = now + self._timing.compare_seconds
                if not neighbour.link.is_old:
                    neighbour.link.send(Clock(self.rules.clock))
                self._walks.begin(neighbour)
            due = min(due, -math.inf if walks else neighbour.compare_at)
        if self._too_old is not None or self.table.gone:
            self._expiry.tick(self.erasures.oldest)
        self.searches.tick(now)
        if not self.ready:
            patience = self._timing.ready_seconds
            if self._neighbours:  # there is a live link, so a first catch-up can be expected
                patience += self._timing.catch_up_seconds
            walking = any(neighbour.pull is not None for neighbour in self._neighbours.values())
            self.ready = now - self._started >= patience and not walking
        return due if self.ready else -math.inf
