"""What a turn needs besides its engine and its clients: a log, and the queries for places."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Protocol

from proxyherd.core.engine import Client
from proxyherd.core.framing import Line
from proxyherd.core.notes import Note
from proxyherd.core.reply import Reply


class CommandLog(Protocol):
    """The log of commands. Each is logged in the turn in which its answer is sent."""

    def report(self, client: bytes, line: bytes, answer: bytes) -> None:
        """Log the stored report of a turn that has no other command. A client is named by its label."""

    def reports(self, clients: Sequence[bytes], lines: Sequence[bytes], answers: Sequence[bytes]) -> None:
        """Log stored reports, each with its client's label and its answer."""

    def alike(self, client: bytes, lines: Sequence[Line], replies: Sequence[Reply]) -> None:
        """Log other commands in a row of a client, which have the same outcome."""


class TurnLog(Protocol):
    """The log of a turn."""

    @property
    def commands(self) -> CommandLog:
        """The log of commands."""

    def note(self, notes: Sequence[Note]) -> None:
        """Log the notes of the engine."""

    def end_turn(self) -> None:
        """Write the lines of this turn."""

    def fault(self, what: str, error: Exception) -> None:
        """Log a fault of the program."""


class PlacesQueries(Protocol):
    """The queries for places. A query comes here when its client's location is known, and gets its answer here."""

    def __bool__(self) -> bool:
        """Whether something is left for another turn."""

    def admit(self, client: Client, reply: Reply) -> bool:
        """Return whether a client may ask now. If it asks too fast, its query is answered."""

    def answer_at_once(self, reply: Reply) -> float:
        """Answer a query if that takes a fraction of a millisecond. Return the seconds that it took, answered or not."""

    def add(self, client: Client, reply: Reply) -> None:
        """Add a query that is to begin in this turn or a later one."""

    def drop(self, gone: Container[Client]) -> None:
        """Forget the queries of disconnected clients that have not begun."""

    def cancel(self, client: Client) -> None:
        """Cancel the queries of a client that have begun: nobody needs their answers any more."""

    def ask_some(self, answered: Callable[[Client], None]) -> None:
        """Begin as many queries as delay nobody. Call `answered` with a client when one of its replies has its answer."""
