"""Decides from which neighbour to catch up, and answers neighbours' requests. One walk of its own runs at a time, and all
long work is done in slices.

A walk begins with a sweep of this server's digests, and ends when the neighbour has nothing that this server lacks
(`catchup`). Neighbours' requests are answered from the present table, even while this server's own walk waits. So two
servers can never wait for each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from proxyherd.core.catchup import Pull
from proxyherd.core.link import Link
from proxyherd.core.notes import CaughtUp
from proxyherd.core.peer_messages import (
    AskDigests,
    AskLeaf,
    AskRange,
    BatchHeader,
    Changed,
    Digests,
    Done,
    Misspoken,
    Request,
)
from proxyherd.core.sizes import Sizes
from proxyherd.core.table import Table

_ANSWER_SECONDS = 0.001
"""Time for each answer of a walk. Sixteen requests are outstanding at once, so a round trip may take 16 ms."""

_NEWS_SECONDS = 0.000_04
"""Time for each new line of a walk: twice as long as promised for a million lines."""


class Neighbour(Struct, eq=False):
    """A live link, and how far each side has caught up over it."""

    name: str
    link: Link
    compare_at: float
    pull: Pull | None = None
    due: bool = False  # a walk of ours is due or under way
    since: float = 0.0  # when our walk began
    heard: float = 0.0  # when it was last answered
    answers: int = 0
    lines: int = 0
    news: int = 0
    pulled: bool = False  # a walk of ours has ended
    asked: bool = False  # a walk of theirs has begun
    served: bool = False  # a walk of theirs has ended
    owing: int = 0  # their requests that are not answered yet
    owed: bool = False  # their walk may have missed lines that we learned since
    again: bool = False  # our present walk may have missed lines that they learned since

    def overdue(self, now: float, patience: float) -> str:
        """Return why this server's walk over the link has taken too long, or "" if it has not. `patience` is in seconds.

        A walk that brings more lines may take longer. Lines that it brought stay if it is aborted.
        """
        if self.pull is None:
            return ""
        if now - self.heard > patience:
            return f"did not answer a catch-up request for {patience:g} s"
        allowed = patience + self.answers * _ANSWER_SECONDS + self.news * _NEWS_SECONDS
        if now - self.since > allowed:
            return f"catching up took more than {allowed:.0f} s and brought {self.news} lines"
        return ""

    @property
    def in_step(self) -> bool:
        return self.pulled and self.served


class _Chore(Struct, eq=False):
    """Long work that is done in slices: a neighbour's request, or (None) the sweep before this server's own walk. `at` is
    the leaf where it continues.
    """

    neighbour: Neighbour
    request: Request | None
    at: int = 0


class Walks:
    """The walks of one server, and its answers to its neighbours' walks. `tell` gets a note when a walk has ended."""

    def __init__(
        self,
        table: Table,
        *,
        sizes: Sizes,
        line_bytes: int,
        compare_seconds: float,
        tell: Callable[[CaughtUp], None],
    ) -> None:
        self.ended = False  # whether a walk has ever ended
        self._table = table
        self._sizes = sizes
        self._line_bytes = line_bytes
        self._compare_seconds = compare_seconds
        self._tell = tell
        self._due: deque[Neighbour] = deque()  # the first one is under way
        self._chores: deque[_Chore] = deque()

    @property
    def idle(self) -> bool:
        """Whether no walk is due or under way."""
        return not self._due

    def ask_again(self, neighbour: Neighbour) -> None:
        """If no walk of this server is due, ask a neighbour that may have missed lines to walk again. Before that, it is not
        known which news was not sent to it.
        """
        if self.idle:
            neighbour.owed = False
            neighbour.link.send(Changed())

    @property
    def has_work(self) -> bool:
        """Whether `work` has something to do."""
        return bool(self._chores)

    def forget(self, neighbour: Neighbour) -> None:
        """Drop everything about a link that has ended."""
        self._chores = deque(chore for chore in self._chores if chore.neighbour is not neighbour)
        if neighbour.due:
            self._end_walk(neighbour)

    def serve(self, neighbour: Neighbour, request: Request) -> None:
        """Queue a neighbour's request. Raises Misspoken if there are too many."""
        neighbour.asked = neighbour.link.serves = True
        neighbour.owing += 1
        if neighbour.owing > self._sizes.window:
            raise Misspoken(f"asks for more than {self._sizes.window} answers at once")
        self._chores.append(_Chore(neighbour, request))

    def begin(self, neighbour: Neighbour) -> None:
        """Schedule a walk of this server."""
        if not neighbour.due:
            neighbour.due = True
            self._due.append(neighbour)
            if len(self._due) == 1:
                self._start_walk()

    def begin_again(self, neighbour: Neighbour) -> None:
        """Schedule a walk for what the neighbour has learned, after the present one if there is one."""
        if neighbour.pull is None:
            self.begin(neighbour)
        else:
            neighbour.again = True

    def _start_walk(self) -> None:
        self._chores.append(_Chore(self._due[0], None))

    def answered(self, neighbour: Neighbour, event: Digests | BatchHeader, now: float) -> None:
        """Continue a walk. Raises Misspoken for an answer that was not requested."""
        if neighbour.pull is None:
            raise Misspoken("answered what was not asked for")
        neighbour.heard = now
        neighbour.answers += 1
        if isinstance(event, Digests):
            neighbour.pull.digests(event)
        else:
            neighbour.pull.batch(event)
        self._go_on(neighbour, now)

    def _go_on(self, neighbour: Neighbour, now: float) -> None:
        assert neighbour.pull is not None
        for request in neighbour.pull.requests():
            neighbour.link.send(request)
        if neighbour.pull.done:
            neighbour.link.send(Done())
            self._tell(CaughtUp(neighbour.name, neighbour.lines, neighbour.news, now - neighbour.since))
            neighbour.pulled = True
            neighbour.compare_at = now + self._compare_seconds
            self.ended = True
            self._end_walk(neighbour)
            if neighbour.again:
                neighbour.again = False
                self.begin(neighbour)

    def _end_walk(self, neighbour: Neighbour) -> None:
        """Let the next walk start."""
        neighbour.pull, neighbour.due = None, False
        was_first = self._due[0] is neighbour
        self._due.remove(neighbour)
        if was_first and self._due:
            self._start_walk()

    def work(self, now: float, failed: Callable[[Link, Exception], None]) -> bool:
        """Do one slice of long work, of a few milliseconds; return whether more is left.

        `failed` gets a link whose work has raised an exception: close it, and `forget` its neighbour.
        """
        if self._chores:
            chore = self._chores[0]
            try:
                if self._slice(chore, now):
                    self._chores.popleft()
            except Exception as error:  # noqa: BLE001 - the other neighbours are answered
                failed(chore.neighbour.link, error)
        return bool(self._chores)

    def _slice(self, chore: _Chore, now: float) -> bool:
        """Do one slice of a chore; return whether it is finished."""
        neighbour, table = chore.neighbour, self._table
        match chore.request:
            case AskLeaf(leaf, known):
                neighbour.link.send_batch(leaf, leaf + 1, table.lines_beside(leaf, known))
            case AskRange(first, last):
                lines, following = table.lines(first, last, self._sizes.batch_bytes)
                neighbour.link.send_batch(first, following, lines)
            case AskDigests(node):
                if not self._sweep(chore, node):
                    return False
                neighbour.link.send(Digests(node, table.children(node)))
            case None:
                if not self._sweep(chore, ""):
                    return False
                neighbour.pull = Pull(table, self._line_bytes, self._sizes.window)
                neighbour.since = neighbour.heard = now
                neighbour.answers = neighbour.lines = neighbour.news = 0
                self._go_on(neighbour, now)
                return True
        neighbour.owing -= 1
        return True

    def _sweep(self, chore: _Chore, node: str) -> bool:
        first, last = self._table.span(node)
        chore.at = self._table.sweep(max(first, chore.at), last, self._sizes.slice_lines)
        return chore.at == last
