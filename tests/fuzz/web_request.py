"""Target `web`: a request of the web port, or a message of a WebSocket in JSON.

An input is a method and a target in the first line, headers in the next ones, an empty line and the body. The method
`MESSAGE` makes the body a message. With the header `Pack` the body is packed with gzip, and with `Pack: 9` it breaks off.

The laws: nothing but Problem is raised, and no problem quotes what was sent; every line is a command of the right form,
and no longer than a line may be; what `PUT` reports are the numbers that the standard library's parser finds; an app gets
its answer to every payload, unless the server cannot keep it; an answer says what it says in JSON; and there is one of a
batch for each report.
"""

from __future__ import annotations

import gzip
import json
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from area_answers import answer_area
from deciding import decide
from multidict import CIMultiDict
from quick_table import QuickTable
from web_talk import no_follower

from proxyherd.config.schema import Limits, Timing
from proxyherd.core.area_queries import AreaQuery
from proxyherd.core.follows.follow import Follow, FollowReply, Unfollow
from proxyherd.core.framing import Line
from proxyherd.core.messages import Forget, parse_at, parse_question, parse_report, position
from proxyherd.core.node import Node
from proxyherd.core.reply import Reply
from proxyherd.places.answers import no_results
from proxyherd.web.answers import WebAnswer, of_problem
from proxyherd.web.exchanges import WebExchange
from proxyherd.web.follows import StreamRequest
from proxyherd.web.handshakes import Upgrade
from proxyherd.web.lines import LineWriter
from proxyherd.web.ops import read_op
from proxyherd.web.origins import Origins
from proxyherd.web.problems import Problem
from proxyherd.web.requests import WebRequest
from proxyherd.web.routes import Routed, WebRoutes
from proxyherd.web.trackers.apps import APPS
from proxyherd.web.transfers import check_transfer

CLOCK = 1_750_000_000_123_456_789
LINE_BYTES = 1_024
KNOWN_LINE = b"AT Ann +0.000000000 kiwi +1.50-2 1700000000"
SECRET = "s3cr3t"
"""What a client has sent, and no problem repeats."""

_GOOD = b'{"lat": 34.068930, "lon": "-118.445127", "time": 1621464827.959498503}'

