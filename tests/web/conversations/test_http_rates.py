"""Requests of a client that asks too fast: they wait for a little, and then they are told when to come again."""

from __future__ import annotations

import json

import pytest
from tokens import TokenClock, access_with, token
from web_talk import APP, LIST, NOTHING, UPGRADE, Talk, answers, http, put, request, site_with

from proxyherd.config.rates import RateSettings
from proxyherd.core.buckets import Allowances, Usage
from proxyherd.server.clients.http_reader import SMALL_BODY_BYTES, BodyRoom
from proxyherd.web.bodies import BODY_BYTES
from proxyherd.web.conversations.base import Site
from proxyherd.web.conversations.http_waits import PATIENCE_SECONDS

ADDRESS, EVE = b"\x0a\0\0\1", b"\x0a\0\0\2"


def talk(a_second: float, burst: float = 1.0) -> Talk:
    """Return a conversation of a client that may do so many commands a second, and as many at once."""
    rates = RateSettings(
        commands_per_connection=0, commands_per_address=a_second, commands_per_subject=0, burst_seconds=burst
    )
    talk = http()
    talk.allowance = Allowances(rates).ask(Usage(b""), ADDRESS, 0.0)
    return talk


def test_within_the_rate_nobody_waits_and_beyond_it_a_request_waits_for_as_long_as_it_must() -> None:
    one = talk(10.0)
    for _ in range(11):
        one.receive(put("kiwi"))
        one.run()
    assert (one.statuses, one.waits) == ([200] * 11, [])
    one.receive(put("kiwi"))
    one.run()
    assert one.waits == [pytest.approx(0.1)]
    assert (len(one.statuses), one.conversation.waits) == (11, True)
    one.turn(0.1)
    assert one.statuses == [200] * 12
    assert not one.conversation.waits


def test_who_has_waited_and_is_still_too_fast_is_told_when_to_come_again_once_a_second() -> None:
    one = talk(1.0)
    assert one.allowance is not None
    one.allowance.spend(5, 0.0)
    one.receive(put("kiwi") + put("fig"))
    one.run()
    assert one.waits == [PATIENCE_SECONDS]
    one.turn(1.0)
    [(status, body)] = answers(one.sent)
    assert status == 429
    assert b"Retry-After: 3\r\n" in one.sent
    problem = json.loads(body)
    assert (problem["type"], problem["status"]) == ("/v1/#rate", 429)
    assert problem["detail"] == "Come again in 3 s."
    one.run()
    assert one.waits == [PATIENCE_SECONDS] * 2, "the next one waits again"
    assert one.logged == [], "nothing was taken"
    one.turn(4.1)
    assert one.statuses == [429, 200]
    assert [line for _, line in one.logged] == [b"IAMAT fig +1+2 3"]


@pytest.mark.parametrize(
    ("asked", "cost"),
    [
        (put("kiwi"), 1),
        (LIST, 1),
        (NOTHING, 1),
        (APP, 1),
        (request("PUT", "/v1/clients/a", b"[]"), 1),
        (
            request("POST", "/v1/reports", b"[" + b",".join([b'{"client":"a","lat":1,"lon":2}'] * 40) + b"]"),
            40,
        ),
    ],
)
def test_a_request_costs_as_many_commands_as_it_has_and_one_if_it_has_none(asked: bytes, cost: int) -> None:
    one = talk(1.0)
    one.receive(asked)
    while one.conversation.more:
        one.turn()
    assert one.allowance is not None
    assert one.allowance.address.commands_at == cost
    assert one.allowance.wait(0.0) == cost - 1


def test_a_server_that_stops_lets_nobody_wait() -> None:
    one = talk(1.0)
    one.receive(put("kiwi") * 3)
    one.run()
    assert (one.statuses, len(one.waits)) == ([200, 200], 1)
    one.conversation.drain()
    one.run()
    one.follow()
    assert one.statuses == [200, 200, 200]


def test_a_client_that_has_closed_its_half_gets_its_answer_after_it_has_waited() -> None:
    one = talk(1.0)
    one.receive(put("kiwi") * 3)
    one.conversation.receive_eof()
    one.run()
    one.follow()
    assert not one.endings
    one.turn(1.0)
    assert (one.statuses, len(one.endings)) == ([200, 200, 200], 1)


def test_a_websocket_too_many_is_refused_before_it_begins() -> None:
    one = http()
    one.upgrades = False
    one.receive(UPGRADE)
    one.run()
    assert one.statuses == [429]
    assert one.conversation.upgrade is None
    assert b"Retry-After: 1\r\n" in one.sent


def with_tokens(**rates: float) -> Talk:
    """Return a conversation of a port that needs tokens, whose requests count for an address and for their subjects."""
    values = {
        "commands_per_connection": 0.0,
        "commands_per_address": 0.0,
        "commands_per_subject": 0.0,
    } | rates
    allowances = Allowances(RateSettings(**values, burst_seconds=1.0))  # type: ignore[arg-type]
    port = http(at=site_with(access_with({}), TokenClock()))
    port.allowance_of = lambda subject: allowances.ask(Usage(b""), ADDRESS, 0.0, subject)
    return port


def ask_with(port: Talk, spelling: str) -> int:
    """Ask about Jane; return the status of the answer, 0 if the request waits."""
    before = len(port.statuses)
    head = b"GET /v1/clients/jane HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n"
    port.receive(head % spelling.encode())
    port.run()
    return port.statuses[-1] if len(port.statuses) > before else 0


