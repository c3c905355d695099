"""The searches of one server: they take turns, a slice of work each, so that a long one does not delay a short one.

The index is made when somebody asks first, kept while somebody asks, and dropped after ten minutes in which nobody did. Who
never asks pays nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Final, TypeAlias

from proxyherd.core.spatial.index import SpatialIndex
from proxyherd.core.spatial.search import Question, SearchResult, search
from proxyherd.core.table import Table

INDEX_KEPT_SECONDS: Final = 600.0
"""For so long after the last question, the index is kept."""

MOST_SEARCHES: Final = 256
"""Searches at once. Each may keep twice as many clients as it wants, and an area of 1,000 positions: 1 MiB at most."""

IN_TURNS: Final = 8
"""Searches that take turns, once they have had their first slice. If all did, then of many long ones none would be answered
before the time for an answer is over.
"""

BEHIND: Final = 192
"""Changes that wait for a search: it takes them in with its first slice of work. If there are more, they are taken in before:
they would delay it, and need memory.
"""

Answered: TypeAlias = Callable[[SearchResult | Exception], None]
"""Called with the answer to a question, or with what the search has raised: Misdrawn says why there is no answer."""

_Begun: TypeAlias = tuple[Generator[SearchResult | None], Answered]


class Searches:
    """The searches of a table. `now` is seconds of one monotonic clock."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._index: SpatialIndex | None = None
        self._asked = 0.0
        self._searches: deque[_Begun] = deque()

    @property
    def has_work(self) -> bool:
        """Whether `work` has something to do."""
        return bool(self._searches) or (self._index is not None and self._index.behind > BEHIND)

    @property
    def indexed(self) -> int | None:
        """How many clients are in the index; None if there is no index."""
        return len(self._index) if self._index is not None else None

    def ask(self, question: Question, answered: Answered, now: float) -> bool:
        """Begin a search, and do its first slice of work; many need no other. Return whether it was begun: there may be too
        many of them.
        """
        if len(self._searches) >= MOST_SEARCHES:
            return False
        if self._index is None:
            self._index = SpatialIndex(self._table)
        self._asked = now
        one = search(self._index, question), answered
        if not self._step(one):
            self._searches.append(one)
        return True

    def cancel(self, answered: Answered) -> None:
        """End the searches whose answers would go there: nobody waits for them any more. Nothing is called."""
        for one in [one for one in self._searches if one[1] == answered]:
            self._searches.remove(one)
            steps, _ = one
            steps.close()

    def work(self) -> None:
        """Do one slice of work, of less than a millisecond: of one search, or for later ones."""
        if not self._searches:
            if self._index is not None:
                next(self._index.catch_up(), None)
            return
        one = self._searches.popleft()
        if not self._step(one):
            self._searches.insert(IN_TURNS - 1, one)

    @staticmethod
    def _step(one: _Begun) -> bool:
        """Do a slice of a search. Return whether it has ended."""
        steps, answered = one
        try:
            answer = next(steps)
        except Exception as reason:  # noqa: BLE001 - a fault of the program ends this search alone
            answered(reason)
            return True
        if answer is None:
            return False
        steps.close()
        answered(answer)
        return True

    def tick(self, now: float) -> None:
        """Let time pass: drop the index if nobody has asked for long."""
        if self._index is not None and not self._searches and now - self._asked >= INDEX_KEPT_SECONDS:
            self._index.close()
            self._index = None
