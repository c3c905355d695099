"""Server-sent events as a conversation: behind its request, a client says nothing more, and gets events.

A stream has no length, so it ends with its connection. Whatever the client sends meanwhile is dropped, further requests too.
It ends when the client closes its half, when the server stops, and when its token is not good any more. Browsers connect
again by themselves, after the pause with which each stream begins. Who reads nothing for too long is cut off.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proxyherd.core.conversation import OPEN, Ending, Stage
from proxyherd.core.framing import Line
from proxyherd.core.reply import Reply
from proxyherd.web.conversations.base import (
    SIGN_OF_LIFE_SECONDS,
    OwedCommands,
    Site,
    WebConversation,
    WebWatch,
)
from proxyherd.web.events import stream_event_of
from proxyherd.web.follows import StreamAnswer
from proxyherd.web.rights import Grant

SHORTEST_PAUSE, LONGEST_PAUSE = 500, 5_000
"""Milliseconds until a browser connects again, chosen at random: otherwise all come back in the same instant."""

_COMMENT: Final = b":\n\n"


class EventStream(WebConversation):
    """A connection that gets events."""

    __slots__ = ("_grant", "_is_told")

    def __init__(self, site: Site, watch: WebWatch, now: float) -> None:
        super().__init__(site, watch, now)
        self.owed, self.owe = (), _owe_nothing
        self._grant: Grant | None = None  # of its token, if one is needed
        self._is_told = True  # whether anything was sent since the last check

    def begin(self, answer: StreamAnswer) -> None:
        """Begin to send, behind the head of this answer."""
        self._follower, self._grant = answer.follower, answer.grant
        pause = SHORTEST_PAUSE + int(self._site.chance() * (LONGEST_PAUSE - SHORTEST_PAUSE))
        self._out.append(b"retry: %d\n\n" % pause)

    def push(self) -> bytes:
        """Return the events to send: none while the client reads too slowly."""
        follower = self._follower
        assert follower is not None
        if self._grant is not None and self.stage is OPEN and self._refuse_token(self._grant):
            self._close("bad token")
        if self.stage is not OPEN:
            follower.close()
        elif self._slow.since is None:
            self._is_told = True
            return b"".join(map(stream_event_of, follower.take()))
        elif follower.is_too_slow:
            self.abort("slow reader")
        return b""

    # What a client does. -------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Drop what arrived."""

    def receive_eof(self) -> bool:
        """Note that the client has closed its sending half. Return False: it reads no more."""
        return False

    def take(self, _: int, __: float) -> list[Line]:
        """Take nothing. After the client has read on, it is sent what has waited, at the end of the turn."""
        self.more = False
        if self._follower is not None:
            self._follower.resume()
        return []

    def answer(self, _: list[bytes]) -> bytes:
        """Return what is to be sent."""
        return self.flush()

    def release(self) -> tuple[OwedCommands, bytes]:
        """Return what is to be sent."""
        return [], self.flush()

    # The clock, and the end. ---------------------------------------------------------------------------------

    def drain(self) -> None:
        """The server stops: close."""
        self._close("server stops")

    def give_up(self, reason: str) -> OwedCommands:
        """Close. Return nothing: nothing is owed."""
        self._close(reason)
        return []

    def check(self, now: float, unsent: int) -> None:
        """Close if the client does not read, or its token is not good any more; otherwise let proxies know that the stream
        goes on. Call every few seconds; `unsent`: bytes that it has not received yet.
        """
        if self._slow.since is not None or (self.gone and unsent):
            if self._slow.is_stuck(now, unsent):
                self.abort("slow reader")
        elif self.gone:
            return
        elif self._grant is not None and self._refuse_token(self._grant):
            self._close("bad token")
        elif self._is_told:
            self._is_told, self._since = False, now
        elif now - self._since >= SIGN_OF_LIFE_SECONDS:
            self._is_told = True
            self._out.append(_COMMENT)

    def _close(self, reason: str) -> None:
        if self.stage is OPEN:
            self.reason = reason
            self._end(Stage.CLOSED, Ending.CLOSE)


def _owe_nothing(_: Iterable[tuple[Line, Reply]]) -> None:
    """Nothing is taken, so nothing is owed."""
