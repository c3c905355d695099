"""One server's decisions: a message comes in, answers and floods come out. No socket, clock or log.

The rules kept here:

- A report is stored if it is later than what is held; an update from a peer if it is greater in the total
  order of `table`. What was stored is news, and news goes to every live neighbour but the one it came from,
  once. So a flood ends by itself on any graph.
- A proved link replaces an older one between the same two servers.
- When a link comes up its dialler catches up first, then the other: so what only one of them has crosses the
  link once. An empty server waits for nobody. One neighbour is caught up from at a time.
- What catch-up brings is passed on only over links in step, that is, where both sides have caught up. A
  neighbour whose walk may have come too early for it is asked to walk again when catching up has ended.

Whoever drives a node calls `receive`, `command`, `closed`, `tick` and `work` with what happened, then `flood`,
and sends what the links have to send. What is worth a log line or a metric waits in `notes`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from proxyherd.catchup import WINDOW, Pull
from proxyherd.config import Limits, Timing
from proxyherd.framing import Overlong
from proxyherd.link import Link, State
from proxyherd.messages import (
    At,
    Entry,
    Iamat,
    Malformed,
    Whatsat,
    format_at,
    invalid,
    parse_command,
    word,
)
from proxyherd.notes import CaughtUp, Flooded, Heard, LinkDown, LinkFailed, LinkUp, Note, Skipped
from proxyherd.peer_messages import (
    AskDigests,
    AskLeaf,
    AskRange,
    Batch,
    Changed,
    Digests,
    Done,
    Event,
    Misspoken,
    Proved,
    Request,
    Updates,
)
from proxyherd.table import Table, span

BATCH_BYTES = 65_536
"""Bytes of a catch-up batch: a few milliseconds to learn, so that live updates and clients come between."""

SLICE_LINES = 4_096
"""Lines hashed in one slice of a sweep: about two milliseconds."""


class Reply(Struct, gc=False):
    """What becomes of one command. `answer` has no LF, and is None while it must wait: for Places where
    `entry` is there, else until the server is ready.
    """

    kind: str
    outcome: str
    answer: bytes | None = None
    whatsat: Whatsat | None = None
    entry: Entry | None = None
    status: str = ""  # of Places
    results: int = 0  # from Places


class News(Struct, frozen=True, gc=False):
    """A line that was stored, and where it came from: a neighbour, or None for a client."""

    client: bytes
    line: bytes
    source: str | None = None
    caught_up: bool = False


class _Neighbour(Struct, eq=False):
    """A live link, and how far both sides have come in catching up over it."""

    name: str
    link: Link
    compare_at: float
    pull: Pull | None = None
    due: bool = False  # a walk of ours is due or under way
    since: float = 0.0  # when our walk began
    heard: float = 0.0  # when it was last answered
    lines: int = 0
    news: int = 0
    pulled: bool = False  # a walk of ours has ended
    asked: bool = False  # a walk of theirs has begun
    served: bool = False  # a walk of theirs has ended
    owing: int = 0  # requests of theirs that are not answered yet
    owed: bool = False  # their walk may have missed what we learned since
    again: bool = False  # our walk under way may have missed what they learned since

    @property
    def in_step(self) -> bool:
        return self.pulled and self.served


class _Chore(Struct, eq=False):
    """What takes long enough to be done in slices: a neighbour's request, or, where it is None, the sweep
    before a walk of our own. `at` is the leaf to go on from.
    """

    neighbour: _Neighbour
    request: Request | None
    at: int = 0


class Node:
    """One server. `now` is always seconds of one monotonic clock, `received` nanoseconds of POSIX time."""

    def __init__(
        self, name: str, table: Table, limits: Limits, timing: Timing, *, alone: bool, now: float
    ) -> None:
        self.name = name
        self.table = table
        self.ready = alone
        self.takes_reports = True
        self.news: list[News] = []
        self.notes: list[Note] = []
        self._name = name.encode()
        self._limits = limits
        self._timing = timing
        self._most_learned = limits.max_clients + limits.max_clients // 4
        self._alone = alone
        self._started = now
        # Of this turn's reports: leaf, client, what was held, what is held since.
        self._before: list[tuple[int, bytes, Entry | None, Entry]] = []
        self._neighbours: dict[str, _Neighbour] = {}
        self._walks: deque[_Neighbour] = deque()
        self._chores: deque[_Chore] = deque()

    # Clients. ------------------------------------------------------------------------------------------------

    def command(self, line: bytes | Overlong, received: int) -> Reply:
        """Decide what a client's line is answered with."""
        if isinstance(line, Overlong):
            return Reply("other", "overlong", invalid(line.start))
        message = parse_command(line)
        if isinstance(message, Iamat):
            return self._report(message, received, line)
        if isinstance(message, Whatsat):
            return self.look_up(message, line)
        return Reply(word(line), "invalid", invalid(line))

    def _report(self, report: Iamat, received: int, line: bytes) -> Reply:
        table, client = self.table, report.client
        leaf = table.leaf(client)
        held = table.get(client, leaf)
        if not self.takes_reports:
            return Reply("iamat", "refused", invalid(line))
        if held is None:
            if len(table) >= self._limits.max_clients:
                return Reply("iamat", "refused", invalid(line))
        elif report.nanoseconds <= held.nanoseconds:
            return Reply("iamat", "stale", format_at(self._name, received, report))
        answer = format_at(self._name, received, report)
        entry = Entry(answer, report.nanoseconds)
        table.put(client, entry, leaf)
        self._before.append((leaf, client, held, entry))
        self.news.append(News(client, answer))
        return Reply("iamat", "stored", answer)

    def undo_reports(self) -> None:
        """Forget the reports since the last flood: they could not be kept. Decide about their lines again."""
        for leaf, client, held, reported in reversed(self._before):
            if self.table.get(client, leaf) is not reported:
                continue  # a neighbour's greater one has come since, and that is kept
            if held is None:
                self.table.remove(client, leaf)
            else:
                self.table.put(client, held, leaf)
        self._before.clear()
        self.news = [news for news in self.news if news.source is not None]

    def replay(self, ats: Iterable[At | None]) -> None:
        """Learn what a journal held. It is no news: neighbours find it when they catch up."""
        for at in ats:
            if at is not None:
                self._admit(at)

    def start(self, now: float) -> None:
        """Begin to wait for neighbours: whatever there was to replay has been replayed."""
        self._started = now
        self.ready = self._alone

    def look_up(self, question: Whatsat, line: bytes) -> Reply:
        """Decide about a WHATSAT; again, when the server has become ready, about one that waited for it."""
        entry = self.table.get(question.client)
        if entry is not None:
            return Reply("whatsat", "found", None, question, entry)
        if not self.ready:
            return Reply("whatsat", "waiting", None, question)
        return Reply("whatsat", "unknown", invalid(line))

    # Neighbours. ---------------------------------------------------------------------------------------------

    @property
    def linked(self) -> Iterable[str]:
        """The neighbours with a live link."""
        return self._neighbours.keys()

    def receive(self, link: Link, most: int, now: float) -> None:
        """Act on up to `most` lines that this link has received."""
        for event in link.events(most):
            if isinstance(event, Proved):
                self._proved(link, now)
            elif (neighbour := self._neighbours.get(link.peer or "")) and neighbour.link is link:
                try:
                    self._act(neighbour, event, now)
                except Misspoken as error:
                    link.close(str(error))
        if link.state is State.CLOSED:
            self.closed(link)

    def closed(self, link: Link) -> None:
        """Forget a link that has ended; call once for each."""
        neighbour = self._neighbours.get(link.peer or "")
        if neighbour is None or neighbour.link is not link:
            if link.reason and not link.noted:
                self.notes.append(LinkFailed(link.peer, link.dialled, link.reason))
            link.noted = True
            return
        link.noted = True
        del self._neighbours[neighbour.name]
        self._chores = deque(chore for chore in self._chores if chore.neighbour is not neighbour)
        if neighbour.due:
            self._end_walk(neighbour)
        self.notes.append(LinkDown(neighbour.name, link.reason))

    def _proved(self, link: Link, now: float) -> None:
        assert link.peer is not None
        if (older := self._neighbours.get(link.peer)) is not None:
            older.link.close("replaced by a newer link")
            self.closed(older.link)
        neighbour = _Neighbour(link.peer, link, now + self._timing.compare_seconds)
        self._neighbours[link.peer] = neighbour
        self.notes.append(LinkUp(link.peer, link.dialled))
        if link.dialled or not len(self.table):
            self._walk(neighbour)

    def _act(self, neighbour: _Neighbour, event: Event, now: float) -> None:
        match event:
            case Updates(ats, caught_up):
                self._learn(neighbour, ats, caught_up)
            case Malformed(line):
                self.notes.append(Skipped(neighbour.name, line, "no AT line"))
            case AskDigests() | AskLeaf() | AskRange():
                self._asked(neighbour, event)
            case Digests() | Batch():
                self._answered(neighbour, event, now)
            case Done():
                neighbour.served = True
                if not neighbour.link.dialled:
                    self._walk(neighbour)
            case Changed():
                if neighbour.pull is None:
                    self._walk(neighbour)
                else:
                    neighbour.again = True

    def _asked(self, neighbour: _Neighbour, request: Request) -> None:
        neighbour.asked = True
        neighbour.owing += 1
        if neighbour.owing > WINDOW:
            raise Misspoken(f"asks for more than {WINDOW} answers at once")
        self._chores.append(_Chore(neighbour, request))

    def _learn(self, neighbour: _Neighbour, ats: list[At], caught_up: bool) -> None:
        news, name = self.news, neighbour.name
        before = len(news)
        for at in ats:
            admitted = self._admit(at)
            if admitted:
                news.append(News(at.client, at.entry.line, name, caught_up))
            elif admitted is None:
                self.notes.append(Skipped(name, at.entry.line, "the table is at its limit"))
        learned = len(news) - before
        if caught_up:
            neighbour.lines += len(ats)
            neighbour.news += learned
        else:
            self.notes.append(Heard(name, [at.client for at in ats], learned))

    def _admit(self, at: At) -> bool | None:
        """Hold an entry if it is greater than what is held; None if there is no room for it."""
        table, client, entry = self.table, at.client, at.entry
        leaf = table.leaf(client)
        held = table.get(client, leaf)
        if held is None:
            if len(table) >= self._most_learned:
                return None
        elif (entry.nanoseconds, entry.line) <= (held.nanoseconds, held.line):
            return False
        table.put(client, entry, leaf)
        return True

    def flood(self) -> None:
        """Hand the news to every live link that it concerns. When catching up has ended, ask those to walk again
        who may have missed something: only now is it known whom the news of the last batch did not go to.
        """
        if self.news:
            self._pass_on()
        if not self._walks:
            for neighbour in self._neighbours.values():
                if neighbour.owed:
                    neighbour.owed = False
                    neighbour.link.send(Changed())

    def _pass_on(self) -> None:
        news, self.news = self.news, []
        self._before.clear()
        local = all(one.source is None for one in news)
        data = b"".join([one.line + b"\n" for one in news]) if local else b""
        clients = [one.client for one in news] if local else []
        for neighbour in self._neighbours.values():
            if not local:
                passed = [one for one in news if self._concerns(neighbour, one)]
                data = b"".join([one.line + b"\n" for one in passed])
                clients = [one.client for one in passed]
            if clients:
                neighbour.link.send_updates(data)
                self.notes.append(Flooded(neighbour.name, clients))

    def _concerns(self, neighbour: _Neighbour, news: News) -> bool:
        if news.source == neighbour.name:
            return False
        if not news.caught_up or neighbour.in_step:
            return True
        neighbour.owed = neighbour.owed or neighbour.asked
        return False

    # Catching up. --------------------------------------------------------------------------------------------

    def _walk(self, neighbour: _Neighbour) -> None:
        """Let a walk of ours be due."""
        if not neighbour.due:
            neighbour.due = True
            self._walks.append(neighbour)
            if len(self._walks) == 1:
                self._start_walk()

    def _start_walk(self) -> None:
        self._chores.append(_Chore(self._walks[0], None))

    def _answered(self, neighbour: _Neighbour, event: Digests | Batch, now: float) -> None:
        if neighbour.pull is None:
            raise Misspoken("answered what was not asked for")
        neighbour.heard = now
        if isinstance(event, Digests):
            neighbour.pull.digests(event)
        else:
            neighbour.pull.batch(event)
        self._go_on(neighbour, now)

    def _go_on(self, neighbour: _Neighbour, now: float) -> None:
        assert neighbour.pull is not None
        for request in neighbour.pull.requests():
            neighbour.link.send(request)
        if neighbour.pull.done:
            neighbour.link.send(Done())
            self.notes.append(
                CaughtUp(neighbour.name, neighbour.lines, neighbour.news, now - neighbour.since)
            )
            neighbour.pulled = True
            neighbour.compare_at = now + self._timing.compare_seconds
            self.ready = True
            self._end_walk(neighbour)
            if neighbour.again:
                neighbour.again = False
                self._walk(neighbour)

    def _end_walk(self, neighbour: _Neighbour) -> None:
        """Let the next walk start."""
        neighbour.pull, neighbour.due = None, False
        was_first = self._walks[0] is neighbour
        self._walks.remove(neighbour)
        if was_first and self._walks:
            self._start_walk()

    def work(self, now: float) -> bool:
        """Do one slice of what takes long, a few milliseconds of it; True if more is left."""
        if self._chores:
            chore = self._chores[0]
            if self._slice(chore, now):
                self._chores.popleft()
        return bool(self._chores)

    def _slice(self, chore: _Chore, now: float) -> bool:
        """Do one slice of a chore; True if that was all of it."""
        neighbour, table = chore.neighbour, self.table
        match chore.request:
            case AskLeaf(leaf, known):
                neighbour.link.send_batch(leaf, leaf + 1, table.lines_beside(leaf, known))
            case AskRange(first, last):
                lines, following = table.lines(first, last, BATCH_BYTES)
                neighbour.link.send_batch(first, following, lines)
            case AskDigests(node):
                if not self._sweep(chore, node):
                    return False
                neighbour.link.send(Digests(node, table.children(node)))
            case None:
                if not self._sweep(chore, ""):
                    return False
                neighbour.pull = Pull(table, self._limits.max_line_bytes)
                neighbour.since = neighbour.heard = now
                neighbour.lines = neighbour.news = 0
                self._go_on(neighbour, now)
                return True
        neighbour.owing -= 1
        return True

    def _sweep(self, chore: _Chore, node: str) -> bool:
        first, last = span(node)
        chore.at = self.table.sweep(max(first, chore.at), last, SLICE_LINES)
        return chore.at == last

    # Time. ---------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Let time pass: compare with neighbours again, give up on who does not answer, become ready."""
        for neighbour in list(self._neighbours.values()):
            if neighbour.pull is not None and now - neighbour.heard > self._timing.catch_up_seconds:
                seconds = self._timing.catch_up_seconds
                neighbour.link.close(f"did not answer a catch-up request for {seconds:g} s")
                self.closed(neighbour.link)
            elif now >= neighbour.compare_at:
                neighbour.compare_at = now + self._timing.compare_seconds
                self._walk(neighbour)
        if not self.ready:
            patience = self._timing.ready_seconds
            if self._neighbours:  # one that is linked is worth more waiting, unless it says nothing
                patience += self._timing.catch_up_seconds
            walking = any(neighbour.pull is not None for neighbour in self._neighbours.values())
            self.ready = now - self._started >= patience and not walking
