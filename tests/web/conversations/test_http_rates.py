"""Requests of a client that asks too fast: they wait for a little, and then they are told when to come again."""

from __future__ import annotations

import json

import pytest
from web_talk import APP, LIST, NOTHING, UPGRADE, Talk, answers, http, put, request

from proxyherd.config.rates import RateSettings
from proxyherd.core.buckets import Allowances, Usage
from proxyherd.web.conversations.http import PATIENCE_SECONDS

ADDRESS = b"\x0a\0\0\1"


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
