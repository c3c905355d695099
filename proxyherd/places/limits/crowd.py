"""A crowd of bounded size, fair when it is full: who has most in it gives way.

The rule: a newcomer that has fewer in the crowd than somebody else gets in, and the newest of whoever has most goes.
So nobody keeps others out by coming in numbers.

Pure.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Crowd(Generic[T]):
    """At most `most` members, each of some owner. A step costs the same however many there are, and adding to a full
    crowd as much as one owner has members at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._owned: dict[object, dict[T, None]] = {}
        self._ranks: list[dict[object, None]] = [{}]  # owners by how many they have

    def __len__(self) -> int:
        return self._size

    def add(self, owner: object, member: T) -> T | None:
        """Add a member; return who has to go for it, which may be itself."""
        gone = None
        if self._size >= self._most:
            greediest = next(iter(self._ranks[-1]), owner)
            if len(self._owned.get(greediest, ())) <= len(self._owned.get(owner, ())):
                return member
            gone = next(reversed(self._owned[greediest]))
            self.remove(greediest, gone)
        owned = self._owned.setdefault(owner, {})
        self._rank(owner, len(owned), len(owned) + 1)
        owned[member] = None
        self._size += 1
        return gone

    def remove(self, owner: object, member: T) -> None:
        """Remove a member; nothing happens if it has gone already."""
        owned = self._owned.get(owner, {})
        if member in owned:
            self._rank(owner, len(owned), len(owned) - 1)
            del owned[member]
            self._size -= 1
            if not owned:
                del self._owned[owner]

    def _rank(self, owner: object, before: int, now: int) -> None:
        ranks = self._ranks
        ranks[before].pop(owner, None)
        if now:
            if now == len(ranks):
                ranks.append({})
            ranks[now][owner] = None
        while len(ranks) > 1 and not ranks[-1]:
            ranks.pop()
