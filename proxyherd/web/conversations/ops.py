"""The subprotocol `proxyherd.json.v1`: each message is an object, and gets one answer, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxyherd.core.framing import Line
from proxyherd.core.reply import Reply
from proxyherd.web.answers import WebAnswer
from proxyherd.web.conversations.base import OwedCommands, Site, WebWatch
from proxyherd.web.conversations.sockets import WebSocketConversation
from proxyherd.web.exchanges import Exchanges, WebExchange
from proxyherd.web.frames import Message, Opcode, message
from proxyherd.web.ops import Op, read_op


class JsonSocket(WebSocketConversation):
    """A WebSocket that speaks JSON."""

    __slots__ = ()

    owed: Exchanges

    def __init__(self, site: Site, watch: WebWatch, now: float) -> None:
        super().__init__(site, watch, now)
        self.owed = Exchanges()
        self.owe = self.owed.owe

    def _can_hear_message(self, _: Message) -> bool:
        return len(self.owed) < self._site.limits.max_answers_outstanding

    def _hear_message(self, one: Message) -> None:
        site = self._site
        op = read_op(one.data, site.clock(), site.writer, site.routes.server)
        lines = self._permitted([op.line] if op.line is not None else [])
        self.owed.add(WebExchange("websocket", lines, _finish(op)))

    def _take(self, most: int, _: float) -> list[Line]:
        lines = self.owed.take(most)
        if self.owed.more:
            self.more = True
        self._send_finished()
        return lines

    def answer(self, _: list[bytes]) -> bytes:
        """Return what is to be sent. Answers come with their replies, by `owe`."""
        return self.flush()

    def release(self) -> tuple[OwedCommands, bytes]:
        """Send the answers that are complete. Return their commands, and the bytes to send."""
        released = self.owed.release()
        self._send_finished()
        return released, self.flush()

    def _send_finished(self) -> None:
        finished = self.owed.finished()
        if finished and self._held:
            self.more = True  # there was no room for it
        if not self.gone:
            self._out += [message(Opcode.TEXT, one.finish(one.replies).body) for one in finished]

    def _give_up(self, _: str) -> OwedCommands:
        return self.owed.give_up()


def _finish(op: Op) -> Callable[[Sequence[Reply]], WebAnswer]:
    return lambda replies: WebAnswer(200, op.content(replies[0] if replies else None))
