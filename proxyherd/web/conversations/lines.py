"""The subprotocol `proxyherd.lines.v1`: the line protocol, in messages.

A message holds one or more lines, and its end ends a line. An answer is a message of the same kind, text or binary, as
what it answers. So a message of the other kind waits until all before it are answered.
"""

from __future__ import annotations

from proxyherd.core.conversation import OPEN, Conversation, Stage
from proxyherd.core.framing import Line
from proxyherd.web.conversations.base import OwedCommands, Site, WebWatch
from proxyherd.web.conversations.sockets import WebSocketConversation
from proxyherd.web.frames import Code, Message, Opcode, message


class LineSocket(WebSocketConversation):
    """A WebSocket that speaks the line protocol."""

    __slots__ = ("_kind", "_lines")

    def __init__(self, site: Site, watch: WebWatch, now: float) -> None:
        super().__init__(site, watch, now)
        self._lines = Conversation(site.limits, tls=True, now=now)  # as there, no end is half
        self.owe, self.owed = self._lines.owe, self._lines.owed
        self._kind = int(Opcode.TEXT)  # of the messages that are answered now

    @property
    def waits(self) -> bool:
        """Whether received bytes can still be taken, or are still to be answered."""
        return super().waits or self._lines.waits

    def _can_hear_message(self, one: Message) -> bool:
        return self._lines.reads and (one.opcode == self._kind or not self._lines.waits)

    def _hear_usual(self, opcode: int, payloads: list[bytes]) -> bool:
        lines = self._lines
        if not lines.reads or (opcode != self._kind and lines.waits):
            return False
        self._kind = opcode
        payloads.append(b"")
        data = b"\n".join(payloads)
        if b"\n\n" in data or data.startswith(b"\n"):  # some were empty, or had an end already
            data = b"".join([one if one.endswith(b"\n") else one + b"\n" for one in payloads if one])
        if data:
            lines.receive_data(data)
        return True

    def _hear_message(self, one: Message) -> None:
        self._kind, data = one
        if data:
            self._lines.receive_data(data if data.endswith(b"\n") else data + b"\n")

    def _take(self, most: int, now: float) -> list[Line]:
        lines = self._lines.take(most, now)
        if self._lines.more:
            self.more = True
        if self._lines.stage is not OPEN and self.stage is OPEN:
            self.reason = self._lines.reason  # an HTTP request
            self._close_behind(Stage.DRAINING, Code.RULE_BROKEN)
        return self._permitted(lines)

    def answer(self, answers: list[bytes]) -> bytes:
        """Answer the lines that were taken, if no other answer is owed. Return the bytes to send."""
        return self._sent(self._lines.answer(answers))

    def release(self) -> tuple[OwedCommands, bytes]:
        """Send the answers that are ready, in order. Return their commands, and the bytes to send."""
        released, data = self._lines.release()
        if self._lines.more and self._can_take:
            self.more = True
        return released, self._sent(data)

    @property
    def _can_take(self) -> bool:
        """Whether `take` may take something. Otherwise turns would ask it again and again."""
        return self._slow.since is None and not self.gone

    def _sent(self, data: bytes) -> bytes:
        if self._held and not self._lines.waits and self._can_take:
            self.more = True  # a message of the other kind has waited for this
        if data and not self.gone:
            if not self._out:
                return message(self._kind, data)
            self._out.append(message(self._kind, data))
        return self.flush()

    def _give_up(self, reason: str) -> OwedCommands:
        return self._lines.give_up(reason)
