"""Clients with the real conversations, what they want of Places, and the log of what they were answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Sequence
from functools import partial
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

from proxyherd.core.conversation import LINGER_SECONDS, Conversation, Ending, Stage
from proxyherd.core.engine import Client
from proxyherd.core.follows.follow import Follow, Unfollow
from proxyherd.core.framing import Line, spell_line
from proxyherd.core.messages import Forget
from proxyherd.core.notes import Note
from proxyherd.core.reply import Reply, leave
from proxyherd.core.rules import find
from proxyherd.server.clients.clients import Spoken
from simulation.laws import NOTHING, Order

if TYPE_CHECKING:
    from simulation.servers import Server

PLACES, NO_PLACES = b"\n{}\n", b'"status": "ZERO_RESULTS"\n}\n'
TURN_QUERIES = 2


class SimulatedClient:
    """One connection of a client with a server. It holds the server to one answer a line, in order, and one line of
    the log each.
    """

    conversation: Spoken

    def __init__(self, server: Server, name: str, conversation: Spoken) -> None:
        self.name = name
        self.label, self.payer = name.encode(), name
        self.queued = False
        self.lost = False
        self.has_said_all = False
        self.clear_at = 0.0  # nothing said later may arrive before this
        self.conversation = conversation
        self.owe, self.owed = self.conversation.owe, self.conversation.owed
        self.unanswered: deque[tuple[Line, Order]] = deque()  # what was taken, and what was known before
        self.unlogged: deque[tuple[Line, Order]] = deque()
        self.heard: deque[bytes] = deque()  # answers that the log has not told yet
        self._server = server

    def may_ask_places(self, now: float) -> bool:
        return True

    @property
    def gone(self) -> bool:
        return self.conversation.gone

    @property
    def waits(self) -> bool:
        """Whether it is there and has no answer to something yet."""
        return not self.gone and (bool(self.unanswered) or self.conversation.more)

    # What the client does. -----------------------------------------------------------------------------------

    def spell(self, lines: Sequence[bytes]) -> tuple[bytes, Sequence[Any]]:
        """Return how the client says these lines, and what `say` is to know of it."""
        return b"\n".join([*lines, b""]), ()

    def ask(self, asked: Sequence[Any]) -> None:
        """Note what it is about to say."""

    def say(self, data: bytes, asked: Sequence[Any]) -> None:
        if self._server.world.trace is not None:
            self._server.world.say(f"{self.name} says {data!r}")
        if not self.lost:
            self.ask(asked)
            self.conversation.receive_data(data)
            self._server.turn.client_said(self)

    def half_close(self) -> None:
        if not self.lost and self.conversation.stage is not Stage.CLOSED:
            self._server.world.say(f"{self.name} closes its sending half")
            self.has_said_all = True
            if self.conversation.receive_eof():
                self._server.turn.client_said(self)
            else:
                self.lose(broken=False)

    def break_off(self) -> None:
        self.lose(broken=True)

    def lose(self, *, broken: bool) -> None:
        """The connection is no more."""
        if not self.lost:
            self._server.world.say(f"{self.name}'s connection {'breaks' if broken else 'ends'}")
            self.lost = True
            self.conversation.lose(broken=broken)
            self._server.turn.client_left(self)

    def stop_reading(self) -> None:
        if not self.lost:
            self.conversation.pause_writing(self._server.now)

    def read_on(self) -> None:
        if not self.lost:
            self.conversation.resume_writing()
            self._server.turn.client_said(self)

    def drain(self) -> None:
        """The server stops."""
        if not self.lost:
            self.conversation.drain()
            self._server.turn.client_said(self)

    # What a turn wants. --------------------------------------------------------------------------------------

    @property
    def besides(self) -> int:
        return 0

    def take(self, most: int, now: float) -> list[Line]:
        lines = self.conversation.take(most, now)
        if self.conversation.more:
            self._server.turn.client_said(self)
        promised = self._server.promised
        for line in lines:
            assert isinstance(line, bytes | Forget)
            least = (
                NOTHING
                if isinstance(line, Forget)
                else promised.get(line.partition(b" ")[2].partition(b" ")[0], NOTHING)
            )
            taken = line, least
            self.unanswered.append(taken)
            self.unlogged.append(taken)
        return lines

    def answer(self, answers: list[bytes]) -> None:
        self._hear(self.conversation.answer(answers))

    def release(self) -> list[tuple[Line, Reply]]:
        released, data = self.conversation.release()
        if self.conversation.more:
            self._server.turn.client_said(self)
        self._hear(data)
        return released

    def give_up(self, reason: str) -> list[tuple[Line, Reply]]:
        unanswered = self.conversation.give_up(reason)
        self._follow()
        return unanswered

    def fail(self) -> None:
        self._server.world.broken(f"something that was done for {self.name} has raised")

    def _follow(self) -> None:
        ending = self.conversation.ending(self._server.now)
        if ending is not None:
            self._lose_after(ending)

    def _lose_after(self, ending: Ending) -> None:
        seconds = LINGER_SECONDS if ending is Ending.HALF_CLOSE else 0.0
        self._server.later(seconds, partial(self.lose, broken=False))

    # What it hears. ------------------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        """Hear whole answers: one to each line, in the order of the lines."""
        if data:
            lines = deque(data.split(b"\n"))
            while len(lines) > 1:
                self._hear_one(lines)
            if lines[0]:
                self._server.world.broken(f"{self.name} is answered without a line's end: {data!r}")
        if self.conversation.stage is not Stage.OPEN:
            self._follow()

    def _hear_one(self, lines: deque[bytes]) -> None:
        server, first = self._server, lines.popleft()
        if not self.unanswered or self.lost:
            server.world.broken(f"{self.name} is answered {first!r}, and has asked for nothing")
        server.world.say(f"{self.name} hears {first!r}")
        asked, least = self.unanswered.popleft()
        assert isinstance(asked, bytes)
        answer = first
        if first.startswith(b"AT "):
            if asked.startswith(b"WHATSAT"):
                places = [*takewhile(bool, lines)]
                if len(lines) < len(places) + 2:
                    server.world.broken(f"{self.name}'s answer has no end behind {first!r}")
                for _ in range(len(places) + 1):
                    lines.popleft()
                answer = b"\n".join((first, *places, b""))
                if not answer.endswith(NO_PLACES if b" 0 " in asked else PLACES):
                    server.world.broken(f"{self.name} hears of no places behind {first!r}")
            server.laws.told(server, asked, first, least)
        elif first != b"? " + asked:
            server.world.broken(f"{self.name} is answered {first!r} to {asked!r}")
        self.heard.append(answer)
        server.answered.append(self)

    # What the log says. --------------------------------------------------------------------------------------

    @property
    def unlogged_answers(self) -> bool:
        """Whether it has heard answers that the log has not told yet."""
        return bool(self.heard)

    def log(self, line: Line, outcome: str, answer: bytes | None) -> None:
        """The log tells of an answer."""
        name = self._server.name
        if self.heard:
            if (heard := self.heard.popleft()) != answer:
                self._server.world.broken(f"{name} logs {answer!r} to {line!r}, and has answered {heard!r}")
        elif not self.gone:
            self._server.world.broken(f"{name} logs {line!r} of {self.name}, which has no answer")


class LineClient(SimulatedClient):
    """One connection that speaks the line protocol."""

    conversation: Conversation

    def __init__(self, server: Server, name: str, *, tls: bool) -> None:
        super().__init__(server, name, Conversation(server.world.plan.limits, tls=tls, now=server.now))


class SimulatedPlaces:
    """Answers queries at once where the last digit of the location's time is odd, else later, in any order."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._unasked: deque[tuple[SimulatedClient, Reply]] = deque()
        self._asked: dict[int, tuple[SimulatedClient, Reply, Callable[[Client], None]]] = {}
        self._numbers = count()

    def __bool__(self) -> bool:
        return bool(self._unasked)

    def admit(self, client: Client, reply: Reply) -> bool:
        return True

    def answer_at_once(self, reply: Reply) -> float:
        assert reply.entry is not None
        if reply.entry.line[-1] % 2:
            self._answer_now(reply)
        return 0.000_25

    def add(self, client: Client, reply: Reply) -> None:
        assert isinstance(client, SimulatedClient)
        if client.gone:
            leave(reply)
        else:
            self._unasked.append((client, reply))

    def drop(self, gone: Container[Client]) -> None:
        self._unasked = deque(one for one in self._unasked if one[0] not in gone)

    def cancel(self, client: Client) -> None:
        for number, one in tuple(self._asked.items()):
            if one[0] is client:
                del self._asked[number]
                self._server.later(0.0, self._break_off, *one)

    @staticmethod
    def _break_off(client: Client, reply: Reply, answered: Callable[[Client], None]) -> None:
        leave(reply)
        answered(client)

    def ask_some(self, answered: Callable[[Client], None]) -> None:
        world = self._server.world
        for _ in range(min(TURN_QUERIES, len(self._unasked))):
            client, reply = self._unasked.popleft()
            if client.gone:
                leave(reply)
                answered(client)
                continue
            number = next(self._numbers)
            self._asked[number] = client, reply, answered
            self._server.later(world.rng.uniform(0, world.plan.places_seconds), self._answer, number)

    def _answer(self, number: int) -> None:
        if number in self._asked:  # else it was broken off
            client, reply, answered = self._asked.pop(number)
            self._answer_now(reply)
            answered(client)

    def _answer_now(self, reply: Reply) -> None:
        assert reply.entry is not None
        assert reply.whatsat is not None
        table, client = self._server.table, reply.whatsat.client
        if table.is_erased(client, reply.entry.line):  # as on a server
            reply.entry = table.get(client)
        if reply.entry is None:
            find(reply, reply.line, None)
        else:
            reply.outcome, reply.answer = "answered", reply.entry.line + PLACES


