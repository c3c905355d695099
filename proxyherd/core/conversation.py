"""One client's conversation as a state machine: a line, an answer, in order. No socket and no clock; time is an argument.

OPEN ------(the server stops, or an HTTP request)--> DRAINING --(all is answered)--> LINGERING --> CLOSED
OPEN, DRAINING ------(the client's end of stream)--> HALF_CLOSED --(all is answered)-------------> CLOSED

OPEN         Lines are taken, a bounded number at once, and each gets one answer, in the order of the lines.
DRAINING     Nothing more is heard. The lines received until then are answered, one without its LF is not.
HALF_CLOSED  The client has said all. Everything received is answered, also a last line without its LF.
LINGERING    This side has closed its sending half. What arrives is read and dropped, for a socket that is closed with
             bytes unread is reset, and takes the answers with it that are under way.
CLOSED       Nothing is taken or sent any more. What was sent before still leaves, unless the connection is aborted.

- Only so much is received as can be answered: past the read-ahead, and behind an HTTP request, `reads` is False.
- Nothing is taken while the client reads too slowly, or while `max_answers_outstanding` answers are owed.
- Who has been quiet when the server stops is closed at once: nothing of it can be under way.
- A slow reader, and a client that is idle while nothing waits for an answer, is aborted.
- Inside TLS, the end of one direction is the end of both: the transport closes as soon as the client has.

The shell around it reads while `reads` says so, lets a turn take lines while `more` says so, and asks for the `ending`
after each call that may have brought one.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from typing import Final

from proxyherd.config.schema import Limits
from proxyherd.core.framing import LineFramer, Overlong
from proxyherd.core.reply import Reply

LINGER_SECONDS: Final = 0.5
"""How long a lingering client is read, at least, unless it closes too. A phone that has just lost its network closes
nothing, and until the server has gone and come back nobody is let in. Who has not taken all its answers keeps its time."""

LOOK_SECONDS: Final = 0.05
"""Between two looks at whether all that was written has left the process."""

_READ_AHEAD: Final = 65_536
"""Bytes received and not yet taken past which no more are read; more where a line may be longer."""

_QUIET_SECONDS: Final = 2.0
"""How long after its last line a client is taken for busy when the server stops."""

_UNFINISHED_SECONDS: Final = 5.0
"""How long a line may stand without its LF before the log has an event. Packets of one line come sooner, also those that
were lost on the way once or twice."""

_BY_CLIENT: Final = "closed by client"


class Stage(enum.IntEnum):
    """Where a conversation stands; it only ever moves down this list."""

    OPEN = 0
    DRAINING = 1
    HALF_CLOSED = 2
    LINGERING = 3
    CLOSED = 4


class Ending(enum.Enum):
    """What the shell is to do to its connection."""

    HALF_CLOSE = "close the sending half behind what was sent, and look now and then whether all has left"
    CLOSE = "close behind what was sent"
    ABORT = "close at once"


class Conversation:
    """One connection of a client, from its first byte to its last. All times are seconds of one monotonic clock."""

    __slots__ = (
        "_asks",
        "_blocked_since",
        "_ending",
        "_framer",
        "_heard",
        "_limits",
        "_read_ahead",
        "_tls",
        "_unfinished_since",
        "_unsent",
        "_was_out",
        "more",
        "owed",
        "reads",
        "reason",
        "stage",
    )

    def __init__(self, limits: Limits, *, tls: bool, now: float) -> None:
        self.stage = Stage.OPEN
        self.reason = _BY_CLIENT  # why it has ended, or will have
        self.owed: deque[tuple[bytes | Overlong, Reply]] = deque()
        self.reads = True  # whether the shell is to read on
        self.more = False  # whether something may be there to be taken
        self._limits = limits
        self._tls = tls
        self._framer = LineFramer(limits.max_line_bytes, ends_at_http=True)
        self._read_ahead = max(_READ_AHEAD, 2 * limits.max_line_bytes)
        self._asks = False  # lines were taken, and are neither answered nor owed an answer yet
        self._heard = now  # the last line
        self._blocked_since: float | None = None  # the client has been reading too slowly
        self._unsent = 0  # bytes, when last looked at
        self._unfinished_since = 0.0  # when a line without LF was first seen; infinity: the log has one
        self._ending: Ending | None = None
        self._was_out = False

    @property
    def gone(self) -> bool:
        """Whether nobody is there any more to be answered."""
        return self.stage >= Stage.LINGERING

    # What arrives. -------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take in what arrived."""
        if self.stage is Stage.OPEN:
            if self._framer.receive(data) > self._read_ahead:
                self.reads = False
            self.more = True

    def receive_eof(self) -> bool:
        """The client has closed its sending half. Return whether the shell keeps its own open, for answers."""
        stays = not self._tls and self.stage is not Stage.CLOSED
        if self.stage is Stage.LINGERING:
            self._end(Stage.CLOSED, Ending.CLOSE)
        elif self.stage < Stage.HALF_CLOSED:
            self.stage = Stage.HALF_CLOSED
        self.more = self.more or stays
        return stays

    def pause_writing(self, now: float) -> None:
        """The client reads too slowly: take none of its lines for now."""
        self._blocked_since = now

    def resume_writing(self) -> None:
        """The client has caught up with reading."""
        self._blocked_since = None
        self.more = True

    def lose(self, *, broken: bool) -> None:
        """The connection is no more; `broken`: not by a close."""
        self.stage = Stage.CLOSED
        if broken and self.reason == _BY_CLIENT:
            self.reason = "broken by client"

    # Lines and their answers. --------------------------------------------------------------------------------

    def take(self, most: int, now: float) -> list[bytes | Overlong]:
        """Return up to `most` lines to answer now, and one more at the end of the stream."""
        self.more = False
        if self._blocked_since is not None or self.stage >= Stage.LINGERING:
            return []
        room = self._limits.max_answers_outstanding - len(self.owed)
        if room < most:
            most = room
            if room <= 0:
                return []
        framer = self._framer
        lines = framer.lines(most)
        if len(lines) >= most:
            self.more = True
        elif self.stage is Stage.HALF_CLOSED:
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
        if self.reason == _BY_CLIENT:
            self.reason = "HTTP request"

    def answer(self, answers: list[bytes]) -> bytes:
        """Answer what was taken, where nothing else is owed. Return what is to be sent."""
        self._asks = False
        if not answers or self.stage >= Stage.LINGERING:
            return b""
        return b"\n".join([*answers, b""])

    def owe(self, commands: Iterable[tuple[bytes | Overlong, Reply]]) -> None:
        """Take note of what was taken, whose answers stand in their replies, or will."""
        self.owed.extend(commands)
        self._asks = False

    def release(self) -> tuple[list[tuple[bytes | Overlong, Reply]], bytes]:
        """Let out the answers that are there, in order: return their commands, and what is to be sent.

        Those to a client that has gone are returned too: what it asked for was done, and the log tells it.
        """
        owed = self.owed
        answers: list[bytes] = []
        for _, reply in owed:
            if reply.answer is None:
                break
            answers.append(reply.answer)
        released = [owed.popleft() for _ in answers]
        if not answers or self.stage >= Stage.LINGERING:
            return released, b""
        if len(owed) + len(answers) >= self._limits.max_answers_outstanding:
            self.more = True  # there was no room
        answers.append(b"")
        return released, b"\n".join(answers)

    # The clock, and the end. ---------------------------------------------------------------------------------

    def drain(self) -> None:
        """The server stops: hear no more, and end when all that was received is answered."""
        self.stage = max(self.stage, Stage.DRAINING)
        self.reason = "server stops"
        self.more = True

    def give_up(self, reason: str) -> list[tuple[bytes | Overlong, Reply]]:
        """End without the answers that are owed; return their commands."""
        unanswered = list(self.owed)
        self.owed.clear()
        closes = self._tls and self.stage is Stage.HALF_CLOSED
        if self.stage < Stage.LINGERING and not closes:
            self.reason = reason
            self._linger()
        return unanswered

    def abort(self, reason: str) -> None:
        """End at once."""
        self.reason = reason
        self._end(Stage.CLOSED, Ending.ABORT)

    def check(self, now: float, unsent: int) -> tuple[int, float] | None:
        """Abort where the client is idle or does not read; `unsent`: bytes that it has yet to take. Call a few times
        within each of the limits.

        Return bytes and seconds of a line that has waited for its LF for long, once: its client may wait for an answer.
        """
        if self._blocked_since is not None:
            if unsent < self._unsent:
                self._blocked_since = now
            self._unsent = unsent
            if now - self._blocked_since > self._limits.slow_reader_seconds:
                self.abort("slow reader")
        elif not self._waits and now - self._heard > self._limits.idle_seconds:
            self.abort("idle")
        elif (size := self._framer.waiting) and not self._waits:
            if self._heard > self._unfinished_since:
                self._unfinished_since = now
            elif (waited := now - self._unfinished_since) >= _UNFINISHED_SECONDS:
                self._unfinished_since = float("inf")
                return size, waited
        return None

    def ending(self, now: float) -> Ending | None:
        """Return what is to be done to the connection now, once. Call when what is to be sent was sent."""
        if not self._waits and not (self._blocked_since is not None and self._framer.waiting):
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
        """Return whether a lingering connection is to be aborted, which cuts nothing off: the system delivers the rest.
        Call every LOOK_SECONDS; `out`: whether nothing waits in this process.
        """
        # Twice: of a socket that takes more only since a moment ago, the buffer below TLS may not be empty yet.
        has_left, self._was_out = out and self._was_out, out
        return has_left

    @property
    def _waits(self) -> bool:
        """Whether something received may yet be taken, or is yet to be answered."""
        return self.more or self._asks or bool(self.owed)

    def _linger(self) -> None:
        self.reads = True
        self._end(Stage.LINGERING, Ending.HALF_CLOSE)

    def _end(self, stage: Stage, ending: Ending) -> None:
        self.stage, self._ending = stage, ending
