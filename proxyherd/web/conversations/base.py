"""What the conversations of the web port have in common: how they wait for slow readers, and how they end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Final, Protocol

from msgspec import Struct

from proxyherd.config.schema import Limits
from proxyherd.core.buckets import Allowance
from proxyherd.core.conversation import BY_CLIENT, Ending, Stage
from proxyherd.core.follows.follower import Follower, Pushed
from proxyherd.core.framing import Line
from proxyherd.core.reply import Reply
from proxyherd.core.slow_reader import SlowReader
from proxyherd.web.access import TokenRefusal
from proxyherd.web.bodies import LargeReads
from proxyherd.web.follows import StreamAnswer
from proxyherd.web.handshakes import Upgrade
from proxyherd.web.lines import LineWriter
from proxyherd.web.requests import Headers
from proxyherd.web.rights import Grant
from proxyherd.web.routes import WebRoutes
from proxyherd.web.trackers.points import Reason

SIGN_OF_LIFE_SECONDS: Final = 19.5
"""From the check that finds that a client was heard, or was told something, to the one at which it gets a sign of life. Checks
are up to five seconds apart, so it comes after 20 to 25 s of silence. After thirty, some proxies close.
"""

READ_AHEAD: Final = 65_536
"""Bytes received but not read, beyond which no more are received."""

_LINGERING: Final = Stage.LINGERING
"""For frequent steps: before Python 3.12, it takes ten times as long to read it from its class."""

OwedCommands = list[tuple[Line, Reply]]


class Site(Struct, frozen=True):
    """What the conversations of one server share. `clock` returns when what is taken now has arrived, and `date` the
    present time, both in nanoseconds of POSIX time. `answer_seconds`: how long a request waits for its answer. `chance`
    returns a random number from 0 up to 1. `large`: who may read something large now.
    """

    limits: Limits
    routes: WebRoutes
    writer: LineWriter
    clock: Callable[[], int]
    date: Callable[[], int]
    answer_seconds: float
    chance: Callable[[], float]
    large: LargeReads


class WebWatch(Pushed, Protocol):
    """Is told what happens, for the log and the metrics; and by what is followed, that something has changed."""

    @property
    def write(self) -> Callable[[bytes], object] | None:
        """What sends bytes of this connection at once, while it is there."""

    def asker(self, headers: Headers, subject: bytes | None) -> Allowance | None:
        """A request has come with these headers, and with a token of this subject if there is one. Return what whoever has
        sent it may ask; None: it has no limits.
        """

    def begins(self, via: str, grant: Grant | None) -> None:
        """The commands that are taken from now on came by this protocol, in this request, whose token grants this; None if
        it needs none.
        """

    def refused(self, reason: TokenRefusal) -> None:
        """The request has no good token, or that of the commands is not good any more."""

    def wait(self, allowance: Allowance, seconds: float) -> None:
        """Whoever has this allowance asks too fast: read and take nothing for so many seconds, and then go on."""

    def come_again(self, seconds: float) -> None:
        """A request waits for what the server learns soon: take again after so many seconds."""

    def may_upgrade(self) -> bool:
        """Return whether the request may have a WebSocket."""

    def consumed(self, via: str, reasons: Mapping[Reason, int]) -> None:
        """So much of a request was of no use, by reason."""

    def answered(self, status: int) -> None:
        """A request has its answer."""

    def fault(self, error: Exception) -> None:
        """A request cannot be answered because of a fault of the program."""


class WebConversation(ABC):
    """One connection of the web port, while it speaks one protocol. All times are seconds of one monotonic clock."""

    __slots__ = (
        "_ending",
        "_follower",
        "_out",
        "_since",
        "_site",
        "_slow",
        "_starts_to_wait",
        "_was_out",
        "_watch",
        "besides",
        "more",
        "owe",
        "owed",
        "reads",
        "reason",
        "stage",
        "subject",
    )

    upgrade: Upgrade | StreamAnswer | None = None
    """What the connection goes on with."""

    is_put_off = False
    """Whether the last `take` has left a message to a later turn. `besides` has one for it, which the client does not pay."""

    owe: Callable[[Iterable[tuple[Line, Reply]]], None]
    owed: Sized

    def __init__(self, site: Site, watch: WebWatch, now: float) -> None:
        self.stage = Stage.OPEN
        self.reason = BY_CLIENT  # why it has ended, or will end
        self.reads = True  # whether the shell must read on
        self.more = False  # whether there may be something to take
        self.besides = 0  # requests and frames that the last `take` has read, and that need no line
        self.subject: bytes | None = None  # of the token that the latest request came with
        self._site = site
        self._watch = watch
        self._slow = SlowReader(site.limits.slow_reader_seconds)
        self._out: list[bytes] = []  # to be sent
        self._since = now  # of what is waited for
        self._starts_to_wait = False  # for something else than at the last check
        self._ending: Ending | None = None
        self._follower: Follower | None = None  # if the client follows something
        self._was_out = False

    @property
    def gone(self) -> bool:
        """Whether the client is no longer there to get answers."""
        return self.stage >= _LINGERING

    @property
    def is_blocked(self) -> bool:
        """Whether the client reads too slowly now."""
        return self._slow.since is not None

    @property
    def waits(self) -> bool:
        """Whether received bytes can still be taken, or are still to be answered."""
        return self.more or bool(self.owed)

    @abstractmethod
    def receive_data(self, data: bytes) -> None:
        """Put aside what arrived."""

    @abstractmethod
    def receive_eof(self) -> bool:
        """Note that the client has closed its sending half. Return whether the shell must keep its own half open."""

    @abstractmethod
    def take(self, most: int, now: float) -> list[Line]:
        """Return up to `most` lines to answer now."""

    @abstractmethod
    def answer(self, answers: list[bytes]) -> bytes:
        """Answer the lines that were taken, if no other answer is owed. Return the bytes to send."""

    @abstractmethod
    def release(self) -> tuple[OwedCommands, bytes]:
        """Send the answers that are ready, in order. Return their commands, and the bytes to send."""

    @abstractmethod
    def drain(self) -> None:
        """The server stops: close when everything received is answered."""

    @abstractmethod
    def give_up(self, reason: str) -> OwedCommands:
        """Close without the answers that are owed; return their commands."""

    @abstractmethod
    def check(self, now: float, unsent: int) -> None:
        """Close if the client is idle, or does not read. Call every few seconds; `unsent`: bytes that it has not
        received yet.
        """

    def check_unread(self, _: float) -> bool:
        """Close if the token with which this was begun is not good any more. Return whether that was so. Call it instead of
        `check` while nothing of the client is read because it is over its rate.
        """
        return False

    def push(self) -> bytes:
        """Return the bytes to send because something has changed that the client follows."""
        return b""

    def exceed(self) -> None:
        """Close when everything received is answered: the client asks too fast, for too long."""
        self.drain()

    def rest(self) -> bytes:
        """Return what has arrived for the protocol that the connection goes on with."""
        return b""

    def pause_writing(self, now: float) -> None:
        """Note that the client reads too slowly: take nothing of it for now."""
        self._slow.since = now
        self._push_with_a_look()

    def resume_writing(self) -> None:
        """Note that the client has caught up with reading."""
        self._slow.since = None
        self.more = True

    def lose(self, *, broken: bool) -> None:
        """Note that the connection has ended; `broken`: not by a close."""
        self.stage = Stage.CLOSED
        if self._follower is not None:
            self._follower.close()
        if broken and self.reason == BY_CLIENT:
            self.reason = "broken by client"

    def abort(self, reason: str) -> None:
        """Close at once."""
        self.reason = reason
        self._end(Stage.CLOSED, Ending.ABORT)

    def ending(self, _: float) -> Ending | None:
        """Return what to do with the connection, once, behind what `flush` returns then."""
        ending, self._ending = self._ending, None
        return ending

    def has_left(self, *, out: bool) -> bool:
        """Return whether a lingering connection can be aborted without loss; see `Conversation`."""
        has_left, self._was_out = out and self._was_out, out
        return has_left

    def flush(self) -> bytes:
        """Return the bytes to send."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def _refuse_token(self, grant: Grant | None) -> TokenRefusal | None:
        """Return why the token that grants this is not good any more, and tell it; None if it is, or none is needed."""
        access = self._site.routes.access
        if grant is None or access is None:
            return None
        if refusal := access.refusal(grant, self._site.date()):
            self._watch.refused(refusal)
        return refusal

    def _waited(self, now: float) -> float:
        """Return for how many seconds it has waited for the same, as far as checks have seen it."""
        if self._starts_to_wait:
            self._starts_to_wait, self._since = False, now
        return now - self._since

    def _push_with_a_look(self) -> None:
        """See what is told next before it is sent: there is a reason why it may not be."""
        if self._follower is not None:
            self._follower.send = None

    def _end(self, stage: Stage, ending: Ending) -> None:
        self.stage, self._ending = stage, ending
        self._push_with_a_look()