class SimulatedLog:
    """Holds a server to tell of each command once, in the order of its client's lines, with its answer, in the turn in
    which that leaves.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.commands = self

    def report(self, client: bytes, line: bytes, answer: bytes) -> None:
        self._command(client.decode(), line, "stored", answer)

    def reports(self, clients: Sequence[bytes], lines: Sequence[bytes], answers: Sequence[bytes]) -> None:
        for client, line, answer in zip(clients, lines, answers, strict=True):
            self.report(client, line, answer)

    def alike(self, client: bytes, lines: Sequence[Line], replies: Sequence[Reply]) -> None:
        for line, reply in zip(lines, replies, strict=True):
            self._command(client.decode(), line, reply.outcome, reply.answer)

    def _command(self, name: str, line: Line, outcome: str, answer: bytes | None) -> None:
        server = self._server
        client = server.clients[name]
        shown = (
            spell_line(line) if isinstance(line, Follow | Unfollow) else line
        )  # without addresses of objects
        server.world.say(f"{server.name} logs {shown!r} of {name}: {outcome}")
        logged, least = client.unlogged.popleft() if client.unlogged else (b"nothing", NOTHING)
        if logged != line:
            server.world.broken(f"{server.name} logs {line!r} of {name}, and is to log {logged!r}")
        server.laws.outcomes[outcome] += 1
        if outcome == "stored":
            server.laws.stored(server, line, answer)
        elif outcome == "unknown":
            assert isinstance(line, bytes)
            server.laws.unknown(server, line, least)
        client.log(line, outcome, answer)

    def note(self, notes: Sequence[Note]) -> None:
        pass

    def end_turn(self) -> None:
        server = self._server
        for client in server.answered:
            if client.unlogged_answers:
                server.world.broken(f"{server.name} does not log what {client.name} was answered")
        server.answered.clear()

    def fault(self, what: str, error: Exception) -> None:
        self._server.world.broken(f"{self._server.name}: {what}: {error!r}")