SEEDS = (
    b"PUT /v1/clients/kiwi\nContent-Type: application/json\n\n" + _GOOD,
    b'PUT http://localhost/v1/clients/my%20phone%2F\xff%FF\n\n{"lon":-1e-7,"lat":9E-06,"time":"2025-06-15T13:45:12Z"}',
    b"DELETE /v1/clients/kiwi?before=1621464827.5\n\n",
    b"GET /v1/clients/kiwi\nHost: localhost:1\nOrigin: https://map.example\n\n",
    b"GET /v1/clients/kiwi/places?radius_km=1.5&limit=20&s3cr3t=%FF\nReferer: http://localhost/s3cr3t\n\n",
    b"GET /v1/events?client=kiwi&client=my%20phone%FF&buffer_m=\n\n",
    b"GET /v1/events?near=34.07,-118.45,2&buffer_m=12.5\n\n",
    b'MESSAGE\n\n{"op":"follow","id":2,"client":["kiwi","s3cr3t"]}',
    b'MESSAGE\n\n{"op":"follow","id":"a","within":{"west":1,"south":2,"east":3,"north":4},"buffer_m":1}',
    b'MESSAGE\n\n{"op":"unfollow","id":3,"follow":"a"}',
    b'POST /v1/reports\nPack: 1\n\n[{"client":"s3cr3t","lat":1,"lon":2},{"client":"a b","lat":91,"lon":2},7,null]',
    b'POST /v1/reports\nContent-Type: application/x-ndjson\n\n{"client":"kiwi","lat":1,"lon":2,"time":9999999999}\n\n{',
    b'POST /owntracks?u=a&d=b\nPack: 9\n\n[{"_type":"location","lat":1,"lon":2,"tst":3,"acc":5},{"_type":"s3cr3t"}]',
    b'POST /owntracks\nAuthorization: Basic a2l3aTpz\n\n{"_type":"location","lat":1e-3,"lon":2,"tst":1700000000123}',
    b"GET /osmand?id=kiwi&location=1.5,-2&timestamp=2025-06-15%2013:45:12&accuracy=-1&valid=true\n\n",
    b'POST /osmand\n\n{"device_id":7,"location":[{"timestamp":5,"coords":{"latitude":1,"longitude":"2"}},null]}',
    b"POST /gpslogger\nContent-Encoding: br\n\nid=%FF&lat=1&lon=2&time=2025-06-15T13:45:12+02:00",
    (
        b'POST /overland\n\n{"locations":[{"geometry":{"type":"Point","coordinates":[2,1,0]},"properties":{"timestamp":'
        b'"2015-10-01T08:00:00-0700","device_id":"a"}},{}],"current":{"geometry":{},"properties":{}}}'
    ),
    b"OPTIONS *\nTransfer-Encoding: gzip, chunked\nExpect: s3cr3t\n\n",
    (
        b"GET /v1/ws\nUpgrade: websocket\nConnection: upgrade\nSec-WebSocket-Version: 13\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Protocol: proxyherd.lines.v1\n\n"
    ),
    b"GET /v1/near?lat=1.5&lon=-2&radius_km=50&limit=3&max_age_s=1e3&after=PgAAAAAAAABraXdp\n\n",
    b"GET /v1/near?client=kiwi&max_age_s=99999999999\nAccept: application/geo+json;q=0.9, */*;q=.1\n\n",
    b"GET /v1/within?west=179.5&south=-1&east=-2&north=8\n\n",
    (
        b'POST /v1/within?limit=1\nContent-Type: application/geo+json\n\n{"type":"Feature","properties":{"a":"s3cr3t"},'
        b'"geometry":{"type":"Polygon","coordinates":[[[-3,1],[-1,1],[-1,2],[-3,2],[-3,1]]]}}'
    ),
    b'POST /v1/within\n\n{"type":"MultiPolygon","coordinates":[[[[0,0],[2,2],[2,0],[0,2],[0,0]]]]}',
    b'MESSAGE\n\n{"op":"within","within":{"type":"Polygon","coordinates":[[[0,0],[5,0],[5,5,7],[0,0]]]},"after":"PgAA"}',
    b'MESSAGE\n\n{"op":"near","id":7,"client":"kiwi","radius_km":0.5,"limit":1}',
    b'MESSAGE\n\n{"op":"report","id":7,"client":"kiwi","lat":34.068930,"lon":-118.445127}',
    b'MESSAGE\n\n{"op":"places","id":"s3cr3t","client":"kiwi","radius_km":10,"limit":5}',
    b'MESSAGE\n\n{"op":"locate","client":"\\u006b\\ud83e\\udd5d","id":null}',
)

_writer = LineWriter(LINE_BYTES)
_routes = WebRoutes(_writer, Origins(["herd.example"], ["https://map.example"]), 1_000.0)
_limits = Limits(max_line_bytes=LINE_BYTES, max_clients=3, max_clock_lead_seconds=60)
_table = QuickTable(b"k" * 32)
_places = b"\n%b\n" % no_results("ZERO_RESULTS").body
_apps = {f"/{app.name}": app for app in APPS}


