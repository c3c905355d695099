"""Clients of the web port: with the real conversations in HTTP, and over WebSockets in lines and in JSON.

What they want is spelled from the lines that a client of the line protocol would say, and what they hear is held to the
same laws. Besides, the server must take exactly these lines, in order; answer each request once, in order, with what the
log says; and leave nothing unanswered when it closes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from proxyherd.core.buckets import Allowance
from proxyherd.core.conversation import AWAIT_SECONDS, Ending, Stage
from proxyherd.core.framing import Line
from proxyherd.core.messages import Forget
from proxyherd.server.clients.http_reader import BodyRoom, HttpReader
from proxyherd.web.bodies import LargeReads
from proxyherd.web.conversations.base import Site, WebConversation
from proxyherd.web.conversations.http import HttpConversation
from proxyherd.web.conversations.lines import LineSocket
from proxyherd.web.conversations.ops import JsonSocket
from proxyherd.web.frames import Code, Opcode
from proxyherd.web.lines import LineWriter
from proxyherd.web.origins import Origins
from proxyherd.web.routes import WebRoutes
from simulation.clients import NO_PLACES, PLACES, SimulatedClient

if TYPE_CHECKING:
    from proxyherd.web.access import TokenRefusal
    from proxyherd.web.requests import Headers
    from proxyherd.web.rights import Grant
    from simulation.servers import Server

_WRITER: Final = LineWriter(8_192)
_OUTCOMES: Final = {None: "answered", 404: "unknown", 503: "refused"}
"""Of questions and refused reports, by the status of a problem."""

_AT_ONCE: Final = ("put", "erase", "erase before")
"""What never waits for others, so that 503 says that it is refused."""

_decode = msgspec.json.decode


@cache
def _routes() -> WebRoutes:
    return WebRoutes(_WRITER, Origins(), 0.0)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()  # aiohttp's parser keeps it, and uses it for nothing here


class WebAsked(NamedTuple):
    """A request or a message: how it was asked, and its lines; None for what becomes none."""

    how: str
    lines: Sequence[Line | None]
    number: int = 0


class WebClient(SimulatedClient):
    """One connection to the web port."""

    conversation: WebConversation

    def __init__(self, server: Server, name: str, conversation: WebConversation) -> None:
        super().__init__(server, name, conversation)
        self.asked: deque[WebAsked] = deque()  # and not answered
        self.to_take: deque[Line] = deque()
        self.told: deque[tuple[bytes, str]] = deque()  # answers that it has heard, and the log has not told
        self.logged: deque[tuple[bytes, str]] = deque()  # likewise the other way round
        self.given_up = False

    @property
    def besides(self) -> int:
        return self.conversation.besides

    @property
    def waits(self) -> bool:
        return not self.gone and (bool(self.asked) or self.conversation.more)

    # What it asks. -------------------------------------------------------------------------------------------

    def ask(self, asked: Sequence[Any]) -> None:
        self.asked.extend(asked)
        self.to_take.extend(line for one in asked for line in one.lines if line is not None)

    def take(self, most: int, now: float) -> list[Line]:
        lines = super().take(most, now)
        for line in lines:
            if not self.to_take or self.to_take.popleft() != line:
                self._server.world.broken(
                    f"{self._server.name} takes {line!r}, which {self.name} has not asked"
                )
        return lines

    # What it hears. ------------------------------------------------------------------------------------------

    def answer(self, answers: list[bytes]) -> None:
        super().answer(answers)
        if self.conversation.more:
            self._server.turn.client_said(self)

    def _follow(self) -> None:
        ending = self.conversation.ending(self._server.now)
        self._hear_all(self.conversation.flush())
        if ending is None:
            return
        if self.asked and not self._server.stops and not self.lost:
            self._server.world.broken(
                f"{self._server.name} closes, and {self.name} waits for {self.asked[0]}"
            )
        if ending is Ending.AWAIT_CLOSE:
            self._server.later(self._server.world.rng.uniform(0, AWAIT_SECONDS), self.close)
        else:
            self._lose_after(ending)

    def close(self) -> None:
        """Answer a close frame."""
        self.lose(broken=False)

    def _hear(self, data: bytes) -> None:
        self._hear_all(data)
        if self.conversation.stage is not Stage.OPEN:
            self._follow()

    def _hear_all(self, data: bytes) -> None:
        while data and not self.lost:
            data = self._hear_some(data)

    def _hear_some(self, data: bytes) -> bytes:
        """Hear one answer, or one frame; return what is behind it."""
        raise NotImplementedError

    def _next(self, what: object) -> WebAsked:
        if not self.asked:
            self._server.world.broken(f"{self.name} hears {what!r}, and has asked for nothing")
        if self._server.world.trace is not None:
            self._server.world.say(f"{self.name} hears {what!r}")
        return self.asked.popleft()

    def _hear_answer(self, asked: WebAsked, line: Line | None, answer: dict[str, Any]) -> None:
        """Hear the answer to one line, or to what became none: a document, or a problem."""
        server, status = self._server, answer.get("status")
        outcome = str(answer.get("outcome", _OUTCOMES.get(status)))
        if "erased_at" in answer:
            outcome = "stayed" if "stayed" in answer else "erased"
        server.laws.ways[f"{asked.how}: {'problem' if line is None else outcome}"] += 1
        if line is None:
            if status not in (400, 404, 422):
                server.world.broken(f"{self.name} is answered {answer} to {asked}")
            return
        if not self.unanswered:
            server.world.broken(f"{self.name} is answered {answer}, and {line!r} was not taken")
        taken, least = self.unanswered.popleft()
        if isinstance(taken, Forget):
            self._hear_erasure(taken, outcome, answer)
        elif status is None:
            assert isinstance(taken, bytes)
            at = str(answer.get("at")).encode()
            server.laws.told(server, taken, at, least)
            self.told.append((at, outcome))
        else:
            assert isinstance(taken, bytes)
            self.told.append((b"? " + taken, outcome))
        server.answered.append(self)
        self._compare()

    def _hear_erasure(self, command: Forget, outcome: str, answer: dict[str, Any]) -> None:
        if outcome == "refused":
            self.told.append((b"? ", outcome))
            return
        whole, fraction = str(answer["erased_at"]).split(".")
        line = self._server.table.tombstone(command.client, int(whole + fraction)).line
        self._server.laws.erasures.answered(self._server, command, line)
        self.told.append((line, outcome))

    # What the log says. --------------------------------------------------------------------------------------

    @property
    def unlogged_answers(self) -> bool:
        return bool(self.told)

    def log(self, line: Line, outcome: str, answer: bytes | None) -> None:
        """The log tells of an answer. That of a batch comes when all of its lines have one."""
        self.logged.append(((answer or b"").partition(b"\n")[0], outcome))
        self._compare()

    def _give_up(self, asked: WebAsked) -> None:
        """Hear that a server that stops cannot answer a request any more, whatever became of some of its lines."""
        if not self._server.stops:
            self._server.world.broken(f"{self._server.name} gives {asked} up, and does not stop")
        self.given_up = True
        self.asked.clear()
        self.told.clear()

    def _compare(self) -> None:
        while self.told and self.logged and not self.given_up:
            told, logged = self.told.popleft(), self.logged.popleft()
            if told != logged:
                self._server.world.broken(f"{self._server.name} logs {logged}, and has answered {told}")


class HttpClient(WebClient):
    """Requests in HTTP, several at a time: PUT, batches, questions, and what is not served."""

    def __init__(self, server: Server, name: str) -> None:
        reader = HttpReader(_loop(), BodyRoom())
        super().__init__(server, name, HttpConversation(site(server), Watch(server), reader, server.now))

    def spell(self, lines: Sequence[bytes]) -> tuple[bytes, Sequence[Any]]:
        rng, rest, requests, asked = self._server.world.rng, deque(lines), [], []
        while rest:
            line = rest.popleft()
            word, client, *more = line.split(b" ")
            if word == b"FORGET":
                target = b"/v1/clients/%b" % client + (b"?before=%b" % more[0] if more else b"")
                requests.append(request(b"DELETE", target))
                before = int(more[0].replace(b".", b"")) if more else None
                asked.append(WebAsked("erase before" if more else "erase", [Forget(client, before)]))
            elif word == b"IAMAT" and rng.random() < 0.5:
                batch: list[bytes | None] = [line]
                while rest and rest[0].startswith(b"IAMAT"):
                    batch.append(rest.popleft())
                if rng.random() < 0.2:
                    batch.insert(rng.randint(0, len(batch)), None)
                objects = [
                    b'{"client":"","lat":1,"lon":2}' if one is None else b"{%b}" % report(one)
                    for one in batch
                ]
                requests.append(request(b"POST", b"/v1/reports", b"[%b]" % b",".join(objects)))
                asked.append(WebAsked("batch", batch))
            elif word == b"IAMAT":
                body = b"{%b}" % report(line).partition(b",")[2]
                requests.append(request(b"PUT", b"/v1/clients/%b" % client, body))
                asked.append(WebAsked("put", [line]))
            elif word == b"WHATSAT":
                found = question(line, rng.random() < 0.3)
                target = (
                    b"/places?radius_km=%b&limit=%b" % (*found.split(b" ")[2:],) if found == line else b""
                )
                requests.append(request(b"GET", b"/v1/clients/%b%b" % (client, target)))
                asked.append(WebAsked("places" if target else "locate", [found]))
            else:
                requests.append(request(b"GET", b"/nowhere"))
                asked.append(WebAsked("nothing", [None]))
        return b"".join(requests), asked

    def _hear_some(self, data: bytes) -> bytes:
        head, _, rest = data.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields[b"Content-Length"])
        body, rest = rest[:size], rest[size:]
        asked = self._next(data[: len(data) - len(rest)])
        status = int(head[9:12])
        if status == 503 and (asked.how == "batch" or (asked.how not in _AT_ONCE and self._server.stops)):
            self._give_up(asked)
            return rest
        if asked.how == "places" and status == 200:
            [line] = asked.lines
            assert isinstance(line, bytes)
            if not (b"\n" + body).endswith(NO_PLACES if b" 0 " in line else PLACES):
                self._server.world.broken(f"{self.name} hears of no places in {body!r}")
            self._hear_answer(asked, line, {"at": fields[b"Proxyherd-At"].decode()})
            return rest
        answers = _decode(body)
        if asked.how != "batch" or status != 200:
            answers = [answers] * len(asked.lines)
        if len(answers) != len(asked.lines):
            self._server.world.broken(f"{self.name} is answered {answers} to {asked}")
        for line, answer in zip(asked.lines, answers, strict=True):
            self._hear_answer(asked, line, answer)
        return rest


class SocketClient(WebClient):
    """What clients of both subprotocols do: frames, whole and cut, pings, and the end."""

    def half_close(self) -> None:
        """Send a close frame."""
        if not self.lost and self.conversation.stage is not Stage.CLOSED:
            self.has_said_all = True
            self.say(frame(Opcode.CLOSE, Code.NORMAL.to_bytes(2, "big")), ())

    def close(self) -> None:
        if not self.lost:
            self.half_close()

    def _framed(self, opcode: int, data: bytes) -> bytes:
        """Return the frames of a message, perhaps with a ping before or in it."""
        rng = self._server.world.rng
        chance = rng.random()
        if chance < 0.1:
            return frame(Opcode.PING, b"") + frame(opcode, data)
        if chance < 0.2:
            cut = rng.randint(0, len(data))
            first, rest = frame(opcode, data[:cut], fin=False), frame(Opcode.CONTINUATION, data[cut:])
            return first + frame(Opcode.PING, b"ping") + rest
        return frame(opcode, data)

    def _hear_some(self, data: bytes) -> bytes:
        size, begin = data[1], 2
        if size > 125:
            begin = 4
            size = int.from_bytes(data[2:4], "big")
        opcode, payload = data[0] & 15, data[begin : begin + size]
        if opcode == Opcode.CLOSE:
            code = int.from_bytes(payload[:2], "big")
            if not (
                self.has_said_all if code == Code.NORMAL else code == Code.RESTART and self._server.stops
            ):
                self._server.world.broken(f"{self.name} is closed with {code}")
            self._server.world.say(f"{self.name} hears that it is closed with {code}")
        elif opcode != Opcode.PONG:
            self._hear_message(opcode, payload)
        return data[begin + size :]

    def _hear_message(self, opcode: int, payload: bytes) -> None:
        raise NotImplementedError


class JsonClient(SocketClient):
    """Objects, several at a time."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(server, name, JsonSocket(site(server), Watch(server), server.now))
        self._numbers = 0

    def spell(self, lines: Sequence[bytes]) -> tuple[bytes, Sequence[Any]]:
        frames, asked = [], []
        for line in lines:
            word, client, *_ = line.split(b" ")
            self._numbers += 1
            if word == b"IAMAT":
                asked.append(WebAsked("report", [line], self._numbers))
                op = b'"op":"report",%b' % report(line)
            elif word == b"WHATSAT":
                found = question(line, self._server.world.rng.random() < 0.3)
                asked.append(WebAsked("places op" if found == line else "locate op", [found], self._numbers))
                op = b'"op":"locate","client":"%b"' % client
                if found == line:
                    radius, limit = line.split(b" ")[2:]
                    op = b'"op":"places","client":"%b","radius_km":%b,"limit":%b' % (client, radius, limit)
            else:
                asked.append(WebAsked("no op", [None], self._numbers))
                op = b'"op":"fly"'
            frames.append(self._framed(Opcode.TEXT, b'{"id":%d,%b}' % (self._numbers, op)))
        return b"".join(frames), asked

    def _hear_message(self, opcode: int, payload: bytes) -> None:
        asked, answer = self._next(payload), _decode(payload)
        if answer.pop("id") != asked.number or opcode != Opcode.TEXT:
            self._server.world.broken(f"{self.name} is answered {payload!r} to {asked}")
        if asked.how == "places op" and "problem" not in answer and answer.get("places") is None:
            self._server.world.broken(f"{self.name} hears of no places in {payload!r}")
        self._hear_answer(asked, asked.lines[0], answer.get("problem", answer))


