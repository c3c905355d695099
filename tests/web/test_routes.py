"""Routes: what each path and method does, and whose requests are served."""

from __future__ import annotations

import gzip
from functools import cache
from typing import Any

import pytest
from multidict import CIMultiDict

from proxyherd.base.page_files import page_files
from proxyherd.core.framing import Line
from proxyherd.core.messages import Forget
from proxyherd.core.reply import Reply
from proxyherd.web import problems
from proxyherd.web.answers import WebAnswer, of_problem
from proxyherd.web.bodies import BODY_BYTES
from proxyherd.web.exchanges import WebExchange
from proxyherd.web.handshakes import Upgrade
from proxyherd.web.lines import LineWriter
from proxyherd.web.origins import Origins
from proxyherd.web.pages import Pages
from proxyherd.web.problems import Kind, Problem
from proxyherd.web.requests import WebRequest
from proxyherd.web.routes import WebRoutes
from proxyherd.web.trackers.apps import APPS

CLOCK = 5 * 10**9
PAGE = "https://map.example"
JSON = {"Content-Type": "application/json"}
POSITION = b'{"lat":1,"lon":2,"time":3}'
AT = b"AT Bob +2.000000000 kiwi +1+2 3"


@cache
def routes() -> WebRoutes:
    return WebRoutes(LineWriter(8_192), Origins((), [PAGE]), 100.0, Pages(page_files("web/page")))


def request(method: str, target: str, body: bytes = b"", /, **headers: str) -> WebRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return WebRequest(method, target, CIMultiDict({"Host": "localhost:1", **named}), body)


def find(method: str, target: str, body: bytes = b"", /, **headers: str) -> Any:
    return routes().find(request(method, target, body, **headers), CLOCK)


def refused(*asked: Any, **headers: str) -> Kind:
    with pytest.raises(Problem) as refusal:
        find(*asked, **headers)
    return refusal.value.kind


@pytest.mark.parametrize(
    ("method", "target", "body", "via", "lines"),
    [
        ("PUT", "/v1/clients/kiwi", POSITION, "http", [b"IAMAT kiwi +1+2 3"]),
        ("PUT", "/v1/clients/my%20phone%2F1", POSITION, "http", [b"IAMAT my%20phone/1 +1+2 3"]),
        ("DELETE", "/v1/clients/my%20phone%2F1", b"", "http", [Forget(b"my%20phone/1")]),
        ("DELETE", "/v1/clients/kiwi?before=4.5", b"", "http", [Forget(b"kiwi", 4_500_000_000)]),
        ("GET", "/v1/clients/kiwi", b"", "http", [b"WHATSAT kiwi 0 0"]),
        ("HEAD", "/v1/clients/kiwi", b"", "http", [b"WHATSAT kiwi 0 0"]),
        ("GET", "/v1/clients/kiwi/places?radius_km=1.5&limit=3", b"", "http", [b"WHATSAT kiwi 1.5 3"]),
        ("POST", "/v1/reports", b"[]", "http", []),
        ("POST", "/v1/reports", b'[{"client":"a","lat":1,"lon":2},7]', "http", [b"IAMAT a +1+2 5.000000000"]),
        ("GET", "/osmand?id=a&lat=1&lon=2&timestamp=3", b"", "osmand", [b"IAMAT a +1+2 3"]),
        ("POST", "/gpslogger?id=a&lat=1&lon=2&timestamp=3", b"", "gpslogger", [b"IAMAT a +1+2 3"]),
        (
            "POST",
            "/owntracks?u=a",
            b'{"_type":"location","lat":1,"lon":2,"tst":3}',
            "owntracks",
            [b"IAMAT a +1+2 3"],
        ),
        ("POST", "/overland", b"{}", "overland", []),
        ("POST", "/overland/", b"{}", "overland", []),
        ("POST", "/owntracks/", b"{}", "owntracks", []),
        ("GET", "/osmand/?id=a&lat=1&lon=2&timestamp=3", b"", "osmand", [b"IAMAT a +1+2 3"]),
        ("GET", "/gpslogger/?id=a&lat=1&lon=2&timestamp=3", b"", "gpslogger", [b"IAMAT a +1+2 3"]),
    ],
)
def test_a_request_becomes_lines(method: str, target: str, body: bytes, via: str, lines: list[Line]) -> None:
    found = find(method, target, body, Content_Type="application/json; charset=utf-8")
    assert isinstance(found, WebExchange)
    assert (found.via, found.lines) == (via, lines)


