"""Streams of events as conversations: what they begin with, what they send to whom, and how they end."""

from __future__ import annotations

import pytest
from tokens import KEY, NOW, TokenClock, access_with, token
from web_talk import Talk, answers, http, put, request, site_with

from proxyherd.core.conversation import Ending, Stage
from proxyherd.core.follows.event import Event
from proxyherd.core.follows.follow import Follow, FollowReply, Unfollow
from proxyherd.core.follows.follower import MOST_PENDING
from proxyherd.core.framing import Denied
from proxyherd.core.messages import Entry
from proxyherd.core.reply import Reply
from proxyherd.web.conversations.base import SIGN_OF_LIFE_SECONDS
from proxyherd.web.conversations.streams import (
    LONGEST_PAUSE,
    SHORTEST_PAUSE,
    EventStream,
)
from proxyherd.web.events import stream_event_of
from proxyherd.web.rights import revocation

FOLLOW = request("GET", "/v1/events?client=kiwi")
SNAPSHOT = Event("snapshot", complete=True)


def moved(number: int, client: bytes = b"kiwi", kind: str = "move") -> Event:
    line = b"AT Clark +0.000000001 %b +1+2 %d" % (client, number)
    return Event(kind, client, Entry(line, number * 10**9))  # type: ignore[arg-type]


