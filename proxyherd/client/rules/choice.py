"""Which server is asked next, and when.

The rules:

- A server that answers is kept: it is asked until it fails.
- At first, and after a failure, another one is chosen at random. So the clients of a server that has stopped spread over
  all others.
- A server that has failed is left alone for a while: each time about twice as long, with jitter, up to `LONGEST_PAUSE_SECONDS`. An
  answer ends that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from random import Random
from typing import Final

from proxyherd.base.backoff import backoff

SHORTEST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
"""The first and the longest pause after a failure of a server. Half of each is left to chance."""


class ServerChoice:
    """Chooses among so many servers, by their numbers. `now` is in seconds, of any clock."""

    def __init__(self, servers: int, rng: Random) -> None:
        self._rng = rng
        self._kept: int | None = None
        self._free_at = [0.0] * servers
        self._pauses = [self._new_pauses() for _ in range(servers)]
        self._reasons = [""] * servers

    @property
    def reasons(self) -> list[str]:
        """Why servers have failed that have not answered since."""
        return [reason for reason in self._reasons if reason]

    def next(self, now: float, tried: Collection[int] = ()) -> tuple[int, float]:
        """Return which server to ask, and the seconds to wait before. Not one of those in `tried`, if there are others."""
        left = [server for server in range(len(self._free_at)) if server not in tried]
        left = left or [*range(len(self._free_at))]
        if self._kept in left:
            return self._kept, 0.0
        free = [server for server in left if self._free_at[server] <= now]
        server = self._rng.choice(free) if free else min(left, key=self._free_at.__getitem__)
        return server, max(0.0, self._free_at[server] - now)

    def answered(self, server: int) -> None:
        """A server has answered."""
        if self._kept != server or self._reasons[server]:
            self._kept, self._reasons[server] = server, ""
            self._free_at[server], self._pauses[server] = 0.0, self._new_pauses()

    def failed(self, server: int, now: float, reason: str, wait: float = 0.0) -> None:
        """A server was not reached, or its connection ended with answers owed. `wait`: seconds for which it wants to be left
        alone; it is not left for longer than `LONGEST_PAUSE_SECONDS`.
        """
        if self._kept == server:
            self._kept = None
        self._free_at[server] = now + max(next(self._pauses[server]), min(wait, LONGEST_PAUSE_SECONDS))
        self._reasons[server] = reason

    def _new_pauses(self) -> Iterator[float]:
        return backoff(SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, self._rng)
