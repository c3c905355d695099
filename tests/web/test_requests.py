"""Requests: what their headers and targets say."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from proxyherd.web.requests import WebRequest


@pytest.mark.parametrize(
    ("authorization", "user"),
    [
        ("Basic amFuZTpzZWNyZXQ=", "jane"),
        ("basic amFuZTpzZWNyZXQ=", "jane"),
        ("Basic amFuZQ==", "jane"),
        ("Basic !", ""),
        ("Basic /w==", ""),
        ("Bearer amFuZTpzZWNyZXQ=", ""),
        ("", ""),
    ],
)
def test_the_user_is_that_of_basic_authentication(authorization: str, user: str) -> None:
    request = WebRequest("GET", "/", CIMultiDict({"authorization": authorization}), b"")
    assert request.user == user


def test_query_and_type_are_taken_apart() -> None:
    request = WebRequest("GET", "/a?b=c?d", CIMultiDict({"content-type": "Text/Plain; x=y"}), b"")
    assert (request.query, request.content_type) == ("b=c?d", "text/plain")
    assert WebRequest("GET", "/a", CIMultiDict(), b"").content_type == ""
