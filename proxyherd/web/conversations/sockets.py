"""WebSockets as conversations: what both subprotocols have in common.

A silent client gets a ping, and is disconnected if it does not answer. A close frame is answered behind all that is
owed, from whichever side it comes; then the client is to close, and is disconnected if it does not.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import Final

from msgspec.structs import replace

from proxyherd.core.conversation import OPEN, Ending, Stage
from proxyherd.core.framing import Line
from proxyherd.web.access import TokenProblem
from proxyherd.web.conversations.base import (
    READ_AHEAD,
    SIGN_OF_LIFE_SECONDS,
    OwedCommands,
    Site,
    WebConversation,
    WebWatch,
)
from proxyherd.web.frames import (
    Code,
    FrameReader,
    Message,
    NoFrameReader,
    Opcode,
    WebSocketError,
    close_frame,
    code_of,
    frame,
)
from proxyherd.web.handshakes import Upgrade
from proxyherd.web.rights import Grant, permitted

PONG_SECONDS: Final = 10.0
"""How long a client may be silent after a ping."""

RESTART_TEXT: Final = "this server stops; connect again in 0.5 to 5 s, chosen at random, to any server"

_BAD_TOKEN: Final = "bad token"  # noqa: S105 - why a connection ends
OVER_RATE_TEXT: Final = "more was sent than the rates allow; send less, and answers tell when to send more"

_HALF_CLOSED: Final = Stage.HALF_CLOSED
_LINGERING: Final = Stage.LINGERING
_CLOSED: Final = Stage.CLOSED
"""For frequent steps: before Python 3.12, it takes ten times as long to read them from their class."""

_PING: Final = frame(Opcode.PING, b"")


class WebSocketConversation(WebConversation):
    """A connection that has become a WebSocket."""

    __slots__ = ("_code", "_frames", "_grant", "_held", "_is_heard", "_is_pinged", "_text", "is_put_off")

    def __init__(self, site: Site, watch: WebWatch, now: float) -> None:
        super().__init__(site, watch, now)
        self._grant: Grant | None = None  # of its token, if one is needed
        self._frames = FrameReader()
        self._held = deque[Message | WebSocketError]()  # in order; what cannot be taken in yet
        self._is_heard = False  # whether the client has sent anything since the last check
        self._is_pinged = False
        self.is_put_off = False
        self._code, self._text = int(Code.NORMAL), ""  # to close with

    # What a subprotocol does. --------------------------------------------------------------------------------

    @abstractmethod
    def _can_hear_message(self, one: Message) -> bool:
        """Return whether this message can be taken in now."""

    @abstractmethod
    def _hear_message(self, one: Message) -> None:
        """Take in a message."""

    def _hear_usual(self, _: int, __: list[bytes]) -> bool:
        """Take in messages with this opcode all at once, if that is cheaper, and can be done now. Return whether it was
        done.
        """
        return False

    @abstractmethod
    def _take(self, most: int, now: float) -> list[Line]:
        """Return lines of the messages to answer now."""

    @abstractmethod
    def _give_up(self, reason: str) -> OwedCommands:
        """Forget what is owed, and return its commands."""

    # Who may. ------------------------------------------------------------------------------------------------

    def begin(self, upgrade: Upgrade) -> None:
        """Note what the request has brought by which the WebSocket begins; close it if its token is not good."""
        self._grant = upgrade.grant
        if upgrade.refusal is not None:
            self.reason = _BAD_TOKEN
            self._close(Code.TOKEN, upgrade.refusal.detail)

    def _permitted(self, lines: list[Line]) -> list[Line]:
        return lines if self._grant is None else permitted(lines, self._grant)

    def check_token(self) -> bool:
        """Close if the token with which this was begun is not good any more. Return whether that was so."""
        if self._grant is None or self.stage is not OPEN or not (refusal := self._refuse_token(self._grant)):
            return False
        self._grant = replace(self._grant, may=frozenset())  # for what has arrived and was not taken
        self.reason = _BAD_TOKEN
        self._close_behind(Stage.DRAINING, Code.TOKEN, TokenProblem(refusal).detail)
        return True

    # What arrives. -------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Put aside what arrived."""
        self._is_heard = True
        if self.stage is not _HALF_CLOSED:
            if self._frames.receive(data) > READ_AHEAD:
                self.reads = False
            self.more = True

    def receive_eof(self) -> bool:
        """Note that the client has gone without a close frame. Return False: no end is half."""
        return False

    def lose(self, *, broken: bool) -> None:
        """Note that the connection has ended; `broken`: not by a close."""
        super().lose(broken=broken)
        self._held.clear()

    def take(self, most: int, now: float) -> list[Line]:
        """Return lines to answer now. Up to `most` frames are read for them."""
        self.more, self.besides, self.is_put_off = False, 0, False
        if self._slow.since is not None or self.stage is _CLOSED:
            return []
        if self._grant is not None:
            self.check_token()
        if self._held:
            self.more = self._frames.waiting > 0
        elif self.stage is not _HALF_CLOSED:
            self._read_frames(most)
        if self.stage >= _LINGERING:
            self._look_for_close()
            self._read_or_pause()
            return []
        while self._held and self._can_hear(self._held[0]):
            self._hear(self._held.popleft())
        if self._held:
            self.more = self.is_put_off  # otherwise when those before it are answered
        lines = self._take(most, now)
        self.besides = max(self.besides - len(lines), 0) + self.is_put_off
        if not self.reads or self.stage is not OPEN:
            self._read_or_pause()
        return lines

    def _read_frames(self, most: int) -> None:
        opcode, usual = self._frames.read_usual(most)
        self.besides = len(usual)
        if usual and not self._hear_usual(opcode, usual):
            self._held += [Message(opcode, one) for one in usual]
        if self._frames.waiting:
            self._read_others(most)

    def _read_others(self, most: int) -> None:
        frames = self._frames
        messages, self.more, error = frames.read(most - self.besides)
        self.besides = most if self.more else self.besides + len(messages) + frames.fragments
        frames.fragments = 0
        for one in messages:
            if one.opcode == Opcode.PING:
                if not self.gone:
                    self._out.append(frame(Opcode.PONG, one.data))
            elif one.opcode != Opcode.PONG:
                self._held.append(one)
        if error is not None:
            self._held.append(error)
            self._frames = NoFrameReader()

    def _can_hear(self, one: Message | WebSocketError) -> bool:
        return isinstance(one, WebSocketError) or one.opcode == Opcode.CLOSE or self._can_hear_message(one)

    def _hear(self, one: Message | WebSocketError) -> None:
        if isinstance(one, WebSocketError):
            self.reason = "bad WebSocket"
            self._close_behind(Stage.DRAINING, one.code, one.reason)
        elif one.opcode == Opcode.CLOSE:
            self._close_behind(Stage.HALF_CLOSED, code_of(one.data))
        else:
            self._hear_message(one)

    def _look_for_close(self) -> None:
        """Close if the client has answered the close frame."""
        if any(isinstance(one, Message) and one.opcode == Opcode.CLOSE for one in self._held):
            self._end(Stage.CLOSED, Ending.CLOSE)
        self._held.clear()

    def _read_or_pause(self) -> None:
        """Read no more than can be taken in; and nothing once it is known how this ends, up to the end."""
        is_full = self._frames.waiting > READ_AHEAD
        self.reads = self.stage is not Stage.DRAINING and not is_full

    # The clock, and the end. ---------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether received bytes can still be taken, or are still to be answered."""
        return super().waits or bool(self._held)

    def drain(self) -> None:
        """The server stops: take in no more, and close when everything received is answered."""
        self._stop("server stops", Code.RESTART, RESTART_TEXT)

    def exceed(self) -> None:
        """Close when everything received is answered: the client asks too fast, for too long."""
        self._stop("over its rate", Code.OVER_RATE, OVER_RATE_TEXT)

    def _stop(self, reason: str, code: int, text: str) -> None:
        if self.stage is Stage.OPEN:
            self.reason = reason
            self.stage, self._code, self._text = Stage.DRAINING, code, text
            self._push_with_a_look()
            self.reads = False
        self.more = True

    def give_up(self, reason: str) -> OwedCommands:
        """Close without the answers that are owed; return their commands."""
        unanswered = self._give_up(reason)
        if not self.gone:
            if self.stage is Stage.OPEN:
                self.reason, self._code = reason, Code.TRY_LATER
            self._close(self._code, self._text)
        return unanswered

    def check(self, now: float, unsent: int) -> None:
        """Close if the client does not read, or does not answer a ping. Call every few seconds; `unsent`: bytes that it
        has not received yet.
        """
        self.check_token()
        if self.gone:
            if unsent and self._slow.is_stuck(now, unsent):
                self.abort("slow reader")
        elif self._slow.since is not None:
            if self._slow.is_stuck(now, unsent):
                self.reason = "slow reader"
                self._close(Code.TOO_SLOW, "nothing was read for too long")
        else:
            self._look_for_life(now, is_read=self.reads)

    def check_unread(self, now: float) -> bool:
        """Close if the token is not good any more; otherwise let proxies know that the connection goes on. Return whether it
        was closed.
        """
        if self.check_token():
            return True
        if not self.gone and self._slow.since is None:
            self._look_for_life(now, is_read=False)
        return False

    def _look_for_life(self, now: float, *, is_read: bool) -> None:
        """Send a ping to a silent client; end if there is no pong, unless that may wait to be read."""
        if self._is_heard:
            self._is_heard, self._is_pinged, self._since = False, False, now
        elif self._is_pinged and is_read:
            if now - self._since > PONG_SECONDS:
                self.abort("no pong")
        elif now - self._since >= SIGN_OF_LIFE_SECONDS:
            self._is_pinged, self._since = is_read, now
            self._out.append(_PING)

    def ending(self, now: float) -> Ending | None:
        """Return what to do with the connection, once, behind what `flush` returns then."""
        if not self.waits and self._slow.since is None:
            if self.stage is Stage.HALF_CLOSED:
                self._out.append(close_frame(self._code))
                self._end(Stage.CLOSED, Ending.CLOSE)
            elif self.stage is Stage.DRAINING:
                self._close(self._code, self._text)
        return super().ending(now)

    def _close_behind(self, stage: Stage, code: int, text: str = "") -> None:
        """Close when everything before is answered."""
        self.stage, self._code, self._text = max(self.stage, stage), code, text
        self._push_with_a_look()
        self._held.clear()
        self.more = False

    def _close(self, code: int, text: str = "") -> None:
        """Send a close frame, and wait for the client's."""
        self._out.append(close_frame(code, text))
        self._held.clear()
        self.reads = True
        self._end(Stage.LINGERING, Ending.AWAIT_CLOSE)
