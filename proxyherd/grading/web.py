"""The web port: HTTP, WebSockets and an app on phones, beside the line protocol of the same herd.

Only herds whose file names web ports are judged. If none of these servers listens there, they are somebody else's, who
has read the line protocol only.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

from proxyherd.grading.checks import Check
from proxyherd.grading.faults import Fault, NotApplicable, shown
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.servers import GradedServer, new_client, now, together
from proxyherd.grading.web_client import HttpAnswer, WebPort

_PROBLEM: Final = "application/problem+json"
_LINES, _OBJECTS = "proxyherd.lines.v1", "proxyherd.json.v1"
_OLD: Final = "5.5"
"""A time before that of every other report."""


class _WebRule(NamedTuple):
    """What is demanded of the web port. `see` returns if it holds, as that of a check."""

    title: str
    rule: str
    see: Callable[[GradedHerd], Awaitable[None]]


def checks(herd: GradedHerd) -> list[Check]:
    first = "web.document"
    return [
        Check(id_, rule.title, rule.rule, partial(rule.see, herd), follows=frozenset({first} - {id_}))
        for id_, rule in _RULES.items()
    ]


async def _served(herd: GradedHerd) -> list[tuple[GradedServer, WebPort]]:
    """Return the servers that have a web port. Raises NotApplicable if none has."""
    found = [(server, server.web) for server in herd.servers if server.web is not None]
    if not found:
        raise NotApplicable("no web port of its servers is known")
    if not any([await port.listens() for _, port in found]):
        raise NotApplicable("none of its servers listens at the web port that the herd's file names")
    return found


async def _turn(herd: GradedHerd, number: int) -> tuple[GradedServer, WebPort]:
    """Return one server that has a web port; the checks take turns."""
    found = await _served(herd)
    return found[number % len(found)]


async def _document(herd: GradedHerd) -> None:
    async def describes(port: WebPort) -> None:
        answer = await port.expect(200, "GET", "/v1/openapi.json")
        document = port.content(answer)
        paths = document.get("paths") if isinstance(document, dict) else None
        if not isinstance(paths, dict) or "/v1/reports" not in paths or "openapi" not in document:
            raise port.fault(answer, "openapi, and paths with /v1/reports")

    await together(*(describes(port) for _, port in await _served(herd)))


async def _report(herd: GradedHerd) -> None:
    server, port = await _turn(herd, 0)
    client, when = new_client().decode(), now().decode()
    answer = await port.expect(200, "PUT", _path(client), _position("34.0689300", "-118.45", when))
    stored = port.content(answer)
    at = _member(port, answer, stored, "at").encode()
    server.checked(_line(client, "+34.0689300-118.45", when), at)
    if at != await server.held(client.encode()):
        raise port.fault(answer, "the AT line that WHATSAT shows")
    told = {key: stored.get(key) for key in ("outcome", "server", "difference")}
    if told != {"outcome": "stored", "server": server.name, "difference": at.split()[2].decode()}:
        raise port.fault(answer, "outcome stored, and server and difference as in the AT line")
    answer = await port.expect(200, "PUT", _path(client), _position("1", "2", _OLD))
    if _member(port, answer, port.content(answer), "outcome") != "stale":
        raise port.fault(answer, "outcome stale, for a report that is older")


async def _location(herd: GradedHerd) -> None:
    server, port = await _turn(herd, 1)
    client = new_client()
    at = await server.report(client)
    answer = await port.expect(200, "GET", _path(client.decode()))
    found = port.content(answer)
    names, location, time = (
        ("client", "lat", "lon", "time", "server", "at"),
        "34.068930 -118.445127",
        at.split()[5],
    )
    expected = [client.decode(), *location.split(), time.decode(), at.split()[1].decode(), at.decode()]
    if not isinstance(found, dict) or [found.get(name) for name in names] != expected:
        raise port.fault(answer, f"{', '.join(names)} of {shown(at)}, with the digits as they were spelled")
    answer = await port.expect(404, "GET", _path(new_client().decode()))
    port.content(answer, _PROBLEM)


async def _batch(herd: GradedHerd) -> None:
    server, port = await _turn(herd, 2)
    clients, when = [new_client().decode() for _ in range(20)], now().decode()
    batch = [{"client": one, "lat": 1.5, "lon": -2.5, "time": when} for one in clients]
    batch[7]["lat"] = 91
    answer = await port.expect(200, "POST", "/v1/reports", batch)
    told = port.content(answer)
    if (
        not isinstance(told, list)
        or len(told) != len(batch)
        or not all(isinstance(one, dict) for one in told)
    ):
        raise port.fault(answer, f"an array of {len(batch)} objects")
    bad = told.pop(7)
    if (bad.get("status"), "at" in bad) != (400, False):
        raise port.fault(answer, "a problem object with status 400 in place 7, whose latitude is 91")
    ats = [str(one.get("at")).encode() for one in told]
    for client, at, one in zip(clients[:7] + clients[8:], ats, told, strict=True):
        server.checked(_line(client, "+1.5-2.5", when), at)
        if one.get("outcome") != "stored":
            raise port.fault(answer, "outcome stored")
    for other in herd.reach(server):
        await other.until_holds(ats[-1], herd.wait(server, other, other.seconds))


async def _places(herd: GradedHerd) -> None:
    server, port = await _turn(herd, 3)
    client = new_client()
    at = await server.report(client)
    async with server.connect() as connection:
        await connection.say(b"WHATSAT %b 10 3" % client)
        await connection.expect(at)
        body = await connection.places()
    answer = await port.expect(200, "GET", f"{_path(client.decode())}/places?radius_km=10&limit=3")
    port.content(answer)
    if answer.headers.get("proxyherd-at") != at.decode():
        raise port.fault(answer, f"the header Proxyherd-At: {shown(at)}")
    if answer.body.strip() != body.strip():
        raise port.fault(answer, f"what WHATSAT answers: {shown(body)}")


async def _lines(herd: GradedHerd) -> None:
    server, port = await _turn(herd, 4)
    client, when = new_client(), now()
    report = b"IAMAT %b +1.5-2.5 %b" % (client, when)
    async with port.websocket(_LINES) as socket:
        at, echo = await socket.ask_lines(report, b"HELLO")
        server.checked(report, at)
        if echo != b"? HELLO":
            raise Fault(port.name, report + b"\nHELLO", "an AT line, and `? HELLO`", shown(at + b"\n" + echo))
        question = b"WHATSAT %b %b" % (client, server.question)
        first, *_ = await socket.ask_lines(question)
        if first != at:
            raise Fault(port.name, question, shown(at), shown(first))


async def _objects(herd: GradedHerd) -> None:
    server, port = await _turn(herd, 5)
    client, when = new_client().decode(), now().decode()
    report = {"op": "report", "id": 1, "client": client, "lat": "1.5", "lon": "-2.5", "time": when}
    async with port.websocket(_OBJECTS) as socket:
        for asked in (report, {"op": "locate", "id": "two", "client": client}):
            data = json.dumps(asked).encode()
            found = _object(await socket.ask(data))
            at = found.get("at")
            if found.get("id") != asked["id"] or not isinstance(at, str):
                raise Fault(
                    port.name,
                    data,
                    f"an object with id {asked['id']!r} and at",
                    shown(json.dumps(found).encode()),
                )
            server.checked(_line(client, "+1.5-2.5", when), at.encode())
        found = _object(await socket.ask(b'{"op":"grade","id":3}'))
        if found.get("id") != 3 or "at" in found or not isinstance(found.get("problem"), dict):
            raise Fault(
                *(port.name, b'{"op":"grade","id":3}', "an object with id 3 and a problem"),
                shown(json.dumps(found).encode()),
            )


async def _apps(herd: GradedHerd) -> None:
    server, port = await _turn(herd, 6)
    client, seconds = new_client().decode(), int(now().partition(b".")[0])
    location = {"_type": "location", "lat": 48.85833, "lon": 2.29513, "tst": seconds, "acc": 15, "tid": "gr"}
    user = f"X-Limit-U: {client}", "X-Limit-D: phone"
    for body in (location, {"_type": "lwt", "tst": seconds}, {"_type": "encrypted", "data": "AAAA"}, b""):
        answer = await port.expect(200, "POST", "/owntracks", body, *user)
        if answer.body.strip() != b"[]":
            raise port.fault(answer, "[]")
    await _expect_held(server, answer, port, f"{client}/phone", f"+48.85833+2.29513 {seconds}")
    query = f"id={client}&lat=48.85833&lon=2.29513&timestamp={seconds}&speed=2&batt=50"
    answer = await port.expect(200, "GET", f"/osmand?{query}")
    await _expect_held(server, answer, port, client, f"+48.85833+2.29513 {seconds}")


async def _expect_held(
    server: GradedServer, answer: HttpAnswer, port: WebPort, client: str, operands: str
) -> None:
    held = await server.held(client.encode())
    if held.split()[3:] != f"{client} {operands}".encode().split():
        raise port.fault(answer, f"that WHATSAT then shows {client} {operands}; it shows {shown(held)}")


async def _problems(herd: GradedHerd) -> None:
    _, port = await _turn(herd, 7)
    path = _path(new_client().decode())
    cases: tuple[tuple[int, str, str, bytes | None, tuple[str, ...]], ...] = (
        (400, "PUT", path, b'{"lat":NaN,"lon":2}', ()),
        (400, "PUT", path, b'{"lat":91,"lon":2}', ()),
        (422, "PUT", path, b"[]", ()),
        (404, "GET", "/nowhere", None, ()),
        (405, "DELETE", "/v1/openapi.json", None, ()),
        (403, "GET", path, None, ("Host: grade.example",)),
        (403, "GET", path, None, ("Origin: https://grade.example",)),
    )
    for status, method, target, body, headers in cases:
        answer = await port.expect(status, method, target, body, *headers)
        problem = port.content(answer, _PROBLEM)
        if not isinstance(problem, dict) or problem.get("status") != status or not problem.get("title"):
            raise port.fault(answer, f"a problem document with title and status {status}")


def _path(client: str) -> str:
    return f"/v1/clients/{client}"


def _position(lat: str, lon: str, time: str) -> bytes:
    return f'{{"lat":{lat},"lon":{lon},"time":{time}}}'.encode()


def _line(client: str, location: str, time: str) -> bytes:
    """Return the line of a report that came in another protocol."""
    return f"IAMAT {client} {location} {time}".encode()


def _member(port: WebPort, answer: HttpAnswer, content: object, name: str) -> str:
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, str):
        raise port.fault(answer, f"an object with the text {name}")
    return value


def _object(data: bytes) -> dict[str, object]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


_RULES: Final = {
    "web.document": _WebRule(
        "Each web port describes itself",
        "GET /v1/openapi.json is answered with an OpenAPI document that has the paths of the API.",
        _document,
    ),
    "web.report": _WebRule(
        "PUT of a report is answered with the AT line that the herd then holds",
        "PUT /v1/clients/{id} is answered with the AT line, the server, the difference, and whether the report was stored "
        "or is stale; the digits of the location stay as they were spelled.",
        _report,
    ),
    "web.location": _WebRule(
        "GET of a client is answered with its last location",
        "GET /v1/clients/{id} tells where a client is that has reported in any protocol; 404 if no such client is known.",
        _location,
    ),
    "web.batch": _WebRule(
        "A batch is answered in order, and a bad report spoils no other",
        "POST /v1/reports stores each report that is in form, floods it, and answers with an array in the same order; in "
        "place of a bad one there is a problem object.",
        _batch,
    ),
    "web.places": _WebRule(
        "Places are those of WHATSAT, byte for byte",
        "GET /v1/clients/{id}/places is answered with the JSON of WHATSAT; the AT line is in a header.",
        _places,
    ),
    "web.lines": _WebRule(
        "The line protocol holds in a WebSocket",
        "With the protocol proxyherd.lines.v1, a message has one line or several, and each is answered as over TCP.",
        _lines,
    ),
    "web.objects": _WebRule(
        "A WebSocket of JSON answers each object, with its id",
        "With the protocol proxyherd.json.v1, a message is an object with op and id; the answers come in order.",
        _objects,
    ),
    "web.apps": _WebRule(
        "Apps on phones report, and are never told to send again what is of no use",
        "OwnTracks and OsmAnd get the answers that they need, and their locations are stored; a payload without a location "
        "is answered with 200 too.",
        _apps,
    ),
    "web.problems": _WebRule(
        "An error is a problem document",
        "Bad numbers get 400, unknown paths 404, wrong methods 405, each as application/problem+json; pages of other "
        "origins and unknown hosts get 403.",
        _problems,
    ),
}
"""By the ID of the check, in its order."""
