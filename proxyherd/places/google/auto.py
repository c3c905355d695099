"""Which of Google's two APIs a key may use, found out by asking.

The rule: the old one is asked first, since its answers go on as they are. A key that it refuses as not enabled is
tried on the new one. What answers a query works, and is remembered; an error may be of whoever stands between. A key
that neither takes is not tried on both again for a while.
"""

from __future__ import annotations

import re
import time
from typing import Final

from proxyherd.places.answers import Answer
from proxyherd.places.google.new import GoogleNew
from proxyherd.places.google.old import Google
from proxyherd.places.query import Query, Upstream

AGAIN_SECONDS: Final = 60.0
"""How long a key that neither API takes is only tried on the old one."""

_NOT_ENABLED: Final = re.compile(
    rb"legacy API|not (?:been )?(?:enabled|activated|used|authorized(?! to use this API key))", re.IGNORECASE
)
"""What the old API says of a project or a key that may not use it, in each of its wordings. What is not authorized to
use the key is an address, and the new API would not serve it either."""

_ANSWERED: Final = frozenset({"OK", "ZERO_RESULTS"})


class Auto:
    """The provider `google` or `google-new`, as the key wants it."""

    def __init__(self, old: Google, new: GoogleNew) -> None:
        self._old = old
        self._new = new
        self._works: Upstream | None = None
        self._try_new_at = 0.0

    @property
    def name(self) -> str:
        """The name of the API that is asked now."""
        return self._asked.name

    @property
    def _asked(self) -> Upstream:
        return self._works or self._old

    def widened(self, query: Query) -> Query:
        """Return the query as the API that is asked first wants it."""
        return self._asked.widened(query)

    async def nearby(self, query: Query, seconds: float) -> Answer:
        """Ask the API that works, or both, for so many seconds together at most. Raises FailedError."""
        deadline = time.monotonic() + seconds
        asked = self._asked
        answer = await asked.nearby(query, seconds)
        if self._works is None and answer.status in _ANSWERED:
            self._works = asked
        if asked is self._works or not self._asks_new(answer):
            return answer
        newer = await self._new.nearby(query, deadline - time.monotonic())
        if newer.status in _ANSWERED:
            self._works = self._new
        else:
            self._try_new_at = time.monotonic() + AGAIN_SECONDS
        return answer if newer.status == "REQUEST_DENIED" else newer

    def _asks_new(self, answer: Answer) -> bool:
        """Whether a query that the old API answered so goes to the new one; another may have found out meanwhile."""
        if answer.status != "REQUEST_DENIED" or not _NOT_ENABLED.search(answer.body):
            return False
        return self._works is self._new or time.monotonic() >= self._try_new_at

    async def close(self) -> None:
        """Close the session, which both share."""
        await self._old.close()
