"""What strangers may send to a web port, against one real server: odd requests that are served, odd frames, and many
connections that begin and end at once. It answers each as docs/web.md says, and goes on.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import NamedTuple

import pytest
from herd_process import ServerProcess, wait_until
from web_wire import (
    HANDSHAKE,
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

MORE = """
[web]
allowed_origins = ["https://map.example"]
[limits]
slow_reader_seconds = 1
write_buffer_bytes = 65536
"""
CLIENT = "/v1/clients/a"
REPORT = b'{"lat":1,"lon":2}'
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def clark() -> Iterator[ServerProcess]:
    with running_web_server(MORE) as server:
        yield server


@pytest.fixture(autouse=True)
def _serves_others(clark: ServerProcess) -> Iterator[None]:
    """Whatever a test sends, the next client is served."""
    yield
    assert ask(clark, "PUT", f"/v1/clients/{fresh()}", position())[0] == 200


def chunked(body: bytes, *headers: str, size: int = 1, trailers: str = "") -> bytes:
    """Return a report in chunks of this size."""
    named = "\r\n".join(
        ["Host: localhost", "Content-Type: application/json", "Transfer-Encoding: chunked", *headers]
    )
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size])
        for at in range(0, len(body), size)
    )
    return f"PUT {CLIENT} HTTP/1.1\r\n{named}\r\n\r\n".encode() + chunks + f"0\r\n{trailers}\r\n".encode()


# --- requests


SERVED = {
    "many digits": (request("PUT", CLIENT, b'{"lat":34.0689300000000000001,"lon":-0.0}'), 200),
    "a thousand digits": (request("PUT", CLIENT, b'{"lat":1.%b,"lon":2}' % (b"3" * 1_000)), 200),
    "a byte order mark": (request("PUT", CLIENT, b"\xef\xbb\xbf" + REPORT), 200),
    "white space of 2 MiB": (request("PUT", CLIENT, REPORT + b" " * (2 * MIB - len(REPORT))), 200),
    "2 MiB when unpacked": (
        request(
            "PUT",
            CLIENT,
            gzip.compress(REPORT + b"\n" * (2 * MIB - len(REPORT)), mtime=0),
            "Content-Encoding: gzip",
        ),
        200,
    ),
    "an ID of 512 bytes": (request("PUT", f"/v1/clients/{'%F0%9F%93%B1' * 128}", REPORT), 200),
    "a type with a parameter": (
        request("PUT", CLIENT, REPORT, "Content-Type: Application/JSON; charset=utf-8"),
        200,
    ),
    "line feeds before a request": (b"\r\n\r\n" + request("GET", "/v1/openapi.json"), 200),
    "a thousand reports": (
        request("POST", "/v1/reports", json.dumps([{"client": "a", "lat": 1, "lon": 2}] * 1_000).encode()),
        200,
    ),
    "no reports": (request("POST", "/v1/reports", b"[]"), 200),
    "OPTIONS": (request("OPTIONS", CLIENT), 204),
    "OPTIONS of a page": (
        request("OPTIONS", CLIENT, b"", "Origin: https://map.example", "Access-Control-Request-Method: PUT"),
        204,
    ),
    "a GET with a body": (
        b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
        200,
    ),
    "an empty body for an app": (request("POST", "/owntracks"), 200),
}
SERVED_LAST = {
    "chunks of one byte": (chunked(REPORT), 200),
    "trailers": (chunked(REPORT, trailers="X-One: 1\r\nX-Two: 2\r\n"), 200),
    "a chunk with an extension": (chunked(REPORT, size=99).replace(b"11\r\n", b"11;a=b\r\n"), 200),
    "a wish for HTTP/2": (
        request(
            "GET",
            "/v1/openapi.json",
            b"",
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        ),
        200,
    ),
    "HTTP/1.0": (request("GET", "/v1/openapi.json", version="1.0"), 200),
    "two Hosts": (request("GET", CLIENT, b"", "Host: localhost"), 400),
    "trailers that say whose the body is": (chunked(REPORT, trailers="Host: evil.example\r\n"), 200),
}
REFUSED = {
    "NaN": (request("PUT", CLIENT, b'{"lat":NaN,"lon":2}'), 400),
    "an exponent": (request("PUT", CLIENT, b'{"lat":1e1,"lon":2}'), 400),
    "no body": (request("PUT", CLIENT), 400),
    "an array": (request("PUT", CLIENT, b"[]"), 422),
    "a duplicate key": (request("PUT", CLIENT, b'{"lat":1,"lon":2,"lat":3}'), 400),
    "deep nesting": (request("POST", "/v1/reports", b"[" * 100_000), 400),
    "too many reports": (request("POST", "/v1/reports", b"[" + b"{}," * 1_000 + b"{}]"), 413),
    "a wrong type": (request("PUT", CLIENT, b"{}", "Content-Type: text/plain"), 415),
    "a wrong encoding": (request("PUT", CLIENT, b"{}", "Content-Encoding: br"), 415),
    "no gzip": (request("PUT", CLIENT, b"{}", "Content-Encoding: gzip"), 400),
    "another method": (request("PATCH", CLIENT), 405),
    "another path": (request("GET", "/nowhere"), 404),
    "another site's Host": (b"GET /v1/clients/a HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
    "another site's page": (request("GET", CLIENT, b"", "Origin: https://evil.example"), 403),
    "another site's page with a simple request": (
        request("POST", "/owntracks", b"{}", "Origin: null", "Content-Type: text/plain"),
        403,
    ),
    "1e3": (request("PUT", CLIENT, b'{"lat":1e3,"lon":2}'), 400),
    "Infinity": (request("PUT", CLIENT, b'{"lat":Infinity,"lon":2}'), 400),
    "NaN in a string": (request("PUT", CLIENT, b'{"lat":"NaN","lon":2}'), 400),
    "a hair out of bounds": (request("PUT", CLIENT, b'{"lat":90.%b1,"lon":2}' % (b"0" * 40)), 400),
    "a batch of 0 bytes": (request("POST", "/v1/reports"), 400),
    "half of a surrogate pair": (
        request("POST", "/v1/reports", b'[{"client":"\\ud83d","lat":1,"lon":2}]'),
        400,
    ),
    "an ID of 513 bytes": (request("PUT", f"/v1/clients/a{'%F0%9F%93%B1' * 128}", REPORT), 400),
    "an ID of 8 KB": (request("PUT", f"/v1/clients/{'a' * 8_190}", REPORT), 400),
    "a percent sign alone": (request("PUT", "/v1/clients/100%", REPORT), 400),
    "no ID": (request("PUT", "/v1/clients/", REPORT), 400),
    "deep objects": (request("PUT", CLIENT, b'{"lat":' * 50_000), 400),
    "a duplicate key in another spelling": (request("PUT", CLIENT, b'{"lat":1,"lon":2,"\\u006cat":3}'), 400),
    "UTF-16": (request("PUT", CLIENT, REPORT.decode().encode("utf-16")), 400),
    "two documents": (request("PUT", CLIENT, REPORT + REPORT), 400),
    "a gzip bomb": (request("PUT", CLIENT, gzip.compress(bytes(8 * MIB), 1), "Content-Encoding: gzip"), 413),
    "packed twice": (request("PUT", CLIENT, b"a", "Content-Encoding: gzip, gzip"), 415),
    "many members of gzip": (
        request("PUT", CLIENT, gzip.compress(b"", mtime=0) * 10_000, "Content-Encoding: gzip"),
        400,
    ),
    "gzip that breaks off": (
        request("PUT", CLIENT, gzip.compress(REPORT, mtime=0)[:-1], "Content-Encoding: gzip"),
        400,
    ),
    "a form": (request("PUT", CLIENT, REPORT, "Content-Type: application/x-www-form-urlencoded"), 415),
    "a parameter that occurs twice": (request("GET", f"{CLIENT}/places?limit=1&limit=2"), 400),
    "an unknown parameter": (request("GET", f"{CLIENT}?x=1"), 400),
    "a radius of NaN": (request("GET", f"{CLIENT}/places?radius_km=NaN"), 400),
    "TRACE": (request("TRACE", CLIENT), 405),
    "two Origins": (
        request("GET", CLIENT, b"", "Origin: https://map.example", "Origin: https://evil.example"),
        403,
    ),
    "an image on another site": (
        request("GET", "/osmand?id=a&lat=1&lon=2", b"", "Sec-Fetch-Site: cross-site"),
        403,
    ),
    "a preflight of another site": (
        request("OPTIONS", CLIENT, b"", "Origin: https://evil.example", "Access-Control-Request-Method: PUT"),
        403,
    ),
}


BROKEN = {
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no HTTP": (b"IAMAT kiwi +1+2 3\n", 400),
    "TLS": (bytes.fromhex("16030100c5010000c10303") + bytes(200), 400),
    "a long header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000, 400),
    "many headers": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 200 + b"\r\n", 400),
    "two lengths": (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "length and chunks": (
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a large body": (request("PUT", CLIENT, bytes(2 * 1024 * 1024 + 1)), 413),
    "a large body that is announced": (
        b"PUT /v1/clients/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n",
        413,
    ),
    "chunks that are none": (
        b"PUT /v1/clients/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        400,
    ),
    "another expectation": (request("PUT", CLIENT, b"{}", "Expect: miracles"), 417),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/2 with its preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "another transfer coding": (chunked(REPORT).replace(b": chunked", b": gzip, chunked"), 501),
    "a proxy is wanted": (request("CONNECT", "localhost:1"), 400),
}


@pytest.mark.parametrize("name", SERVED)
def test_an_odd_request_is_served_and_the_next_one_too(clark: ServerProcess, name: str) -> None:
    data, status = SERVED[name]
    with WebWire(clark) as wire:
        wire.send(data + request("GET", "/v1/openapi.json"))
        assert wire.answer()[0] == status
        assert wire.answer()[0] == 200


@pytest.mark.parametrize("name", SERVED_LAST)
def test_an_odd_request_is_answered_and_ends_its_connection(clark: ServerProcess, name: str) -> None:
    data, status = SERVED_LAST[name]
    with WebWire(clark) as wire:
        wire.send(data + request("GET", "/v1/openapi.json"))
        answered, headers, _ = wire.answer()
        assert (answered, headers["connection"]) == (status, "close")
        assert wire.is_closed()


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_request_is_answered_and_ends_the_connection(clark: ServerProcess, name: str) -> None:
    data, status = BROKEN[name]
    with WebWire(clark) as wire:
        wire.send(data)
        answered, headers, _ = wire.answer()
        assert (answered, headers["connection"]) == (status, "close")
        assert wire.is_closed()


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_gets_a_problem_and_the_next_one_is_served(clark: ServerProcess, name: str) -> None:
    data, status = REFUSED[name]
    with WebWire(clark) as wire:
        wire.send(data + request("GET", "/v1/openapi.json"))
        answered, _, body = wire.answer()
        problem = json.loads(body)
        assert answered == status
        assert {"type", "title", "status", "detail"} <= (
            problem[0] if isinstance(problem, list) else problem
        ).keys()
        assert "evil" not in body.decode()
        assert "Traceback" not in body.decode()
        assert wire.answer()[0] == 200


def test_the_digits_of_a_location_stay_as_they_were_spelled(clark: ServerProcess) -> None:
    client, digits = fresh(), "34.0689300000000000001"
    ask(clark, "PUT", f"/v1/clients/{client}", b'{"lat":%b,"lon":"-118.4451270"}' % digits.encode())
    assert f'"lat":{digits},"lon":-118.4451270' in ask(clark, "GET", f"/v1/clients/{client}")[2].decode()
    assert b"+%b-118.4451270 " % digits.encode() in clark.knows(client.encode())


def test_a_page_of_an_allowed_origin_learns_what_it_may_send(clark: ServerProcess) -> None:
    _, headers, _ = ask(
        clark, "OPTIONS", CLIENT, b"", "Origin: https://map.example", "Access-Control-Request-Method: PUT"
    )
    assert headers["access-control-allow-origin"] == "https://map.example"
    assert set(headers["access-control-allow-methods"].split(", ")) == {"GET", "PUT", "DELETE"}
    assert "content-type" in headers["access-control-allow-headers"].lower()
    assert headers["vary"] == "Origin"


def test_a_head_has_no_body_and_an_app_s_route_has_no_head(clark: ServerProcess) -> None:
    with WebWire(clark) as wire:
        wire.send(request("HEAD", "/v1/clients/nobody") + request("HEAD", "/osmand?id=a&lat=1&lon=2"))
        assert [wire.answer(head=True)[0] for _ in range(2)] == [404, 405]
        wire.send(request("GET", "/v1/openapi.json"))
        assert wire.answer()[0] == 200


@pytest.mark.parametrize("cut", [1, 7])
def test_a_request_may_come_in_pieces(clark: ServerProcess, cut: int) -> None:
    data = request("PUT", CLIENT, REPORT) + chunked(REPORT, trailers="X-One: 1\r\n")
    with WebWire(clark) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), cut):
            wire.send(data[at : at + cut])
        assert [wire.answer()[0] for _ in range(2)] == [200, 200]


def test_a_slow_body_delays_nobody_else(clark: ServerProcess) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(WebWire(clark)) for _ in range(100)]
        for wire in slow:
            wire.send(request("PUT", CLIENT, REPORT)[:-1])
        for _ in range(20):
            assert ask(clark, "PUT", f"/v1/clients/{fresh()}", position())[0] == 200
        for wire in slow:
            wire.send(REPORT[-1:])
            assert wire.answer()[0] == 200


def test_who_does_not_read_is_disconnected_and_takes_little_memory(clark: ServerProcess) -> None:
    before = clark.memory()
    with socket.socket() as mute:
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        mute.connect(("127.0.0.1", clark.web_port))
        mute.settimeout(0.2)
        asked, sent = request("GET", "/v1/openapi.json") * 100, 0
        deadline = time.monotonic() + 5
        while sent < 32 * MIB and time.monotonic() < deadline:
            try:
                sent += mute.send(asked)
            except TimeoutError:
                break
            except OSError:
                break
        name = f"127.0.0.1:{mute.getsockname()[1]}"
        clark.wait_for_event("client_closed", client=name, reason="slow reader")
    assert clark.memory() - before < 8 * MIB


# --- WebSockets


class Bytes(NamedTuple):
    """What a client sends after its handshake, and the code with which the server closes."""

    data: bytes
    code: int


def piece(data: bytes, opcode: int, *, last: bool = False) -> bytes:
    """Return a frame that may be a part of a message."""
    whole = frame(data, opcode)
    return whole if last else bytes([whole[0] & 0x7F]) + whole[1:]


BREACHES = {
    "not masked": Bytes(b"\x81\x01a", 1002),
    "not masked, and a control frame": Bytes(b"\x89\x00", 1002),
    "a reserved bit": Bytes(b"\xc1\x80\0\0\0\0", 1002),
    "an unknown opcode": Bytes(frame(b"", 3), 1002),
    "an unknown control opcode": Bytes(frame(b"", 11), 1002),
    "a ping of 126 bytes": Bytes(frame(bytes(126), 9), 1002),
    "a ping in pieces": Bytes(piece(b"a", 9), 1002),
    "a continuation of nothing": Bytes(frame(b"a", 0), 1002),
    "a message within a message": Bytes(piece(b"a", 1) + frame(b"b", 1), 1002),
    "text that is not UTF-8": Bytes(frame(b"\xff"), 1007),
    "text that is not UTF-8 in pieces": Bytes(piece(b"\xe2\x82", 1) + piece(b"a", 0, last=True), 1007),
    "a frame of 1 TiB": Bytes(b"\x82\xff" + (1 << 40).to_bytes(8, "big"), 1009),
    "pieces of more than 64 KiB": Bytes(piece(bytes(60_000), 2) + piece(bytes(6_000), 0), 1009),
    "a request in HTTP": Bytes(frame(b"GET / HTTP/1.1"), 1008),
    "a close frame of one byte": Bytes(frame(b"\x03", 8), 1002),
    "a close frame with a code that nobody sends": Bytes(frame(struct.pack("!H", 1006), 8), 1002),
    "a close frame whose reason is not UTF-8": Bytes(frame(b"\x03\xe8\xff", 8), 1007),
}


def code_of_close(wire: WebWire) -> int:
    """Read until the server closes; return its code."""
    while (message := wire.message())[0] != 8:
        pass
    return int.from_bytes(message[1][:2], "big")


@pytest.mark.parametrize("name", BREACHES)
@pytest.mark.parametrize("protocol", [LINES, JSON])
def test_a_breach_of_the_protocol_is_told_by_its_code(clark: ServerProcess, protocol: str, name: str) -> None:
    data, code = BREACHES[name]
    if protocol == JSON and code == 1008:
        return  # there it is text that is no JSON
    with websocket(clark, protocol) as wire:
        wire.send(data)
        assert code_of_close(wire) == code


@pytest.mark.parametrize(
    ("protocol", "message"), [(LINES, b"\xf0\x9f\x93\xb1 \xc3\xa9"), (JSON, b'{"op":"\xc3\xa9"}')]
)
def test_a_message_may_come_in_pieces_with_control_frames_between_them(
    clark: ServerProcess, protocol: str, message: bytes
) -> None:
    with websocket(clark, protocol) as wire:
        wire.send(frame(message))
        whole = wire.message()
        wire.send(piece(message[:1], 1))
        for at in range(1, len(message)):
            wire.send(frame(b"%d" % at, 9) + frame(b"", 10) + piece(message[at : at + 1], 0))
        wire.send(piece(b"", 0, last=True))
        assert [wire.message() for _ in range(1, len(message))] == [
            (10, b"%d" % at) for at in range(1, len(message))
        ]
        assert wire.message() == whole


def test_a_websocket_needs_a_whole_handshake_and_no_origin(clark: ServerProcess) -> None:
    def status(*headers: str, method: str = "GET", version: str = "1.1") -> int:
        with WebWire(clark) as wire:
            wire.send(request(method, "/v1/ws", b"", *headers, version=version))
            return wire.answer()[0]

    named = f"Sec-WebSocket-Protocol: chat, {LINES}"
    assert status(*HANDSHAKE, named) == 101
    assert (
        status(*HANDSHAKE, named, f"Origin: http://localhost:{clark.web_port}") == 403
    )  # the Host is localhost
    assert status(*HANDSHAKE, named, "Origin: http://localhost") == 101
    assert status(*HANDSHAKE, named, "Origin: https://map.example") == 101
    assert status(*HANDSHAKE, named, "Origin: https://evil.example") == 403
    assert status(*HANDSHAKE, named, "Origin: null") == 403
    assert status(*HANDSHAKE) == 400
    assert status(*HANDSHAKE, "Sec-WebSocket-Protocol: chat") == 400
    for left_out in range(len(HANDSHAKE)):
        assert status(*HANDSHAKE[:left_out], *HANDSHAKE[left_out + 1 :], named) == 400, HANDSHAKE[left_out]
    assert status(*HANDSHAKE, named, version="1.0") == 400
    assert status(*HANDSHAKE, named, method="PUT") == 405


def test_storms_of_connections_and_close_frames_pass(clark: ServerProcess) -> None:
    """Connections that end at once, in the middle of a request, in a handshake, and by many close frames."""
    handshake = request("GET", "/v1/ws", b"", *HANDSHAKE, f"Sec-WebSocket-Protocol: {LINES}")
    storms = [
        b"",
        request("PUT", CLIENT, REPORT)[:-3],
        handshake[:-2],
        handshake + frame(b"", 8) * 500,
        handshake + frame(b"FOO") * 200 + frame(b"\x03\xe8", 8),
        handshake + b"\x88\x00" * 500,
    ]
    linger = struct.pack("ii", 1, 0)
    for number in range(300):
        with closing(socket.create_connection(("127.0.0.1", clark.web_port))) as one:
            one.sendall(storms[number % len(storms)])
            if number % 2:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def all_gone() -> bool:
        figures = clark.metrics("proxyherd_client_connections_by_protocol")
        return sum(figures.values()) == 0

    wait_until(all_gone, "no connection is left")
