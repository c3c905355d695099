"""A conversation of the web port without a server: a turn that answers each line by itself, and frames as clients send
them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import cache
from itertools import count
from typing import Any, Final

from proxyherd.config.schema import Limits
from proxyherd.core.area_queries import AreaQuery
from proxyherd.core.buckets import Allowance
from proxyherd.core.conversation import Ending
from proxyherd.core.follows.event import Event
from proxyherd.core.follows.follow import Follow, FollowReply, Unfollow
from proxyherd.core.follows.follower import Follower
from proxyherd.core.framing import Denied, Line, Overlong, spell_line
from proxyherd.core.messages import Forget
from proxyherd.core.reply import Reply
from proxyherd.server.clients.http_reader import BodyRoom, HttpReader
from proxyherd.web.access import Access, TokenRefusal
from proxyherd.web.bodies import LargeReads
from proxyherd.web.conversations.base import Site, WebConversation
from proxyherd.web.conversations.http import HttpConversation
from proxyherd.web.conversations.lines import LineSocket
from proxyherd.web.conversations.ops import JsonSocket
from proxyherd.web.conversations.streams import EventStream
from proxyherd.web.events import FRAME, frame_of
from proxyherd.web.follows import StreamAnswer
from proxyherd.web.lines import LineWriter
from proxyherd.web.origins import Origins
from proxyherd.web.requests import Headers
from proxyherd.web.rights import Grant
from proxyherd.web.routes import WebRoutes
from proxyherd.web.trackers.points import Reason

MOST: Final = 8
"""Lines that a turn takes of a client."""

ANSWER_SECONDS: Final = 20.0


def _clock() -> int:
    return 1_700_000_000 * 10**9


@cache
def site(**limits: int) -> Site:
    """Return what conversations share. Its clock stands still."""
    return site_with(None, _clock, **limits)


def site_with(access: Access | None, clock: Callable[[], int], **limits: int) -> Site:
    """Return what conversations share, for a port that needs tokens if there is an `access`."""
    writer = LineWriter(8_192)
    routes = WebRoutes(writer, Origins((), ("https://map.example",)), 0, access=access)
    numbers: dict[str, Any] = dict(limits)
    return Site(
        Limits(**numbers),
        routes,
        writer,
        clock,
        clock,
        ANSWER_SECONDS,
        lambda: 0.5,
        LargeReads(count().__next__),
    )


def answered(line: Line) -> bytes:
    """Return what the turn answers to a line."""
    if isinstance(line, Denied):
        return b"? " + spell_line(line)
    if isinstance(line, Overlong):
        return b"? too long"
    if isinstance(line, Forget):
        return b"GONE %032x 1" % len(line.client)
    if isinstance(line, AreaQuery | Follow | Unfollow):
        return b""
    words = line.split()
    if words[:1] == [b"IAMAT"]:
        return b"AT Clark +0.1 " + b" ".join(words[1:])
    if words[:1] == [b"WHATSAT"]:
        return b"AT Clark +0.1 %b +1+2 3\n{}\n" % words[1]
    return b"? %b" % line


class Nobody:
    """Has no connection to which anything could be pushed."""

    def push(self) -> None:
        raise AssertionError("nothing is followed")

    def fail(self) -> None:
        raise AssertionError("nothing can fail")


def no_follower() -> Follower:
    """Return what follows for nobody."""
    return Follower(Nobody())


def _stored(line: Line) -> Reply:
    return Reply("iamat", "denied" if isinstance(line, Denied) else "stored", None)


class Talk:
    """One conversation, with the turn that serves it. `holds`: lines get no answers until `let_go`; `at`: another site."""

    def __init__(
        self,
        make: Callable[[Site, Talk, float], WebConversation],
        *,
        holds: bool = False,
        at: Site | None = None,
        **limits: int,
    ) -> None:
        self._site = at or site(**limits)
        self.conversation = make(self._site, self, 0.0)
        self.refusals: list[TokenRefusal] = []
        self._sent: list[bytes] = []
        self.lines: list[tuple[str, Line]] = []  # with the protocol that was begun
        self.logged: list[tuple[str, Line]] = []  # likewise
        self.statuses: list[int] = []
        self.faults: list[Exception] = []
        self.used: dict[Reason, int] = {}
        self.endings: list[Ending] = []
        self.allowance: Allowance | None = None
        self.allowance_of: Callable[[bytes | None], Allowance | None] = lambda _: self.allowance
        self.waits: list[float] = []
        self.looks: list[float] = []
        self.upgrades = True
        self.turns = 0
        self.holds = holds
        self._via = ""
        self._held: list[tuple[Line, Reply]] = []
        self.followers: list[Follower] = []  # of what it has asked to follow, in order
        self._due: dict[Follower, None] = {}
        self.followed: Callable[[Follow | Unfollow], Reply] = self._followed

    @property
    def sent(self) -> bytes:
        """All that was sent."""
        return b"".join(self._sent)

    # What a conversation tells. ------------------------------------------------------------------------------

    def asker(self, headers: Headers, subject: bytes | None) -> Allowance | None:
        return self.allowance_of(subject)

    def begins(self, via: str, grant: Grant | None) -> None:
        self._via = via

    def refused(self, reason: TokenRefusal) -> None:
        self.refusals.append(reason)

    def wait(self, allowance: Allowance, seconds: float) -> None:
        self.waits.append(seconds)

    def come_again(self, seconds: float) -> None:
        self.looks.append(seconds)

    def may_upgrade(self) -> bool:
        return self.upgrades

    def consumed(self, via: str, reasons: Mapping[Reason, int]) -> None:
        self.used |= reasons

    def answered(self, status: int) -> None:
        self.statuses.append(status)

    def fault(self, error: Exception) -> None:
        self.faults.append(error)

    @property
    def write(self) -> Callable[[bytes], object]:
        return self._send

    def push(self) -> None:
        self._send(self.conversation.push())
        self.follow()

    def fail(self) -> None:
        raise AssertionError("its turn has raised")

    # What happens. -------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Let bytes arrive."""
        self.conversation.receive_data(data)

    def turn(self, now: float = 0.0) -> None:
        """Run one turn, as `Turn` does."""
        conversation = self.conversation
        self.turns += 1
        lines = conversation.take(MOST, now)
        self.lines += [(self._via, line) for line in lines]
        commands = [
            (line, self.followed(line) if isinstance(line, Follow | Unfollow) else _stored(line))
            for line in lines
        ]
        if commands and not self.holds and not conversation.owed:
            self._send(conversation.answer([answered(line) for line in lines]))
            self.logged += [(self._via, line) for line in lines]
        elif conversation.owed or commands:
            conversation.owe(commands)
            self._held += commands
            if self.holds:
                self._release()
            else:
                self.let_go()
        else:
            self._send(conversation.answer([]))
        self.follow()
        if self._due:
            self._due.clear()
            self.followers[-1].push()

    def _followed(self, line: Follow | Unfollow) -> Reply:
        self.followers.append(line.follower)
        line.follower.enlist(self._due, lambda _: None, lambda _, __: True)
        is_follow = isinstance(line, Follow)
        return FollowReply(
            *(("follow", "following") if is_follow else ("unfollow", "unfollowed")), complete=True
        )

    def tell(self, *events: Event) -> None:
        """Tell its latest follower, as an engine does, what others have been told already."""
        follower = self.followers[-1]
        for event in events:
            if follower.form == FRAME:
                frame_of(event)
            follower.tell((event,))
        follower.push()

    def let_go(self) -> None:
        """Answer all that was taken."""
        for line, reply in self._held:
            reply.answer = answered(line)
        self._held.clear()
        self._release()
        self.follow()

    def _release(self) -> None:
        released, data = self.conversation.release()
        self.logged += [(self._via, line) for line, _ in released]
        self._send(data)

    def run(self) -> None:
        """Run turns for as long as one has something to do."""
        while self.conversation.more:
            self.turn()

    def follow(self) -> None:
        """Do what the conversation wants with its connection."""
        ending = self.conversation.ending(0.0)
        self._send(self.conversation.flush())
        if ending is not None:
            self.endings.append(ending)
        if isinstance(head := self.conversation.upgrade, StreamAnswer):
            stream = EventStream(self._site, self, 0.0)
            stream.begin(head)
            self.conversation = stream
            self._send(stream.flush())

    def look(self, now: float, unsent: int = 0) -> None:
        """Check the conversation, as `Clients` does."""
        self.conversation.check(now, unsent)
        self.follow()

    def _send(self, data: bytes) -> None:
        self._sent.append(data)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()  # aiohttp's parser keeps it, and uses it for nothing here


