"""Follows as the log shows them, and as they are judged."""

from __future__ import annotations

import pytest

from proxyherd.config.schema import Limits
from proxyherd.core.follows.follow import Follow, Unfollow
from proxyherd.core.follows.follower import Follower
from proxyherd.core.framing import Denied, spell_line
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules
from proxyherd.core.spatial.areas import Box, Circle


class Nobody:
    """A connection that is never told anything."""

    def push(self) -> None:
        raise AssertionError("it is told something")

    def fail(self) -> None:
        raise AssertionError("it has failed")


FOLLOWER = Follower(Nobody())


@pytest.mark.parametrize(
    ("command", "spelled"),
    [
        (Follow(FOLLOWER, clients=(b"kiwi",)), b"follow kiwi"),
        (Follow(FOLLOWER, b"1", (b"kiwi", b"fig%20tree")), b"follow kiwi fig%20tree"),
        (
            Follow(FOLLOWER, b"2", area=Circle(34.06893, -118.445127, 2000.0)),
            b"follow +34.06893-118.445127 2000",
        ),
        (Follow(FOLLOWER, b"2", area=Box(179.5, -10.0, -179.0, 10.0)), b"follow +179.5 -10 -179 +10"),
        (Follow(FOLLOWER, clients=(b"x" * 500, b"y" * 600)), b"follow " + b"x" * 500 + b" " + b"y" * 516),
        (Unfollow(FOLLOWER, b'"a"'), b'unfollow "a"'),
    ],
    ids=["client", "clients", "circle", "box", "long", "unfollow"],
)
def test_the_log_shows_who_is_followed_in_a_bounded_line(command: Follow | Unfollow, spelled: bytes) -> None:
    assert spell_line(command) == spelled


@pytest.mark.parametrize("takes_reports", [True, False])
def test_it_is_judged_in_its_place_also_while_no_reports_are_taken(*, takes_reports: bool) -> None:
    rules, follow, unfollow = (
        Rules("Clark", Limits()),
        Follow(FOLLOWER, clients=(b"a",)),
        Unfollow(FOLLOWER, b"1"),
    )
    rules.begin(5, takes_reports=takes_reports)
    _, judged = rules.judge([b"x", follow, unfollow, Denied(follow)], 5)
    assert judged == [
        Reply("other", "invalid", b"? x"),
        follow,
        unfollow,
        Reply("follow", "denied", b"? follow a"),
    ]
