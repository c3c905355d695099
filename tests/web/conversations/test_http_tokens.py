"""Requests whose token is checked before the server knows who was revoked: they wait for a little."""

from __future__ import annotations

import json

import pytest
from tokens import KEY, MOST_SECONDS, NOW, token
from web_talk import UPGRADE, Talk, answers, http, put, request, site_with

from proxyherd.config.rates import RateSettings
from proxyherd.core.buckets import Allowances, Usage
from proxyherd.web.access import Access
from proxyherd.web.conversations.http_waits import PATIENCE_SECONDS, RECHECK_SECONDS
from proxyherd.web.tokens import TokenVerifier

SPELLED = token(sub="*")
PUT = put("kiwi").replace(b"PUT /", f"PUT /t/{SPELLED}/".encode())
DELETE = request("DELETE", f"/t/{token(sub='*', may=['erase'])}/v1/clients/kiwi")


class Port:
    """A port with one client, that learns later who was revoked."""

    def __init__(self) -> None:
        self.until: int | None = None
        access = Access(lambda _: self.until)
        access.renew(TokenVerifier([KEY], MOST_SECONDS))
        self.talk: Talk = http(at=site_with(access, lambda: NOW * 10**9))

    def say(self, data: bytes) -> Talk:
        self.talk.receive(data)
        self.talk.run()
        return self.talk


@pytest.mark.parametrize("asked", [PUT, DELETE])
def test_a_request_waits_until_the_server_knows_and_those_behind_it_too(asked: bytes) -> None:
    port = Port()
    talk = port.say(asked + PUT)
    assert (talk.statuses, talk.lines, talk.looks) == ([], [], [RECHECK_SECONDS])
    assert talk.conversation.waits, "a server that stops answers it"
    talk.turn(0.5)
    assert (talk.statuses, talk.looks) == ([], [RECHECK_SECONDS] * 2)
    port.until = 0
    talk.turn(0.6)
    talk.run()
    assert talk.statuses == [202 if asked is DELETE else 200, 200]
    assert not talk.conversation.waits


@pytest.mark.parametrize("asked", [PUT, DELETE])
def test_who_was_revoked_has_done_nothing_when_the_server_learns_it(asked: bytes) -> None:
    port = Port()
    talk = port.say(asked)
    port.until = NOW * 10**9
    talk.turn(0.1)
    assert (talk.statuses, talk.lines, talk.refusals) == ([401], [], ["revoked"])


def test_a_server_that_does_not_know_for_long_says_when_to_come_again() -> None:
    port = Port()
    talk = port.say(PUT)
    talk.turn(PATIENCE_SECONDS)
    [(status, body)] = answers(talk.sent)
    assert (status, json.loads(body)["type"]) == (503, "/v1/#not-taken")
    assert b"Retry-After: 2\r\n" in talk.sent
    assert (talk.refusals, talk.endings) == ([], [])
    talk.receive(PUT)
    talk.turn(PATIENCE_SECONDS + 0.1)
    assert talk.statuses == [503], "the next one waits for as long"
    assert talk.conversation.waits
    talk.turn(2 * PATIENCE_SECONDS + 0.1)
    assert talk.statuses == [503, 503]


def test_a_websocket_begins_when_the_server_knows() -> None:
    port = Port()
    talk = port.say(UPGRADE.replace(b"GET /", f"GET /t/{SPELLED}/".encode()))
    assert talk.conversation.upgrade is None
    port.until = 0
    talk.turn(0.1)
    assert talk.conversation.upgrade is not None


def test_who_waits_for_that_and_for_its_rate_is_answered_after_both() -> None:
    port, rates = (
        Port(),
        RateSettings(
            commands_per_connection=0, commands_per_subject=0, commands_per_address=1.0, burst_seconds=1.0
        ),
    )
    port.talk.allowance = Allowances(rates).ask(Usage(b""), b"\x0a\0\0\1", 0.0)
    assert port.talk.allowance is not None
    talk = port.say(PUT)
    assert (talk.waits, talk.looks) == ([], [RECHECK_SECONDS])
    port.talk.allowance.spend(5, 0.0)
    talk.turn(0.1)
    assert (len(talk.waits), talk.looks, talk.statuses) == (1, [RECHECK_SECONDS], [])
    talk.turn(7.0)
    assert talk.statuses == [503]