def test_replies_become_answers() -> None:
    stored = [Reply("iamat", "stored", AT)]
    put = find("PUT", "/v1/clients/kiwi", POSITION, Content_Type="application/json")
    assert b'"outcome":"stored"' in put.finish(stored).body
    places = find("GET", "/v1/clients/kiwi/places")
    answer = places.finish([Reply("whatsat", "answered", AT + b"\n{}\n")])
    assert (answer.body, answer.headers) == (b"{}\n", (("Proxyherd-At", AT.decode()),))
    located = find("GET", "/v1/clients/kiwi").finish([Reply("whatsat", "answered", AT + b"\n{}\n")])
    batch = find("POST", "/v1/reports", b'[{"client":"a","lat":1,"lon":2}]').finish(stored)
    assert (located.status, batch.status) == (200, 200)
    app = find("GET", "/osmand?id=a&lat=1&lon=2")
    assert app.finish(stored) == WebAnswer(200, b"", "text/plain")
    for reply in (
        Reply("iamat", "refused", b"? IAMAT", refusal="full"),
        Reply("iamat", "refused", b"? IAMAT", refusal="journal"),
        Reply("iamat", "unanswered"),
    ):
        with pytest.raises(Problem) as refusal:
            app.finish([Reply("iamat", "stored", AT), reply])
        assert refusal.value.kind == problems.NOT_TAKEN


def test_a_point_of_an_app_whose_name_is_too_long_is_consumed_when_the_server_has_said_so() -> None:
    app = find("GET", "/osmand?id=a&lat=1&lon=2")
    assert isinstance(app, WebExchange)
    assert app.finish([Reply("iamat", "refused", b"? IAMAT", refusal="long_id")]).status == 200
    assert app.consumed == {"no_client": 1}


WHOLE = gzip.compress(b'{"lat":1,"lon":2}', mtime=0)


def test_a_packed_body_is_read_as_what_is_in_it() -> None:
    for more in ({}, {"Content_Type": "application/json"}):
        found = find("PUT", "/v1/clients/kiwi", WHOLE, Content_Encoding="gzip", **more)
        assert found.lines == [b"IAMAT kiwi +1+2 5.000000000"]


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        *(
            (b"{}", "gzip", "unreadable"),
            (WHOLE[:-1], "gzip", "unreadable"),
            (WHOLE + b"x", "gzip", "unreadable"),
        ),
        *((WHOLE, "br", "unreadable"), (WHOLE, "gzip, gzip", "unreadable")),
        *(
            (gzip.compress(bytes(BODY_BYTES + 1), mtime=0), "gzip", "too_much"),
            (bytes(BODY_BYTES + 1), "", "too_much"),
        ),
    ],
)
def test_an_app_gets_its_answer_also_to_what_cannot_be_unpacked(
    body: bytes, encoding: str, reason: str
) -> None:
    """It would repeat it for ever. Others are told what is wrong."""
    for app in APPS:
        for method in app.methods:
            found = find(method, f"/{app.name}", body, Content_Encoding=encoding)
            assert (found.via, found.lines, found.consumed) == (app.name, [], {reason: 1})
            assert found.finish([]) == WebAnswer(200, app.answer, app.media_type)
    with pytest.raises(Problem):
        find("PUT", "/v1/clients/a", body, Content_Encoding=encoding, Content_Type="application/json")


