"""Queries that came before their server was ready, and must wait.

Each waits for news of its client, or until `release` makes all of them due: when the replay has ended, and when the
server is ready. Due queries are taken out in portions, so that others need not wait. Their number and bytes are
limited. At a limit, queries of connections that have ended are dropped; then further ones are refused.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from itertools import chain
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from proxyherd.core.news import News
from proxyherd.core.reply import Reply
from proxyherd.core.sizes import SIZES, Sizes

_REFUSED: Final = 16
"""A divisor: this part of all that may wait is refused between two searches for queries of ended connections."""


class Asker(Protocol):
    """Who has sent a query: a client's connection."""

    @property
    def gone(self) -> bool:
        """Whether the client is no longer there to get an answer."""


C = TypeVar("C", bound=Asker)
EarlyQuery: TypeAlias = tuple[C, bytes, Reply]


class EarlyQueries(Generic[C]):
    """The waiting queries of one server, by their clients."""

    def __init__(self, sizes: Sizes = SIZES) -> None:
        self._most, self._most_bytes = sizes.early_queries, sizes.early_query_bytes
        self._waiting: defaultdict[bytes, list[EarlyQuery[C]]] = defaultdict(list)
        self._due: deque[EarlyQuery[C]] = deque()
        self._left: list[EarlyQuery[C]] = []
        self._count = self._bytes = 0  # of those that wait or are due
        self._refusing = 0  # this many are refused before the next search for ended connections

    def __bool__(self) -> bool:
        return self._count > 0 or bool(self._left)

    @property
    def any_due(self) -> bool:
        """Whether `due` has something to return."""
        return bool(self._due)

    @property
    def any_left(self) -> bool:
        """Whether `left` has something to return."""
        return bool(self._left)

    def add(self, connection: C, line: bytes, reply: Reply) -> bool:
        """Let a query wait; return False if there is no room for it."""
        full = self._count >= self._most or self._bytes + len(line) > self._most_bytes
        if full and not self._make_room(len(line)):
            return False
        assert reply.whatsat is not None
        self._waiting[reply.whatsat.client].append((connection, line, reply))
        self._count += 1
        self._bytes += len(line)
        return True

    def known(self, news: Iterable[News]) -> list[EarlyQuery[C]]:
        """Take out the queries about clients in these news."""
        taken: list[EarlyQuery[C]] = []
        for one in news:
            if one.client in self._waiting:
                taken += self._waiting.pop(one.client)
        return self._out(taken)

    def release(self) -> None:
        """Make all waiting queries due."""
        self._due.extend(chain.from_iterable(self._waiting.values()))
        self._waiting.clear()

    def due(self, most: int) -> list[EarlyQuery[C]]:
        """Take out up to `most` due queries."""
        return self._out([self._due.popleft() for _ in range(min(most, len(self._due)))])

    def left(self) -> list[EarlyQuery[C]]:
        """Take out the queries that were dropped because their connections have ended."""
        left, self._left = self._left, []
        return left

    def _out(self, taken: list[EarlyQuery[C]]) -> list[EarlyQuery[C]]:
        self._count -= len(taken)
        self._bytes -= sum(len(line) for _, line, _ in taken)
        return taken

    def _make_room(self, size: int) -> bool:
        """Drop the queries of ended connections; return whether this made room for so many bytes. It searches all waiting
        queries. So after a search that has found few, many queries are refused before the next search.
        """
        if self._refusing:
            self._refusing -= 1
            return False
        due, due_gone = _split(self._due)
        waiting, waiting_gone = _split(chain.from_iterable(self._waiting.values()))
        gone = self._out(due_gone + waiting_gone)
        if len(gone) < self._most // _REFUSED:
            self._refusing = self._most // _REFUSED
        if not gone:
            return False
        self._left += gone
        self._due = deque(due)
        self._waiting.clear()
        for query in waiting:
            assert query[2].whatsat is not None
            self._waiting[query[2].whatsat.client].append(query)
        return self._count < self._most and self._bytes + size <= self._most_bytes


def _split(queries: Iterable[EarlyQuery[C]]) -> tuple[list[EarlyQuery[C]], list[EarlyQuery[C]]]:
    """Return the queries whose connections are open, and those whose connections have ended."""
    here: list[EarlyQuery[C]] = []
    gone: list[EarlyQuery[C]] = []
    for query in queries:
        (gone if query[0].gone else here).append(query)
    return here, gone
