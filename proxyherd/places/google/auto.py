"""Finds out, by asking, which of Google's two APIs a key may use.

The rule: the old API is asked first, since its answers are passed on unchanged. If it refuses the key as not enabled,
the new one is tried. An API that has answered a query works, and is remembered; an error may come from something in
between. If neither API accepts the key, both are not tried again for a while.
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
"""How long a key that neither API accepts is tried only on the old one."""

_NOT_ENABLED: Final = re.compile(
    rb"legacy API|not (?:been )?(?:enabled|activated|used|authorized(?! to use this API key))", re.IGNORECASE
)
"""The old API's texts for a project or a key that may not use it. (The text "not authorized to use this API key" is about
an address; the new API would not serve it either.)"""

_ANSWERED: Final = frozenset({"OK", "ZERO_RESULTS"})


class Auto:
    """The provider `google` or `google-new`, whichever works with the key."""

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
        """Return the query for the API that is asked first."""
        return self._asked.widened(query)

    async def nearby(self, query: Query, seconds: float, asker: str | None = None) -> Answer:
        """Ask the API that works, or both, for at most so many seconds together. Raises FailedError."""
        deadline = time.monotonic() + seconds
        asked = self._asked
        answer = await asked.nearby(query, seconds, asker)
        if self._works is None and answer.status in _ANSWERED:
            self._works = asked
        if asked is self._works or not self._asks_new(answer):
            return answer
        newer = await self._new.nearby(query, deadline - time.monotonic(), asker)
        if newer.status in _ANSWERED:
            self._works = self._new
        else:
            self._try_new_at = time.monotonic() + AGAIN_SECONDS
        return answer if newer.status == "REQUEST_DENIED" else newer

    def _asks_new(self, answer: Answer) -> bool:
        """Whether a query with this answer of the old API is sent to the new one; another query may have found out
        meanwhile.
        """
        if answer.status != "REQUEST_DENIED" or not _NOT_ENABLED.search(answer.body):
            return False
        return self._works is self._new or time.monotonic() >= self._try_new_at

    async def close(self) -> None:
        """Close the session, which both APIs share."""
        await self._old.close()
