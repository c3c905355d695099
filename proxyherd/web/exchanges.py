"""Exchanges: what a request asks of a turn, as lines, and what becomes of the replies.

A client of the line protocol gets the bytes of its answers. A client of the web gets documents, which are made of the
replies. Exchanges are finished in the order in which they came, and each when all of its lines have their replies.
There is no socket and no clock here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter

from msgspec import Struct, field

from proxyherd.core.framing import Line
from proxyherd.core.reply import Reply
from proxyherd.web.answers import WebAnswer
from proxyherd.web.rights import Grant
from proxyherd.web.trackers.points import Reason

_its_answer = attrgetter("answer")


class WebExchange(Struct):
    """The lines of a request, and how to answer it when their replies are there. `finish` may raise Problem. `via`: by
    which protocol it came, for the log.
    """

    via: str
    lines: Sequence[Line]
    finish: Callable[[Sequence[Reply]], WebAnswer]
    replies: list[Reply] = field(default_factory=list)
    consumed: Mapping[Reason, int] = field(default_factory=dict)
    """How much of the request was of no use, by reason."""
    grant: Grant | None = None
    """What its token grants; None if none is needed."""

    @property
    def is_done(self) -> bool:
        """Whether all replies are there."""
        return len(self.replies) == len(self.lines)


class Exchanges(deque[WebExchange]):
    """The exchanges of one connection that are not finished, in order. To a turn, they are what the client is owed, from
    the moment when their lines are taken: so it passes the answers with their replies.
    """

    __slots__ = ("_commands", "_untaken")

    def __init__(self) -> None:
        super().__init__()
        self._untaken: deque[Line] = deque()
        self._commands: deque[tuple[Line, Reply]] = deque()

    @property
    def more(self) -> bool:
        """Whether there are lines to take."""
        return bool(self._untaken)

    def add(self, exchange: WebExchange) -> None:
        """Begin an exchange."""
        self.append(exchange)
        self._untaken.extend(exchange.lines)

    def take(self, most: int) -> list[Line]:
        """Return up to `most` lines for a turn."""
        untaken = self._untaken
        if len(untaken) <= most:
            lines: list[Line] = [*untaken]
            untaken.clear()
            return lines
        return [untaken.popleft() for _ in range(most)]

    def owe(self, commands: Iterable[tuple[Line, Reply]]) -> None:
        """Note lines that were taken, whose replies are complete now or later."""
        self._commands.extend(commands)

    def release(self) -> list[tuple[Line, Reply]]:
        """Return the lines whose replies are complete, in order. Their exchanges get these replies."""
        commands = self._commands
        if not commands or commands[0][1].answer is None:
            return []
        if len(commands) == 1:  # as most requests have, and then it is the first that waits
            released = [commands.popleft()]
            self[0].replies.append(released[0][1])
            return released
        replies = [reply for _, reply in commands]
        answers = [*map(_its_answer, replies)]
        if None in answers:
            replies = replies[: answers.index(None)]
            released = [commands.popleft() for _ in replies]
        else:
            released = [*commands]
            commands.clear()
        at, end = 0, len(replies)
        for exchange in self:
            following = at + len(exchange.lines) - len(exchange.replies)
            exchange.replies += replies[at:following]
            at = following
            if at >= end:
                break
        return released

    def finished(self) -> list[WebExchange]:
        """Take out the exchanges whose replies are all there, up to the first that waits."""
        done: list[WebExchange] = []
        while self and self[0].is_done:
            done.append(self.popleft())
        return done

    def give_up(self) -> list[tuple[Line, Reply]]:
        """End all exchanges without the replies that are missing. Return the lines without a reply."""
        unanswered = [*self._commands]
        for kept in (self, self._untaken, self._commands):
            kept.clear()
        return unanswered
