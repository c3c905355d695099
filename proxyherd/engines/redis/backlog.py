"""How much waits for a cluster, and when that is too much.

What waits for masters that can be had is bounded by reading clients no more until it is less. What waits for those that
cannot be had is bounded by giving up what comes next for them, so that it holds up nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from proxyherd.engines.redis.batch import Wish, size_of
from proxyherd.engines.redis.routes import Routes

_FULL_WISHES: Final = 8_192
_FULL_BYTES: Final = 8_388_608
"""What may wait for masters that can be had, and bytes of lines that asked for it. It takes four times its lines."""

_PARKED_WISHES: Final = 65_536
_PARKED_BYTES: Final = 16_777_216
"""Likewise for masters that cannot be had, or may be hanging."""


_SLOW_SECONDS: Final = 0.05
"""From which age of its batch on a master may be one that hangs: nobody else is to wait for it."""


class Load(NamedTuple):
    """So many wishes, and bytes of the lines that asked for them."""

    wishes: int
    size: int

    def exceeds(self, wishes: int, size: int) -> bool:
        """Whether it is more than one of these."""
        return self.wishes > wishes or self.size > size


class Backlog:
    """What waits. `queues` has it by tag."""

    def __init__(self, queues: list[list[Wish]], routes: Routes) -> None:
        self.wishes = 0
        self.size = 0
        """Bytes of the lines that asked for them."""
        self.crowded = False
        """Whether so much waits for masters that cannot be had that no more may."""
        self.clock: float
        """Seconds of the loop's clock."""
        self._queues = queues
        self._routes = routes
        self._parked = Load(0, 0)  # for masters that cannot be had, as last counted
        self._slow = Load(0, 0)  # for masters that may be hanging
        self._told_full = False  # and whoever was told waits to be woken

    def remember(self, wishes: Sequence[Wish]) -> None:
        """Count in wishes that wait again."""
        self.wishes += len(wishes)
        self.size += size_of(wishes)

    def forget(self, wishes: Sequence[Wish]) -> None:
        """Count out wishes that wait no more."""
        self.wishes -= len(wishes)
        self.size -= size_of(wishes)

    @property
    def full(self) -> bool:
        """Whether so much waits for masters that can be had that clients are to wait too."""
        if not self._is_full():
            return False
        self._count()  # it may have changed since
        self._told_full = self._told_full or self._is_full()
        return self._is_full()

    def _is_full(self) -> bool:
        aside = (self._parked, self._slow)
        wishes = self.wishes - sum(one.wishes for one in aside)
        size = self.size - sum(one.size for one in aside)
        return Load(wishes, size).exceeds(_FULL_WISHES, _FULL_BYTES) or self._slow.exceeds(
            _PARKED_WISHES, _PARKED_BYTES
        )

    def tick(self, now: float) -> bool:
        """Let time pass; return whether it is full no more, and somebody waits to hear it."""
        self.clock = now
        self._count()
        self.crowded = self._parked.exceeds(_PARKED_WISHES, _PARKED_BYTES)
        if not self._told_full or self._is_full():
            return False
        self._told_full = False
        return True

    def _count(self) -> None:
        parked: list[list[Wish]] = []
        slow: list[list[Wish]] = []
        for queue, owner in zip(self._queues, self._routes.owners, strict=True):
            if not queue:
                continue
            if owner is None or owner.trouble:
                parked.append(queue)
            elif owner.sent and self.clock - owner.sent > _SLOW_SECONDS:
                slow.append(queue)
        self._parked, self._slow = (
            Load(sum(map(len, part)), sum(map(size_of, part))) for part in (parked, slow)
        )