def test_what_an_app_sends_and_is_of_no_use_is_counted_and_answered() -> None:
    found = find("GET", "/osmand?id=a&lat=1&lon=2&accuracy=101")
    assert (found.lines, found.consumed, found.finish([]).status) == ([], {"inaccurate": 1}, 200)


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        (("GET", "/page/"), problems.UNKNOWN),
        (("GET", "/v1"), problems.UNKNOWN),
        (("GET", "/v1/clients"), problems.UNKNOWN),
        (("GET", "/v1/clients/a/b"), problems.UNKNOWN),
        (("PUT", "/v1/clients/", POSITION), problems.CLIENT),
        (("GET", "/v1/clients/%zz"), problems.CLIENT),
        (("GET", "/v1/clients/a?b=1"), problems.QUERY),
        (("GET", "/v1/clients/a/places?limit=21"), problems.QUERY),
        (("GET", "/v1/clients/a/places?limit="), problems.QUERY),
        (("GET", "/v1/clients/a/places?limit=%FF"), problems.QUERY),
        (("GET", "/v1/clients/a/places?radius_km=%FF"), problems.QUERY),
        *(((method, "*"), problems.REQUEST) for method in ("GET", "PUT", "HEAD")),
        (("GET", "v1/clients/a"), problems.REQUEST),
        (("GET", "localhost:1"), problems.REQUEST),
        (("GET", "ftp://localhost/v1/clients/a"), problems.REQUEST),
        (("PUT", "/v1/clients/" + "a" * 8_192, POSITION), problems.CLIENT),
    ],
)
def test_other_requests_have_their_problems(asked: tuple[Any, ...], kind: Kind) -> None:
    assert refused(*asked, Content_Type="application/json") == kind


