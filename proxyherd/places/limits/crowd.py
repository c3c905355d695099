"""A crowd of limited size, which is fair when it is full: the owner with the most members gives way.

The rule: a newcomer gets in if its owner has fewer members than another owner. Then the newest member of the owner
with the most members is removed. So nobody can keep others out by large numbers.

Pure.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Crowd(Generic[T]):
    """At most `most` members, each with an owner. A step costs the same whatever the number of members; adding to a full
    crowd costs at most as much as one owner has members.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._owned: dict[object, dict[T, None]] = {}
        self._ranks: list[dict[object, None]] = [{}]  # owners by their number of members

    def __len__(self) -> int:
        return self._size

    def add(self, owner: object, member: T) -> T | None:
        """Add a member; return the member that must leave for it, which may be itself."""
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
        """Remove a member; do nothing if it has left already."""
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
