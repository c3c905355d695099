"""What a turn needs from an engine, which stores reports and looks up queries; and from a client's connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Protocol

from msgspec import Struct

from proxyherd.core.follows.follower import Follower, Pushed
from proxyherd.core.framing import Line
from proxyherd.core.messages import Report
from proxyherd.core.notes import Note
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Judged, Rules


class Client(Protocol):
    """What a turn needs from a client's connection."""

    label: bytes  # its name and its protocol, for the log
    queued: bool

    @property
    def owed(self) -> Sized:
        """The commands that `release` has not returned yet."""

    @property
    def gone(self) -> bool:
        """Whether the client is no longer there to get answers."""

    @property
    def payer(self) -> str:
        """Who pays for its queries of places, of several connections perhaps."""

    def may_ask_places(self, now: float) -> bool:
        """Return whether a query of places may begin, and count it then. `now`: the event loop's time."""

    @property
    def besides(self) -> int:
        """What it has taken in with the last lines, and needs none: as much work as so many lines."""

    def take(self, most: int, now: float) -> list[Line]:
        """Return lines to answer now."""

    def answer(self, answers: list[bytes]) -> None:
        """Write the answers to the lines that were taken, in one write, if no other answer is owed."""

    def owe(self, commands: Iterable[tuple[Line, Reply]]) -> None:
        """Note commands whose answers are in their replies now or later."""

    def release(self) -> list[tuple[Line, Reply]]:
        """Write the answers that are ready, in order, in one write; return them."""

    def give_up(self, reason: str) -> list[tuple[Line, Reply]]:
        """Close without the answers that are owed; return their commands."""

    def fail(self) -> None:
        """Close the connection at once, and forget it: work for it has raised an exception."""


class Said(Struct, eq=False):
    """What one client has sent in a turn, as it was judged, and the engine's results."""

    client: Client
    lines: list[Line]
    reports: Sequence[Report]  # with which the lines begin
    others: Sequence[Judged]  # behind those
    stored: int = 0  # this many reports, from the first on, are stored by now
    replies: Sequence[Reply] = ()  # to the other lines; one with neither answer nor entry waits
    error: Exception | None = None  # that this client's lines have raised, if not all of them are stored


class Settled(Struct):
    """The results of a turn: clients whose replies no longer wait for the engine; replies that now wait for Places;
    clients to close without an answer, with the reason; events for the log; followers to whom something is to be told; whether
    something is left for another turn; and clients for whom work has raised an exception.
    """

    clients: Iterable[Client] = ()
    found: Iterable[tuple[Client, Reply]] = ()
    given_up: Iterable[tuple[Client, str]] = ()
    notes: Sequence[Note] = ()
    pushes: Iterable[Follower] = ()
    more: bool = False
    failed: Iterable[tuple[Client | Pushed, Exception]] = ()


class Keeper(Protocol):
    """The part of an engine that stores reports in the turn in which they arrive, and must keep them before they are
    answered. A turn calls `keep` between the engine's `decide` and `end`.
    """

    def report(self, report: Report, now: float) -> bool:
        """Do what `decide`, `keep` and `send` do, for a report that is all a turn has to decide. Return whether it is stored,
        kept and sent; if not, nothing has happened.
        """

    def keep(self, done: Callable[[bool], None]) -> bool | None:
        """Keep what this turn has stored. Return whether its reports are kept, or None if that is not known yet; then
        `done` is called with the result later.
        """

    def undo(self) -> None:
        """Remove this turn's reports, which could not be kept; all lines of clients are decided again."""


class Engine(Protocol):
    """Stores reports and looks up queries. A turn calls, in this order: `begin`, `decide`, `send`, `end`."""

    rules: Rules

    @property
    def keeper(self) -> Keeper | None:
        """The part that keeps stored reports, or None if the engine stores nothing at once."""

    @property
    def full(self) -> bool:
        """Whether so much waits for the engine that clients must wait too."""

    def begin(self, now: float, received: int, lately: int) -> None:
        """Handle what came from elsewhere than from clients. `received`: nanoseconds of POSIX time. `lately`: how many
        lines clients have sent in the latest turn with any, 0 if that was long ago.
        """

    def decide(self, said: Sequence[Said]) -> None:
        """Store the reports and look up the queries, or let them wait."""

    def send(self, now: float) -> None:
        """Send updates to those who must have them before the clients get their answers."""

    def end(self, now: float) -> Settled:
        """Return the results of the turn."""
