"""What the library reads in a token is what servers grant by it; what it cannot read is left to them."""

from __future__ import annotations

import math

import jwt
import pytest

from proxyherd.client.tokens import end_of, may_report

KEY = "k" * 32


@pytest.mark.parametrize(
    ("subject", "may", "client", "is_allowed"),
    [
        ("kiwi", ["report"], b"kiwi", True),
        ("kiwi", ["see"], b"kiwi", False),
        ("kiwi", ["see", "report"], b"kiwi2", False),
        ("jane/*", ["report"], b"jane/phone", True),
        ("jane/*", ["report"], b"john/phone", False),
        ("my phone", ["report"], b"my%20phone", True),
        ("*", ["report"], b"\xff", True),
    ],
)
def test_a_token_allows_reports_of_its_subject(
    subject: str, may: list[str], client: bytes, is_allowed: bool
) -> None:
    token = jwt.encode({"sub": subject, "may": may, "iat": 1, "exp": 2}, KEY, algorithm="HS256")
    assert may_report(token, client) is is_allowed


@pytest.mark.parametrize("token", ["", "opaque", "a.b.c", "a.W10.c", "a.\xff.c", "a.eyJzdWIiOjV9.c"])
def test_of_a_token_that_cannot_be_read_nothing_is_known(token: str) -> None:
    assert may_report(token, b"kiwi")
    assert end_of(token) == math.inf


def test_a_token_says_when_it_ends() -> None:
    assert end_of(jwt.encode({"exp": 1795939200}, KEY, algorithm="HS256")) == 1795939200
