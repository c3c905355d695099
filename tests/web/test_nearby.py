"""Who is near, and who is inside of an area: every answer is what a look at each client says."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from functools import cache

import pytest
from area_answers import answer_area
from multidict import CIMultiDict
from worlds import ClientWorld

from proxyherd.core.area_queries import AreaQuery, AreaReply
from proxyherd.core.messages import NANOSECONDS, Entry, parse_at, received
from proxyherd.core.reply import Reply
from proxyherd.core.spatial.areas import Area, Box, Circle
from proxyherd.core.spatial.search import FoundClient, SearchResult
from proxyherd.web.answers import WebAnswer, of_problem
from proxyherd.web.exchanges import WebExchange
from proxyherd.web.ids import name_of
from proxyherd.web.lines import LineWriter
from proxyherd.web.nearby import GEOJSON
from proxyherd.web.origins import Origins
from proxyherd.web.problems import (
    CLIENT,
    DEGREES,
    ENGINE,
    MEANING,
    METHOD,
    NOT_TAKEN,
    QUERY,
    RIGHT,
    UNKNOWN,
    Kind,
    Problem,
)
from proxyherd.web.requests import WebRequest
from proxyherd.web.rights import Grant, Right, permitted
from proxyherd.web.routes import WebRoutes

CLOCK = 1_000 * 10**9
EVERYTHING = "/v1/within?west=-180&south=-90&east=180&north=90"


@cache
def routes() -> WebRoutes:
    return WebRoutes(LineWriter(8_192), Origins(), 0.0, server="Clark")


def find(method: str, target: str, body: bytes = b"", /, **headers: str) -> WebExchange:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found = routes().find(
        WebRequest(method, target, CIMultiDict({"Host": "localhost", **named}), body), CLOCK
    )
    assert isinstance(found, WebExchange)
    return found


def query_of(exchange: WebExchange) -> AreaQuery:
    (query,) = exchange.lines
    assert isinstance(query, AreaQuery)
    return query


def ask(world: ClientWorld, method: str, target: str, body: bytes = b"", /, **headers: str) -> WebAnswer:
    """Return the answer of a server that holds these clients."""
    exchange = find(method, target, body, **headers)
    try:
        return exchange.finish([answer_area(world.table, query_of(exchange))])
    except Problem as problem:
        return of_problem(problem)


def told(answer: WebAnswer) -> list[str]:
    return [one["client"] for one in json.loads(answer.body)["clients"]]


def problem_of(call: Callable[[], object]) -> Problem:
    with pytest.raises(Problem) as raised:
        call()
    return raised.value


@pytest.mark.parametrize(
    ("target", "query"),
    [
        ("/v1/near?lat=34.5&lon=-118.25", AreaQuery("near", 100, Circle(34.5, -118.25, 10_000.0))),
        (
            "/v1/near?radius_km=0.5&lon=%2B180.0&lat=-90&limit=0001",
            AreaQuery("near", 1, Circle(-90.0, 180.0, 500.0)),
        ),
        (
            "/v1/near?client=my%20kiwi&radius_km=50",
            AreaQuery("near", 100, around=b"my%20kiwi", metres=50_000.0),
        ),
        ("/v1/near?client=a+b%2Fc%FF", AreaQuery("near", 100, around=b"a%20b/c\xff", metres=10_000.0)),
        (
            "/v1/within?west=179&south=-1.5&east=-179&north=1&limit=1000&max_age_s=0.000000001",
            AreaQuery("within", 1_000, Box(179.0, -1.5, -179.0, 1.0), received_since=CLOCK - 1),
        ),
        (
            "/v1/near?lat=0&lon=0&max_age_s=999999999999",
            AreaQuery("near", 100, Circle(0.0, 0.0, 10_000.0), received_since=0),
        ),
    ],
)
def test_a_request_becomes_a_query(target: str, query: AreaQuery) -> None:
    for method in ("GET", "HEAD"):
        exchange = find(method, target)
        assert (exchange.via, exchange.lines) == ("http", [query])


NEAR, WITHIN = "/v1/near?lat=1&lon=1", "/v1/within?west=0&south=0&east=1&north=1"


@pytest.mark.parametrize(
    ("target", "kind", "field"),
    [
        ("/v1/near", QUERY, "lat"),
        ("/v1/near?lat=1", QUERY, "lon"),
        ("/v1/near?client=a&lon=1", QUERY, "client"),
        ("/v1/near?client=", CLIENT, "client"),
        ("/v1/near?client=%ED%A0%80x%20&radius_km=51", QUERY, "radius_km"),
        ("/v1/near?client=a&west=1", QUERY, ""),
        (f"{NEAR}&lat=1", QUERY, "lat"),
        (f"{NEAR}&after=&after=", QUERY, "after"),
        (f"{NEAR}&radius_km=50.0000000000000001", QUERY, "radius_km"),
        *(
            (f"/v1/near?lat={text}&lon=1", DEGREES, "lat")
            for text in ("nan", "inf", "1e999", "", "91", "%00", "+1", "1,5")
        ),
        *(
            (f"/v1/near?lat=1&lon={text}", DEGREES, "lon")
            for text in ("-180.00000000000000000001", "1e2", "%FF")
        ),
        *(
            (f"{NEAR}&radius_km={text}", QUERY, "radius_km")
            for text in ("-1", "nan", "inf", "1e1", "", "0" * 21)
        ),
        *(
            (f"{NEAR}&limit={text}", QUERY, "limit")
            for text in ("0", "1001", "-1", "1.0", "", "%31%30%30%31", "1" * 30)
        ),
        *(
            (f"{NEAR}&max_age_s={text}", QUERY, "max_age_s")
            for text in ("-1", "nan", "inf", "1e3", "", ".5", "1.0000000001", "1" * 13)
        ),
        ("/v1/within", QUERY, "west"),
        ("/v1/within?west=1&south=1&east=1", QUERY, "north"),
        ("/v1/within?west=0&south=2&east=1&north=1", QUERY, "south"),
        ("/v1/within?west=0&south=0&east=181&north=1", DEGREES, "east"),
        (f"{WITHIN}&lat=1", QUERY, ""),
    ],
)
def test_what_is_out_of_form_or_bounds_is_a_problem_of_its_field(target: str, kind: Kind, field: str) -> None:
    problem = problem_of(lambda: find("GET", target))
    assert (problem.kind, problem.field) == (kind, field)


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        ("/v1/near", "lat and lon belong here, or client."),
        ("/v1/near?radius=1", "The parameters here are client, lat, lon, radius_km, "),
        ("/v1/within?west=0&south=2&east=1&north=1", "south is greater than north"),
    ],
)
def test_a_problem_says_what_to_change(target: str, detail: str) -> None:
    assert problem_of(lambda: find("GET", target)).detail.startswith(detail)


def place(haversine: float, client: bytes = b"", *, padded: bool = False) -> str:
    text = base64.urlsafe_b64encode(struct.pack(">d", haversine) + client).decode()
    return text if padded else text.rstrip("=")


def test_a_forged_place_begins_elsewhere() -> None:
    for haversine, client in ((0.0, b""), (0.5, b"a b\xff/%41"), (1.0, b"x" * 8_000), (-0.0, b"")):
        for padded in (False, True):
            target = f"{NEAR}&after={place(haversine, client, padded=padded).replace('=', '%3D')}"
            assert query_of(find("GET", target)).after == (haversine, client)


@pytest.mark.parametrize(
    "after",
    [
        *("", "A", "AAAA", "kiwi", "0.5:kiwi", "%00", "%FF", "PgGY%203Dk8r7Y", "PgGY3Dk8r7Z!", "=" * 12),
        *map(place, (float("nan"), float("inf"), float("-inf"), -1.0, -5e-324, 1.01, 1e300)),
        place(0.5, b"x" * 9_000),
        place(0.5) + "====",
    ],
)
def test_what_is_no_place_of_an_answer_is_a_problem(after: str) -> None:
    problem = problem_of(lambda: find("GET", f"{NEAR}&after={after}"))
    assert (problem.kind, problem.field) == (QUERY, "after")


def test_an_answer_says_what_was_reported_how_far_it_is_and_how_old() -> None:
    world = ClientWorld(1, clients=0)
    for client, where, time in ((b"my%20kiwi", b"+034.500-000.0", 990), (b"bus\xff", b"+34.5009-0", 1_001)):
        line = b"AT Bob +0.250000001 %b %b %d" % (client, where, time)
        world.table.put(client, Entry(line, time * NANOSECONDS), world.table.leaf(client))
    exchange = find("GET", "/v1/near?lat=34.5&lon=0")
    answer = exchange.finish([answer_area(world.table, query_of(exchange), complete=False)])
    assert answer.body == (
        b'{"clients":[{"client":"my kiwi","lat":34.500,"lon":-0.0,"metres":0.0,"age_s":9.749},'
        b'{"client":"bus%FF","lat":34.5009,"lon":-0,"metres":100.08,"age_s":0.0}],"server":"Clark","complete":false}'
    )
    assert (answer.status, answer.content_type) == (200, "application/json")
    answer = ask(world, "GET", "/v1/near?lat=34.5&lon=0&limit=1", Accept=GEOJSON)
    assert (answer.status, answer.content_type) == (200, GEOJSON)
    document = json.loads(answer.body)
    after = document.pop("next")
    assert document == {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": "my kiwi",
                "geometry": {"type": "Point", "coordinates": [-0.0, 34.5]},
                "properties": {"client": "my kiwi", "metres": 0.0, "age_s": 9.749},
            }
        ],
        "server": "Clark",
        "complete": True,
    }
    assert b'"coordinates":[-0.0,34.500]' in answer.body
    assert told(ask(world, "GET", f"/v1/near?lat=34.5&lon=0&after={after}")) == ["bus%FF"]


@pytest.mark.parametrize(
    ("client", "difference", "place", "time"),
    [
        (b"kiwi", b"+0.263873386", b"+34.068930-118.445127", b"990.123456789"),
        (b"ahead", b"-500.000000000", b"+00.50-000.5", b"1490"),  # of which only a second counts
        (b"far%20ahead", b"-999999999.000000001", b"-0+180.0", b"1000000000.5"),
        (b'"\\\xff\xc3\xa4%2520', b"+0.000000000", b"-90.000-0", b"1.1"),
        (b"a%", b"+999.999999999", b"+0+000", b"0.000000001"),
    ],
)
def test_json_and_geojson_say_the_same_of_any_client(
    client: bytes, difference: bytes, place: bytes, time: bytes
) -> None:
    at = parse_at(b"AT Bob-1 %b %b %b %b" % (difference, client, place, time))
    assert at is not None
    reply = AreaReply(
        "near", "answered", b"", result=SearchResult([FoundClient(client, at.entry, 12.344)], None)
    )
    clients = json.loads(find("GET", NEAR).finish([reply]).body, parse_float=str)
    features = json.loads(find("GET", NEAR, Accept=GEOJSON).finish([reply]).body, parse_float=str)
    ((one,), (other,)) = clients["clients"], features["features"]
    lon, lat = other["geometry"]["coordinates"]
    assert one == {"lat": lat, "lon": lon, **other["properties"]}
    assert one["client"] == other["id"] == name_of(client)
    age = (CLOCK - received(at.entry.line)) // 10**6 / 1_000
    assert float(one["age_s"]) == max(age, 0.0)


def number(value: float) -> str:
    return f"{value:.9f}"


def a_request(world: ClientWorld) -> tuple[str, bytes, Area]:
    """Return a query without a limit, its body, and its area."""
    random = world.random
    kind = random.choice(["circle", "client", "box", "polygon"])
    latitude, longitude = (float(number(degrees)) for degrees in world.position())
    if kind in ("circle", "client"):
        km = random.choice([0, 0.001, 1, 50])
        if kind == "circle" or not world.positions:
            target = f"/v1/near?lat={number(latitude)}&lon={number(longitude)}&radius_km={km}"
            return target, b"", Circle(latitude, longitude, km * 1_000)
        client = random.choice(sorted(world.positions))
        return (
            f"/v1/near?client={client.decode()}&radius_km={km}",
            b"",
            Circle(*world.positions[client], km * 1_000),
        )
    size = random.choice([0.0, 0.001, 1.0, 30.0])
    most = 90.0 if kind == "box" else 89.5  # at a pole, edges may go either way round
    latitude = max(min(latitude, most), -most)
    south, north = max(latitude - size, -most), min(latitude + size, most)
    west, east = longitude - size, longitude + size
    west, east = west + 360 if west < -180 else west, east - 360 if east > 180 else east
    bounds = [float(number(degrees)) for degrees in (west, south, east, north)]
    if kind == "box" or not size:
        sides = zip(("west", "south", "east", "north"), map(number, bounds), strict=True)
        return f"/v1/within?{'&'.join(map('='.join, sides))}", b"", Box(*bounds)
    west, south, east, north = bounds
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    body = json.dumps({"type": "Polygon", "coordinates": [ring[:: random.choice([1, -1])]]}).encode()
    area = query_of(find("POST", "/v1/within", body)).area
    assert area is not None
    return "/v1/within", body, area


def test_every_answer_is_what_a_look_at_each_client_says_and_its_pages_have_each_client_once() -> None:
    found = pages = 0
    for seed in range(10):
        world = ClientWorld(seed, clients=1 + 37 * seed % 120)
        for _ in range(12):
            target, body, area = a_request(world)
            limit = world.random.choice([1, 7, 1_000])
            joint = "&" if "?" in target else "?"
            expected = [client.decode() for _, client in world.all_in(area)]
            paged, after = list[str](), ""
            while True:
                answer = ask(world, "POST" if body else "GET", f"{target}{joint}limit={limit}{after}", body)
                assert len(told(answer)) <= limit
                paged += told(answer)
                pages += 1
                if (following := json.loads(answer.body).get("next")) is None:
                    break
                after = f"&after={following}"
            assert paged == expected, (seed, target, body)
            found += len(paged)
            world.stir(10)
    assert found > 300
    assert pages > 150


def test_no_answer_has_a_client_twice_and_who_does_not_move_comes_once_while_others_do() -> None:
    for seed in range(3):
        world = ClientWorld(seed, clients=100)
        movers = set(world.names[::3])
        paged, after = list[str](), ""
        while True:
            answer = ask(world, "GET", f"{EVERYTHING}&limit=9{after}")
            page = told(answer)
            assert len({*page}) == len(page)
            paged += page
            if (following := json.loads(answer.body).get("next")) is None:
                break
            after = f"&after={following}"
            for client in world.random.sample(sorted(movers), 10):
                world.put(client, *world.position())
        stayed = [name for name in paged if name.encode() not in movers]
        assert sorted(stayed) == sorted(name.decode() for name in world.names if name not in movers)


@pytest.mark.parametrize("pole", [90, -90])
def test_a_box_may_cross_the_date_line_and_hold_a_pole(pole: int) -> None:
    world = ClientWorld(1, clients=0)
    for number, longitude in enumerate((-180, 180, 179.5, -179.5, 178, 0)):
        world.put(b"%d" % number, pole * 0.99, longitude)
    world.put(b"pole", pole, 7)
    south, north = sorted((pole * 0.98, float(pole)))
    answer = ask(world, "GET", f"/v1/within?west=179&south={south}&east=-179&north={north}")
    assert {*told(answer)} == {"0", "1", "2", "3"}
    answer = ask(world, "GET", f"/v1/within?west=-180&south={south}&east=180&north={north}")
    assert {*told(answer)} == {*"012345", "pole"}
    assert told(ask(world, "GET", f"/v1/near?lat={pole}&lon=-123.4&radius_km=1")) == ["pole"]


SQUARE = [[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]


@pytest.mark.parametrize("content_type", ["application/json", "application/geo+json; charset=utf-8", ""])
def test_a_polygon_has_no_hole_filled(content_type: str) -> None:
    world = ClientWorld(1, clients=0)
    world.put(b"in", 0.5, 0.5)
    world.put(b"hole", 1, 1)
    world.put(b"out", 3, 1)
    hole = [[0.8, 0.8], [1.2, 0.8], [1.2, 1.2], [0.8, 1.2], [0.8, 0.8]]
    document = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [SQUARE, hole]}}
    headers = {"Content_Type": content_type} if content_type else {}
    assert told(ask(world, "POST", "/v1/within", json.dumps(document).encode(), **headers)) == ["in"]


def test_a_polygon_that_crosses_itself_is_refused_with_the_place() -> None:
    document = {"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]}
    answer = ask(ClientWorld(1, clients=3), "POST", "/v1/within", json.dumps(document).encode())
    problem = json.loads(answer.body)
    assert (answer.status, problem["field"]) == (422, "coordinates")
    assert "cross at [1, 1]" in problem["detail"]


def test_a_body_has_a_type_and_no_box_beside_it() -> None:
    body = json.dumps({"type": "Polygon", "coordinates": [SQUARE]}).encode()
    assert problem_of(lambda: find("POST", "/v1/within", body, Content_Type="text/plain")).kind.status == 415
    assert problem_of(lambda: find("POST", "/v1/within?west=1", body)).kind is QUERY
    assert problem_of(lambda: find("POST", "/v1/within", b"")).kind.status == 400
    answer = routes().find(WebRequest("POST", "/v1/near", CIMultiDict({"Host": "localhost"}), body), CLOCK)
    assert isinstance(answer, WebAnswer)
    assert answer.status == METHOD.status


def grant(*see: str, may: tuple[Right, ...] = ("see",)) -> Grant:
    return Grant("me", frozenset(may), see, 0, 0, CLOCK, "key")


def asked_by(world: ClientWorld, holder: Grant, target: str) -> WebAnswer:
    exchange = find("GET", target)
    (line,) = permitted(exchange.lines, holder)
    reply = (
        answer_area(world.table, line) if isinstance(line, AreaQuery) else Reply("near", "denied", b"? near")
    )
    try:
        return exchange.finish([reply])
    except Problem as problem:
        return of_problem(problem)


def test_who_may_not_be_seen_is_left_out_and_others_come_in_their_place() -> None:
    world = ClientWorld(5, clients=100)
    everybody = told(ask(world, "GET", f"{EVERYTHING}&limit=1000"))
    assert told(asked_by(world, grant("*"), f"{EVERYTHING}&limit=1000")) == everybody
    for see in (("client7", "client1*"), ("client99",), ("client",), ("nobody*",)):
        seen = [
            name
            for name in everybody
            if any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in see)
        ]
        paged, after = list[str](), ""
        while True:
            answer = asked_by(world, grant(*see), f"{EVERYTHING}&limit=4{after}")
            paged += told(answer)
            if (following := json.loads(answer.body).get("next")) is None:
                break
            after = f"&after={following}"
        assert paged == seen


def test_a_client_that_may_not_be_seen_is_unknown() -> None:
    world = ClientWorld(5, clients=2)
    unseen = asked_by(world, grant("client0"), "/v1/near?client=client1")
    unknown = asked_by(world, grant("*"), "/v1/near?client=nobody")
    powerless = asked_by(world, grant("*", may=("report",)), "/v1/near?client=client1")
    assert unseen == unknown == powerless
    assert (unseen.status, json.loads(unseen.body)["field"]) == (404, "client")
    assert asked_by(world, grant("client0"), "/v1/near?client=client0").status == 200
    nobody = asked_by(world, grant("client0", may=("report", "erase")), NEAR)
    assert (nobody.status, json.loads(nobody.body)["type"]) == (403, RIGHT.type)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (AreaReply("near", "refused", b"", refusal="no_index"), ENGINE),
        (AreaReply("near", "refused", b"", refusal="full"), NOT_TAKEN),
        (AreaReply("near", "unanswered"), NOT_TAKEN),
        (AreaReply("near", "left", b""), NOT_TAKEN),
        (AreaReply("near", "invalid", b"", reason="it is none"), MEANING),
        (AreaReply("near", "unknown", b""), UNKNOWN),
        (Reply("near", "denied", b"? near"), RIGHT),
    ],
)
@pytest.mark.parametrize("accept", ["*/*", GEOJSON])
def test_a_query_that_is_not_answered_is_a_problem(reply: Reply, kind: Kind, accept: str) -> None:
    problem = problem_of(lambda: find("GET", NEAR, Accept=accept).finish([reply]))
    assert problem.kind == kind
    assert (kind is NOT_TAKEN) == ("Retry-After" in dict(of_problem(problem).headers))


def test_an_answer_has_a_thousand_clients() -> None:
    line = b"AT Clark +0.250000000 client+1 +34.0500000-118.2500000 1621464827.959498503"
    found = [FoundClient(b"client%d" % number, Entry(line, 0), 12.5) for number in range(1_000)]
    exchange = find("GET", NEAR)
    answer = exchange.finish(
        [AreaReply("near", "answered", b"", result=SearchResult(found, (0.5, b"client999")))]
    )
    document = json.loads(answer.body)
    assert len(document["clients"]) == 1_000
    assert query_of(find("GET", f"{NEAR}&after={document['next']}")).after == (0.5, b"client999")
