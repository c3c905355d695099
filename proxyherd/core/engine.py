"""What a turn wants of an engine, which stores reports and looks up questions; and of a client's connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Protocol

from msgspec import Struct

from proxyherd.core.framing import Overlong
from proxyherd.core.messages import Report
from proxyherd.core.notes import Note
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Judged, Rules


class Client(Protocol):
    """What a turn wants of a client's connection."""

    name: str
    label: bytes  # the name, for the log
    queued: bool

    @property
    def owed(self) -> Sized:
        """What `release` has not returned yet."""

    @property
    def gone(self) -> bool:
        """Whether nobody is there any more to be answered."""

    def take(self, most: int, now: float) -> list[bytes | Overlong]:
        """Return lines to answer now."""

    def answer(self, answers: list[bytes]) -> None:
        """Write the answers to what was taken, in one write, where nothing else is owed."""

    def owe(self, commands: Iterable[tuple[bytes | Overlong, Reply]]) -> None:
        """Take note of commands whose answers stand in their replies, or will."""

    def release(self) -> list[tuple[bytes | Overlong, Reply]]:
        """Write the answers that are there, in order, in one write; return them."""

    def give_up(self, reason: str) -> list[tuple[bytes | Overlong, Reply]]:
        """Close without the answers that are owed; return their commands."""

    def fail(self) -> None:
        """End the connection at once, and forget it: something that was done for it has raised."""


class Said(Struct, eq=False):
    """What one client has said in a turn, as it was judged; and what the engine has made of it."""

    client: Client
    lines: list[bytes | Overlong]
    reports: list[Report]  # that the lines begin with
    others: list[Judged]  # behind those
    stored: int = 0  # so many reports, from the first on, are stored by now
    replies: Sequence[Reply] = ()  # to the other lines; one with neither answer nor entry waits
    error: Exception | None = None  # which this client's lines have raised


class Settled(Struct):
    """What a turn ends with: whose replies have waited for the engine, and wait no more; which of them wait for Places now;
    who is to be let go without an answer, with the reason; what is worth a line in the log; and whether there is
    something left for another turn.
    """

    clients: Iterable[Client] = ()
    found: Iterable[tuple[Client, Reply]] = ()
    given_up: Iterable[tuple[Client, str]] = ()
    notes: Sequence[Note] = ()
    more: bool = False


class Keeper(Protocol):
    """What an engine has that stores reports in the turn in which they come, and must keep them before they are answered.
    A turn calls `keep` between the engine's `decide` and its `end`.
    """

    def keep(self, done: Callable[[bool], None]) -> bool | None:
        """Keep what this turn has stored; return whether its reports are kept, or None where that is not known yet: then
        call `done` with it later.
        """

    def undo(self) -> None:
        """Take back this turn's reports, which could not be kept; all that clients have said is decided again."""


class Engine(Protocol):
    """Where reports are stored and questions looked up. A turn calls, in this order: `begin`, `decide`, `end`."""

    rules: Rules

    @property
    def keeper(self) -> Keeper | None:
        """Who keeps what was stored at once, None where nothing is."""

    @property
    def full(self) -> bool:
        """Whether so much waits for the engine that clients are to wait too."""

    def begin(self, now: float, received: int, lately: int) -> None:
        """Take in what came otherwise than from clients; `received`: nanoseconds of POSIX time; `lately`: how many lines
        clients have said in the latest turn with any, 0 where that is a while ago.
        """

    def decide(self, said: Sequence[Said]) -> None:
        """Store what is to be stored and look up what is asked for, or let it wait."""

    def end(self, now: float) -> Settled:
        """Tell those who must know before the clients have their answers; return what else there is."""