class LineSocketClient(SocketClient):
    """Lines in messages, text and binary; several lines in some."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(server, name, LineSocket(site(server), Watch(server), server.now))

    def spell(self, lines: Sequence[bytes]) -> tuple[bytes, Sequence[Any]]:
        rng, rest, frames, asked = self._server.world.rng, deque(lines), [], []
        while rest:
            some = [rest.popleft() for _ in range(rng.randint(1, len(rest)))]
            opcode = rng.choice((Opcode.TEXT, Opcode.TEXT, Opcode.BINARY))
            frames.append(self._framed(opcode, b"\n".join(some) + b"\n" * rng.randint(0, 1)))
            asked += [WebAsked("line", [line], opcode) for line in some]
        return b"".join(frames), asked

    def _hear_message(self, opcode: int, payload: bytes) -> None:
        lines = deque(payload.split(b"\n"))
        while len(lines) > 1:
            asked = self._next(lines[0])
            if asked.number != opcode:
                self._server.world.broken(f"{self.name} is answered {payload!r} to {asked}")
            self._hear_one(lines)
            self._server.laws.ways[asked.how] += 1
        if lines[0]:
            self._server.world.broken(f"{self.name} is answered without a line's end: {payload!r}")

    def log(self, line: Line, outcome: str, answer: bytes | None) -> None:
        SimulatedClient.log(self, line, outcome, answer)

    @property
    def unlogged_answers(self) -> bool:
        return bool(self.heard)


class Watch:
    """Is told what happens. Faults end the run."""

    write: Callable[[bytes], object] | None = None

    def __init__(self, server: Server) -> None:
        self._server = server

    def asker(self, headers: Headers, subject: bytes | None) -> None:
        pass

    def begins(self, via: str, grant: Grant | None) -> None:
        pass

    def refused(self, reason: TokenRefusal) -> None:
        pass

    def wait(self, allowance: Allowance, seconds: float) -> None:
        pass

    def come_again(self, seconds: float) -> None:
        pass

    def may_upgrade(self) -> bool:
        return True

    def consumed(self, via: str, reasons: object) -> None:
        pass

    def answered(self, status: int) -> None:
        pass

    def fault(self, error: Exception) -> None:
        self._server.world.broken(f"{self._server.name} cannot answer a request: {error!r}")

    def push(self) -> None:
        pass

    def fail(self) -> None:
        pass


def site(server: Server) -> Site:
    """Return what a server's conversations share."""
    return Site(
        server.world.plan.limits,
        _routes(),
        _WRITER,
        lambda: server.clock,
        lambda: server.clock,
        1e9,
        lambda: 0.0,
        LargeReads(count().__next__),
    )


def request(method: bytes, target: bytes, body: bytes = b"") -> bytes:
    return (
        b"%b %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (*(method, target, len(body), body),)
    )


def report(line: bytes) -> bytes:
    """Return the keys and values of a report: the client's first."""
    _, client, place, time = line.split(b" ")
    lat, lon = (b"1", b"1") if place == b"+1+1" else (b"-34.5", b"118")
    return b'"client":"%b","lat":%b,"lon":%b,"time":%b' % (client, lat, lon, time)


def question(line: bytes, locates: bool) -> bytes:
    """Return the line of a question; `locates`: it asks for no places."""
    return b"WHATSAT %b 0 0" % line.split(b" ")[1] if locates else line


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    """Return a client's frame."""
    size = len(data)
    wide = size.to_bytes(2, "big") if size > 125 else b""
    return (
        bytes([(0x80 if fin else 0) | opcode, 0x80 | (126 if wide else size)]) + wide + b"mask" + masked(data)
    )


def masked(data: bytes) -> bytes:
    size = len(data)
    key = int.from_bytes((b"mask" * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(data, "big") ^ key).to_bytes(size, "big")
