"""Exchanges: each is finished when all of its lines have replies, in the order in which they came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxyherd.core.reply import Reply
from proxyherd.web.answers import WebAnswer
from proxyherd.web.exchanges import Exchanges, WebExchange


def exchange(number: int, lines: int) -> WebExchange:
    return WebExchange("http", [b"%d %d" % (number, at) for at in range(lines)], lambda _: WebAnswer(200))


@given(
    sizes=st.lists(st.integers(0, 5), max_size=6),
    most=st.integers(1, 7),
    order=st.randoms(use_true_random=False),
)
def test_each_gets_the_replies_to_its_own_lines_whenever_they_come(
    sizes: list[int], most: int, order: object
) -> None:
    exchanges, finished, released = Exchanges(), list[WebExchange](), list[bytes]()
    waiting: list[tuple[bytes, Reply]] = []
    for number, size in enumerate(sizes):
        exchanges.add(exchange(number, size))
    while exchanges.more:
        taken = exchanges.take(most)
        assert 0 < len(taken) <= most
        commands = [(line, Reply("iamat", "stored", None)) for line in taken]
        exchanges.owe(commands)
        waiting += commands  # type: ignore[arg-type] # lines are bytes here
    order.shuffle(waiting)  # type: ignore[attr-defined]
    finished += exchanges.finished()
    for line, reply in waiting:
        reply.answer = b"AT " + line
        released += [line for line, _ in exchanges.release()]  # type: ignore[misc] # likewise
        finished += exchanges.finished()
    assert released == [b"%d %d" % (number, at) for number, size in enumerate(sizes) for at in range(size)]
    assert [[reply.answer for reply in one.replies] for one in finished] == [
        [b"AT %d %d" % (number, at) for at in range(size)] for number, size in enumerate(sizes)
    ]
    assert len(exchanges) == 0


def test_what_is_given_up_is_returned_and_forgotten() -> None:
    exchanges = Exchanges()
    exchanges.add(exchange(0, 3))
    commands = [(line, Reply("iamat", "stored", None)) for line in exchanges.take(2)]
    exchanges.owe(commands)
    assert exchanges.give_up() == commands
    assert not exchanges.more
    assert exchanges.release() == []
    assert exchanges.finished() == []
