"""One client's conversation as a state machine: a line, an answer, in order. It has no socket and no clock; time is an
argument.

OPEN ------(the server stops, or an HTTP request)--> DRAINING --(all is answered)--> LINGERING --> CLOSED
OPEN, DRAINING ------(the client's end of stream)--> HALF_CLOSED --(all is answered)-------------> CLOSED

OPEN         Lines are taken, a limited number at once. Each gets one answer, in the order of the lines.
DRAINING     No more bytes are accepted. Complete lines received so far are answered.
HALF_CLOSED  The client has sent everything. All of it is answered, also a last line without LF.
LINGERING    This side has closed its sending half. What arrives is read and dropped: if a socket is closed with
             unread bytes, it is reset, and answers on their way are lost.
CLOSED       Nothing is taken or sent any more. Earlier answers still leave, unless the connection is aborted.

- `reads` is False beyond the read-ahead limit and after an HTTP request: only so much is received as can be answered.
- No lines are taken while the client reads too slowly, or while `max_answers_outstanding` answers are owed.
- A client that has been quiet when the server stops is closed at once: nothing of it can be on its way.
- A slow reader is aborted, and so is a client that is idle while no answer is owed.
- With TLS, the end of one direction ends both: the transport closes as soon as the client has closed.

The shell around it reads while `reads` is True, lets a turn take lines while `more` is True, and asks for the `ending`
after each call that may have caused one.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from proxyherd.config.schema import Limits
from proxyherd.core.framing import Line, LineFramer
from proxyherd.core.reply import Reply
from proxyherd.core.slow_reader import SlowReader

LINGER_SECONDS: Final = 0.5
"""How long the server reads a lingering client at least, unless the client closes too. A phone that has just lost its
network does not close. A restart takes that much longer. A client that has not received all its answers may take
longer."""

AWAIT_SECONDS: Final = 2.0
"""How long a client may take to close, where it must."""

LOOK_SECONDS: Final = 0.05
"""Between two checks whether all written bytes have left the process."""

_READ_AHEAD: Final = 65_536
"""Bytes received but not taken, beyond which no more are read; a longer line is still read to its end."""

_QUIET_SECONDS: Final = 2.0
"""How long after its last line a client counts as busy when the server stops."""

_UNFINISHED_SECONDS: Final = 5.0
"""How long a line may lack its LF before there is a log event. Packets of one line arrive sooner, even if they are lost
once or twice."""

BY_CLIENT: Final = "closed by client"


class Stage(enum.IntEnum):
    """The state of a conversation; it only moves down this list."""

    OPEN = 0
    DRAINING = 1
    HALF_CLOSED = 2
    LINGERING = 3
    CLOSED = 4


OPEN: Final = Stage.OPEN
_HALF_CLOSED: Final = Stage.HALF_CLOSED
_LINGERING: Final = Stage.LINGERING
"""For frequent steps: before Python 3.12, it takes ten times as long to read them from their class."""


class Ending(enum.Enum):
    """What the shell must do with its connection."""

    HALF_CLOSE = "close the sending half behind what was sent, and look now and then whether all has left"
    CLOSE = "close behind what was sent"
    AWAIT_CLOSE = "close at once, if the client has not closed in time"
    ABORT = "close at once"


class Conversation:
    """One connection of a client, from its first byte to its last. All times are seconds of one monotonic clock."""

    __slots__ = (
        "_asks",
        "_ending",
        "_framer",
        "_heard",
        "_limits",
        "_most_owed",
        "_read_ahead",
        "_slow",
        "_tls",
        "_unfinished_since",
        "_was_out",
        "more",
        "owed",
        "reads",
        "reason",
        "stage",
    )

    def __init__(self, limits: Limits, *, tls: bool, now: float) -> None:
        self.stage = Stage.OPEN
        self.reason = BY_CLIENT  # why it has ended, or will end
        self.owed: deque[tuple[Line, Reply]] = deque()
        self.reads = True  # whether the shell must read on
        self.more = False  # whether there may be lines to take
        self._limits = limits
        self._most_owed = limits.max_answers_outstanding
        self._tls = tls
        self._framer = LineFramer(limits.max_line_bytes, ends_at_http=True)
        self._read_ahead = max(_READ_AHEAD, 2 * limits.max_line_bytes)
        self._asks = False  # lines were taken that are neither answered nor in `owed`
        self._heard = now  # the last line
        self._slow = SlowReader(limits.slow_reader_seconds)
        self._unfinished_since = 0.0  # when a line without LF was first seen; infinity: the log has one
        self._ending: Ending | None = None
        self._was_out = False

    @property
    def gone(self) -> bool:
        """Whether the client is no longer there to get answers."""
        return self.stage >= Stage.LINGERING

    # What arrives. -------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Accept bytes that arrived."""
        if self.stage is OPEN:
            if self._framer.receive(data) > self._read_ahead:
                self.reads = False
            self.more = True

    def receive_eof(self) -> bool:
        """Note that the client has closed its sending half. Return whether the shell must keep its own half open, for
        answers.
        """
        stays = not self._tls and self.stage is not Stage.CLOSED
        if self.stage is Stage.LINGERING:
            self._end(Stage.CLOSED, Ending.CLOSE)
        elif self.stage < Stage.HALF_CLOSED:
            self.stage = Stage.HALF_CLOSED
        self.more = self.more or stays
        return stays

    def pause_writing(self, now: float) -> None:
        """Note that the client reads too slowly: take none of its lines for now."""
        self._slow.since = now

    def resume_writing(self) -> None:
        """Note that the client has caught up with reading."""
        self._slow.since = None
        self.more = True

    def lose(self, *, broken: bool) -> None:
        """Note that the connection has ended; `broken`: not by a close."""
        self.stage = Stage.CLOSED
        if broken and self.reason == BY_CLIENT:
            self.reason = "broken by client"

    # Lines and their answers. --------------------------------------------------------------------------------

    def take(self, most: int, now: float) -> list[Line]:
        """Return up to `most` lines to answer now, and the last one at the end of the stream."""
        self.more = False
        if self._slow.since is not None or self.stage >= _LINGERING:
            return []
        if self.owed or most > self._most_owed:
            most = min(most, self._most_owed - len(self.owed))
            if most <= 0:
                return []
        framer = self._framer
        lines: list[Any] = framer.lines(most)
        if len(lines) >= most:
            self.more = True
        elif self.stage is _HALF_CLOSED:
            lines += framer.end()
        if framer.ended:
            self._end_at_request()
        if lines:
            self._heard = now
            self._asks = True
        if not self.reads:
            self.reads = framer.waiting <= self._read_ahead and not framer.ended
        return lines

    def _end_at_request(self) -> None:
        self.reads = False
        self.stage = max(self.stage, Stage.DRAINING)
        if self.reason == BY_CLIENT:
            self.reason = "HTTP request"

    def answer(self, answers: list[bytes]) -> bytes:
        """Answer the lines that were taken, if no other answer is owed. Return the bytes to send."""
        self._asks = False
        if not answers or self.stage >= _LINGERING:
            return b""
        return b"\n".join(answers) + b"\n"

    def owe(self, commands: Iterable[tuple[Line, Reply]]) -> None:
        """Note the lines that were taken, whose answers are in their replies now or later."""
        self.owed.extend(commands)
        self._asks = False

    def release(self) -> tuple[list[tuple[Line, Reply]], bytes]:
        """Send the answers that are ready, in order. Return their commands, and the bytes to send.

        Answers to a client that has left are returned too: its commands were executed, and must be logged.
        """
        owed = self.owed
        answers: list[bytes] = []
        for _, reply in owed:
            if reply.answer is None:
                break
            answers.append(reply.answer)
        released = [owed.popleft() for _ in answers]
        if not answers or self.stage >= _LINGERING:
            return released, b""
        if len(owed) + len(answers) >= self._most_owed:
            self.more = True  # there was no room
        answers.append(b"")
        return released, b"\n".join(answers)

    # The clock, and the end. ---------------------------------------------------------------------------------

    def drain(self) -> None:
        """The server stops: accept no more, and close when everything received is answered."""
        self.stage = max(self.stage, Stage.DRAINING)
        self.reason = "server stops"
        self.more = True

    def give_up(self, reason: str) -> list[tuple[Line, Reply]]:
        """Close without the answers that are owed; return their commands."""
        unanswered = list(self.owed)
        self.owed.clear()
        closes = self._tls and self.stage is Stage.HALF_CLOSED
        if self.stage < Stage.LINGERING and not closes:
            self.reason = reason
            self._linger()
        return unanswered

    def abort(self, reason: str) -> None:
        """Close at once."""
        self.reason = reason
        self._end(Stage.CLOSED, Ending.ABORT)

    def check(self, now: float, unsent: int) -> tuple[int, float] | None:
        """Abort if the client is idle or does not read; `unsent`: bytes that it has not received yet. Call a few times
        within each of the limits.

        If a line has waited long for its LF, return its bytes and seconds, once: its client may wait for an answer.
        """
        if self._slow.since is not None:
            if self._slow.is_stuck(now, unsent):
                self.abort("slow reader")
        elif not self.waits and now - self._heard > self._limits.idle_seconds:
            self.abort("idle")
        elif (size := self._framer.waiting) and not self.waits:
            if self._heard > self._unfinished_since:
                self._unfinished_since = now
            elif (waited := now - self._unfinished_since) >= _UNFINISHED_SECONDS:
                self._unfinished_since = float("inf")
                return size, waited
        return None

    def ending(self, now: float) -> Ending | None:
        """Return what to do with the connection now, once. Call after sending what was to be sent."""
        if not self.waits and not (self._slow.since is not None and self._framer.waiting):
            if self.stage is Stage.HALF_CLOSED:
                self._end(Stage.CLOSED, Ending.CLOSE)
            elif self.stage is Stage.DRAINING:
                if self.reads and not self._tls and now - self._heard > _QUIET_SECONDS:
                    self._end(Stage.CLOSED, Ending.CLOSE)
                else:
                    self._linger()
        ending, self._ending = self._ending, None
        return ending

    def has_left(self, *, out: bool) -> bool:
        """Return whether a lingering connection can be aborted without loss, because the system delivers the rest. Call
        every LOOK_SECONDS; `out`: whether nothing waits in this process.
        """
        # Twice: if a socket has only just begun to accept bytes again, the buffer below TLS may not be empty yet.
        has_left, self._was_out = out and self._was_out, out
        return has_left

    @property
    def waits(self) -> bool:
        """Whether received bytes can still be taken, or are still to be answered."""
        return self.more or self._asks or bool(self.owed)

    def _linger(self) -> None:
        self.reads = True
        self._end(Stage.LINGERING, Ending.HALF_CLOSE)

    def _end(self, stage: Stage, ending: Ending) -> None:
        self.stage, self._ending = stage, ending