def http(room: BodyRoom | None = None, *, at: Site | None = None, **limits: int) -> Talk:
    """Return a conversation in HTTP; `at`: another site."""
    reader = HttpReader(_loop(), room or BodyRoom())
    return Talk(
        lambda site, watch, now: HttpConversation(site, watch, reader, now),
        holds=False,
        at=at,
        **limits,
    )


def lines(*, holds: bool = False, at: Site | None = None, **limits: int) -> Talk:
    """Return a WebSocket that speaks lines."""
    return Talk(LineSocket, holds=holds, at=at, **limits)


def objects(*, holds: bool = False, at: Site | None = None, **limits: int) -> Talk:
    """Return a WebSocket that speaks JSON."""
    return Talk(JsonSocket, holds=holds, at=at, **limits)


def frame(data: bytes, opcode: int = 1, *, fin: bool = True) -> bytes:
    """Return a client's frame."""
    size = len(data)
    wide = b"" if size < 126 else size.to_bytes(2 if size < 1 << 16 else 8, "big")
    short = size if size < 126 else 126 if size < 1 << 16 else 127
    return bytes([(0x80 if fin else 0) | opcode, 0x80 | short]) + wide + bytes(4) + data


def messages(data: bytes) -> list[tuple[int, bytes]]:
    """Return the messages of a server: opcodes and payloads."""
    found = []
    while data:
        size, begin = data[1], 2
        if size > 125:
            begin = 4 if size == 126 else 10
            size = int.from_bytes(data[2:begin], "big")
        found.append((data[0] & 15, data[begin : begin + size]))
        data = data[begin + size :]
    return found


def answers(data: bytes) -> list[tuple[int, bytes]]:
    """Return a server's answers in HTTP: statuses and bodies."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields.get(b"content-length", b"0"))
        found.append((int(head.split()[1]), data[:size]))
        data = data[size:]
    return found


def request(
    method: str, target: str, body: bytes = b"", *headers: str, version: str = "1.1", host: bool = True
) -> bytes:
    """Return a request as bytes."""
    named = ["Host: localhost"] * host + [*headers]
    if body:
        named += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([f"{method} {target} HTTP/{version}", *named, "", ""]).encode() + body


def put(client: str) -> bytes:
    return request("PUT", f"/v1/clients/{client}", b'{"lat":1,"lon":2,"time":3}')


NOTHING = request("GET", "/nowhere")
LIST = request("GET", "/v1/openapi.json")
APP = request("GET", "/osmand?id=phone&lat=1&lon=2&timestamp=3")
UPGRADE = request(
    *("GET", "/v1/ws", b"", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: proxyherd.lines.v1"),
)
