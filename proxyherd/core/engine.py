"""What a turn wants of an engine, which stores reports and looks up questions; and of a client's connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence, Sized
from typing import Protocol

from msgspec import Struct

from proxyherd.core.framing import Overlong
from proxyherd.core.notes import Note
from proxyherd.core.reply import Reply


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


class Settled(Struct):
    """Replies that have waited for the engine: whose they are; which of them wait for Places now; and who is to be let
    go without an answer, with the reason.
    """

    clients: Iterable[Client]
    found: Iterable[tuple[Client, Reply]] = ()
    given_up: Iterable[tuple[Client, str]] = ()


class Engine(Protocol):
    """Where reports are stored and questions looked up. A turn calls, in this order: `begin`; `reports` and `commands`;
    `keep`; `tell`, `settled` and `notes`. Between turns the engine may call its `wake`.
    """

    wake: Callable[[], None]

    @property
    def full(self) -> bool:
        """Whether so much waits for the engine that clients are to wait too."""

    @property
    def more(self) -> bool:
        """Whether there is something left for another turn."""

    def begin(self, now: float, received: int, lately: int) -> None:
        """Take in what came otherwise than from clients; `received`: nanoseconds of POSIX time; `lately`: how many lines
        clients have said in the latest turn with any, 0 where that is a while ago.
        """

    def reports(self, said: Sequence[Sequence[bytes | Overlong]], received: int) -> list[list[bytes]]:
        """Store reports that each client's lines begin with, where that is done at once; return the answers."""

    def commands(self, client: Client, lines: Sequence[bytes | Overlong], received: int) -> Sequence[Reply]:
        """Decide about lines that `reports` has left."""

    def wait(self, client: Client, lines: Sequence[bytes | Overlong], replies: Sequence[Reply]) -> None:
        """Let those that have neither answer nor entry wait; their client will be among the `settled` of a turn."""

    def keep(self) -> bool | Awaitable[bool]:
        """Keep what this turn has stored, or hand on what it wants; False: its reports must be decided again."""

    def undo(self) -> None:
        """Take back this turn's reports, which could not be kept."""

    def tell(self, now: float) -> None:
        """Tell those who must know before the clients have their answers."""

    def settled(self) -> Settled | None:
        """Return whose replies have waited, and wait no more; None: nobody's."""

    def notes(self) -> list[Note]:
        """Return what has happened that is worth a line in the log."""
