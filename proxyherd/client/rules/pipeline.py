"""Many commands on one connection: what is sent when, whose answer is whose, and what is sent again.

The rules:

- Commands are sent in the order in which they were added, and no more than `outstanding` of them wait for an answer.
- Answers come in the order of the commands. So whoever gives up a command that was sent leaves a gap: its answer is read
  and dropped.
- When a connection ends, all that it has not answered is sent again over the next one, in the same order and before
  anything newer. Every command may be sent twice: a report has its own time, and the same report again changes nothing.
- What was given up is not sent again.
- What a server postpones waits for the next connection. This server is sent nothing more, and its connection ends when it
  has answered the rest.
- Whatever a server sends, no more than `most_bytes` of it are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

from proxyherd.client.rules.commands import ClientCommand
from proxyherd.client.rules.errors import ForeignAnswer, HerdError, Postponed

T = TypeVar("T")

MOST_KEPT_BYTES: Final = 1 << 24
"""Bytes of one answer. Twenty places take about 30 KiB."""


class Waiting(Generic[T]):
    """A command whose answer is waited for. `owner`: what the caller wants to find it by."""

    __slots__ = ("command", "given_up", "owner")

    def __init__(self, command: ClientCommand[Any], owner: T) -> None:
        self.command = command
        self.owner = owner
        self.given_up = False


class Pipeline(Generic[T]):
    """The commands of a client, over one connection after the other."""

    def __init__(self, outstanding: int = 1, most_bytes: int = MOST_KEPT_BYTES) -> None:
        self._outstanding = outstanding
        self._most_bytes = most_bytes
        self._unsent: dict[Waiting[T], None] = {}
        self._sent: deque[Waiting[T]] = deque()
        self._data = bytearray()
        self._searched = 0
        self.postponed: Postponed | None = None
        """Why the server of this connection does not answer something now."""

    @property
    def owed(self) -> int:
        """How many answers the server owes."""
        return len(self._sent)

    @property
    def has_more(self) -> bool:
        """Whether there is something to send, now or when an answer has come."""
        return bool(self._unsent)

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._unsent) or any(not one.given_up for one in self._sent)

    @property
    def received(self) -> int:
        """Bytes that have come of the answer that is owed next."""
        return len(self._data)

    def add(self, command: ClientCommand[Any], owner: T) -> Waiting[T]:
        """Add a command behind all others."""
        one = Waiting(command, owner)
        self._unsent[one] = None
        return one

    def give_up(self, one: Waiting[T]) -> None:
        """Nobody waits any more for this answer. It may have come already."""
        one.given_up = True
        self._unsent.pop(one, None)

    def take_all(self) -> list[Waiting[T]]:
        """Give up everything; return what was waited for. The connection has ended."""
        self.connection_lost()
        taken = [*self._unsent]
        self._unsent.clear()
        return taken

    def data_to_send(self) -> list[bytes]:
        """Return the lines, with their LF, that may be sent now. They count as sent."""
        lines = []
        while self._unsent and len(self._sent) < self._outstanding and self.postponed is None:
            one = next(iter(self._unsent))
            del self._unsent[one]
            self._sent.append(one)
            lines.append(one.command.line + b"\n")
        return lines

    def receive_data(self, data: bytes) -> Iterator[tuple[T, object]]:
        """Take what has come; yield what is waited for and has its answer now: the owner, and what the answer means, or the
        error that it means. Raises ForeignAnswer or Postponed behind the last good answer; then the connection must end.
        """
        self._data += data
        while self._sent and (end := self._end()):
            one, answer = self._sent.popleft(), bytes(self._data[:end])
            del self._data[:end]
            self._searched = 0
            try:
                meant = one.command.read(answer)
            except ForeignAnswer:
                self._sent.appendleft(one)  # another server may answer it
                raise
            except Postponed as error:
                self.postponed = error
                if not one.given_up:
                    self._unsent[one] = None
                continue
            except HerdError as error:
                meant = error
            if not one.given_up:
                yield one.owner, meant
        if self.postponed is not None and not self._sent:
            raise self.postponed
        if self._data and not self._sent:
            raise ForeignAnswer("sends what nobody has asked for")
        if len(self._data) > self._most_bytes:
            raise ForeignAnswer(f"sends an answer of more than {self._most_bytes:,} bytes")

    def connection_lost(self) -> list[Waiting[T]]:
        """Put what was not answered in front of what was not sent. Return it."""
        lost = [one for one in self._sent if not one.given_up]
        self._unsent = dict.fromkeys([*lost, *self._unsent])
        self._sent.clear()
        self._data.clear()
        self._searched, self.postponed = 0, None
        return lost

    def _end(self) -> int:
        """Return where the answer ends that is owed next; 0 if its end has not come."""
        data, command = self._data, self._sent[0].command
        is_long = command.has_places and data[:1] == b"A"
        sign = b"\n\n" if is_long else b"\n"
        at = data.find(sign, max(0, self._searched - 1))
        self._searched = len(data)
        return at + len(sign) if at >= 0 else 0
