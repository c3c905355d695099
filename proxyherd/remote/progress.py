"""The progress of a herd's start: whether it is further than ever before, and a description in words.

The rule: only stages that can be reached once count. A server that crashes and starts again and again makes no
progress, so a caller that waits for progress does not wait forever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from proxyherd.remote.ask import Status

_REPLAYING = re.compile(r"replaying the journal: (\d+)%")
_CATCHING_UP = "catching up"

_Reached = tuple[int, int]
"""The stage of one server, and its progress within the stage."""


class Progress:
    """The furthest progress of each server of a herd."""

    def __init__(self) -> None:
        self._furthest: dict[str, _Reached] = {}

    def is_more(self, found: Iterable[Status]) -> bool:
        """Note the progress of the servers; return whether any of them is further than ever."""
        more = False
        for one in found:
            reached = _reached(one)
            if reached > self._furthest.get(one.server.name, (0, 0)):
                self._furthest[one.server.name] = reached
                more = True
        return more


def _reached(one: Status) -> _Reached:
    if one.told is None:
        return 0, 0
    if one.told.ready:
        return 3, len(one.server.neighbours) - len(one.missing)
    if replaying := _REPLAYING.match(one.problem):
        return 1, int(replaying[1])
    # Learned updates count only here: a serving herd learns forever.
    return 2, one.told.clients if one.problem.startswith(_CATCHING_UP) else 0


def describe(found: Iterable[Status]) -> str:
    """Describe how many servers have reached which stage, such as
    `replaying 3 of 5 (45%), ready 2 of 5, links 1 of 6`.
    """
    found = list(found)
    parts = [int(match[1]) for one in found if (match := _REPLAYING.match(one.problem))]
    wanted = sum(len(one.server.neighbours) for one in found)
    up = wanted - sum(len(one.missing) for one in found)
    texts = [f"replaying {len(parts)} of {len(found)} ({min(parts)}%)"] if parts else []
    texts.append(f"ready {sum(one.state == 'ready' for one in found)} of {len(found)}")
    if wanted:
        texts.append(f"links {up // 2} of {wanted // 2}")
    return ", ".join(texts)
