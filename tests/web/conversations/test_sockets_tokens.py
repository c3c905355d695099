"""Conversations of a port that needs tokens: who is let in, for how long, and that nothing repeats a token."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest
from tokens import KEY, MOST_SECONDS, NOW, OTHER_KEY, TokenClock, access_with, parts_of, token
from web_talk import Talk, answers, frame, http, messages, site_with

from proxyherd.core.conversation import Ending, Stage
from proxyherd.core.framing import Denied
from proxyherd.web.access import TokenProblem
from proxyherd.web.conversations.base import Site
from proxyherd.web.conversations.lines import LineSocket
from proxyherd.web.conversations.ops import JsonSocket
from proxyherd.web.conversations.sockets import WebSocketConversation
from proxyherd.web.frames import Code, Opcode
from proxyherd.web.handshakes import LINES_PROTOCOL, Upgrade
from proxyherd.web.rights import revocation
from proxyherd.web.tokens import TokenVerifier

JANE = token(sub="jane", exp=NOW + 100)
BOTH = pytest.mark.parametrize("kind", [LineSocket, JsonSocket])
Kind = Callable[..., WebSocketConversation]


class Port:
    """A port with its clock, its keys, and those who were revoked."""

    def __init__(self) -> None:
        self.clock = TokenClock()
        self.revoked: dict[bytes, int] = {}
        self.access = access_with(self.revoked, KEY)
        self.site: Site = site_with(self.access, self.clock)

    def socket(self, kind: Kind, spelling: str = JANE) -> Talk:
        """Return a WebSocket that was begun with this token."""
        talk = Talk(kind, at=self.site)
        grant = TokenVerifier([KEY], MOST_SECONDS).verify(spelling)
        assert isinstance(talk.conversation, WebSocketConversation)
        talk.conversation.begin(Upgrade(LINES_PROTOCOL, "", grant))
        return talk


def asks(kind: Kind, client: bytes, number: int = 1) -> bytes:
    if kind is LineSocket:
        return frame(b"WHATSAT %b 10 5" % client)
    return frame(b'{"op":"places","id":%d,"client":"%b"}' % (number, client))


def reports(kind: Kind, client: bytes) -> bytes:
    if kind is LineSocket:
        return frame(b"IAMAT %b +1+2 3" % client)
    return frame(b'{"op":"report","id":1,"client":"%b","lat":1,"lon":2,"time":3}' % client)


def told(talk: Talk) -> list[bytes]:
    return [data for opcode, data in messages(talk.sent) if opcode == Opcode.TEXT]


def closes(talk: Talk) -> list[tuple[int, bytes]]:
    frames = [data for opcode, data in messages(talk.sent) if opcode == Opcode.CLOSE]
    return [(int.from_bytes(data[:2], "big"), data[2:]) for data in frames]


@BOTH
def test_a_websocket_may_do_what_its_token_allows(kind: Kind) -> None:
    talk = Port().socket(kind)
    talk.receive(reports(kind, b"jane") + reports(kind, b"bob") + asks(kind, b"jane") + asks(kind, b"bob"))
    talk.run()
    assert [isinstance(line, Denied) for _, line in talk.lines] == [False, True, False, True]
    report, refused, place, hidden = (
        b"".join(told(talk)).split(b"\n", 3) if kind is LineSocket else told(talk)
    )
    assert not closes(talk)
    if kind is LineSocket:
        assert report.startswith(b"AT Clark +0.1 jane")
        assert refused == b"? IAMAT bob +1+2 3"
        assert place.startswith(b"AT Clark +0.1 jane")
        assert hidden.endswith(b"? WHATSAT bob 10 5\n")
    else:
        assert b'"outcome":"stored"' in report
        assert b'"status":403' in refused
        assert b'"places":' in place
        assert b'"status":404' in hidden


@BOTH
@pytest.mark.parametrize("reason", ["missing", "expired"])
def test_a_websocket_without_a_good_token_is_closed_at_once(kind: Kind, reason: str) -> None:
    talk = Talk(kind, at=Port().site)
    assert isinstance(talk.conversation, WebSocketConversation)
    refusal = TokenProblem(reason)  # type: ignore[arg-type]
    talk.conversation.begin(Upgrade(LINES_PROTOCOL, "", None, refusal))
    talk.follow()
    assert closes(talk) == [(4401, refusal.detail.encode())]
    assert talk.endings == [Ending.AWAIT_CLOSE]
    talk.receive(reports(kind, b"jane"))
    talk.run()
    assert not talk.lines
    assert talk.conversation.reason == "bad token"


def expire(port: Port) -> str:
    port.clock.now += 100 * 10**9
    return "expired"


def revoke(port: Port) -> str:
    port.revoked[revocation("jane")] = port.clock.now
    return "revoked"


def change_keys(port: Port) -> str:
    port.access.renew(TokenVerifier([OTHER_KEY], MOST_SECONDS))
    return "renewed"


@BOTH
@pytest.mark.parametrize("end", [expire, revoke, change_keys])
@pytest.mark.parametrize("is_silent", [True, False])
def test_a_websocket_is_closed_when_its_token_is_good_no_more(
    kind: Kind, end: Callable[[Port], str], is_silent: bool
) -> None:
    port = Port()
    talk = port.socket(kind)
    talk.receive(reports(kind, b"jane"))
    talk.run()
    talk.look(1.0)
    assert not closes(talk)
    reason = end(port)
    if is_silent:
        talk.look(2.0)
    else:
        talk.receive(reports(kind, b"jane"))
        talk.run()
        talk.turn()
    assert talk.refusals == [reason]
    assert [code for code, _ in closes(talk)] == [Code.TOKEN]
    assert [isinstance(line, Denied) for _, line in talk.lines[1:]] == [] if is_silent else [True]
    assert talk.conversation.stage is Stage.LINGERING
    talk.look(3.0)
    assert len(closes(talk)) == 1


@BOTH
def test_what_was_asked_before_the_end_of_a_token_is_answered(kind: Kind) -> None:
    port = Port()
    talk = port.socket(kind)
    talk.holds = True
    talk.receive(asks(kind, b"jane"))
    talk.turn()
    expire(port)
    talk.look(1.0)
    assert not closes(talk)
    talk.let_go()
    assert len(told(talk)) == len(closes(talk)) == 1


def test_requests_of_one_connection_may_have_different_tokens() -> None:
    port = Port()
    talk = http(at=port.site)
    other = token(sub="bob")
    for spelling, client in ((JANE, b"jane"), (other, b"bob"), (JANE, b"bob"), (None, b"jane")):
        path = b"" if spelling is None else f"/t/{spelling}".encode()
        talk.receive(b"GET %b/v1/clients/%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (path, client))
        talk.run()
    assert [status for status, _ in answers(talk.sent)] == [200, 200, 404, 401]
    assert talk.refusals == ["missing"]
    assert port.access.tried == 2


@pytest.mark.parametrize(
    "spelling", [JANE, token(OTHER_KEY), token(exp=NOW), token(sub=None), token()[:-1], token() + "A" * 3_000]
)
@pytest.mark.parametrize(
    "target", ["/v1/clients/jane", "/nowhere", "/v1/reports", "/osmand?lat=x", "//", "/%"]
)
def test_no_answer_repeats_a_token(spelling: str, target: str) -> None:
    talk = http(at=Port().site)
    host = f"HTTP/1.1\r\nHost: localhost\r\nReferer: http://localhost/t/{spelling}/\r\n"
    talk.receive(f"GET /t/{spelling}{target} {host}\r\n".encode())
    talk.receive(f"GET {target} {host}Authorization: Bearer {spelling}\r\n\r\n".encode())
    talk.receive(f"PATCH /t/{spelling}{target} {host}\r\n".encode())
    talk.receive(f"GET /t/{spelling} {host}\r\n".encode())
    talk.run()
    assert len(talk.statuses) == 4
    assert not [part for part in parts_of([spelling]) if part in talk.sent]
    assert not talk.faults


def test_checking_signatures_counts_as_work() -> None:
    """Strangers can ask for as many checks as they like."""
    talk = http(at=Port().site)
    request = b"GET /v1/clients/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n"
    talk.receive(request % token(OTHER_KEY).encode() * 20)
    talk.turn()
    assert len(talk.statuses) == 1
    assert talk.conversation.besides > 10


def test_the_traceback_of_a_fault_has_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    port = Port()
    talk = http(at=port.site)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(port.access, "_refusal", fail)
    talk.receive(f"GET /t/{JANE}/v1/reports HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    talk.receive(
        f"GET /v1/clients/jane HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {JANE}\r\n\r\n".encode()
    )
    talk.run()
    assert talk.statuses == [405, 500]
    told = "".join(line for fault in talk.faults for line in traceback.format_exception(fault))
    assert "ZeroDivisionError" in told
    assert not [part for part in parts_of([JANE]) if part in told.encode() or part in talk.sent]
