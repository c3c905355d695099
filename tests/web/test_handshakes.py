"""The request by which a WebSocket begins."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from proxyherd.web.answers import WebAnswer
from proxyherd.web.handshakes import Upgrade, upgrade
from proxyherd.web.problems import REQUEST, Problem

GOOD = {
    "Upgrade": "WebSocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "chat, proxyherd.json.v1, proxyherd.lines.v1",
}


def test_the_first_known_subprotocol_is_chosen_and_the_key_is_answered_as_in_the_rfc() -> None:
    found = upgrade(CIMultiDict(GOOD))
    assert isinstance(found, Upgrade)
    assert (found.protocol, found.accept) == ("proxyherd.json.v1", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Key", "c2hvcnQ="),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=!"),
        ("Sec-WebSocket-Key", "é"),
        ("Sec-WebSocket-Protocol", ""),
        ("Sec-WebSocket-Protocol", "chat"),
    ],
)
def test_other_requests_are_refused(name: str, value: str) -> None:
    with pytest.raises(Problem) as refusal:
        upgrade(CIMultiDict(GOOD | {name: value}))
    assert refusal.value.kind == REQUEST


@pytest.mark.parametrize(("name", "value"), [("Upgrade", "h2c"), ("Sec-WebSocket-Version", "8")])
def test_whoever_asks_for_another_protocol_is_told_the_version(name: str, value: str) -> None:
    found = upgrade(CIMultiDict(GOOD | {name: value}))
    assert isinstance(found, WebAnswer)
    assert (found.status, found.headers) == (400, (("Sec-WebSocket-Version", "13"),))


def test_subprotocols_may_stand_in_several_headers() -> None:
    headers = CIMultiDict(GOOD)
    headers["Sec-WebSocket-Protocol"] = "chat"
    headers.add("Sec-WebSocket-Protocol", "proxyherd.lines.v1")
    found = upgrade(headers)
    assert isinstance(found, Upgrade)
    assert found.protocol == "proxyherd.lines.v1"
