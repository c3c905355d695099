"""WebSockets as conversations, with both subprotocols: what is owed comes before the end, and nothing is without bound."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_talk import MOST, Talk, answered, frame, lines, messages, objects

from proxyherd.core.conversation import Ending
from proxyherd.web.conversations.base import READ_AHEAD, SIGN_OF_LIFE_SECONDS
from proxyherd.web.conversations.sockets import PONG_SECONDS
from proxyherd.web.frames import Opcode

CLOSE = frame(b"\x03\xe8bye", Opcode.CLOSE)
BROKEN = b"\xc1\x80\0\0\0\0"
BOTH = pytest.mark.parametrize("talk_of", [lines, objects])


def op(number: int) -> bytes:
    return b'{"op":"locate","id":%d,"client":"kiwi"}' % number


def wanted(talk_of: Callable[..., Talk], number: int) -> bytes:
    """Return a message that is answered."""
    return b"IAMAT kiwi +1+2 %d" % number if talk_of is lines else op(number)


def told(talk: Talk) -> list[tuple[int, bytes]]:
    return messages(talk.sent)


def closes(talk: Talk) -> list[int]:
    return [int.from_bytes(data[:2], "big") for opcode, data in told(talk) if opcode == Opcode.CLOSE]


def played(talk_of: Callable[..., Talk], data: bytes, cuts: list[int]) -> tuple[bytes, bytes, list[Ending]]:
    talk, at = talk_of(), 0
    for cut in [*sorted(cuts), len(data)]:
        if cut > at:
            talk.receive(data[at:cut])
            talk.run()
            at = cut
    answers = b"".join(data for opcode, data in told(talk) if opcode <= Opcode.BINARY)
    controls = b"".join(b"%d %b " % one for one in told(talk) if one[0] > Opcode.BINARY)
    return answers, controls, talk.endings


FRAMES = {
    "a message": frame(b"FOO"),
    "an op": frame(op(1)),
    "a binary message": frame(op(2), Opcode.BINARY),
    "two lines": frame(b"FOO\nBAR\n"),
    "nothing": frame(b""),
    "fragments": frame(b"FO", fin=False)
    + frame(b"", 0, fin=False)
    + frame(b"ping", Opcode.PING)
    + frame(b"O", 0),
    "a ping": frame(b"ping", Opcode.PING),
    "a pong": frame(b"", Opcode.PONG),
    "many": frame(b"FOO") * 20,
}


@BOTH
@given(
    names=st.lists(st.sampled_from([*FRAMES]), max_size=5),
    end=st.sampled_from([b"", CLOSE, BROKEN, frame(b"GET / HTTP/1.1")]),
    cuts=st.lists(st.integers(0, 400), max_size=5),
)
def test_however_a_stream_is_cut_its_answers_are_the_same(
    talk_of: Callable[..., Talk], names: list[str], end: bytes, cuts: list[int]
) -> None:
    data = b"".join(FRAMES[name] for name in names) + end
    assert played(talk_of, data, cuts) == played(talk_of, data, [])


@BOTH
def test_whoever_closes_gets_everything_that_is_owed_before_the_close_frame(
    talk_of: Callable[..., Talk],
) -> None:
    talk = talk_of(holds=True)
    talk.receive(b"".join(frame(wanted(talk_of, number)) for number in range(1_000)) + CLOSE + frame(b"FOO"))
    while len(talk.logged) < 1_000 or talk.conversation.more:
        assert talk.endings == []
        talk.run()
        talk.let_go()
    assert len(talk.lines) == 1_000
    told_all = told(talk)
    assert sum(data.count(b"AT Clark") for _, data in told_all[:-1]) == 1_000
    assert told_all[-1] == (Opcode.CLOSE, b"\x03\xe8")
    assert closes(talk) == [1000]
    assert (talk.endings, talk.conversation.reason) == ([Ending.CLOSE], "closed by client")


@BOTH
def test_whoever_breaks_the_rules_gets_the_answers_before_and_then_the_reason(
    talk_of: Callable[..., Talk],
) -> None:
    talk = talk_of(holds=True)
    talk.receive(frame(wanted(talk_of, 1)) + BROKEN + frame(wanted(talk_of, 2)))
    talk.run()
    assert told(talk) == []
    talk.let_go()
    opcodes = [opcode for opcode, _ in told(talk)]
    assert (opcodes, closes(talk), len(talk.lines)) == ([Opcode.TEXT, Opcode.CLOSE], [1002], 1)
    assert (talk.endings, talk.conversation.reason) == ([Ending.AWAIT_CLOSE], "bad WebSocket")


@BOTH
@pytest.mark.parametrize(
    ("first", "data"),
    [
        (b"", frame(b"ping", Opcode.PING)),
        (b"", frame(b"{")),
        (frame(b"F", fin=False), frame(b"", 0, fin=False)),
    ],
    ids=["pings", "bad messages", "fragments"],
)
def test_a_turn_reads_few_frames_and_little_is_read_ahead(
    talk_of: Callable[..., Talk], first: bytes, data: bytes
) -> None:
    talk = talk_of()
    talk.receive(first + data * 20_000)
    assert not talk.conversation.reads
    for number in range(1, 5):
        waiting = talk.conversation._frames.waiting  # type: ignore[attr-defined] # what a turn reads of
        talk.turn()
        assert len(told(talk)) <= number * MOST
        read = waiting - talk.conversation._frames.waiting  # type: ignore[attr-defined] # likewise
        assert 0 < read <= len(first) + MOST * len(data)
        assert talk.conversation.besides + len(talk.lines) >= MOST or talk.lines
    assert not talk.conversation.reads


@BOTH
def test_large_messages_are_read_one_at_a_time(talk_of: Callable[..., Talk]) -> None:
    talk = talk_of()
    talk.receive(frame(b'{"a":"%b"}' % (b"x" * 60_000)) * 5)
    talk.turn()
    assert len(told(talk)) <= 2


@BOTH
def test_nothing_is_read_or_said_while_the_client_does_not_read(talk_of: Callable[..., Talk]) -> None:
    talk = talk_of()
    talk.conversation.pause_writing(0.0)
    for _ in range(100):
        if talk.conversation.reads:
            talk.receive((frame(b"ping", Opcode.PING) + frame(b"{")) * 1_000)
        talk.run()
    assert talk.sent == b""
    assert talk.conversation._frames.waiting < 2 * READ_AHEAD  # type: ignore[attr-defined] # what grows
    talk.conversation.resume_writing()
    talk.run()
    assert b"ping" in talk.sent


def test_a_client_that_waits_for_answers_sends_no_more_ops_than_it_may() -> None:
    talk = objects(holds=True, max_answers_outstanding=10)
    talk.receive(b"".join(frame(op(number)) for number in range(50)))
    for taken in range(10, 60, 10):
        talk.run()
        assert len(talk.lines) == taken
        assert not talk.conversation.more
        talk.let_go()
    assert [data[:7] for _, data in told(talk)] == [(b'{"id":%d,' % number)[:7] for number in range(50)]


def test_a_bad_op_is_answered_in_its_place() -> None:
    talk = objects(holds=True)
    talk.receive(frame(op(1)) + frame(b'{"op":"fly","id":2}') + frame(op(3), Opcode.BINARY))
    talk.run()
    assert told(talk) == []
    talk.let_go()
    assert [(opcode, data[:8]) for opcode, data in told(talk)] == [
        (Opcode.TEXT, b'{"id":%d,' % number) for number in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "sent",
    [
        [frame(b"FOO\n"), frame(b""), frame(b"BAR"), frame(b"A\nB"), frame(b"C\n\n")],
        [frame(b"FO", fin=False), frame(b"O\n", 0), frame(b"BAR"), frame(b"A\nB\n"), frame(b"C\n\n")],
        [frame(b"FOO", 2), frame(b"BAR\n", 2), frame(b"A\nB", 2), frame(b"C\n\n", 2)],
    ],
)
def test_the_end_of_a_message_ends_its_last_line_once(sent: list[bytes]) -> None:
    expected = [b"FOO", b"BAR", b"A", b"B", b"C", b""]
    for data in (sent, [b"".join(sent)]):
        talk = lines()
        for part in data:
            talk.receive(part)
            talk.run()
        assert [line for _, line in talk.lines] == expected
        assert b"".join(data for _, data in told(talk)) == b"".join(b"? %b\n" % one for one in expected)


@BOTH
def test_a_client_whose_answers_wait_is_read_no_further_than_a_little(talk_of: Callable[..., Talk]) -> None:
    talk, sent = talk_of(holds=True, max_answers_outstanding=10), 0
    data = frame(b"\n".join([wanted(talk_of, 7)] * 1_000)) if talk_of is lines else frame(op(7)) * 1_000
    while talk.conversation.reads and sent < 1_000:
        talk.receive(data)
        talk.run()
        sent += 1
    assert sent * len(data) < 6 * READ_AHEAD
    assert len(talk.lines) == 10
    assert not talk.conversation.more, "no turn is woken in vain"
    for _ in range(50):
        talk.let_go()
        talk.run()
    assert len(talk.lines) >= 500


@pytest.mark.parametrize("holds", [False, True])
def test_lines_are_answered_by_messages_of_their_kind(holds: bool) -> None:
    talk = lines(holds=holds)
    kinds = [1, 1, 2, 2, 1, 2, 1]
    talk.receive(b"".join(frame(b"L%d" % at, kind) for at, kind in enumerate(kinds)))
    for _ in range(10):
        talk.run()
        talk.let_go()
    said = [(opcode, line) for opcode, data in told(talk) for line in data.splitlines()]
    assert said == [(kind, answered(b"L%d" % at)) for at, kind in enumerate(kinds)]


def test_an_answer_that_is_no_text_is_binary() -> None:
    talk = lines()
    talk.receive(frame(b"FOO"))
    talk.holds = True
    talk.run()
    for _, reply in talk._held:
        reply.answer = b"? \xff"
    talk._release()
    assert told(talk) == [(Opcode.BINARY, b"? \xff\n")]


def test_a_request_of_http_ends_the_conversation() -> None:
    talk = lines()
    talk.receive(frame(b"FOO\nGET / HTTP/1.1\nBAR\n"))
    talk.run()
    assert (talk.lines, closes(talk)) == ([("", b"FOO"), ("", b"GET / HTTP/1.1")], [1008])
    assert talk.conversation.reason == "HTTP request"


# The end. ------------------------------------------------------------------------------------------------------


@BOTH
def test_a_server_that_stops_answers_what_has_arrived_and_asks_to_come_again(
    talk_of: Callable[..., Talk],
) -> None:
    talk = talk_of(holds=True)
    talk.receive(b"".join(frame(wanted(talk_of, number)) for number in range(20)))
    talk.conversation.drain()
    assert not talk.conversation.reads
    while len(talk.logged) < 20:
        talk.run()
        talk.let_go()
    assert (len(talk.lines), closes(talk)) == (20, [1012])
    assert (talk.endings, talk.conversation.reason) == ([Ending.AWAIT_CLOSE], "server stops")
    assert talk.conversation.reads
    talk.receive(frame(wanted(talk_of, 21)) + frame(b"", Opcode.CLOSE))
    talk.run()
    assert (len(talk.lines), talk.endings[-1]) == (20, Ending.CLOSE)


@BOTH
def test_a_reader_that_takes_nothing_is_told_and_disconnected(talk_of: Callable[..., Talk]) -> None:
    talk = talk_of(slow_reader_seconds=30)
    talk.conversation.pause_writing(0.0)
    talk.look(30.0, unsent=100)
    assert talk.endings == []
    talk.look(60.1, unsent=100)
    assert (closes(talk), talk.endings, talk.conversation.reason) == (
        *([4408], [Ending.AWAIT_CLOSE]),
        "slow reader",
    )


@pytest.mark.parametrize("between", [0.5, 3.0, 5.0])
@BOTH
def test_a_ping_comes_after_20_to_25_seconds_of_silence_whatever_part_of_them_is_between_two_checks(
    talk_of: Callable[..., Talk], between: float
) -> None:
    """And though a check may be a little late. After thirty seconds, some proxies close."""
    talk = talk_of()
    talk.look(0.0)
    talk.receive(frame(b"", Opcode.PONG))
    talk.run()
    number = 0
    while not told(talk) and number < 100:
        number += 1
        talk.look(number * between + (0.1 if number == 1 else 0.0))
    assert 20.0 <= number * between <= 25.0
    assert PONG_SECONDS == 10


@BOTH
def test_a_silent_client_gets_a_ping_and_is_disconnected_without_a_pong(talk_of: Callable[..., Talk]) -> None:
    talk = talk_of()
    talk.look(SIGN_OF_LIFE_SECONDS - 1)
    assert told(talk) == []
    talk.look(SIGN_OF_LIFE_SECONDS)
    assert told(talk) == [(Opcode.PING, b"")]
    talk.receive(frame(b"", Opcode.PONG))
    talk.run()
    talk.look(100.0)
    talk.look(100.0 + SIGN_OF_LIFE_SECONDS)
    talk.look(100.0 + SIGN_OF_LIFE_SECONDS + PONG_SECONDS)
    assert talk.endings == []
    talk.look(100.1 + SIGN_OF_LIFE_SECONDS + PONG_SECONDS)
    assert (talk.endings, talk.conversation.reason) == ([Ending.ABORT], "no pong")


@BOTH
def test_a_client_that_is_not_read_owes_no_pong(talk_of: Callable[..., Talk]) -> None:
    talk = talk_of(holds=True, max_answers_outstanding=10)
    while talk.conversation.reads:
        talk.receive(frame(wanted(talk_of, 1)) * 1_000)
        talk.run()
    for now in range(1, 200, 5):
        talk.look(float(now))
    assert (closes(talk), talk.endings) == ([], [])
    while talk.conversation.more or not talk.conversation.reads:
        talk.let_go()
        talk.run()
    talk.look(200.0 + SIGN_OF_LIFE_SECONDS)
    assert talk.endings == []


@BOTH
def test_a_client_that_is_not_read_gets_pings_all_the_same(talk_of: Callable[..., Talk]) -> None:
    """Its answers may wait for a server that is not ready. Some proxies close a silent connection."""
    talk = talk_of(holds=True, max_answers_outstanding=10)
    while talk.conversation.reads:
        talk.receive(frame(wanted(talk_of, 1)) * 1_000)
        talk.run()
    for now in range(0, 100, 5):
        talk.look(float(now))
    assert told(talk) == [(Opcode.PING, b"")] * 4


@BOTH
def test_a_reader_that_takes_nothing_is_disconnected_also_behind_the_close_frame(
    talk_of: Callable[..., Talk],
) -> None:
    talk = talk_of(slow_reader_seconds=30)
    talk.receive(CLOSE)
    talk.run()
    assert talk.endings == [Ending.CLOSE]
    for now in (100.0, 130.0):
        talk.look(now, unsent=100)
    assert talk.endings == [Ending.CLOSE]
    talk.look(130.1, unsent=100)
    assert (talk.endings[-1], talk.conversation.reason) == (Ending.ABORT, "slow reader")


@BOTH
@pytest.mark.parametrize("first", [BROKEN, frame(b"x" * 70_000)], ids=["broken", "large"])
def test_behind_its_close_frame_everything_is_read_and_dropped(
    talk_of: Callable[..., Talk], first: bytes
) -> None:
    """A socket that is closed with unread bytes is reset, and then the client may not learn why."""
    talk = talk_of()
    talk.receive(first[:100])
    talk.run()
    assert len(closes(talk)) == 1
    for _ in range(10):
        talk.receive(first[100:] + frame(b"y" * 60_000))
        talk.run()
        assert talk.conversation.reads
        assert talk.conversation._frames.waiting <= READ_AHEAD  # type: ignore[attr-defined] # what is kept


@BOTH
def test_whoever_has_sent_much_behind_its_end_can_still_close(talk_of: Callable[..., Talk]) -> None:
    talk = talk_of()
    talk.conversation.drain()
    talk.run()
    for _ in range(10):
        talk.receive(frame(b"y" * 60_000))
        talk.run()
    talk.receive(CLOSE)
    talk.run()
    assert talk.endings == [Ending.AWAIT_CLOSE, Ending.CLOSE]


@BOTH
def test_fragments_without_end_are_work_also_if_they_come_a_few_at_a_time(
    talk_of: Callable[..., Talk],
) -> None:
    talk = talk_of()
    talk.receive(frame(b"F", fin=False))
    talk.run()
    besides = 0
    for _ in range(100):
        talk.receive(frame(b"", 0, fin=False) * (MOST - 1))
        talk.turn()
        besides += talk.conversation.besides
    assert besides == 100 * (MOST - 1)


@BOTH
def test_what_is_given_up_is_returned_and_the_client_told_to_try_later(talk_of: Callable[..., Talk]) -> None:
    talk = talk_of(holds=True)
    talk.receive(frame(wanted(talk_of, 1)))
    talk.run()
    unanswered = talk.conversation.give_up("no answer from the cluster")
    talk.follow()
    assert (len(unanswered), closes(talk), talk.endings) == (1, [1013], [Ending.AWAIT_CLOSE])


@BOTH
def test_what_is_given_up_by_a_server_that_stops_is_told_of_the_restart(
    talk_of: Callable[..., Talk],
) -> None:
    talk = talk_of(holds=True)
    talk.receive(frame(wanted(talk_of, 1)))
    talk.run()
    talk.conversation.drain()
    talk.conversation.give_up("server stops")
    talk.follow()
    assert (closes(talk), talk.conversation.reason) == ([1012], "server stops")


@pytest.mark.parametrize("reads", [True, False], ids=["left", "slow"])
@pytest.mark.parametrize("first", [b"L0", b"L0\n" * (MOST + 1)], ids=["a line", "many lines"])
def test_a_client_that_cannot_be_served_wakes_no_turns(reads: bool, first: bytes) -> None:
    """Else they would go on for ever, and the server with them."""
    talk = lines(holds=True)
    talk.receive(frame(first) + frame(b"L1", Opcode.BINARY) + frame(b"L2"))
    talk.turn()
    if reads:
        talk.conversation.lose(broken=True)
    else:
        talk.conversation.pause_writing(0.0)
    for has_answers in (False, True):
        if has_answers:
            talk.let_go()
        for _ in range(3):
            talk.turn()
        assert not talk.conversation.more
