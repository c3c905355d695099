"""How long a request waits before it is answered: until its sender may ask again, or the server knows more of its token.

If its sender asks too fast, it waits for `PATIENCE_SECONDS` at most. If that was not enough, the answer says when to come
again. So over one connection there is one such answer a second. It also waits for so long for what the server does not
know yet of its token.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from proxyherd.core.buckets import Allowance
from proxyherd.web import problems
from proxyherd.web.conversations.base import WebWatch
from proxyherd.web.problems import Problem
from proxyherd.web.requests import ReadRequest

PATIENCE_SECONDS: Final = 1.0
"""How long a request waits if its sender asks too fast, or for what the server will know, before it is refused."""

RECHECK_SECONDS: Final = 0.02
"""How often it is tried again whether the server knows."""


class RequestWait:
    """Whether the request of a connection waits. `request`: that one. `asker`: what the sender of the latest request may ask;
    None: all. `is_over`: nobody waits any more, because the server stops. `is_used`: `end` has something to do.
    """

    __slots__ = ("_has_waited", "_unknown", "_watch", "asker", "is_over", "is_used", "request")

    def __init__(self, watch: WebWatch) -> None:
        self.request: ReadRequest | None = None
        self.asker: Allowance | None = None
        self.is_over = self.is_used = False
        self._watch = watch
        self._has_waited = False  # because its sender asked too fast
        self._unknown: float | None = None  # since when it waits for what the server will know

    def put_off(self, request: ReadRequest) -> None:
        """Let a request wait that nobody has looked at."""
        if self.request is None:
            self.end()
            self._hold(request)

    def end(self) -> None:
        """A request is served now: the one that waits, or a new one."""
        if self.request is None:
            self._has_waited, self._unknown, self.is_used = False, None, False
        self.request = None

    def for_sender(self, request: ReadRequest, subject: bytes | None, now: float) -> bool:
        """Return whether a request waits now because its sender asks too fast. `subject`: of its token. Raises Problem if it
        has waited.
        """
        asker = self.asker = self._watch.asker(request.headers, subject)
        if asker is None or (seconds := asker.wait(now)) <= 0.0 or self.is_over:
            return False
        if self._has_waited:
            whole = ceil(seconds)
            raise Problem(problems.RATE, f"Come again in {whole} s.", retry_seconds=whole)
        self._has_waited = True
        self._hold(request)
        self._watch.wait(asker, min(seconds, PATIENCE_SECONDS))
        return True

    def for_server(self, request: ReadRequest, now: float) -> bool:
        """Return whether a request waits now for what the server will know, because it has not done so for long enough."""
        self._unknown = now if self._unknown is None else self._unknown
        if now - self._unknown >= PATIENCE_SECONDS:
            return False
        self._hold(request)
        self._watch.come_again(RECHECK_SECONDS)
        return True

    def _hold(self, request: ReadRequest) -> None:
        self.request, self.is_used = request, True

    def count(self, commands: int, now: float) -> None:
        """Let the sender of the latest request pay for so many commands."""
        if self.asker is not None:
            self.asker.use(commands, now)