def one_input(data: bytes) -> None:
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("utf-8", "surrogateescape").split("\n")
    method, _, target = first.partition(" ")
    headers = CIMultiDict((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    headers.setdefault("Host", "localhost")
    node = Node("Clark", _table, _limits, Timing(), alone=True, now=0)
    try:
        node.replay([parse_at(KNOWN_LINE)])
        if method == "MESSAGE":
            _check_message(node, body)
        else:
            _check_request(node, WebRequest(method, target, headers, _packed(body, headers)))
    finally:
        _table.clear()


def _packed(body: bytes, headers: CIMultiDict[str]) -> bytes:
    """Return a body as it is sent."""
    if "Pack" not in headers:
        return body
    headers["Content-Encoding"] = "gzip"
    packed = gzip.compress(body, 1, mtime=0)
    return packed if headers["Pack"] != "9" else packed[: -len(body) % 40 - 1]


def _check_request(node: Node, request: WebRequest) -> None:
    found: Routed | None = None
    try:
        check_transfer(request.method, (1, 1), request.headers)
        _routes.admit(request)
    except Problem as problem:
        _check_problem(problem)
        return
    try:
        found = _routes.find(request, CLOCK)
    except Problem as problem:
        _check_problem(problem)
    app = _apps.get(request.path)
    if app is not None and request.method in app.methods:
        assert isinstance(found, WebExchange), "an app repeats what is refused"
    if isinstance(found, Upgrade):
        assert found.protocol.startswith("proxyherd.")
    elif isinstance(found, WebAnswer):
        _check_answer(found)
    elif isinstance(found, StreamRequest):
        assert bool(found.clients) is (found.area is None)
        _check_exchange(node, request, found.exchange(no_follower()))
    elif found is not None:
        _check_exchange(node, request, found)


def _check_exchange(node: Node, request: WebRequest, exchange: WebExchange) -> None:
    assert len(exchange.lines) <= 1_001
    replies = [_reply(node, line) for line in exchange.lines]
    if request.method == "PUT":
        _check_numbers(request, cast("bytes", exchange.lines[0]))
    try:
        answer = exchange.finish(replies)
    except Problem as problem:
        _check_problem(problem, 404, 422, 503)  # the request itself is in order
        return
    _check_answer(answer)
    app = _apps.get(request.path)
    assert app is None or answer.body == app.answer
    if request.path == "/v1/reports":
        taken = [one for one in json.loads(answer.body) if "outcome" in one]
        assert len(taken) == sum(reply.outcome in ("stored", "stale") for reply in replies)


def _check_message(node: Node, message: bytes) -> None:
    op = read_op(message, CLOCK, _writer, "Clark", no_follower)
    answer = op.content(None if op.line is None else _reply(node, op.line))
    document = json.loads(answer)
    assert "id" in document
    if "problem" in document:
        assert SECRET not in json.dumps(document["problem"])


def _reply(node: Node, line: Line) -> Reply:
    """Return what becomes of a line, which must be a command of the right form, or of an erasure or a query of an area."""
    if isinstance(line, AreaQuery):
        assert 1 <= line.most <= 1_000
        assert 0 <= line.received_since <= CLOCK
        return answer_area(node.table, line)
    if isinstance(line, Follow | Unfollow):
        return FollowReply("follow", "following", b"", complete=True)
    if isinstance(line, Forget):
        assert line.client.split() == [line.client]
        assert line.before is None or 0 < line.before <= CLOCK
        return decide(node, line, CLOCK)
    assert isinstance(line, bytes)
    assert len(line) <= LINE_BYTES
    assert b"\n" not in line
    assert (parse_report(line, b"Clark", CLOCK) or parse_question(line)) is not None, line
    reply = decide(node, line, CLOCK)
    if reply.answer is None:
        assert reply.entry is not None
        reply.outcome, reply.answer = "answered", reply.entry.line + _places
    return reply


def _check_numbers(request: WebRequest, line: bytes) -> None:
    """What is reported are the numbers that were sent."""
    body = request.body
    if request.headers.get("Content-Encoding", "") and body[:2] == b"\x1f\x8b":
        body = gzip.decompress(body)
    sent = json.loads(body.decode("utf-8-sig"), parse_int=str, parse_float=str)
    report = parse_report(line, b"Clark", CLOCK)
    assert report is not None
    for name, degrees in zip(("lat", "lon"), position(report.line), strict=True):
        try:
            assert Decimal(degrees) == Decimal(sent[name])
        except InvalidOperation:
            raise AssertionError(f"{name} is no number") from None


def _check_answer(answer: WebAnswer) -> None:
    if answer.content_type.endswith("json") and answer.body:
        json.loads(answer.body)
    for name, value in answer.headers:
        assert (name + value).isprintable()


def _check_problem(problem: Problem, *statuses: int) -> None:
    answer = of_problem(problem)
    assert not statuses or answer.status in statuses
    content: dict[str, Any] = json.loads(answer.body)
    assert content["status"] == answer.status
    assert SECRET not in answer.body.decode()
