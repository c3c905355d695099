"""Laws of many commands on one connection: each answer to its command, in order; nothing lost when connections break."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxyherd.client.rules.commands import ClientCommand, raw_command
from proxyherd.client.rules.errors import ForeignAnswer, Postponed
from proxyherd.client.rules.pipeline import Pipeline, Waiting


def answer_to(line: bytes) -> bytes:
    """Return what a server answers: places have several lines, and an invalid command one."""
    number = line.split()[-1]
    if line.startswith(b"WHATSAT"):
        return b"AT Ann +0.1 %b +1+1 5\n{\n  %b\n}\n\n" % (number, number)
    return b"? " + line + b"\n"


def lines(numbers: list[int]) -> list[bytes]:
    return [b"WHATSAT %d" % number if number % 3 == 0 else b"FOO %d" % number for number in numbers]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 99), min_size=1, max_size=8), st.data())
def test_answers_are_the_same_however_they_are_cut(numbers: list[int], data: st.DataObject) -> None:
    pipeline = Pipeline[bytes](len(numbers))
    for line in lines(numbers):
        pipeline.add(raw_command(line), line)
    stream = b"".join(answer_to(line[:-1]) for line in pipeline.data_to_send())
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    found = [
        one
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for one in pipeline.receive_data(stream[start:end])
    ]
    assert found == [(line, answer_to(line)) for line in lines(numbers)]
    assert pipeline.owed == 0


class OneServerAfterTheOther(RuleBasedStateMachine):
    """Commands are added and given up; connections break at any byte, and servers answer what they have read."""

    outstanding = 3

    def __init__(self) -> None:
        super().__init__()
        self.pipeline = Pipeline[int](self.outstanding)
        self.added = 0
        self.waiting: dict[int, Waiting[int]] = {}
        self.answered: list[int] = []
        self.unread = b""
        self.last_sent = -1

    @rule(kind=st.sampled_from([b"WHATSAT", b"FOO"]))
    def add(self, kind: bytes) -> None:
        self.waiting[self.added] = self.pipeline.add(raw_command(b"%b %d" % (kind, self.added)), self.added)
        self.added += 1

    @rule()
    def send(self) -> None:
        for line in self.pipeline.data_to_send():
            number = int(line.split()[-1])
            assert number > self.last_sent, "sent out of order"
            self.last_sent = number
            self.unread += answer_to(line[:-1])

    @precondition(lambda self: self.unread)
    @rule(share=st.floats(0, 1))
    def receive(self, share: float) -> None:
        size = 1 + int(share * (len(self.unread) - 1))
        data, self.unread = self.unread[:size], self.unread[size:]
        for number, meant in self.pipeline.receive_data(data):
            assert isinstance(meant, bytes)
            assert meant.split()[2 if meant.startswith(b"?") else 3] == b"%d" % number
            del self.waiting[number]
            self.answered.append(number)

    @rule()
    def break_the_connection(self) -> None:
        self.pipeline.connection_lost()
        self.unread, self.last_sent = b"", -1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        self.pipeline.give_up(self.waiting.pop(number))

    @invariant()
    def answers_come_in_order(self) -> None:
        assert self.answered == sorted(set(self.answered))

    @invariant()
    def who_waits_is_known(self) -> None:
        assert self.pipeline.is_wanted == bool(self.waiting)

    def teardown(self) -> None:
        """Whoever still waits gets the answer over a connection that holds."""
        self.break_the_connection()
        while self.waiting:
            self.send()
            self.receive(1.0)


TestOneServerAfterTheOther = OneServerAfterTheOther.TestCase
TestOneServerAfterTheOther.settings = settings(max_examples=40, stateful_step_count=30)


def filled(*numbers: int, outstanding: int = 9, most_bytes: int = 100) -> Pipeline[int]:
    pipeline = Pipeline[int](outstanding, most_bytes)
    for number, line in zip(numbers, lines([*numbers]), strict=True):
        pipeline.add(raw_command(line), number)
    return pipeline


def test_no_more_are_sent_than_may_be_outstanding() -> None:
    pipeline = filled(1, 2, 4, outstanding=2)
    assert pipeline.data_to_send() == [b"FOO 1\n", b"FOO 2\n"]
    assert pipeline.data_to_send() == []
    assert [one for one, _ in pipeline.receive_data(b"? FOO 1\n")] == [1]
    assert pipeline.data_to_send() == [b"FOO 4\n"]


def test_what_was_given_up_is_not_sent_again_and_its_answer_is_dropped() -> None:
    pipeline = filled(1, 2)
    given_up = pipeline.add(raw_command(b"FOO 5"), 5)
    pipeline.data_to_send()
    pipeline.give_up(given_up)
    assert [one for one, _ in pipeline.receive_data(b"? FOO 1\n")] == [1]
    assert [one.owner for one in pipeline.connection_lost()] == [2]
    assert pipeline.data_to_send() == [b"FOO 2\n"]


def receive(pipeline: Pipeline[int], data: bytes) -> list[int]:
    """Return whose answers came before a foreign one."""
    found = list[int]()
    with pytest.raises(ForeignAnswer):
        found.extend(owner for owner, _ in pipeline.receive_data(data))
    return found


def test_answers_before_a_foreign_one_count_and_the_others_are_sent_again() -> None:
    pipeline = filled(1, 2, 4)
    pipeline.data_to_send()
    assert receive(pipeline, b"? FOO 1\nHTTP/1.1 400\n") == [1]
    pipeline.connection_lost()
    assert pipeline.data_to_send() == [b"FOO 2\n", b"FOO 4\n"]


def postponing(line: bytes) -> ClientCommand[bytes]:
    def read(answer: bytes) -> bytes:
        if answer == b"later\n":
            raise Postponed("not now")
        return answer

    return ClientCommand(line, read)


def test_what_is_postponed_goes_to_the_next_connection_when_the_rest_is_answered() -> None:
    pipeline = Pipeline[int](3)
    added = [pipeline.add(postponing(b"%d" % number), number) for number in range(6)]
    pipeline.data_to_send()
    pipeline.give_up(added[0])
    assert list(pipeline.receive_data(b"later\n1\n")) == [(1, b"1\n")]
    assert pipeline.data_to_send() == []  # the server is to be left
    with pytest.raises(Postponed, match="not now"):
        assert list(pipeline.receive_data(b"later\n")) == []
    pipeline.give_up(added[5])
    assert pipeline.is_wanted
    assert pipeline.connection_lost() == []
    assert pipeline.data_to_send() == [b"3\n", b"4\n", b"2\n"]
    assert [answer for _, answer in pipeline.receive_data(b"3\n4\n2\n")] == [b"3\n", b"4\n", b"2\n"]


@pytest.mark.parametrize("endless", [b"AT Ann", b"? x", b"AT Ann\n{\n"], ids=["no line", "a copy", "places"])
def test_an_endless_answer_ends_the_connection(endless: bytes) -> None:
    pipeline = filled(3)
    pipeline.data_to_send()
    assert list(pipeline.receive_data(endless)) == []
    for _ in range((100 - len(endless)) // 10):
        assert list(pipeline.receive_data(b"x" * 10)) == []
    with pytest.raises(ForeignAnswer, match="more than 100 bytes"):
        list(pipeline.receive_data(b"x" * 10))


def test_what_nobody_has_asked_for_ends_the_connection() -> None:
    pipeline = filled(1)
    pipeline.data_to_send()
    assert receive(pipeline, b"? FOO 1\n? FOO") == [1]


def test_all_are_taken_in_their_order_when_the_client_ends() -> None:
    pipeline = filled(1, 2, 4, outstanding=1)
    pipeline.data_to_send()
    assert [one.owner for one in pipeline.take_all()] == [1, 2, 4]
    assert not pipeline.is_wanted