@pytest.mark.parametrize("type_", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_a_body_of_another_type_is_not_read(type_: str) -> None:
    assert refused("PUT", "/v1/clients/a", POSITION, Content_Type=type_) == problems.MEDIA_TYPE
    assert refused("POST", "/v1/reports", b"[]", Content_Type=type_) == problems.MEDIA_TYPE


def test_a_wrong_method_is_told_which_are_right_and_apps_are_not_asked_by_head() -> None:
    answer = find("POST", "/v1/clients/a")
    assert (answer.status, answer.headers) == (405, (("Allow", "GET, PUT, DELETE, OPTIONS"),))
    assert find("HEAD", "/osmand?id=a&lat=1&lon=2").status == 405
    assert find("HEAD", "/v1/reports").status == 405


def test_a_browser_that_asks_first_is_told_what_an_allowed_page_may_do() -> None:
    headers = dict(find("OPTIONS", "/v1/clients/a", Origin=PAGE).headers)
    assert headers["Allow"] == "GET, PUT, DELETE, OPTIONS"
    assert "Access-Control-Allow-Origin" not in headers  # it is in `Origins.headers`, which every answer has
    assert headers["Access-Control-Allow-Methods"] == "GET, PUT, DELETE"
    assert "Access-Control-Allow-Methods" not in dict(find("OPTIONS", "/v1/clients/a").headers)


def test_the_server_as_a_whole_says_what_it_can() -> None:
    answer = find("OPTIONS", "*")
    assert (answer.status, answer.headers) == (204, (("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),))


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        ("/v1/clients/jane/phone", "In a path, a / of a client's name is %2F: /v1/clients/jane%2Fphone."),
        ("/v1/clients/a/b/places", "In a path, a / of a client's name is %2F: /v1/clients/jane%2Fphone."),
        ("/v1/clients", "GET /v1/ tells what there is."),
        ("/v1/tokens/a/b", "GET /v1/ tells what there is."),
    ],
)
def test_a_name_with_a_slash_is_told_how_it_is_written(target: str, detail: str) -> None:
    with pytest.raises(Problem) as refusal:
        find("PUT", target, POSITION)
    assert (refusal.value.kind, refusal.value.detail) == (problems.UNKNOWN, detail)


def test_what_stands_behind_another_name_of_the_server_is_the_same() -> None:
    found = find("PUT", "http://localhost:1/v1/clients/kiwi?", POSITION, Content_Type="application/json")
    assert found.lines == [b"IAMAT kiwi +1+2 3"]
    assert find("GET", "HTTP://localhost/osmand?id=a&lat=1&lon=2&timestamp=3").lines == [b"IAMAT a +1+2 3"]


def test_without_parameters_the_usual_ones_are_asked_for() -> None:
    assert find("GET", "/v1/clients/kiwi/places").lines == [b"WHATSAT kiwi 10 20"]
    assert find("GET", "/v1/clients/kiwi/places?limit=3").lines == [b"WHATSAT kiwi 10 3"]
    assert find("GET", "/v1/clients/kiwi/places?radius_km=3").lines == [b"WHATSAT kiwi 3 20"]


def test_a_websocket_and_the_document_of_the_api_are_found() -> None:
    handshake = {
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec_WebSocket_Protocol": "proxyherd.lines.v1",
    }
    assert isinstance(find("GET", "/v1/ws", **handshake), Upgrade)
    assert find("GET", "/v1/openapi.json").status == 200


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"Host": "evil.example"}, problems.HOST),
        ({"Origin": "https://evil.example"}, problems.ORIGIN),
        ({"Origin": "null"}, problems.ORIGIN),
        ({"Sec_Fetch_Site": "cross-site"}, problems.ORIGIN),
        ({"Referer": "http://evil.example/"}, problems.ORIGIN),
    ],
)
def test_strangers_pages_are_refused_on_every_path(headers: dict[str, str], kind: Kind) -> None:
    for target in ("/v1/clients/a", "/v1/ws", "/osmand?id=a&lat=1&lon=2", "/nowhere"):
        with pytest.raises(Problem) as refusal:
            routes().admit(request("GET", target, **headers))
        assert refusal.value.kind == kind
    with pytest.raises(Problem) as refusal:
        routes().admit(request("GET", "http://evil.example/v1/clients/a"))
    assert refusal.value.kind == problems.HOST, "though its Host is localhost"


def test_pages_of_the_port_and_allowed_ones_are_served() -> None:
    assert routes().admit(request("GET", "/", Origin="http://localhost:1")) == ""
    assert routes().admit(request("GET", "/", Origin=PAGE)) == PAGE
    assert routes().admit(request("GET", "/", Referer=f"{PAGE}/a")) == ""
    assert routes().admit(request("GET", "http://localhost:2/", Host="evil.example")) == ""


def test_links_of_other_sites_lead_to_pages_and_nothing_else() -> None:
    for target in ("/", "/v1/", "/?from=elsewhere"):
        assert routes().admit(request("GET", target, Sec_Fetch_Site="cross-site")) == ""
    for method, target in (("POST", "/"), ("GET", "/page/page.js"), ("GET", "/v1/clients/a")):
        with pytest.raises(Problem):
            routes().admit(request(method, target, Sec_Fetch_Site="cross-site"))


def test_pages_are_found_and_not_sent_again() -> None:
    page = find("GET", "/")
    assert (page.status, page.content_type) == (200, "text/html; charset=utf-8")
    assert find("GET", "http://localhost:1") == find("GET", "") == page
    assert find("GET", "/", If_None_Match=dict(page.headers)["ETag"]).status == 304
    assert find("HEAD", "/v1/").status == find("GET", "/page/page.js").status == 200
    assert find("POST", "/").headers == (("Allow", "GET, OPTIONS"),)


def test_a_problem_to_try_again_says_when() -> None:
    assert of_problem(Problem(problems.NOT_TAKEN, "Later.")).headers == (("Retry-After", "2"),)
    assert of_problem(Problem(problems.UNKNOWN, "No."), ("A", "b")).headers == (("A", "b"),)