def stream(data: bytes = FOLLOW, talk: Talk | None = None) -> Talk:
    """Return a stream that has begun, and nothing of its beginning."""
    talk = talk or http()
    talk.receive(data)
    talk.run()
    assert isinstance(talk.conversation, EventStream)
    talk._sent.clear()
    return talk


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_stream_begins_with_its_head_and_the_pause_before_a_browser_comes_again(version: str) -> None:
    talk = http()
    talk.receive(
        request("GET", "/v1/events?client=kiwi", b"", "Origin: https://map.example", version=version)
    )
    talk.run()
    head, _, body = talk.sent.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    assert status == b"HTTP/1.1 200 OK"
    assert headers.pop(b"Date")
    assert headers == {
        b"Content-Type": b"text/event-stream",
        b"X-Content-Type-Options": b"nosniff",
        b"Cache-Control": b"no-store",
        b"X-Accel-Buffering": b"no",
        b"Access-Control-Allow-Origin": b"https://map.example",
        b"Access-Control-Expose-Headers": b"Proxyherd-At, Retry-After",
        b"Cross-Origin-Resource-Policy": b"cross-origin",
        b"Vary": b"Origin",
        b"Connection": b"close",
    }
    assert body == b"retry: %d\n\n" % ((SHORTEST_PAUSE + LONGEST_PAUSE) // 2)
    assert (talk.statuses, talk.endings) == ([200], [])
    [(via, line)] = talk.logged
    assert (via, isinstance(line, Follow)) == ("stream", True)


def test_events_are_sent_as_they_come_and_each_is_made_once_for_all_streams() -> None:
    talks = [stream(), stream()]
    events = [moved(1, kind="enter"), SNAPSHOT, moved(2)]
    for talk in talks:
        talk.tell(*events)
        assert talk.sent == b"".join(map(stream_event_of, events))
    assert all(event.spelled.keys() == {"text"} for event in events)


def test_what_comes_behind_the_request_of_a_stream_is_dropped() -> None:
    talk = stream(FOLLOW + put("fig"))
    for _ in range(100):
        talk.receive(put("kiwi") * 100)
        assert (talk.conversation.reads, talk.conversation.more) == (True, False)
        talk.turn()
    talk.tell(moved(1))
    assert talk.sent == stream_event_of(moved(1))
    assert [type(line) for _, line in talk.lines] == [Follow]


def test_requests_before_a_stream_are_answered_and_those_that_it_does_not_become_leave_the_connection_open() -> (
    None
):
    talk = http()
    refused = {
        b"one": FollowReply("follow", "refused", refusal="full", text="too many"),
        b"two": FollowReply("follow", "refused", refusal="no_index"),
    }

    def followed(line: Follow | Unfollow) -> Reply:
        assert isinstance(line, Follow)
        return refused[line.clients[0]]

    talk.followed = followed
    bad = request("GET", "/v1/events?near=1,2")
    requests = [request("GET", f"/v1/events?client={name}") for name in ("one", "two")]
    talk.receive(put("kiwi") + bad + requests[0] + requests[1] + request("HEAD", "/v1/events?client=kiwi"))
    talk.receive(request("OPTIONS", "/v1/events") + request("POST", "/v1/events?client=kiwi") + put("fig"))
    talk.run()
    assert talk.statuses == [200, 400, 413, 501, 200, 204, 405, 200]
    assert talk.endings == []
    *_, head, options, _, _ = talk.sent.split(b"HTTP/1.1 ")
    assert b"Content-Type: text/event-stream\r\n" in head
    assert b"Content-Length" not in head
    assert head.endswith(b"\r\n\r\n")
    assert b"Allow: GET, OPTIONS\r\n" in options


def test_nothing_is_sent_while_the_client_does_not_read_and_then_only_what_is_newest() -> None:
    talk = stream()
    talk.tell(moved(1, kind="enter"))
    before = talk.sent
    talk.conversation.pause_writing(0.0)
    for number in range(2, 1_000):
        talk.tell(moved(number))
    assert talk.sent == before
    talk.conversation.resume_writing()
    talk.run()
    assert talk.sent == before + stream_event_of(moved(999))


def test_a_client_for_which_too_much_waits_is_cut_off() -> None:
    talk = stream()
    talk.conversation.pause_writing(0.0)
    talk.tell(*[moved(1, b"%d" % number) for number in range(MOST_PENDING)])
    assert talk.endings == []
    talk.tell(moved(1, b"another"))
    assert (talk.endings, talk.conversation.reason) == ([Ending.ABORT], "slow reader")
    assert talk.sent == b""


def test_a_client_that_reads_nothing_for_too_long_is_cut_off() -> None:
    talk = stream(talk=http(slow_reader_seconds=30))
    talk.tell(moved(1))
    talk.conversation.pause_writing(0.0)
    for now in (10.0, 29.0):
        talk.look(now, unsent=1_000)
    assert talk.endings == []
    talk.look(31.0, unsent=1_000)
    assert (talk.endings, talk.conversation.reason) == ([Ending.ABORT], "slow reader")


@pytest.mark.parametrize("between", [0.5, 3.0, 5.0])
def test_a_comment_comes_after_20_to_25_seconds_of_silence_whatever_part_of_them_is_between_two_checks(
    between: float,
) -> None:
    """And though a check may be a little late. After thirty seconds, some proxies close."""
    talk, number = stream(), 0
    talk.look(0.0)
    for _ in range(3):
        told = number
        talk.tell(moved(number))
        talk._sent.clear()
        while not talk.sent and number < 400:
            number += 1
            talk.look(number * between + (0.1 if number == told + 1 else 0.0))
        assert 20.0 <= (number - told) * between <= 25.0
        told = number
        talk._sent.clear()
        while not talk.sent and number < 400:
            number += 1
            talk.look(number * between + (0.1 if number == told + 1 else 0.0))
        assert 20.0 <= (number - told) * between <= 25.0, "after another comment"


def test_a_silent_stream_gets_a_comment_now_and_then() -> None:
    talk = stream()
    now = 0.0
    for _ in range(3):
        talk.look(now)
        talk.look(now + SIGN_OF_LIFE_SECONDS - 1)
        assert talk.sent == b""
        talk.look(now + SIGN_OF_LIFE_SECONDS)
        assert talk.sent == b":\n\n"
        talk._sent.clear()
        now += SIGN_OF_LIFE_SECONDS
    talk.tell(moved(1))
    talk._sent.clear()
    talk.look(now + 1)
    talk.look(now + SIGN_OF_LIFE_SECONDS)
    assert talk.sent == b""


def test_a_stream_ends_with_its_client_s_half_of_the_connection_and_follows_nothing_then() -> None:
    talk = stream()
    [follower] = talk.followers
    assert talk.conversation.receive_eof() is False
    talk.conversation.lose(broken=False)
    assert (follower.is_closed, talk.conversation.reason) == (True, "closed by client")


def test_a_stream_ends_when_the_server_stops_and_none_begins_then() -> None:
    talk = stream()
    talk.conversation.drain()
    talk.tell(moved(1))
    assert (talk.sent, talk.endings, talk.conversation.reason) == (b"", [Ending.CLOSE], "server stops")
    assert talk.followers[0].is_closed
    late = http()
    late.receive(FOLLOW)
    late.conversation.drain()
    late.run()
    assert (late.statuses, late.lines) == ([503], [])


def test_a_stream_that_can_begin_only_when_the_server_stops_does_not_begin() -> None:
    talk = http()
    talk.holds = True
    talk.receive(FOLLOW)
    talk.run()
    talk.conversation.drain()
    talk.let_go()
    assert (talk.statuses, talk.endings) == ([503], [Ending.HALF_CLOSE])
    talk.conversation.lose(broken=False)
    assert talk.followers[0].is_closed


def test_whoever_leaves_before_the_answer_follows_nothing() -> None:
    talk = http()
    talk.holds = True
    talk.receive(FOLLOW)
    talk.run()
    talk.conversation.lose(broken=True)
    talk.let_go()
    assert (talk.sent, talk.followers[0].is_closed) == (b"", True)


def test_an_address_with_too_many_connections_gets_no_stream() -> None:
    talk = http()
    talk.upgrades = False
    talk.receive(FOLLOW + put("kiwi"))
    talk.run()
    assert talk.statuses == [429, 200]
    assert [status for status, _ in answers(talk.sent)] == [429, 200]


@pytest.mark.parametrize("end", ["expired", "revoked"])
@pytest.mark.parametrize("found_by", ["an event", "a check"])
def test_a_stream_ends_with_its_token(end: str, found_by: str) -> None:
    clock, revoked = TokenClock(), dict[bytes, int]()
    talk = http(at=site_with(access_with(revoked, KEY), clock))
    spelling = token(sub="jane", may=["see"], exp=NOW + 100)
    talk = stream(request("GET", f"/t/{spelling}/v1/events?client=jane"), talk)
    talk.tell(moved(1, b"jane"))
    talk._sent.clear()
    if end == "expired":
        clock.now += 100 * 10**9
    else:
        revoked[revocation("jane")] = clock.now
    if found_by == "an event":
        talk.tell(moved(2, b"jane"))
    else:
        talk.look(1.0)
    assert (talk.sent, talk.endings, talk.refusals) == (b"", [Ending.CLOSE], [end])
    assert (talk.conversation.reason, talk.conversation.stage) == ("bad token", Stage.CLOSED)


def test_a_stream_needs_a_token_that_may_see() -> None:
    site = site_with(access_with({}, KEY), TokenClock())
    for may, status in ((["report"], 403), (["see"], 200)):
        talk = http(at=site)
        talk.receive(
            request(
                "GET", "/v1/events?client=bob", b"", f"Authorization: Bearer {token(sub='jane', may=may)}"
            )
        )
        talk.run()
        assert talk.statuses == [status]
        assert [type(line) for _, line in talk.lines] == [Denied if status == 403 else Follow]
    talk = http(at=site)
    talk.receive(FOLLOW)
    talk.run()
    assert talk.statuses == [401]


def test_what_waits_for_a_slow_client_is_not_sent_before_the_turn_has_seen_what_has_changed() -> None:
    talk = stream()
    talk.conversation.pause_writing(0.0)
    talk.tell(moved(1))
    talk.conversation.resume_writing()
    talk.conversation.take(10, 0.0)
    assert talk.conversation.flush() == b""
    gone = Event("gone", b"kiwi")
    talk.tell(gone)
    assert talk.sent == stream_event_of(gone)
