"""The request by which a WebSocket begins."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from proxyherd.web.handshakes import upgrade
from proxyherd.web.problems import REQUEST, Problem

GOOD = {
    "Upgrade": "WebSocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "chat, proxyherd.json.v1, proxyherd.lines.v1",
}


def test_the_first_known_subprotocol_is_chosen_and_the_key_is_answered_as_in_the_rfc() -> None:
    found = upgrade(CIMultiDict(GOOD))
    assert (found.protocol, found.accept) == ("proxyherd.json.v1", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upgrade", "h2c"),
        ("Sec-WebSocket-Version", "8"),
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
