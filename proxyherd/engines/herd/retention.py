"""What erasures ask of a journal: that it is not used when it is too old, and that it is rewritten soon after an erasure.

A journal that has not been written for most of `tombstone_seconds` may hold clients that were erased meanwhile, and the
herd may soon forget their tombstones. So such a journal is not used. But if all servers were away, nobody else has the
table: so its files are kept until a neighbour has shown that it does.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Final

from proxyherd.core.messages import NANOSECONDS, received
from proxyherd.core.node import Node
from proxyherd.core.tombstones import parse_learned

_SLICE_LINES: Final = 512
_DAY: Final = 86_400 * NANOSECONDS


async def is_outdated(batches: Iterable[list[bytes]], node: Node, oldest: int) -> bool:
    """Whether there are records, and none of them is younger than `oldest`, in nanoseconds of POSIX time. Begin with the
    youngest batch: then this is quick, unless the journal is too old. Records from the future do not count.
    """
    latest, lead, found = node.rules.latest_receipt(), node.rules.lead, False
    for batch in batches:
        for at in range(0, len(batch), _SLICE_LINES):
            for line in batch[at : at + _SLICE_LINES]:
                learned = parse_learned(line, lead)
                if learned is not None and oldest < learned.received <= latest:
                    return False
            found = True
            await asyncio.sleep(0)
    return found


class TableElsewhere:
    """Whether a neighbour has the table of a journal that was set aside at a `moment`. The own table was empty then. So a
    line that a server took before that, while this one was away, was learned, and some server was not away.

    A line of the last day shows nothing: all servers may have been started one after the other. Nor does one from before the
    `absence` that made the journal too old: this server's clock was ahead. All are nanoseconds; those of `lines` are POSIX
    time.
    """

    def __init__(self, moment: int, absence: int) -> None:
        self._first, self._last = moment - absence, moment - min(_DAY, absence // 8)
        self.shown = False

    def look(self, lines: Iterable[bytes]) -> None:
        """Look at lines of the own table. Tombstones show nothing: an erasure may be up to an earlier moment."""
        if not self.shown:
            self.shown = any(
                self._first < received(line) < self._last for line in lines if line.startswith(b"AT ")
            )


class RewriteTimer:
    """When the journal of a node must be rewritten because of erasures: half of `seconds` after the first one that no
    rewrite covers. So erasures gather, and there is time for the rewrite itself.
    """

    def __init__(self, node: Node, seconds: float) -> None:
        self._node = node
        self._pause = seconds / 2
        self._seen = self._before = 0  # erasures, when looked at last, and the time before that
        self._due = math.inf

    def look(self, now: float, *, wanted: bool = False) -> bool:
        """Return whether a rewrite is due. Call once a second; `wanted`: whether one is due later in any case. All times
        are seconds of one monotonic clock.
        """
        self._before, self._seen = self._seen, self._node.erasures.count
        if self._seen != self._before or wanted:
            self._due = min(self._due, now + self._pause)
        return now >= self._due

    def rewritten(self, now: float) -> None:
        """Note a rewrite that began after the last look. Another one is needed if there were erasures since the look before
        that: a line that was erased then may still have been on its way to the journal.
        """
        settled = self._node.erasures.count == self._before
        self._due = math.inf if settled else now + self._pause
