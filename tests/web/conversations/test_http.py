"""HTTP as a conversation: in order, a request at a time, within limits of work, memory and time, however it is cut."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_talk import ANSWER_SECONDS, APP, LIST, MOST, NOTHING, UPGRADE, Talk, answers, http, put, request

from proxyherd.core.conversation import Ending, Stage
from proxyherd.server.clients.http_reader import SMALL_BODY_BYTES, BodyRoom
from proxyherd.web.bodies import BODY_BYTES
from proxyherd.web.conversations.base import READ_AHEAD
from proxyherd.web.conversations.http import BODY_SECONDS, IDLE_SECONDS


def chunked(client: str) -> bytes:
    head = request(
        "PUT", f"/v1/clients/{client}", b"", "Transfer-Encoding: chunked", "Content-Type: application/json"
    )
    return head + b'9\r\n{"lat":1,\r\nb\r\n"lon":2    \r\n1\r\n}\r\n0\r\nX-Trailer: a\r\n\r\n'


REQUESTS = {
    "a report": put("kiwi"),
    "a question": request("GET", "/v1/clients/kiwi"),
    "a batch": request("POST", "/v1/reports", b'[{"client":"a","lat":1,"lon":2},{"client":"b"}]'),
    "no line": LIST,
    "a head": request("HEAD", "/v1/nothing"),
    "an app": APP,
    "an app's useless message": request("POST", "/owntracks", b'{"_type":"lwt"}'),
    "a problem": request("PUT", "/v1/clients/a", b"[]"),
    "an old client": request("GET", "/v1/nothing", b"", "Connection: keep-alive", version="1.0"),
}
ENDS = {
    "nothing": b"",
    "garbage": b"IAMAT kiwi +1+2 3\n\n",
    "a request without Host": request("GET", "/", host=False),
    "bad chunks": request("PUT", "/", b"", "Transfer-Encoding: chunked") + b"zz\r\n",
    "a long header": b"GET / HTTP/1.1\r\nX: " + bytes(20_000).replace(b"\0", b"a"),
    "a large body": request("PUT", "/", b"", f"Content-Length: {BODY_BYTES + 1}"),
    "another expectation": request("PUT", "/", b"{}", "Expect: miracles"),
    "chunks": chunked("fig"),
    "a last request": request("GET", "/v1/openapi.json", b"", "Connection: close"),
    "a request that is cut": put("kiwi")[:-1],
}


def played(data: bytes, cuts: list[int]) -> tuple[bytes, list[Ending], list[str]]:
    talk = http()
    at = 0
    for cut in [*sorted(cuts), len(data)]:
        if cut > at:
            talk.receive(data[at:cut])
            talk.run()
            at = cut
    return talk.sent, talk.endings, [via for via, _ in talk.logged]


@given(
    names=st.lists(st.sampled_from([*REQUESTS]), max_size=4),
    end=st.sampled_from([*ENDS]),
    cuts=st.lists(st.integers(0, 1_500), max_size=5),
)
def test_however_a_stream_is_cut_its_answers_are_the_same(
    names: list[str], end: str, cuts: list[int]
) -> None:
    data = b"".join(REQUESTS[name] for name in names) + ENDS[end]
    sent, endings, vias = played(data, [])
    assert played(data, cuts) == (sent, endings, vias)
    assert sent.count(b"HTTP/1.1 ") == len(names) + (end not in {"nothing", "a request that is cut"})
    assert endings == ([] if end in {"nothing", "a request that is cut"} else [Ending.HALF_CLOSE])


def test_a_trailer_does_not_become_a_header_of_the_next_request() -> None:
    talk = http()
    spoof = chunked("fig").replace(b"X-Trailer: a", b"X-Limit-U: eve")
    talk.receive(spoof + request("POST", "/owntracks", b'{"_type":"location","lat":1,"lon":2,"tst":3}'))
    talk.run()
    assert [via for via, _ in talk.logged] == ["http"]
    assert (talk.statuses, talk.endings) == ([200], [Ending.HALF_CLOSE])


def test_requests_before_garbage_are_executed_and_answered() -> None:
    talk = http()
    talk.receive(put("kiwi") + put("fig") + b"\0\0\0\0\r\n\r\n")
    talk.run()
    assert [line for _, line in talk.logged] == [b"IAMAT kiwi +1+2 3", b"IAMAT fig +1+2 3"]
    assert talk.statuses == [200, 200, 400]
    assert (talk.endings, talk.conversation.reason) == ([Ending.HALF_CLOSE], "bad request")


def test_each_command_is_logged_as_it_came_though_requests_are_pipelined() -> None:
    talk = http()
    talk.holds = True
    talk.receive(put("kiwi") + APP + put("fig"))
    expected = [
        ("http", b"IAMAT kiwi +1+2 3"),
        ("osmand", b"IAMAT phone +1+2 3"),
        ("http", b"IAMAT fig +1+2 3"),
    ]
    for number in range(3):
        talk.run()
        assert talk.lines == expected[: number + 1]
        talk.let_go()
        assert talk.logged == expected[: number + 1]


def test_chunks_of_one_byte_are_read_in_small_parts_and_count_as_many_lines() -> None:
    talk = http()
    head = request(
        "PUT", "/v1/clients/a", b"", "Transfer-Encoding: chunked", "Content-Type: application/json"
    )
    body = b'{"lat":1,"lon":2,"time":3}' + b" " * 50_000
    talk.receive(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
    while talk.conversation.more:
        waiting = talk.conversation._reader.waiting  # type: ignore[attr-defined] # what a turn reads of
        talk.turn()
        assert waiting - talk.conversation._reader.waiting <= 2 * 4_096  # type: ignore[attr-defined] # likewise
        assert talk.statuses or talk.conversation.besides >= MOST
    assert talk.statuses == [200]


def test_a_body_is_not_kept_while_its_answer_waits() -> None:
    talk = http()
    talk.holds = True
    large = b'{"lat":1,"lon":2,"time":3}' + b" " * 1_000_000
    for method, target in (("PUT", "/v1/clients/a"), ("GET", "/v1/clients/a/places")):
        talk.receive(request(method, target, large))
        talk.run()
        kept = talk.conversation._request  # type: ignore[attr-defined] # what holds it
        assert (kept.method, kept.body) == (method, b"")
        talk.let_go()
    assert talk.statuses == [200, 200]


def test_a_turn_sends_few_large_answers() -> None:
    talk = http()
    talk.receive(LIST * 100)
    talk.turn()
    assert len(talk.sent) < 65_536 + 2 * len(talk.sent) // len(talk.statuses)
    assert talk.conversation.more


def test_a_turn_reads_one_large_body_and_it_counts_as_many_lines() -> None:
    talk, batch = http(), request("POST", "/v1/reports", b"[" + b",".join([b"{}"] * 1_000) + b"]")
    talk.receive(batch * 10)
    for number in range(1, 4):
        talk.turn()
        assert len(talk.statuses) == number
        assert talk.conversation.besides > 100


def test_a_packed_body_counts_as_many_lines_however_small_it_is() -> None:
    """A hundred bytes may be a thousand useless reports."""
    body = gzip.compress(b"[" + b",".join([b"0"] * 1_000) + b"]")
    talk, batch = http(), request("POST", "/v1/reports", body, "Content-Encoding: gzip")
    talk.receive(batch * 10)
    talk.turn()
    assert len(talk.statuses) == 1
    assert talk.conversation.besides >= 512


@pytest.mark.parametrize("data", [NOTHING, REQUESTS["a problem"], REQUESTS["an app's useless message"]])
def test_a_turn_answers_few_requests_and_little_is_read_ahead(data: bytes) -> None:
    talk = http()
    talk.receive(data * 5_000)
    assert not talk.conversation.reads
    for number in range(1, 4):
        talk.turn()
        assert len(talk.statuses) == number * MOST
        assert talk.conversation.more
    talk.run()
    assert len(talk.statuses) == 5_000
    assert talk.conversation.reads


def test_nothing_is_taken_of_a_client_that_does_not_read() -> None:
    talk = http()
    talk.conversation.pause_writing(0.0)
    talk.receive(LIST * 1_000)
    talk.run()
    assert (talk.sent, talk.conversation.reads) == (b"", len(LIST) * 1_000 <= READ_AHEAD)
    talk.conversation.resume_writing()
    talk.run()
    assert talk.statuses == [200] * 1_000


def test_a_body_of_the_most_bytes_is_read_however_many_packets_it_takes() -> None:
    spaces = BODY_BYTES - len(b'{"lat":1,"lon":2}')
    data = request("PUT", "/v1/clients/a", b'{"lat":1,"lon":2' + b" " * spaces + b"}")
    talk = http()
    for at in range(0, len(data), 10_000):
        assert talk.conversation.reads
        talk.receive(data[at : at + 10_000])
        talk.run()
    assert talk.statuses == [200]
    assert len(data) - len(request("PUT", "/v1/clients/a", b"x")) > BODY_BYTES - 10


def test_bodies_on_their_way_take_no_more_than_the_room_of_a_server_and_give_it_back() -> None:
    spaces = b" " * (SMALL_BODY_BYTES + 34)
    room, data = BodyRoom(100), request("PUT", "/v1/clients/a", b'{"lat":1,"lon":2,"time":3}' + spaces)
    first, second, third = http(room), http(room), http(room)
    for talk in (first, second):
        talk.receive(data[:-1])
        talk.run()
    assert (first.statuses, second.statuses, room.left) == ([], [503], 41)
    room.left = 0
    third.receive(put("kiwi"))
    third.run()
    assert third.statuses == [200], "a small body needs no room"
    room.left = 41
    second.conversation.lose(broken=True)
    first.conversation.lose(broken=True)
    assert room.left == 100
    for _ in range(5):
        third.receive(data)
        third.run()
    assert (third.statuses, room.left) == ([200] * 6, 100)


def test_a_client_that_waits_to_send_its_body_is_told_once() -> None:
    talk = http()
    head, body = put("kiwi")[:-26], put("kiwi")[-26:]
    head = head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    talk.receive(head)
    talk.run()
    talk.receive(body[:1])
    talk.run()
    assert talk.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    talk.receive(body[1:])
    talk.run()
    assert talk.statuses == [200]


def test_an_answer_has_what_keeps_it_from_caches_and_from_being_taken_for_something_else() -> None:
    talk = http()
    talk.receive(NOTHING)
    talk.run()
    head, _, body = talk.sent.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 404 Not Found"
    assert {
        b"Date: Tue, 14 Nov 2023 22:13:20 GMT",
        b"Content-Type: application/problem+json",
        b"Cache-Control: no-store",
        b"X-Content-Type-Options: nosniff",
        b"Content-Length: %d" % len(body),
    } <= {*lines}
    assert not any(line.startswith(b"Connection:") for line in lines)


def test_what_is_of_no_use_is_counted_once_and_when_the_request_is_answered() -> None:
    talk = http()
    talk.holds = True
    point = '{"type":"Feature","geometry":{"type":"Point","coordinates":[%s]},"properties":{"timestamp":"2024-01-01T00:00:00Z","device_id":"a"}}'
    talk.receive(request("POST", "/overland", f'{{"locations":[{point % "1,2"},{point % "1,92"}]}}'.encode()))
    talk.run()
    assert talk.used == {}
    talk.let_go()
    assert talk.used == {"no_location": 1}


# The clock. ----------------------------------------------------------------------------------------------------


def test_the_deadlines_are_those_that_the_pages_tell() -> None:
    assert (IDLE_SECONDS, BODY_SECONDS) == (60, 30)


def test_who_is_idle_is_disconnected_and_each_answer_gives_new_time() -> None:
    talk = http()
    talk.look(IDLE_SECONDS)
    talk.receive(LIST)
    talk.run()
    talk.look(100.0)
    talk.look(100.0 + IDLE_SECONDS)
    assert talk.endings == []
    talk.look(101.0 + IDLE_SECONDS)
    assert (talk.endings, talk.conversation.reason) == ([Ending.ABORT], "idle")


def test_a_body_has_a_deadline_from_its_headers_on() -> None:
    talk = http()
    talk.look(50.0)
    for number, byte in enumerate(put("kiwi")[:-1]):
        talk.receive(bytes([byte]))
        talk.run()
        talk.look(51.0 + number / 1_000)
    talk.look(50.9 + BODY_SECONDS)
    assert talk.statuses == []
    talk.look(52.0 + BODY_SECONDS)
    assert (talk.statuses, talk.endings) == ([408], [Ending.HALF_CLOSE])
    assert talk.conversation.reason == "slow request"


CHUNKED = b"PUT /v1/clients/kiwi HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "first",
    [b"GET / HTTP/1.1\r\nHost: localhost\r\n", CHUNKED + b"1\r\n{\r\n0\r\n"],
    ids=["headers", "trailers"],
)
def test_headers_take_little_memory_whatever_a_client_sends(first: bytes) -> None:
    """They may come slowly, over all connections that there may be."""
    talk = http()
    talk.receive(first)
    talk.run()
    for number in range(4):
        assert talk.statuses == []
        talk.receive(b"X-%d: %b\r\n" % (number, b"x" * 16_000))
        talk.run()
    talk.receive(b"X-4: %b" % (b"x" * 8_000))
    talk.run()
    assert (talk.statuses, talk.endings) == ([400], [Ending.HALF_CLOSE])


def test_many_requests_and_many_small_chunks_have_no_large_headers() -> None:
    talk = http()
    header = b"X: %b\r\n" % (b"x" * 15_000)
    for _ in range(20):
        talk.receive(put("kiwi").replace(b"\r\n", b"\r\n" + header, 1))
        talk.run()
    talk.receive(
        CHUNKED
        + b"".join(b"1;%b\r\n%c\r\n" % (b"x" * 4_000, byte) for byte in b'{"lat":1,"lon":2}')
        + b"0\r\n\r\n"
    )
    talk.run()
    assert talk.statuses == [200] * 21


def test_headers_that_never_end_are_an_idle_client() -> None:
    talk = http()
    for number, byte in enumerate(put("kiwi")[:50]):
        talk.receive(bytes([byte]))
        talk.run()
        talk.look(float(number))
    talk.look(1.0 + IDLE_SECONDS)
    assert talk.endings == [Ending.ABORT]


def test_a_request_that_waits_too_long_is_told_to_come_again_and_is_still_logged() -> None:
    talk = http()
    talk.holds = True
    talk.receive(put("kiwi"))
    talk.run()
    talk.look(5.0)
    talk.look(5.0 + ANSWER_SECONDS)
    assert talk.statuses == []
    talk.look(5.1 + ANSWER_SECONDS)
    assert (talk.statuses, talk.conversation.reason) == ([503], "no answer in time")
    assert b"Retry-After: " in talk.sent
    sent = talk.sent
    talk.let_go()
    assert [line for _, line in talk.logged] == [b"IAMAT kiwi +1+2 3"]
    assert talk.sent == sent


def test_a_reader_that_takes_nothing_is_disconnected() -> None:
    talk = http(slow_reader_seconds=30)
    talk.conversation.pause_writing(0.0)
    talk.look(20.0, unsent=100)
    talk.look(31.0, unsent=99)
    talk.look(61.0, unsent=99)
    assert talk.endings == []
    talk.look(61.1, unsent=99)
    assert (talk.endings, talk.conversation.reason) == ([Ending.ABORT], "slow reader")


@pytest.mark.parametrize("closes", [True, False])
def test_a_reader_that_takes_nothing_is_disconnected_also_behind_a_last_answer(closes: bool) -> None:
    talk = http(slow_reader_seconds=30)
    talk.receive(request("GET", "/nowhere", b"", *["Connection: close"] * closes))
    talk.conversation.receive_eof()
    talk.run()
    assert talk.conversation.gone
    for now in (100.0, 130.0):
        talk.look(now, unsent=100)
    assert Ending.ABORT not in talk.endings
    talk.look(130.1, unsent=100)
    assert (talk.endings[-1], talk.conversation.reason) == (Ending.ABORT, "slow reader")


# The end. ------------------------------------------------------------------------------------------------------


def test_a_server_that_stops_answers_the_request_that_is_there_and_closes() -> None:
    talk = http()
    talk.holds = True
    talk.receive(put("kiwi"))
    talk.run()
    talk.conversation.drain()
    talk.run()
    assert talk.endings == []
    talk.let_go()
    assert (talk.statuses, talk.endings) == ([200], [Ending.HALF_CLOSE])
    assert b"Connection: close\r\n" in talk.sent
    assert talk.conversation.reason == "server stops"


@pytest.mark.parametrize(
    ("data", "statuses", "ending"),
    [
        (b"", [], Ending.CLOSE),
        (put("kiwi")[:-1], [], Ending.HALF_CLOSE),
        (put("kiwi") * 2, [200], Ending.HALF_CLOSE),
    ],
)
def test_a_server_that_stops_reads_no_further_request(
    data: bytes, statuses: list[int], ending: Ending
) -> None:
    talk = http()
    if data:
        talk.receive(data)
    talk.conversation.drain()
    talk.run()
    talk.receive(put("fig"))
    talk.run()
    assert (talk.statuses, talk.endings) == (statuses, [ending])


def test_who_has_sent_everything_gets_all_answers_and_then_the_end() -> None:
    talk = http()
    talk.receive(put("kiwi") + put("fig") + LIST)
    assert talk.conversation.receive_eof()
    talk.run()
    assert (talk.statuses, talk.endings) == ([200] * 3, [Ending.CLOSE])
    assert talk.sent.count(b"Connection: close\r\n") == 1


def test_what_is_given_up_is_answered_and_returned() -> None:
    talk = http()
    talk.holds = True
    talk.receive(put("kiwi"))
    talk.run()
    unanswered = talk.conversation.give_up("no answer from the cluster")
    talk.follow()
    assert [line for line, _ in unanswered] == [b"IAMAT kiwi +1+2 3"]
    assert (talk.statuses, talk.endings) == ([503], [Ending.HALF_CLOSE])


def test_a_fault_is_logged_and_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = http()

    def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("proxyherd.web.routes.WebRoutes.find", fail)
    talk.receive(LIST)
    talk.run()
    assert [str(fault) for fault in talk.faults] == ["a secret"]
    assert talk.statuses == [500]
    assert b"secret" not in talk.sent


# WebSockets begin. ---------------------------------------------------------------------------------------------


@given(cut=st.integers(1, len(UPGRADE) + 5))
def test_what_is_behind_the_handshake_is_kept(cut: int) -> None:
    talk, data = http(), UPGRADE + b"\x81\x80abcd"
    for part in (data[:cut], data[cut:]):
        if part:
            talk.receive(part)
            if talk.conversation.upgrade is None:
                talk.run()
    assert talk.conversation.upgrade is not None
    assert talk.conversation.rest() == b"\x81\x80abcd"
    assert talk.sent.startswith(b"HTTP/1.1 101 ")
    assert (talk.statuses, talk.endings) == ([101], [])


@pytest.mark.parametrize(
    "data",
    [
        UPGRADE.replace(b"Connection: Upgrade\r\n", b""),
        UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        UPGRADE.replace(b"GET", b"HEAD"),
        UPGRADE.replace(b"Version: 13", b"Version: 8"),
        UPGRADE.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\na"),
        UPGRADE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
    ],
)
def test_what_is_no_handshake_is_refused(data: bytes) -> None:
    talk = http()
    talk.receive(data)
    talk.run()
    assert (talk.statuses, talk.conversation.upgrade) == ([400], None)


def test_a_server_that_stops_lets_no_websocket_begin() -> None:
    talk = http()
    talk.receive(UPGRADE)
    talk.conversation.drain()
    talk.run()
    assert (talk.statuses, talk.conversation.stage) == ([503], Stage.LINGERING)


def test_a_page_of_another_site_reads_also_the_problem_of_a_body_that_is_too_large() -> None:
    talk: Talk = http()
    origin = "Origin: https://map.example"
    talk.receive(request("PUT", "/v1/clients/a", b"[]", origin) + request("GET", "/nowhere", b"", origin))
    talk.run()
    assert talk.sent.count(b"Access-Control-Allow-Origin: https://map.example\r\n") == 2
    assert [json.loads(body)["status"] for _, body in answers(talk.sent)] == [422, 404]
