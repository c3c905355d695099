"""What is followed over a WebSocket in JSON: behind its answer, in frames that all share, and never for long behind."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace
from tokens import KEY, MOST_SECONDS, NOW, TokenClock, access_with, token
from web_talk import Talk, frame, messages, objects, site, site_with

from proxyherd.core.conversation import Ending
from proxyherd.core.follows.event import Event
from proxyherd.core.follows.follow import Follow, Unfollow
from proxyherd.core.follows.follower import MOST_PENDING
from proxyherd.core.messages import Entry
from proxyherd.web.bodies import LargeReads
from proxyherd.web.conversations.sockets import WebSocketConversation
from proxyherd.web.events import frame_of
from proxyherd.web.frames import Opcode
from proxyherd.web.handshakes import JSON_PROTOCOL, Upgrade
from proxyherd.web.tokens import TokenVerifier

SNAPSHOT = Event("snapshot", name=b"2", complete=True)


def op(name: str, id_: int, **fields: object) -> bytes:
    return frame(json.dumps({"op": name, "id": id_} | fields).encode())


def moved(number: int, client: bytes = b"kiwi", kind: str = "move") -> Event:
    line = b"AT Clark +0.000000001 %b +1+2 %d" % (client, number)
    return Event(kind, client, Entry(line, number * 10**9))  # type: ignore[arg-type]


def told(talk: Talk) -> list[dict[str, object]]:
    return [json.loads(data) for opcode, data in messages(talk.sent) if opcode == Opcode.TEXT]


def closes(talk: Talk) -> list[int]:
    return [int.from_bytes(data[:2], "big") for opcode, data in messages(talk.sent) if opcode == Opcode.CLOSE]


def following(talk: Talk | None = None) -> Talk:
    """Return a WebSocket that follows something, and nothing of what was sent so far."""
    talk = talk or objects()
    talk.receive(op("follow", 2, client="kiwi"))
    talk.run()
    assert [one["id"] for one in told(talk)] == [2]
    talk._sent.clear()
    return talk


def test_events_come_in_frames_that_all_who_follow_share() -> None:
    talks = [following(), following()]
    events = [moved(1, kind="enter"), SNAPSHOT, moved(2)]
    for talk in talks:
        talk.tell(*events)
        assert talk.sent == b"".join(map(frame_of, events))
    assert all(event.spelled.keys() == {"frame"} for event in events)
    one, other = (talk.conversation for talk in talks)
    for talk in talks:
        talk.followers[-1].tell((events[2],))
    assert one.push() is other.push()


def test_one_follower_is_for_all_that_a_connection_follows_and_is_closed_with_it() -> None:
    talk = following()
    talk.receive(op("follow", 3, near={"lat": 1, "lon": 2, "radius_km": 1}) + op("unfollow", 4, follow=3))
    talk.run()
    assert [type(line) for _, line in talk.lines] == [Follow, Follow, Unfollow]
    assert len({id(follower) for follower in talk.followers}) == 1
    talk.conversation.lose(broken=True)
    assert talk.followers[0].is_closed


def test_a_follow_begins_when_all_before_it_are_answered_and_those_behind_it_wait_for_it() -> None:
    talk = following()
    talk.holds = True
    talk.receive(op("locate", 3, client="a") + op("follow", 4, client="b") + op("follow", 5, client="c"))
    talk.receive(op("locate", 6, client="d") + op("follow", 7, client="e"))
    rounds = []
    while talk.conversation.more:
        talk.run()
        rounds.append([line.name if isinstance(line, Follow) else b"" for line, _ in talk._held])
        talk.tell(moved(1))  # of what is followed already
        talk.let_go()
    assert rounds == [[b""], [b"4"], [b"5", b""], [b"7"]]
    assert [one["id"] for one in told(talk) if "id" in one] == [3, 4, 5, 6, 7]
    assert sum("event" in one for one in told(talk)) == len(rounds)


def test_clients_that_are_followed_cost_as_much_work_as_messages() -> None:
    talk = objects()
    talk.receive(op("follow", 2, client=[str(number) for number in range(500)]))
    talk.turn()
    assert talk.conversation.besides == 499


def test_the_clients_of_a_follow_that_waits_for_messages_before_it_are_counted_once() -> None:
    talk = objects(holds=True)
    talk.receive(op("locate", 1, client="kiwi") + op("follow", 2, client=[str(one) for one in range(100)]))
    costs = []
    while talk.conversation.more:
        talk.turn()
        costs.append(talk.conversation.besides + len(talk._held))
        talk.let_go()
    assert costs == [101, 1]  # two messages and 99 more clients; then the line of the follow


def test_one_large_message_is_read_in_a_turn_and_those_behind_it_keep_their_order() -> None:
    turn = 1
    shared = replace(site(), large=LargeReads(lambda: turn))
    one, other = objects(at=shared), objects(at=shared)
    names = [f"{number:0100}" for number in range(20)]
    for talk in (one, other):
        talk.receive(
            op("follow", 1, client=names) + op("locate", 2, client="kiwi") + op("locate", 3, client="fig")
        )
        talk.turn()
        talk.turn()
    assert [answer["id"] for answer in told(one)] == [1, 2, 3]
    assert (told(other), other.conversation.more, other.conversation.besides) == ([], True, 1)
    turn = 2
    other.run()
    assert [answer["id"] for answer in told(other)] == [1, 2, 3]


def test_nothing_is_sent_while_the_client_does_not_read_and_then_only_what_is_newest() -> None:
    talk = following()
    talk.tell(moved(1, kind="enter"))
    before = talk.sent
    talk.conversation.pause_writing(0.0)
    for number in range(2, 1_000):
        talk.tell(moved(number))
    assert talk.sent == before
    talk.conversation.resume_writing()
    talk.run()
    assert talk.sent == before + frame_of(moved(999))


def test_a_client_for_which_too_much_waits_is_closed() -> None:
    talk = following()
    talk.conversation.pause_writing(0.0)
    talk.tell(*[moved(1, b"%d" % number) for number in range(MOST_PENDING)])
    assert talk.sent == b""
    talk.tell(moved(1, b"another"))
    assert (closes(talk), talk.endings, talk.conversation.reason) == (
        [4408],
        [Ending.AWAIT_CLOSE],
        "slow reader",
    )
    talk.tell(moved(2))
    assert (len(messages(talk.sent)), talk.followers[0].is_closed) == (1, True)


def test_nothing_comes_behind_the_close_frame_of_a_server_that_stops_or_of_the_client() -> None:
    stopped, left = following(), following()
    stopped.conversation.drain()
    stopped.tell(moved(1))
    stopped.turn()
    stopped.tell(moved(2))
    left.receive(frame(b"\x03\xe8", Opcode.CLOSE))
    left.turn()
    left.tell(moved(1))
    assert ([closes(talk) for talk in (stopped, left)], [told(talk) for talk in (stopped, left)]) == (
        [[1012], [1000]],
        [[], []],
    )
    assert stopped.followers[0].is_closed
    assert left.followers[0].is_closed


@pytest.mark.parametrize("found_by", ["an event", "a check"])
def test_nothing_is_told_to_whoever_has_no_good_token_any_more(found_by: str) -> None:
    clock = TokenClock()
    talk = objects(at=site_with(access_with({}, KEY), clock))
    grant = TokenVerifier([KEY], MOST_SECONDS).verify(token(sub="jane", may=["see"], exp=NOW + 100))
    assert isinstance(talk.conversation, WebSocketConversation)
    talk.conversation.begin(Upgrade(JSON_PROTOCOL, "", grant))
    following(talk)
    _, line = talk.lines[-1]
    assert isinstance(line, Follow)
    assert line.sees is not None
    assert [line.sees(one) for one in (b"jane", b"kiwi")] == [True, False]
    clock.now += 100 * 10**9
    if found_by == "an event":
        talk.tell(moved(1))
    else:
        talk.look(1.0)
    assert (told(talk), closes(talk), talk.refusals) == ([], [4401], ["expired"])


def test_what_waits_for_a_slow_client_is_not_sent_before_the_turn_has_seen_what_has_changed() -> None:
    talk = following()
    talk.conversation.pause_writing(0.0)
    talk.tell(moved(1))
    talk.conversation.resume_writing()
    talk.conversation.take(10, 0.0)
    assert talk.conversation.flush() == b""
    gone = Event("gone", b"kiwi")
    talk.tell(gone)
    assert talk.sent == frame_of(gone)
