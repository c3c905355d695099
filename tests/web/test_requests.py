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
        ("Basic amFu!ZTpzZWNyZXQ=", ""),
        ("Basic /w==", ""),
        ("Bearer amFuZTpzZWNyZXQ=", ""),
        ("", ""),
    ],
)
def test_the_user_is_that_of_basic_authentication(authorization: str, user: str) -> None:
    request = WebRequest("GET", "/", CIMultiDict({"authorization": authorization}), b"")
    assert request.user == user


@pytest.mark.parametrize(
    ("target", "hosts", "whom", "path", "query"),
    [
        ("/v1/clients/a?b", ["x:1"], ["x:1"], "/v1/clients/a", "b"),
        ("http://y:2/v1/clients/a?b", ["x:1"], ["y:2"], "/v1/clients/a", "b"),
        ("HTTPS://Y/a", ["x"], ["Y"], "/a", ""),
        ("http://y:2", ["x"], ["y:2"], "/", ""),
        ("http://y?b=/c", ["x"], ["y"], "/", "b=/c"),
        ("http://y/a", [], ["y"], "/a", ""),
        ("http:///a", ["x"], [""], "/a", ""),
        ("http://x@y/a", ["x"], ["x@y"], "/a", ""),
        ("http://y/a", ["x", "y"], ["x", "y"], "/a", ""),
        ("/http://y/a", ["x"], ["x"], "/http://y/a", ""),
        ("ftp://y/a", ["x"], ["x"], "ftp://y/a", ""),
        ("http://y#/a", ["x"], ["y"], "#/a", ""),
        ("//y/a", ["x"], ["x"], "//y/a", ""),
        ("*", ["x"], ["x"], "*", ""),
        ("", ["x"], ["x"], "/", ""),
    ],
)
def test_a_target_with_an_authority_says_whom_the_request_is_for_whatever_host_says(
    target: str, hosts: list[str], whom: list[str], path: str, query: str
) -> None:
    """RFC 9112, section 3.2.2. Two headers Host are refused all the same."""
    request = WebRequest("GET", target, CIMultiDict([("Host", host) for host in hosts]), b"")
    assert (request.hosts, request.path, request.query) == (whom, path, query)


def test_query_and_type_are_taken_apart() -> None:
    request = WebRequest("GET", "/a?b=c?d", CIMultiDict({"content-type": "Text/Plain; x=y"}), b"")
    assert (request.query, request.content_type) == ("b=c?d", "text/plain")
    assert WebRequest("GET", "/a", CIMultiDict(), b"").content_type == ""
