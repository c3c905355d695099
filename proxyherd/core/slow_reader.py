"""A client that reads too slowly: since when, and for how long it may."""

from __future__ import annotations

from typing import Final


class SlowReader:
    """Whether one client reads what is sent to it. `seconds`: how long it may read nothing while bytes wait for it."""

    __slots__ = ("_seconds", "_unsent", "since")

    def __init__(self, seconds: float) -> None:
        self.since: float | None = None  # it has been reading too slowly since then
        self._seconds: Final = seconds
        self._unsent = 0  # bytes, at the last check

    def is_stuck(self, now: float, unsent: int) -> bool:
        """Return whether it has read nothing for too long; `unsent`: bytes that it has not received yet. Call a few
        times within the limit, while bytes wait for it: the first call begins, unless `since` says when that was.
        """
        if self.since is None or unsent < self._unsent:
            self.since = now
        self._unsent = unsent
        return now - self.since > self._seconds
