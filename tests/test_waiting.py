"""Queries that came before their server was ready."""

from __future__ import annotations

import pytest
from herd_process import herd_of, wait_until

from proxyherd import waiting
from proxyherd.messages import Whatsat
from proxyherd.node import News
from proxyherd.reply import Reply
from proxyherd.waiting import EarlyQueries


class Asking:
    def __init__(self) -> None:
        self.gone = False


def query(client: bytes) -> Reply:
    return Reply("whatsat", "waiting", None, Whatsat(client, b"0", 0))


def test_a_query_waits_until_there_is_news_of_its_client_or_until_all_are_wanted() -> None:
    early: EarlyQueries[Asking] = EarlyQueries()
    someone, replies = Asking(), [query(client) for client in (b"a", b"b", b"a")]
    for reply in replies:
        assert early.add(someone, b"line", reply)
    assert early.known([News(b"c", b"")]) == []
    assert [reply for _, _, reply in early.known([News(b"a", b""), News(b"a", b"")])] == [
        replies[0],
        replies[2],
    ]
    assert early
    assert [reply for _, _, reply in early.all()] == [replies[1]]
    assert not early


def test_past_the_bound_those_who_left_make_room_and_then_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "MOST", 4)
    early: EarlyQueries[Asking] = EarlyQueries()
    leaves, stays = Asking(), Asking()
    for one in (leaves, stays, leaves, stays):
        assert early.add(one, b"line", query(b"a"))
    assert not early.add(stays, b"line", query(b"b"))
    leaves.gone = True
    assert early.add(stays, b"line", query(b"b"))
    assert early.add(stays, b"line", query(b"b"))
    assert not early.add(stays, b"line", query(b"b"))
    assert len(early.all()) == 4


def test_a_client_that_has_gone_before_the_server_is_ready_costs_no_query_and_all_it_said_is_logged() -> None:
    with herd_of([("Ann", "Bob")], more="[timing]\nready_seconds = 1.5\n") as herd:
        ann = herd["Ann"]  # Bob stays away: she waits for him so long
        ann.start()
        wait_until(lambda: ann.events("started"), "Ann listens")
        with ann.connect() as connection:
            connection.send(b"WHATSAT kiwi 10 5", b"IAMAT kiwi +1+1 5")
            name = connection.name
            wait_until(lambda: ann.log_file.exists() and ann.events("client_opened"), "she has taken it")
        ann.wait_until_ready()
        wait_until(lambda: len(ann.events("command", client=name)) == 2, "both are logged")
        told = [(one["kind"], one["outcome"]) for one in ann.events("command", client=name)]
        assert told[1] == ("iamat", "stored")
        assert told[0][0] == "whatsat"
        assert told[0][1] in {"left", "answered", "unknown"}  # by when the connection was seen to be gone
        assert not ann.events("internal_error")