JANE, BOB = token(sub="jane"), token(sub="bob")


def test_a_request_with_a_token_counts_once_for_its_address_and_once_for_its_subject() -> None:
    by_address = with_tokens(commands_per_address=2.0)
    assert [ask_with(by_address, one) for one in (JANE, JANE, BOB, BOB)] == [200, 200, 404, 0]
    by_subject = with_tokens(commands_per_subject=2.0)
    assert [ask_with(by_subject, one) for one in (JANE, BOB, JANE, JANE, JANE)] == [200, 404, 200, 200, 0]


def test_whoever_floods_with_one_token_is_told_to_come_again_and_others_are_served() -> None:
    port = with_tokens(commands_per_subject=2.0)
    assert [ask_with(port, JANE) for _ in range(4)] == [200, 200, 200, 0]
    port.turn(0.0)  # and its bucket is as empty as before
    assert port.statuses[-1] == 429
    assert ask_with(port, BOB) == 404


def test_without_a_good_token_no_body_is_read_and_none_takes_room_from_others() -> None:
    room, at = BodyRoom(SMALL_BODY_BYTES), site_with(access_with({}), TokenClock())
    for header in ("", "Authorization: Bearer x.y.z"):
        body = f"Content-Length: {BODY_BYTES}", "Expect: 100-continue"
        head = request("POST", "/v1/reports", b"", *body, *[header][: len(header)])
        for data in (head, head + bytes(60_000), LIST + head + bytes(60_000)):
            stranger = http(room, at=at)
            stranger.receive(data)
            stranger.run()
            assert stranger.statuses[-1] == 401
            assert len(stranger.endings) == 1, "the connection ends"
            assert b"100 Continue" not in stranger.sent
            stranger.receive(bytes(200_000))
            stranger.run()
            assert room.left == SMALL_BODY_BYTES
    batch = json.dumps([{"client": "jane", "lat": 1, "lon": 2, "time": 3}]).encode() + b" " * 100_000
    honest = http(room, at=at)
    data = request("POST", "/v1/reports", batch, f"Authorization: Bearer {token(sub='jane')}")
    for begin in range(0, len(data), 30_000):
        honest.receive(data[begin : begin + 30_000])
        honest.run()
    assert honest.statuses == [200]


def sends_all_but_the_end(room: BodyRoom, at: Site | None, address: bytes, *headers: str) -> Talk:
    """Return a connection of an address over which nearly all of a large body has come."""
    one, allowances = http(room, at=at), Allowances(RateSettings())
    one.allowance_of = lambda subject: allowances.ask(Usage(b""), address, 0.0, subject)
    spaces = b" " * (SMALL_BODY_BYTES + 200_000)
    data = request("POST", "/v1/reports", b'[{"client":"jane","lat":1,"lon":2,"time":3}]' + spaces, *headers)
    for begin in range(0, len(data) - 1, 30_000):
        one.receive(data[begin : begin + 30_000][: len(data) - 1 - begin])
        one.run()
    return one


def with_token(subject: str) -> str:
    return f"Authorization: Bearer {token(sub=subject)}"


@pytest.mark.parametrize("who", ["one address", "one subject from many addresses"])
def test_one_who_sends_many_large_bodies_and_no_ends_leaves_others_their_room(who: str) -> None:
    room = BodyRoom(4_000_000)
    by_address = who == "one address"
    at = None if by_address else site_with(access_with({}), TokenClock())
    his, hers = ([], []) if by_address else ([with_token("eve")], [with_token("jane")])
    attackers = [
        sends_all_but_the_end(room, at, EVE if by_address else bytes([10, 0, 1, number]), *his)
        for number in range(30)
    ]
    refused = [one for one in attackers if one.statuses == [503]]
    assert len(attackers) - len(refused) == 4, "a quarter of the room"
    assert room.left >= 3_000_000
    phone = sends_all_but_the_end(room, at, ADDRESS, *hers)
    phone.receive(b" ")
    phone.run()
    assert phone.statuses == [200]
    for one in attackers:
        one.conversation.lose(broken=True)
    assert (room.left, room.taken) == (4_000_000, {})
    again = sends_all_but_the_end(room, at, EVE, *his)
    assert (again.statuses, len(room.taken)) == ([], 1)


def test_what_came_with_the_headers_counts_for_its_sender_too() -> None:
    room = BodyRoom(400_000)
    data = request("POST", "/v1/reports", bytes(SMALL_BODY_BYTES + 150_000))[:-1]
    for allowed in (False, True):
        one = http(room)
        if not allowed:
            one.allowance = Allowances(RateSettings()).ask(Usage(b""), EVE, 0.0)
        one.receive(data)
        one.run()
        assert (one.statuses, room.taken) == ([] if allowed else [503], {})
        one.conversation.lose(broken=True)
        assert room.left == 400_000


def test_a_bad_token_of_a_body_that_is_on_its_way_counts_for_its_address() -> None:
    port = with_tokens(commands_per_address=2.0)
    allowance = port.allowance_of(None)
    assert allowance is not None
    port.receive(request("POST", "/v1/reports", b"", "Content-Length: 9"))
    port.run()
    assert (port.statuses, port.refusals) == ([401], ["missing"])
    assert allowance.address.commands_at > 0


def test_a_bad_token_counts_for_its_address() -> None:
    port = with_tokens(commands_per_address=2.0)
    assert [ask_with(port, "x.y.z") for _ in range(4)] == [401, 401, 401, 0]
