"""What the engine needs of the world: the connections of peers, a journal, and somebody who calls it a little later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from proxyherd.core.link import Link


class Peer(Protocol):
    """What a turn needs from a peer's connection."""

    queued: bool

    @property
    def link(self) -> Link:
        """The link that it carries."""

    def heard(self) -> None:
        """Read on, because everything that was received has been handled."""

    def release(self, now: float) -> None:
        """Write what the link has to send, in one write; end the connection if the link has ended."""

    def fail(self, error: Exception) -> None:
        """End the connection at once, and forget it: work for it has raised an exception."""


class JournalWriter(Protocol):
    """What a turn needs from the journal."""

    always: bool

    @property
    def takes_reports(self) -> bool:
        """Whether reports are taken."""

    def append(self, lines: list[bytes]) -> bool:
        """Append a turn's updates. Return False if its reports must be refused."""

    def sync(self, done: Callable[[bool], None]) -> None:
        """Bring the appended updates to disk. Call `done` later, with False if the turn's reports must be refused."""


class Later(Protocol):
    """Calls the engine's `pass_on` when everything that is ready has been read, and its `settle` and its `send_spare` a little
    later.
    """

    def pass_on_soon(self) -> None:
        """Note that something is to be passed on."""

    def settle_later(self) -> None:
        """Note that something waits, perhaps since earlier calls. `settle` may be called at once."""

    def send_spare_later(self) -> None:
        """Note that spare copies of updates wait, perhaps since earlier calls."""

    def settled(self) -> None:
        """Note that nothing waits any more."""
