"""The web port of real servers, over raw sockets: requests, WebSockets, and what is no request at all. With both engines."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator

import pytest
from cases import CASES
from gazetteer_file import gazetteer_file
from herd_process import PATIENCE_SECONDS, ServerProcess, running_server, wait_until
from redis_cluster import Cluster
from web_wire import (
    JSON,
    LINES,
    WebWire,
    ask,
    frame,
    fresh,
    position,
    request,
    running_web_server,
    websocket,
)

from proxyherd.grading import playing, servers
from proxyherd.grading.cases import Case

CLIENT = "/v1/clients/a"
WEB = '[web]\nallowed_origins = ["https://map.example"]\n'


@pytest.fixture(scope="module")
def clark(shared_cluster: Cluster | None) -> Iterator[ServerProcess]:
    with running_web_server(WEB, cluster=shared_cluster, gazetteer=gazetteer_file()) as server:
        yield server


def test_a_report_is_answered_and_known_over_tcp_and_http(clark: ServerProcess) -> None:
    client = fresh()
    status, headers, body = ask(clark, "PUT", f"/v1/clients/{client}", position())
    answer = json.loads(body)
    assert (status, headers["content-type"], answer["outcome"]) == (200, "application/json", "stored")
    at = answer["at"].encode()
    assert clark.ask(b"WHATSAT %b 0 0" % client.encode()).startswith(at + b"\n")
    found = json.loads(ask(clark, "GET", f"/v1/clients/{client}")[2])
    assert (found["at"], found["lat"], found["server"]) == (answer["at"], 34.06893, "Clark")
    status, headers, body = ask(clark, "GET", f"/v1/clients/{client}/places?limit=0")
    assert (status, headers["proxyherd-at"]) == (200, answer["at"])
    assert json.loads(body)["status"] == "ZERO_RESULTS"


def test_a_report_without_a_time_has_the_time_at_which_it_was_taken(clark: ServerProcess) -> None:
    client = fresh()
    answer = json.loads(ask(clark, "PUT", f"/v1/clients/{client}", b'{"lat":1,"lon":2}')[2])
    assert answer["difference"] == "+0.000000000"
    with websocket(clark, JSON) as wire:
        wire.send(frame(b'{"op":"report","client":"%b","lat":1,"lon":2}' % client.encode()))
        answer = json.loads(wire.message()[1])
        assert (answer["outcome"], answer["difference"]) == ("stored", "+0.000000000")


def test_a_stale_report_says_so_and_an_unknown_client_is_not_found(clark: ServerProcess) -> None:
    client, said = fresh(), position()
    assert [json.loads(ask(clark, "PUT", f"/v1/clients/{client}", said)[2])["outcome"] for _ in range(2)] == [
        "stored",
        "stale",
    ]
    status, headers, _ = ask(clark, "GET", f"/v1/clients/{fresh()}")
    assert (status, headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(("size", "fits"), [(512, True), (513, False)])
def test_an_id_has_at_most_512_bytes_by_whatever_protocol_it_comes(
    clark: ServerProcess, size: int, fits: bool
) -> None:
    name = fresh().ljust(size, "x")
    report = b"IAMAT %b +1+1 5" % name.encode()
    assert clark.ask(report).startswith(b"AT Clark " if fits else b"? IAMAT ")
    assert clark.ask(b"WHATSAT %b 0 0" % name.encode()).startswith(b"AT Clark " if fits else b"? WHATSAT ")
    for method, path, body in (("PUT", "", position()), ("GET", "", b""), ("GET", "/places?limit=0", b"")):
        status, _, answer = ask(clark, method, f"/v1/clients/{name}{path}", body)
        assert (status, b"/v1/#client" in answer) == ((200, False) if fits else (400, True))
    batch = json.dumps([{"client": name, "lat": 1, "lon": 2}]).encode()
    assert (b"/v1/#client" in ask(clark, "POST", "/v1/reports", batch)[2]) != fits
    with websocket(clark, LINES) as lines, websocket(clark, JSON) as objects:
        lines.send(frame(report))
        assert lines.message()[1].startswith(b"AT " if fits else b"? ")
        objects.send(frame(b'{"op":"locate","client":"%b"}' % name.encode()))
        assert (b"/v1/#client" in objects.message()[1]) != fits
    consumed = 'proxyherd_web_consumed_total{reason="no_client",via="osmand"}'
    before = clark.metrics("proxyherd_web_consumed_total")[consumed]
    assert ask(clark, "GET", f"/osmand?id={name}&lat=1&lon=2&timestamp=5")[0] == 200
    assert clark.metrics("proxyherd_web_consumed_total")[consumed] == before + (not fits)


def test_a_batch_is_answered_in_order_and_a_bad_report_spoils_no_other(clark: ServerProcess) -> None:
    clients = [fresh() for _ in range(1_000)]
    batch = [{"client": one, "lat": 1, "lon": 2} for one in clients]
    batch[7]["lat"] = 91
    status, _, body = ask(clark, "POST", "/v1/reports", json.dumps(batch).encode())
    answers = json.loads(body)
    assert status == 200
    assert [one.get("outcome") for one in answers] == ["stored"] * 7 + [None] + ["stored"] * 992
    assert [one["at"].split()[3] for one in answers if "at" in one] == clients[:7] + clients[8:]
    assert answers[7]["field"] == "lat"


def test_a_packed_batch_of_lines_is_read(clark: ServerProcess) -> None:
    lines = b"".join(b'{"client":"%b","lat":1,"lon":2}\n' % fresh().encode() for _ in range(3))
    headers = "Content-Type: application/x-ndjson", "Content-Encoding: gzip"
    status, _, body = ask(clark, "POST", "/v1/reports", gzip.compress(lines), *headers)
    assert (status, [one["outcome"] for one in json.loads(body)]) == (200, ["stored"] * 3)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a%2Fb", "a/b"),
        ("%00", "\0"),
        ("%F0%9F%93%B1", "📱"),
        ("a%20b", "a b"),
        ("%2520", "%20"),
        ("%FF", "%FF"),
    ],
)
def test_a_name_in_a_path_is_the_same_in_json(clark: ServerProcess, name: str, shown: str) -> None:
    assert ask(clark, "PUT", f"/v1/clients/{name}", position())[0] == 200
    assert json.loads(ask(clark, "GET", f"/v1/clients/{name}")[2])["client"] == shown


def test_pipelined_requests_are_answered_in_order(clark: ServerProcess) -> None:
    clients = [fresh() for _ in range(100)]
    with WebWire(clark) as wire:
        sending = threading.Thread(
            target=wire.send,
            args=(b"".join(request("PUT", f"/v1/clients/{one}", position()) for one in clients),),
        )
        sending.start()
        answers = [json.loads(wire.answer()[2])["at"].split()[3] for _ in clients]
        sending.join()
    assert answers == clients


def test_a_body_may_be_asked_for_come_in_chunks_and_have_trailers(clark: ServerProcess) -> None:
    head = (
        f"PUT /v1/clients/{fresh()} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    )
    with WebWire(clark) as wire:
        wire.send(head.encode())
        assert wire.file.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert wire.file.readline() == b"\r\n"
        for byte in position():
            wire.send(b"1\r\n%c\r\n" % byte)
        wire.send(b"0\r\nX-Trailer: a\r\n\r\n")
        status, headers, _ = wire.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert wire.is_closed()


def test_an_old_client_a_head_and_one_that_has_sent_everything(clark: ServerProcess) -> None:
    for version, headers, closes in (("1.0", (), True), ("1.0", ("Connection: keep-alive",), False)):
        with WebWire(clark) as wire:
            wire.send(request("GET", "/v1/openapi.json", b"", *headers, version=version))
            _, answered, body = wire.answer()
            assert answered["connection"] == ("close" if closes else "keep-alive")
            assert len(body) > 100
    status, headers_of_head, _ = ask(clark, "HEAD", "/v1/openapi.json")
    assert (status, headers_of_head["content-length"]) == (200, str(len(body)))
    with WebWire(clark) as wire:
        wire.send(request("PUT", f"/v1/clients/{fresh()}", position()))
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.answer()[0] == 200
        assert wire.is_closed()


def test_a_page_that_is_allowed_may_read_the_answers(clark: ServerProcess) -> None:
    origin = "https://map.example"
    for asked in (("GET", "/nowhere"), ("OPTIONS", CLIENT), ("PUT", CLIENT, position())):
        method, target, *body = asked
        _, headers, _ = ask(clark, method, target, *(body or [b""]), f"Origin: {origin}")
        assert headers["access-control-allow-origin"] == origin
    assert "access-control-allow-origin" not in ask(clark, "GET", "/nowhere")[1]


def test_who_is_near_and_inside_is_told_over_http_and_websockets_or_why_the_engine_cannot(
    clark: ServerProcess, shared_cluster: Cluster | None
) -> None:
    near, far = f"{fresh()} near", f"{fresh()} far"
    for client, lat, lon in ((near, "-87.500", "179.999"), (far, "-87.6", "-179.5")):
        report = {"client": client, "lat": lat, "lon": lon}
        assert json.loads(ask(clark, "POST", "/v1/reports", json.dumps([report]).encode())[2])[0]["at"]
    ring = [[179, -88], [-179, -88], [-179, -87], [179, -87], [179, -88]]
    area = {"type": "Polygon", "coordinates": [ring]}
    asked = [
        ask(clark, "GET", "/v1/near?lat=-87.5&lon=-180&radius_km=20"),
        ask(clark, "GET", f"/v1/near?client={near.replace(' ', '%20')}&radius_km=20"),
        ask(clark, "GET", "/v1/within?west=179&south=-88&east=-179&north=-87"),
        ask(clark, "POST", "/v1/within", json.dumps(area).encode()),
    ]
    answers = [json.loads(body) for _, _, body in asked]
    with websocket(clark, JSON) as wire:
        wire.send(frame(b'{"op":"near","id":1,"lat":-87.5,"lon":-180,"radius_km":20}'))
        wire.send(frame(json.dumps({"op": "within", "id": 2, "within": area}).encode()))
        for number in (1, 2):
            answers.append(json.loads(wire.message()[1]))
            assert answers[-1].pop("id") == number
    if shared_cluster is not None:
        assert {status for status, _, _ in asked} == {501}
        assert [one.get("problem", one)["type"] for one in answers] == ["/v1/#engine"] * 6
        return
    assert {status for status, _, _ in asked} == {200}
    for answer in answers:
        assert (answer["server"], answer["complete"], answer.keys() & {"next"}) == ("Clark", True, set())
        assert [one["client"] for one in sorted(answer["clients"], key=lambda one: one["lat"])] == [far, near]
        assert all(0 <= one["age_s"] < PATIENCE_SECONDS for one in answer["clients"])
    assert b'"lat":-87.500,"lon":179.999,' in asked[0][2]
    assert [one["client"] for one in answers[0]["clients"]] == [near, far]


def test_lines_and_objects_are_answered_over_websockets_and_the_log_says_how_they_came(
    clark: ServerProcess,
) -> None:
    client = fresh()
    with websocket(clark, LINES) as wire:
        wire.send(frame(b"IAMAT %b +1+2 3\nFOO" % client.encode()))
        opcode, data = wire.message()
        while data.count(b"\n") < 2:
            data += wire.message()[1]
        assert opcode == 1
        assert re.fullmatch(rb"AT Clark \S+ %b \+1\+2 3\n\? FOO\n" % client.encode(), data)
        wire.send(frame(b"BAR", 2))
        assert wire.message() == (2, b"? BAR\n")
        wire.send(frame(b"ping", 9))
        assert wire.message() == (10, b"ping")
        wire.send(frame(b"\x03\xe8", 8))
        assert wire.message() == (8, b"\x03\xe8")
        assert wire.is_closed()
    with websocket(clark, JSON) as wire:
        for number in range(20):
            wire.send(frame(b'{"op":"locate","id":%d,"client":"%b"}' % (number, client.encode())))
        for number in range(20):
            found = json.loads(wire.message()[1])
            assert (found["id"], found["client"]) == (number, client)
        wire.send(frame(b'{"op":"fly","id":7}'))
        assert json.loads(wire.message()[1])["problem"]["field"] == "op"
    ask(clark, "GET", f"/osmand?id={client}&lat=1&lon=3&timestamp=4")

    def via() -> set[str]:
        return {one["via"] for one in clark.events("command") if client in one["command"]}

    wait_until(lambda: via() == {"websocket", "osmand"}, "the log says how the commands came")


def bridge(server: ServerProcess) -> tuple[int, threading.Thread]:
    """Return a port whose one connection is passed on over a WebSocket, a line a message, and a thread that does it. Where
    the client closes its half, it still gets its answers: to the last message there is an answer that is left out.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def pass_on() -> None:
        with listener, listener.accept()[0] as client, websocket(server, LINES) as wire:
            end = fresh().encode()

            def send() -> None:
                with client.makefile("rb") as lines, contextlib.suppress(OSError):
                    for line in lines:
                        wire.send(frame(line, 2))
                    wire.send(frame(end, 2))

            sending = threading.Thread(target=send)
            sending.start()
            with contextlib.suppress(OSError):
                while (message := wire.message())[0] != 8:
                    data = message[1].removesuffix(b"? " + end + b"\n")
                    client.sendall(data)
                    if data != message[1]:
                        break
                client.shutdown(socket.SHUT_RDWR)
            sending.join()

    thread = threading.Thread(target=pass_on)
    thread.start()
    return listener.getsockname()[1], thread


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_over_a_websocket(case: Case, clark: ServerProcess) -> None:
    async def play() -> None:
        port, thread = bridge(clark)
        known = servers.GradedServer("Clark", "127.0.0.1", port, seconds=PATIENCE_SECONDS)
        known.report = direct.report  # type: ignore[method-assign] # it has a connection of its own
        await playing.play(case, known, None)
        await asyncio.to_thread(thread.join)

    direct = servers.GradedServer("Clark", "127.0.0.1", clark.client_port, seconds=PATIENCE_SECONDS)
    asyncio.run(play())


def test_a_server_that_stops_asks_websockets_to_come_again() -> None:
    with running_server(more=WEB) as server:
        server.wait_for_web()
        with websocket(server, LINES) as lines, websocket(server, JSON) as objects:
            for wire in (lines, objects):
                wire.send(frame(b"FOO"))
                wire.message()
            server.signal(signal.SIGTERM)
            for wire in (lines, objects):
                opcode, data = wire.message()
                assert (opcode, int.from_bytes(data[:2], "big")) == (8, 1012)
        assert server.wait() == 0
