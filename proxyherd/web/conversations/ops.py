"""The subprotocol `proxyherd.json.v1`: each message is an object, and gets one answer, in order.

A follow begins when all messages before it are answered. So its own answer comes before its events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxyherd.core.conversation import OPEN
from proxyherd.core.follows.follow import Follow
from proxyherd.core.follows.follower import Follower
from proxyherd.core.framing import Line
from proxyherd.core.reply import Reply
from proxyherd.web.answers import WebAnswer
from proxyherd.web.bodies import LARGE_BYTES, work_of_text
from proxyherd.web.conversations.base import OwedCommands, Site, WebWatch
from proxyherd.web.conversations.sockets import WebSocketConversation
from proxyherd.web.events import FRAME, frames_of
from proxyherd.web.exchanges import Exchanges, WebExchange
from proxyherd.web.frames import Code, Message, Opcode, message
from proxyherd.web.ops import Op, read_op


class JsonSocket(WebSocketConversation):
    """A WebSocket that speaks JSON."""

    __slots__ = ("_is_follow_next", "_most_owed")

    owed: Exchanges

    def __init__(self, site: Site, watch: WebWatch, now: float) -> None:
        super().__init__(site, watch, now)
        self.owed = Exchanges()
        self.owe = self.owed.owe
        self._is_follow_next = False  # of what cannot be taken in yet
        self._most_owed = site.limits.max_answers_outstanding

    def _can_hear_message(self, one: Message) -> bool:
        if self.owed if self._is_follow_next else len(self.owed) >= self._most_owed:
            return False
        self.is_put_off = len(one.data) > LARGE_BYTES and not self._site.large.may_read(self)
        return not self.is_put_off

    def _hear_message(self, one: Message) -> None:
        site = self._site
        op = read_op(one.data, site.clock(), site.writer, site.routes.server, self._own_follower)
        work = work_of_text(len(one.data))
        if isinstance(op.line, Follow):
            work = max(work, len(op.line.clients[1:]))  # as much work as so many messages
        if not self._is_follow_next:  # else that was done when it was read first
            self.besides += work
        self._is_follow_next = isinstance(op.line, Follow) and bool(self.owed)
        if self._is_follow_next:
            self._held.appendleft(one)
            return
        lines = self._permitted([op.line] if op.line is not None else [])
        self.owed.add(WebExchange("websocket", lines, _finish(op)))

    def _own_follower(self) -> Follower:
        if self._follower is None:
            self._follower = Follower(self._watch)
            self._follower.form = FRAME
        return self._follower

    def _take(self, most: int, _: float) -> list[Line]:
        lines = self.owed.take(most)
        if self.owed.more:
            self.more = True
        self._send_finished()
        if self._follower is not None:
            self._follower.resume()  # the client reads, perhaps again
        return lines

    def push(self) -> bytes:
        """Return the events to send: none while the client reads too slowly."""
        follower = self._follower
        if follower is None:
            return b""
        if self._grant is not None:
            self.check_token()
        if self.stage is not OPEN:
            follower.close()
        elif self._slow.since is None:
            if self._grant is None:  # else it is looked at each time
                follower.send = self._watch.write
            return frames_of(follower.take())
        elif follower.is_too_slow:
            self.reason = "slow reader"
            self._close(Code.TOO_SLOW, "too much has changed while nothing was read")
        return b""

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
