"""How much waits for a cluster, and when that is too much.

What waits for masters that can be had is bounded by reading clients no more until it is less. What waits for those that
cannot be had is bounded by giving up what comes next for them, so that it holds up nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from proxyherd.cluster.batch import Wish, size_of

_FULL_WISHES: Final = 8_192
_FULL_BYTES: Final = 8_388_608
"""What may wait for masters that can be had, and bytes of lines that asked for it. It takes four times its lines."""

_PARKED_WISHES: Final = 65_536
_PARKED_BYTES: Final = 16_777_216
"""Likewise for masters that cannot be had."""


class Backlog:
    """What waits. `queues` has it by tag; `is_served` tells whether a tag's master can be had."""

    def __init__(self, queues: list[list[Wish]], is_served: Callable[[int], bool]) -> None:
        self.wishes = 0
        self.size = 0
        """Bytes of the lines that asked for them."""
        self.crowded = False
        """Whether so much waits for masters that cannot be had that no more may."""
        self._queues = queues
        self._is_served = is_served
        self._parked = 0  # wishes that wait for masters that cannot be had, as last counted
        self._parked_size = 0
        self._told_full = False  # and whoever was told waits to be woken

    def forget(self, wishes: Sequence[Wish]) -> None:
        """Count out wishes that wait no more."""
        self.wishes -= len(wishes)
        self.size -= size_of(wishes)

    @property
    def full(self) -> bool:
        """Whether so much waits for masters that can be had that clients are to wait too."""
        if not self._is_full():
            return False
        self._count_parked()  # it may have grown since: who waits for a lost master holds up nobody else
        self._told_full = self._told_full or self._is_full()
        return self._is_full()

    def _is_full(self) -> bool:
        wishes, size = self.wishes - self._parked, self.size - self._parked_size
        return wishes > _FULL_WISHES or size > _FULL_BYTES

    def tick(self) -> bool:
        """Let time pass; return whether it is full no more, and somebody waits to hear it."""
        self._count_parked()
        self.crowded = self._parked > _PARKED_WISHES or self._parked_size > _PARKED_BYTES
        if not self._told_full or self._is_full():
            return False
        self._told_full = False
        return True

    def _count_parked(self) -> None:
        parked = [queue for tag, queue in enumerate(self._queues) if queue and not self._is_served(tag)]
        self._parked = sum(map(len, parked))
        self._parked_size = sum(map(size_of, parked))
