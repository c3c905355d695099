"""How much waits for a cluster, and when that is too much.

If too much waits for masters that are available, the server stops reading clients for a while. If too much waits for
masters that are not available, further commands for them are given up, so that they delay nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from proxyherd.engines.redis.batch import Wish, size_of
from proxyherd.engines.redis.routes import Routes

_FULL_WISHES: Final = 8_192
_FULL_BYTES: Final = 8_388_608
"""How many commands may wait for available masters, and bytes of their lines. Memory is four times the lines."""

_PARKED_WISHES: Final = 65_536
_PARKED_BYTES: Final = 16_777_216
"""The same for masters that are not available or may hang."""


_SLOW_SECONDS: Final = 0.05
"""The age of a batch from which its master may hang; then nobody else must wait for it."""


class Load(NamedTuple):
    """The number of wishes, and the bytes of their lines."""

    wishes: int
    size: int

    def exceeds(self, wishes: int, size: int) -> bool:
        """Whether it exceeds one of these limits."""
        return self.wishes > wishes or self.size > size


class Backlog:
    """The wishes that wait; `queues` has them by tag."""

    def __init__(self, queues: list[list[Wish]], routes: Routes) -> None:
        self.wishes = 0
        self.size = 0
        """Bytes of their lines."""
        self.crowded = False
        """Whether no more may wait for masters that are not available."""
        self.clock: float
        """Seconds of the loop's clock."""
        self._queues = queues
        self._routes = routes
        self._parked = Load(0, 0)  # for masters that are not available, at the last count
        self._slow = Load(0, 0)  # for masters that may hang
        self._told_full = False  # and a client must be woken later

    def remember(self, wishes: Sequence[Wish]) -> None:
        """Count wishes that wait again."""
        self.wishes += len(wishes)
        self.size += size_of(wishes)

    def forget(self, wishes: Sequence[Wish]) -> None:
        """Stop counting wishes that no longer wait."""
        self.wishes -= len(wishes)
        self.size -= size_of(wishes)

    @property
    def full(self) -> bool:
        """Whether so much waits for available masters that clients must wait too."""
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
        """Let time pass; return whether it is no longer full, and somebody waits for that."""
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
