"""Routes of a port that needs tokens: what is for everybody, what needs which right, and what nobody learns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict
from tokens import NOW, OTHER_KEY, access_with, basic, token
from tracker_payloads import PAYLOADS, Payload

from proxyherd.base.page_files import page_files
from proxyherd.config.schema import Limits
from proxyherd.core.framing import Denied, Line
from proxyherd.core.messages import Forget, parse_question
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules, find
from proxyherd.web.access import TokenProblem, without_token
from proxyherd.web.answers import WebAnswer, of_problem
from proxyherd.web.exchanges import WebExchange
from proxyherd.web.handshakes import Upgrade
from proxyherd.web.lines import LineWriter
from proxyherd.web.origins import Origins
from proxyherd.web.pages import Pages
from proxyherd.web.problems import Problem
from proxyherd.web.requests import WebRequest
from proxyherd.web.rights import revocation
from proxyherd.web.routes import WebRoutes
from proxyherd.web.trackers.apps import APPS

CLOCK = NOW * 10**9
ROUTES = WebRoutes(LineWriter(8_192), Origins(), 1_000.0, Pages(page_files("web/page")), access_with({}))
JANE = token()
HANDSHAKE = {
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "proxyherd.lines.v1",
}
POSITION = b'{"lat":1,"lon":2,"time":3}'


def find_route(method: str, target: str, body: bytes = b"", /, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = WebRequest(method, target, CIMultiDict({"Host": "localhost:1", **named}), body)
    return ROUTES.find(without_token(request), CLOCK)


def said(found: Any) -> list[Line]:
    assert isinstance(found, WebExchange)
    return list(found.lines)


def finished(exchange: WebExchange) -> WebAnswer:
    """Return the answer of a server that knows nobody, and has room for everybody."""
    reports, judged = Rules("Clark", Limits()).judge(exchange.lines, CLOCK)
    replies = [Reply("iamat", "stored", report.line) for report in reports]
    for one, line in zip(judged, exchange.lines[len(reports) :], strict=True):
        if isinstance(one, Reply):
            replies.append(one)
        else:
            assert isinstance(line, bytes)
            replies.append(Reply("whatsat", "found", whatsat=parse_question(line)))
            find(replies[-1], line, None)
    try:
        return exchange.finish(replies)
    except Problem as problem:
        return of_problem(problem)


@pytest.mark.parametrize("target", ["/", "/v1/", "/v1/openapi.json", "/page/page.js"])
def test_pages_and_the_description_are_for_everybody(target: str) -> None:
    for path in (target, f"/t/{JANE}{target}", f"/t/{token(OTHER_KEY)}{target}"):
        answer = find_route("GET", path)
        assert isinstance(answer, WebAnswer)
        assert answer.status == 200


ASKED = [
    ("PUT", "/v1/clients/jane%2Fphone", POSITION),
    ("GET", "/v1/clients/jane%2Fphone", b""),
    ("GET", "/v1/clients/jane%2Fphone/places", b""),
    ("POST", "/v1/reports", b"[]"),
    *((method, f"/{app.name}", b"{}") for app in APPS for method in app.methods),
]


@pytest.mark.parametrize(("method", "target", "body"), ASKED)
def test_everything_else_needs_a_token(method: str, target: str, body: bytes) -> None:
    with pytest.raises(TokenProblem) as refusal:
        find_route(method, target, body)
    answer = of_problem(refusal.value)
    assert answer.status == 401
    challenges = [value.split()[0] for name, value in answer.headers if name == "WWW-Authenticate"]
    assert challenges == ["Bearer", "Basic"]
    for headers in ({"Authorization": f"Bearer {JANE}"}, {"Authorization": basic("x", JANE)}):
        assert isinstance(find_route(method, target, body, **headers), WebExchange)
    assert isinstance(find_route(method, f"/t/{JANE}{target}", body), WebExchange)


def test_a_stranger_s_body_is_not_looked_at() -> None:
    """Reading costs more than refusing."""
    with pytest.raises(TokenProblem):
        find_route("POST", "/v1/reports", b"not JSON", Content_Encoding="gzip")


@pytest.mark.parametrize(
    ("method", "target"), [("DELETE", "/v1/reports"), ("OPTIONS", "/v1/reports"), ("GET", "/x")]
)
def test_what_there_is_is_no_secret(method: str, target: str) -> None:
    try:
        status = find_route(method, target).status
    except Problem as problem:
        status = problem.kind.status
    assert status in (204, 404, 405)


def test_a_stranger_reports_for_nobody_else() -> None:
    bob = find_route("PUT", "/v1/clients/bob", POSITION, Authorization=f"Bearer {JANE}")
    assert said(bob) == [Denied(b"IAMAT bob +1+2 3")]
    answer = finished(bob)
    assert (answer.status, json.loads(answer.body)["type"]) == (403, "/v1/#right")
    own = find_route("PUT", "/v1/clients/jane%2Fphone", POSITION, Authorization=f"Bearer {JANE}")
    assert finished(own).status == 200


def test_in_a_batch_only_what_is_not_allowed_is_refused() -> None:
    body = b'[{"client":"jane/1","lat":1,"lon":2,"time":3},{"client":"bob","lat":1,"lon":2,"time":3}]'
    batch = find_route("POST", f"/t/{JANE}/v1/reports", body)
    assert said(batch) == [b"IAMAT jane/1 +1+2 3", Denied(b"IAMAT bob +1+2 3")]
    first, second = json.loads(finished(batch).body)
    assert (first["outcome"], second["status"]) == ("stored", 403)


@pytest.mark.parametrize("rest", ["", "/places?radius_km=5&limit=3"])
def test_who_is_not_visible_is_answered_as_who_is_unknown(rest: str) -> None:
    """The table is not asked about a client that may not be seen. So the time tells nothing either."""
    hidden = find_route("GET", f"/t/{JANE}/v1/clients/bob{rest}")
    unknown = find_route("GET", f"/t/{JANE}/v1/clients/jane%2Fnobody{rest}")
    assert isinstance(said(hidden)[0], Denied)
    assert isinstance(said(unknown)[0], bytes)
    assert finished(hidden) == finished(unknown)
    assert finished(hidden).status == 404


def test_who_may_only_report_sees_not_even_oneself() -> None:
    tracker = token(may=["report"])
    assert said(find_route("GET", f"/t/{tracker}/v1/clients/jane%2Fphone")) == [
        Denied(b"WHATSAT jane/phone 0 0")
    ]


def test_a_websocket_begins_with_what_its_token_grants_or_with_why_it_is_closed() -> None:
    good = find_route("GET", "/v1/ws", Authorization=f"Bearer {JANE}", **HANDSHAKE)
    assert isinstance(good, Upgrade)
    assert (good.grant and good.grant.subject, good.refusal) == ("jane/*", None)
    for headers, reason in (({}, "missing"), ({"Authorization": "Bearer x"}, "malformed")):
        bad = find_route("GET", "/v1/ws", **headers, **HANDSHAKE)
        assert isinstance(bad, Upgrade)
        assert (bad.grant, bad.refusal and bad.refusal.reason) == (None, reason)
    with pytest.raises(Problem) as refusal:
        find_route("GET", "/v1/ws")
    assert refusal.value.kind.status == 401


def test_only_who_operates_revokes_tokens() -> None:
    operator = token(sub="boss", may=["operate"])
    path = "/v1/tokens/jane%2F*"
    assert said(find_route("DELETE", f"/t/{operator}{path}")) == [Forget(revocation("jane/*"))]
    everything_else = token(sub="*", may=["report", "see", "erase"])
    refused = find_route("DELETE", f"/t/{everything_else}{path}")
    assert said(refused) == [Denied(Forget(revocation("jane/*")))]
    assert finished(refused).status == 403


def test_the_description_of_the_api_says_that_tokens_are_needed() -> None:
    document = json.loads(find_route("GET", "/v1/openapi.json").body)
    schemes = document["components"]["securitySchemes"]
    assert document["security"] == [{name: []} for name in schemes]
    assert "/v1/tokens/{sub}" in document["paths"]
    without = json.loads(WebRoutes(LineWriter(8_192), Origins(), 1.0)._document)
    assert "security" not in without
    assert without["paths"].keys() == document["paths"].keys() - {"/v1/tokens/{sub}"}


# Apps on phones. ----------------------------------------------------------------------------------------------

EVERYBODY = token(sub="*", may=["report"])


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: str(payload.name))
def test_what_an_app_sends_becomes_the_same_with_a_token_in_the_path(payload: Payload) -> None:
    target = f"/t/{EVERYBODY}/{payload.app}?{payload.query}"
    headers = {**payload.headers} | ({"Authorization": basic(payload.user, "")} if payload.user else {})
    found = find_route(payload.method, target, payload.body.encode(), **headers)
    lines = [line for line in said(found) if isinstance(line, bytes)]
    assert len(lines) == len(said(found))
    assert [line.decode().replace(f"{NOW}.000000000", "{now}") for line in lines] == payload.lines
    assert found.consumed == payload.consumed


OWNTRACKS = b'{"_type":"location","lat":1,"lon":2,"tst":3,"topic":"owntracks/bob/phone"}'
OVERLAND = (
    b'{"locations":[{"type":"Feature","geometry":{"type":"Point","coordinates":[2,1]},'
    b'"properties":{"timestamp":"1970-01-01T00:00:03Z","device_id":"%b"}}]}'
)
PHONE = token(sub="jane/phone", may=["report"])


@pytest.mark.parametrize(
    ("target", "body", "headers"),
    [
        (
            "/owntracks",
            OWNTRACKS,
            {"Authorization": basic("jane", PHONE), "X-Limit-U": "jane", "X-Limit-D": "phone"},
        ),
        ("/owntracks", OWNTRACKS, {"Authorization": basic("jane/phone", PHONE)}),
        ("/overland", OVERLAND % b"", {"Authorization": f"Bearer {PHONE}"}),
        ("/overland", OVERLAND % b"jane/phone", {"Authorization": f"Bearer {PHONE}"}),
        (f"/t/{PHONE}/osmand?id=jane/phone&lat=1&lon=2&timestamp=3", b"", {}),
        (f"/t/{PHONE}/osmand?lat=1&lon=2&timestamp=3", b"", {}),
        (f"/t/{PHONE}/gpslogger?id=jane/phone&lat=1&lon=2&timestamp=3", b"", {}),
        (f"/t/{PHONE}/gpslogger?lat=1&lon=2&timestamp=3", b"", {}),
        ("/gpslogger?lat=1&lon=2&timestamp=3", b"", {"Authorization": basic("", PHONE)}),
    ],
)
def test_each_app_can_present_its_token_and_reports_for_its_subject(
    target: str, body: bytes, headers: dict[str, str]
) -> None:
    found = find_route("POST" if body else "GET", target, body, **headers)
    assert said(found) == [b"IAMAT jane/phone +1+2 3"]
    assert finished(found).status == 200
    assert not found.consumed


@pytest.mark.parametrize(
    ("target", "body", "headers"),
    [
        ("/owntracks", OWNTRACKS, {"Authorization": basic("", PHONE)}),
        ("/owntracks", OWNTRACKS, {"Authorization": basic("jane", PHONE)}),
        ("/overland", OVERLAND % b"bob", {"Authorization": f"Bearer {PHONE}"}),
        (f"/t/{PHONE}/osmand?id=bob&lat=1&lon=2&timestamp=3", b"", {}),
        (f"/t/{PHONE}/gpslogger?id=bob&lat=1&lon=2&timestamp=3", b"", {}),
    ],
)
def test_what_a_phone_may_not_report_is_consumed_and_counted(
    target: str, body: bytes, headers: dict[str, str]
) -> None:
    """An error would keep it in the phone's queue for ever."""
    found = find_route("POST" if body else "GET", target, body, **headers)
    app = next(app for app in APPS if f"/{app.name}" in target)
    assert isinstance(said(found)[0], Denied)
    assert (finished(found).status, finished(found).body) == (200, app.answer)
    assert found.consumed["denied"]


def test_a_subject_of_many_clients_is_no_client() -> None:
    found = find_route("GET", f"/t/{JANE}/osmand?lat=1&lon=2&timestamp=3")
    assert (said(found), dict(found.consumed)) == ([], {"no_client": 1})
