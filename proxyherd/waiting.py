"""Queries that came before their server was ready, and whose client is not known yet.

Each is looked at again when its client becomes known, or when the server is ready; nobody looks at all of them in
between. There are not many: past the bound, those of connections that are gone are dropped, and then the rest are
answered as the query of a client that nobody has heard of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, Generic, Protocol, TypeVar

from proxyherd.node import News
from proxyherd.reply import Reply

MOST: Final = 65_536
"""Queries that wait at once: some 30 MiB."""


class Connection(Protocol):
    """What is asked of a client's connection."""

    @property
    def gone(self) -> bool:
        """Whether nobody is there any more to be answered."""


C = TypeVar("C", bound=Connection)


class EarlyQueries(Generic[C]):
    """The queries of one server that wait, by the client that they are about."""

    def __init__(self) -> None:
        self._waiting: defaultdict[bytes, list[tuple[C, bytes, Reply]]] = defaultdict(list)
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, connection: C, line: bytes, reply: Reply) -> bool:
        """Let a query wait; False if there is no room for it."""
        if self._count >= MOST:
            self._drop_gone()
            if self._count >= MOST:
                return False
        assert reply.whatsat is not None
        self._waiting[reply.whatsat.client].append((connection, line, reply))
        self._count += 1
        return True

    def known(self, news: Iterable[News]) -> list[tuple[C, bytes, Reply]]:
        """Take out those about clients that these news are about."""
        taken: list[tuple[C, bytes, Reply]] = []
        for one in news:
            if one.client in self._waiting:
                taken += self._waiting.pop(one.client)
        self._count -= len(taken)
        return taken

    def all(self) -> list[tuple[C, bytes, Reply]]:
        """Take out all."""
        taken = [query for queries in self._waiting.values() for query in queries]
        self._waiting.clear()
        self._count = 0
        return taken

    def _drop_gone(self) -> None:
        for client, queries in list(self._waiting.items()):
            here = [query for query in queries if not query[0].gone]
            if here:
                self._waiting[client] = here
            else:
                del self._waiting[client]
        self._count = sum(map(len, self._waiting.values()))
