"""A client's conversation without a socket, byte by byte, on a clock that the tests turn by hand.

The shell is played here as the rules at the top of the module say; Hypothesis plays the client, the engine and the
clock in any order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxyherd.config.schema import Limits
from proxyherd.core.conversation import Conversation, Ending, Stage
from proxyherd.core.framing import Line, spell_line
from proxyherd.core.messages import invalid
from proxyherd.core.reply import Reply

IDLE, SLOW = 50.0, 30.0
MOST_OWED, TAKEN_AT_ONCE = 4, 3
LINE_BYTES, READ_AHEAD = 1_024, 65_536
REQUEST = b"GET / HTTP/1.1"
START = 1_000.0


def spell(line: Line) -> bytes:
    """Return the answer to a line, which is none to a command."""
    return invalid(spell_line(line))


class Shell:
    """One connection: what the client sends, what the server writes, and how it ends."""

    def __init__(self, *, tls: bool = False) -> None:
        limits = Limits(
            max_line_bytes=LINE_BYTES,
            max_answers_outstanding=MOST_OWED,
            idle_seconds=IDLE,
            slow_reader_seconds=SLOW,
        )
        self.now = START
        self.talk = Conversation(limits, tls=tls, now=self.now)
        self.socket = b""  # sent by the client, and not read yet
        self.received = b""  # all that the conversation was given
        self.sent = b""
        self.endings: list[Ending] = []
        self.waiting: list[Reply] = []
        self.unanswered: list[Line] = []  # of a client that was given up
        self.unsent = 0

    def client(self, data: bytes) -> None:
        self.socket += data
        self.read()

    def read(self, most: int = READ_AHEAD) -> None:
        """Read as a transport does: a piece at a time, while the conversation wants more."""
        while self.socket and self.talk.reads:
            piece, self.socket = self.socket[:most], self.socket[most:]
            if self.talk.stage is Stage.OPEN:
                self.received += piece
            self.talk.receive_data(piece)

    def turn(self, *, hold: Callable[[Line], bool] = lambda _: False) -> list[Line]:
        """Take lines and answer them, but those to hold, and what stands behind them."""
        lines = self.talk.take(TAKEN_AT_ONCE, self.now)
        if not self.talk.owed and not any(map(hold, lines)):
            self.send(self.talk.answer([spell(line) for line in lines]))
        else:
            replies = [Reply("other", "invalid", None if hold(line) else spell(line)) for line in lines]
            self.waiting += [reply for reply in replies if reply.answer is None]
            self.talk.owe(zip(lines, replies, strict=True))
            self.release()
        self.read()
        return lines

    def settle(self, which: int) -> None:
        """Answer one that was held."""
        reply = self.waiting.pop(which)
        for line, owed in self.talk.owed:
            if owed is reply:
                reply.answer = spell(line)
        self.release()
        self.read()

    def release(self) -> list[Line]:
        released, data = self.talk.release()
        self.send(data)
        return [line for line, _ in released]

    def send(self, data: bytes) -> None:
        assert not (data and self.endings), "nothing is sent behind the end"
        self.sent += data
        self.follow()

    def follow(self) -> None:
        if (ending := self.talk.ending(self.now)) is not None:
            self.endings.append(ending)

    def turns(self) -> None:
        """Let there be turns until none is due."""
        while self.talk.more:
            self.turn()

    def check(self) -> tuple[int, float] | None:
        unfinished = self.talk.check(self.now, self.unsent)
        self.follow()
        return unfinished

    def drain(self) -> None:
        self.talk.drain()


def hold(line: Line) -> bool:
    return line == b"hold"


# Lines and answers. ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 1_000_000])
def test_each_line_has_one_answer_however_the_stream_is_cut(size: int) -> None:
    shell = Shell()
    stream = b"one\n\ntwo\r\n" + b"x" * (LINE_BYTES + 1) + b"\nthree"
    for at in range(0, len(stream), size):
        shell.client(stream[at : at + size])
        shell.turns()
    answers = b"? one\n? \n? two\r\n? " + b"x" * 1_024 + b"\n"
    assert shell.sent == answers
    assert shell.talk.receive_eof()
    shell.turns()
    assert shell.sent == answers + b"? three\n"
    assert shell.endings == [Ending.CLOSE]
    assert shell.talk.reason == "closed by client"


def test_a_held_answer_holds_back_those_behind_it_and_all_leave_at_once() -> None:
    shell = Shell()
    shell.client(b"one\nhold\ntwo\n")
    shell.turn(hold=hold)
    assert shell.sent == b"? one\n"
    shell.client(b"three\n")
    shell.turn(hold=hold)
    assert shell.sent == b"? one\n"
    reply = shell.waiting[0]
    reply.answer = b"? hold"
    released, data = shell.talk.release()
    assert data == b"? hold\n? two\n? three\n"
    assert [line for line, _ in released] == [b"hold", b"two", b"three"]
    assert not shell.talk.owed


def test_a_take_is_bounded_by_what_was_asked_for_and_by_what_is_owed() -> None:
    shell = Shell()
    shell.client(b"hold\n" * 10)
    assert len(shell.turn(hold=hold)) == TAKEN_AT_ONCE
    assert shell.talk.more
    assert len(shell.turn(hold=hold)) == MOST_OWED - TAKEN_AT_ONCE
    assert shell.turn(hold=hold) == []
    assert not shell.talk.more, "a turn would take nothing"
    shell.settle(0)
    assert shell.talk.more, "there is room again"
    assert len(shell.turn(hold=hold)) == 1


def test_what_was_done_for_a_client_that_has_gone_is_still_released() -> None:
    shell = Shell()
    shell.client(b"hold\n")
    shell.turn(hold=hold)
    shell.talk.lose(broken=True)
    shell.waiting[0].answer = b"? hold"
    released, data = shell.talk.release()
    assert [line for line, _ in released] == [b"hold"]
    assert data == b""
    assert shell.talk.answer([b"? one"]) == b"", "it was taken before, and its turn waited for the disk"
    assert shell.talk.reason == "broken by client"
    assert shell.talk.gone


# Reading on. -----------------------------------------------------------------------------------------------------


def test_reading_stops_past_the_read_ahead_and_goes_on_when_lines_are_taken() -> None:
    shell = Shell()
    line = b"x" * (LINE_BYTES - 1) + b"\n"
    lines = READ_AHEAD // len(line)
    shell.talk.receive_data(line * lines)
    assert shell.talk.reads, "as much as may be"
    shell.talk.receive_data(b"y")
    assert not shell.talk.reads
    shell.talk.pause_writing(shell.now)
    shell.turn()
    assert not shell.talk.reads, "nothing is taken from a slow reader"
    shell.talk.resume_writing()
    shell.turn()
    assert shell.talk.reads


def test_the_read_ahead_holds_two_lines_where_lines_are_long() -> None:
    talk = Conversation(Limits(max_line_bytes=60_000), tls=False, now=START)
    talk.receive_data(b"x" * 120_000)
    assert talk.reads
    talk.receive_data(b"x")
    assert not talk.reads


def test_a_slow_reader_is_not_heard_until_it_has_caught_up() -> None:
    shell = Shell()
    shell.talk.pause_writing(shell.now)
    shell.client(b"one\n")
    assert shell.turn() == []
    assert not shell.talk.more, "no turn is due before it has caught up"
    shell.talk.resume_writing()
    assert shell.talk.more
    assert shell.turn() == [b"one"]


# The end. --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 1_000_000])
def test_nothing_is_heard_behind_an_http_request(size: int) -> None:
    shell = Shell()
    stream = b"one\n" + REQUEST + b"\nIAMAT kiwi +1+1 5\n"
    for at in range(0, len(stream), size):
        shell.client(stream[at : at + size])
        shell.turns()
    assert shell.sent == b"? one\n? " + REQUEST + b"\n"
    assert shell.endings == [Ending.HALF_CLOSE], "there may be more in the socket"
    assert shell.talk.reads, "what the socket holds is read and dropped"
    assert shell.talk.reason == "HTTP request"
    assert shell.talk.receive_eof()
    assert shell.talk.stage is Stage.CLOSED
    shell.turns()
    assert shell.endings == [Ending.HALF_CLOSE, Ending.CLOSE], "no more can come"


def test_an_http_request_at_the_end_of_the_stream_is_answered_and_then_the_connection_closed() -> None:
    shell = Shell()
    shell.client(b"hold\n" + REQUEST)
    assert shell.talk.receive_eof()
    shell.turn(hold=hold)
    assert shell.talk.stage is Stage.HALF_CLOSED
    shell.settle(0)
    assert shell.sent == b"? hold\n? " + REQUEST + b"\n"
    assert shell.endings == [Ending.CLOSE]
    assert shell.talk.reason == "HTTP request"


def test_answers_owed_before_an_http_request_leave_before_the_end() -> None:
    shell = Shell()
    shell.client(b"hold\n" + REQUEST + b"\n")
    shell.turn(hold=hold)
    assert not shell.talk.reads
    assert shell.talk.stage is Stage.DRAINING
    shell.now += 10
    shell.follow()
    assert shell.endings == []
    shell.settle(0)
    assert shell.endings == [Ending.HALF_CLOSE], "also when it has been quiet: its socket was not read"
    assert shell.sent == b"? hold\n? " + REQUEST + b"\n"


@pytest.mark.parametrize(
    ("quiet", "ending"),
    [(2.0, Ending.HALF_CLOSE), (2.001, Ending.CLOSE)],
)
def test_a_quiet_client_is_closed_at_once_when_the_server_stops(quiet: float, ending: Ending) -> None:
    shell = Shell()
    shell.client(b"one\n")
    shell.turns()
    shell.now += quiet
    shell.drain()
    assert shell.talk.stage is Stage.DRAINING
    assert shell.endings == []
    shell.turns()
    assert shell.endings == [ending]
    assert shell.talk.reason == "server stops"


def test_inside_tls_a_quiet_client_is_waited_for_when_the_server_stops() -> None:
    """Its own close_notify is to come."""
    shell = Shell(tls=True)
    shell.now += 10
    shell.drain()
    shell.turns()
    assert shell.endings == [Ending.HALF_CLOSE]


def test_a_draining_client_has_the_answers_to_what_was_received_and_not_to_more() -> None:
    shell = Shell()
    shell.client(b"one\ntwo\nthree\nfour\nfive\nhalf")
    shell.drain()
    shell.client(b" a line\nsix\n")
    shell.turns()
    assert shell.sent == b"? one\n? two\n? three\n? four\n? five\n"
    assert shell.endings == [Ending.HALF_CLOSE]
    shell.client(b"seven\n")
    assert shell.turn() == []


def test_a_client_that_has_said_all_before_the_server_stops_has_an_answer_to_its_last_line() -> None:
    for events in itertools.permutations(["stop", "end of stream"]):
        shell = Shell()
        shell.client(b"one\ntwo")
        for event in events:
            if event == "stop":
                shell.drain()
            else:
                assert shell.talk.receive_eof()
        shell.turns()
        assert shell.sent == b"? one\n? two\n"
        assert shell.endings == [Ending.CLOSE]
        assert shell.talk.reason == "server stops"


@pytest.mark.parametrize("stops", [False, True])
def test_a_slow_reader_that_has_said_all_has_its_answers_when_it_reads_on(stops: bool) -> None:
    """Where the server stopped meanwhile, the connection was closed with lines unanswered."""
    shell = Shell()
    shell.client(b"one\ntwo\nthree\nfour\nfive")
    assert shell.talk.receive_eof()
    shell.turn()
    shell.talk.pause_writing(shell.now)
    if stops:
        shell.drain()
    shell.turns()
    assert shell.endings == []
    shell.talk.resume_writing()
    shell.turns()
    assert shell.sent == b"? one\n? two\n? three\n? four\n? five\n"
    assert shell.endings == [Ending.CLOSE]


def test_the_end_of_stream_inside_tls_ends_both_directions() -> None:
    shell = Shell(tls=True)
    shell.client(b"hold\n")
    shell.turn(hold=hold)
    assert shell.talk.receive_eof() is False
    assert [line for line, _ in shell.talk.give_up("no answer in time")] == [b"hold"]
    assert shell.talk.reason == "closed by client"


def test_who_is_given_up_lingers_without_its_answers() -> None:
    shell = Shell()
    shell.client(b"one\nhold\ntwo\nthree\n")
    shell.turn(hold=hold)
    shell.now += 10
    assert [line for line, _ in shell.talk.give_up("no answer in time")] == [b"hold", b"two"]
    shell.follow()
    assert shell.endings == [Ending.HALF_CLOSE]
    assert shell.talk.reason == "no answer in time"
    assert shell.talk.gone
    assert shell.turn() == []
    assert shell.talk.give_up("again") == []
    assert shell.talk.reason == "no answer in time"
    assert shell.sent == b"? one\n"


def test_nothing_is_done_for_a_connection_that_was_refused() -> None:
    talk = Shell().talk
    talk.abort("refused")
    assert talk.ending(START) is Ending.ABORT
    talk.receive_data(b"one\n")
    assert talk.receive_eof() is False
    assert not talk.more
    assert talk.take(1, START) == []
    assert talk.ending(START) is None


def test_a_lingering_connection_is_aborted_when_all_has_left_twice_in_a_row() -> None:
    talk = Shell().talk
    talk.give_up("no answer in time")
    looks = [True, False, False, True, True]
    assert [talk.has_left(out=out) for out in looks] == [False, False, False, False, True]


def test_the_first_reason_stands_but_for_a_server_that_stops() -> None:
    shell = Shell()
    shell.client(b"hold\n" + REQUEST + b"\n")
    shell.turn(hold=hold)
    shell.drain()
    shell.turn(hold=hold)
    assert shell.talk.reason == "server stops"
    shell.talk.lose(broken=True)
    assert shell.talk.reason == "server stops"


# The clock. ------------------------------------------------------------------------------------------------------


def test_a_client_is_idle_when_its_time_is_over_and_not_while_something_waits() -> None:
    idle, waiting, unheard = Shell(), Shell(), Shell()
    waiting.client(b"hold\n")
    waiting.turn(hold=hold)
    unheard.client(b"one\n")
    for shell in (idle, waiting, unheard):
        shell.now = START + IDLE
        shell.check()
        assert shell.endings == []
        shell.now += 0.001
        shell.check()
    assert (idle.endings, idle.talk.reason) == ([Ending.ABORT], "idle")
    assert waiting.endings == []
    assert unheard.endings == [], "its line came in time"
    waiting.settle(0)
    waiting.check()
    assert waiting.talk.reason == "idle"


def test_taken_lines_that_are_not_decided_yet_keep_a_client_from_being_idle() -> None:
    shell = Shell()
    shell.client(b"one\n")
    lines = shell.talk.take(TAKEN_AT_ONCE, shell.now)
    shell.now += 2 * IDLE
    shell.check()
    assert shell.endings == []
    shell.send(shell.talk.answer([spell(line) for line in lines]))
    shell.check()
    assert shell.talk.reason == "idle"


def test_a_reader_that_takes_one_byte_in_time_stays_and_one_that_takes_none_goes() -> None:
    shell = Shell()
    shell.unsent = 1_000_000
    shell.talk.pause_writing(shell.now)
    shell.check()
    for _ in range(100):
        shell.now += 0.9 * SLOW
        shell.unsent -= 1
        shell.check()
    shell.now += SLOW
    shell.check()
    assert shell.endings == []
    shell.now += 0.001
    shell.check()
    assert (shell.endings, shell.talk.reason) == ([Ending.ABORT], "slow reader")


def test_a_reader_that_has_caught_up_has_its_whole_time_again() -> None:
    shell = Shell()
    shell.talk.pause_writing(shell.now)
    shell.now += 0.9 * SLOW
    shell.talk.resume_writing()
    shell.talk.pause_writing(shell.now)
    shell.now += 0.9 * SLOW
    shell.check()
    assert shell.endings == []


def test_bytes_without_a_line_feed_are_told_once_after_a_while() -> None:
    shell = Shell()
    shell.client(b"IAMAT kiwi +1+1 5")
    shell.turns()
    assert shell.check() is None
    shell.now += 4.9
    assert shell.check() is None
    shell.client(b" ")  # more of the same line
    shell.turns()
    shell.now += 0.1
    size, seconds = shell.check() or (0, 0.0)
    assert size == 18
    assert seconds == pytest.approx(5.0)
    shell.now += 10
    assert shell.check() is None
    shell.client(b"\nhalf")
    shell.turns()
    for _ in range(3):
        shell.now += 5
        assert shell.check() is None, "once a connection"


def test_lines_that_end_in_time_or_wait_for_an_answer_are_not_told_as_unfinished() -> None:
    busy, waiting = Shell(), Shell()
    waiting.client(b"hold\nFOO")
    waiting.turn(hold=hold)
    for _ in range(10):
        busy.client(b"FOO\nFO")
        for shell in (busy, waiting):
            shell.turn(hold=hold)
            shell.now += 3
            assert shell.check() is None


# Any order of events. --------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *(b"one\n", b"hold\n", b"\n", b"a\nhold\nb\nhold\n", b"no end", b"hold\n" * 9, b"c\n" * 20),
        *(b"GET / HT", b"TP/1.1", REQUEST + b"\n", b"\n" + REQUEST + b"\nbehind\n", b" ", b"\r\n"),
        *(b"x" * (LINE_BYTES + 1), b"y" * 30_000 + b"\n", (b"z" * LINE_BYTES + b"\n") * 80),
    ]
)


def lines_of(stream: bytes, *, whole: bool) -> list[bytes]:
    """Return the lines that are answered of a stream, read in one go; `whole`: its end has come."""
    *lines, last = stream.split(b"\n")
    if last and (whole or len(last) > LINE_BYTES):
        lines.append(last)
    for number, line in enumerate(lines):
        words = line.split()
        if len(words) == 3 and words[0].isalpha() and words[2].startswith(b"HTTP/1."):
            del lines[number + 1 :]
    return [line if len(line) <= LINE_BYTES else line[:1_024] for line in lines]


class AnyOrder(RuleBasedStateMachine):
    """A client, an engine, a clock and a server that stops, in any order, on one conversation."""

    tls = False

    def __init__(self) -> None:
        super().__init__()
        self.shell = Shell(tls=self.tls)
        self.stage = Stage.OPEN
        self.eof = self.stopped = self.lost = self.forsaken = False
        self.heard = START  # when the last line was taken
        self.logged: list[bytes] = []

    @property
    def talk(self) -> Conversation:
        return self.shell.talk

    # What happens.

    @precondition(lambda self: not self.eof and not self.lost)
    @rule(data=PIECES, size=st.sampled_from([1, 7, 1_000, READ_AHEAD]))
    def client_sends(self, data: bytes, size: int) -> None:
        assume(len(data) < 1_000 or size > 7)
        self.shell.socket += data
        self.shell.read(size)

    @precondition(lambda self: not self.eof and not self.lost and not self.shell.socket)
    @rule()
    def client_closes_its_half(self) -> None:
        self.eof = True
        answers_may_come = self.talk.stage is not Stage.CLOSED
        stays = self.talk.receive_eof()
        assert stays is (answers_may_come and not self.tls)
        if not stays:
            self.breaks()

    @precondition(lambda self: self.talk.more)
    @rule(holds=st.booleans())
    def turn(self, holds: bool) -> None:
        lines = self.shell.turn(hold=hold if holds else lambda _: False)
        assert len(lines) <= TAKEN_AT_ONCE + 1
        if lines:
            self.heard = self.shell.now

    @precondition(lambda self: self.shell.waiting)
    @rule(which=st.integers(0, 100))
    def engine_answers(self, which: int) -> None:
        self.shell.settle(which % len(self.shell.waiting))

    @precondition(lambda self: self.talk._slow.since is None and not self.lost)
    @rule()
    def client_reads_slowly(self) -> None:
        self.talk.pause_writing(self.shell.now)

    @precondition(lambda self: self.talk._slow.since is not None and not self.lost)
    @rule()
    def client_catches_up(self) -> None:
        self.talk.resume_writing()

    @rule()
    def server_stops(self) -> None:
        if not self.lost:
            self.stopped = True
            self.shell.drain()

    @precondition(lambda self: self.talk.owed)
    @rule()
    def engine_gives_up(self) -> None:
        owed = list(self.talk.owed)
        ended = self.talk.stage >= Stage.LINGERING
        assert self.talk.give_up("no answer in time") == owed
        assert ended or self.talk.stage is Stage.LINGERING
        self.forsaken = True
        self.shell.waiting.clear()
        self.shell.follow()

    @rule(seconds=st.sampled_from([0.1, 1.0, SLOW, IDLE]))
    def time_passes(self, seconds: float) -> None:
        shell = self.shell
        shell.now += seconds
        if self.lost:
            return
        waits = bool(self.talk.owed or self.talk.more)
        blocked = self.talk._slow.since is not None
        before = len(shell.endings)
        shell.check()
        if Ending.ABORT in shell.endings[before:]:
            if blocked:
                assert self.talk.reason == "slow reader"
            else:
                assert self.talk.reason == "idle"
                assert not waits
                assert shell.now - self.heard > IDLE
            self.breaks()
        elif not blocked and not waits:
            assert shell.now - self.heard <= IDLE

    @precondition(lambda self: not self.lost)
    @rule()
    def breaks(self) -> None:
        self.lost = True
        self.talk.lose(broken=True)

    # What always holds.

    @invariant()
    def it_only_moves_down(self) -> None:
        assert self.talk.stage >= self.stage
        self.stage = self.talk.stage

    @invariant()
    def answers_are_in_order_one_a_line_and_none_behind_a_request(self) -> None:
        expected = lines_of(self.shell.received, whole=self.eof)
        answered = self.shell.sent.split(b"\n")[:-1]
        assert answered == [b"? " + line for line in expected[: len(answered)]]

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.talk.owed) <= MOST_OWED + 1  # the end of the stream may be one more line
        assert self.talk._framer.waiting <= 2 * READ_AHEAD

    @invariant()
    def it_is_closed_exactly_when_all_is_answered(self) -> None:
        shell, talk = self.shell, self.talk
        answered = shell.sent.count(b"\n")
        expected = lines_of(shell.received, whole=self.eof)
        is_over = self.eof or self.stopped or talk.stage is not Stage.OPEN
        if self.lost or self.forsaken or Ending.ABORT in shell.endings:
            return
        if shell.endings:
            assert is_over
            assert answered == len(expected)
            assert not talk.owed
        elif is_over and not talk.more and talk._slow.since is None:
            assert answered < len(expected), "it has ended"

    @invariant()
    def it_ends_once(self) -> None:
        orderly = [ending for ending in self.shell.endings if ending is not Ending.ABORT]
        assert orderly in ([], [Ending.CLOSE], [Ending.HALF_CLOSE], [Ending.HALF_CLOSE, Ending.CLOSE])
        assert len(orderly) < 2 or self.eof
        assert bool(self.shell.endings) <= self.talk.gone

    @invariant()
    def a_turn_is_due_while_lines_wait_and_may_be_taken(self) -> None:
        talk = self.talk
        if talk.more or talk._slow.since is not None or talk.gone or len(talk.owed) >= MOST_OWED:
            return
        taken = self.shell.sent.count(b"\n") + len(talk.owed)
        assert taken == len(lines_of(self.shell.received, whole=self.eof))

    def teardown(self) -> None:
        """Whatever has happened: who reads on and closes its half has all its answers."""
        shell, talk = self.shell, self.talk
        if self.lost or self.tls:
            return
        talk.resume_writing()
        for _ in range(1_000):
            shell.turns()
            if not shell.waiting:
                break
            shell.settle(0)
        if not self.eof and not talk.gone:
            assert not shell.socket, "all was read"
            talk.receive_eof()
            self.eof = True
            shell.turns()
        assert not talk.owed
        assert talk.gone
        self.answers_are_in_order_one_a_line_and_none_behind_a_request()
        self.it_is_closed_exactly_when_all_is_answered()


class AnyOrderInsideTls(AnyOrder):
    tls = True


TestAnyOrder = AnyOrder.TestCase
TestAnyOrderInsideTls = AnyOrderInsideTls.TestCase
TestAnyOrder.settings = TestAnyOrderInsideTls.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None
)
