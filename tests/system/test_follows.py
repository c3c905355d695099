"""Clients that others have written follow clients and areas of a real server: Python's websockets and httpx, curl, Node.js' fetch
and ws. Chromium's EventSource and WebSocket are in test_web_pages.py. And those who do not read.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from debian import needs
from herd_process import PATIENCE_SECONDS, ServerProcess, running_server, wait_until
from node_packages import node_modules
from redis_cluster import Cluster
from web_wire import JSON, fresh, running_web_server
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

CROWD = 1_100
"""More clients than may wait for one that does not read."""


@pytest.fixture(scope="module")
def clark() -> Iterator[ServerProcess]:
    with running_web_server() as server:
        yield server


def url(server: ServerProcess, path: str, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.web_port}{path}"


def report(server: ServerProcess, client: str, lat: float, lon: float = 2) -> None:
    answer = httpx.put(
        url(server, f"/v1/clients/{client}"), json={"lat": lat, "lon": lon}, timeout=PATIENCE_SECONDS
    )
    assert answer.json()["outcome"] == "stored"


def erase(server: ServerProcess, client: str) -> None:
    assert httpx.delete(url(server, f"/v1/clients/{client}"), timeout=PATIENCE_SECONDS).status_code == 202


def brief(event: dict[str, Any]) -> tuple[Any, ...]:
    """Return what matters of an event: its kind, its client, and its latitude if it has one."""
    return tuple(event[key] for key in ("event", "client", "lat") if key in event)


def live(server: ServerProcess, client: str) -> list[tuple[Any, ...]]:
    """Let a client that is at latitude 1 move, go away, and come back; return what is told then."""
    for lat in (1.001, 40):
        report(server, client, lat)
    erase(server, client)
    report(server, client, 1.002)
    return [("move", client, 1.001), ("leave", client, 40), ("enter", client, 1.002)]


@contextlib.contextmanager
def json_socket(server: ServerProcess) -> Iterator[ClientConnection]:
    with connect(url(server, "/v1/ws", "ws"), subprotocols=[JSON]) as one:  # type: ignore[list-item]
        yield one


def next_of(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(socket.recv(PATIENCE_SECONDS))
    return message


def ask(socket: ClientConnection, **message: object) -> dict[str, Any]:
    """Send an op, and return the next message."""
    socket.send(json.dumps(message))
    return next_of(socket)


def test_websockets_follows_clients_and_areas_over_one_connection(clark: ServerProcess) -> None:
    kiwi, nobody = fresh(), fresh()
    report(clark, kiwi, 1)
    with json_socket(clark) as one:
        answer = ask(one, op="follow", id=1, client=[kiwi, nobody])
        assert answer == {
            "id": 1,
            "following": {"clients": 2, "areas": 0},
            "complete": True,
            "server": clark.name,
        }
        assert [brief(next_of(one)) for _ in range(2)] == [("enter", kiwi, 1), ("snapshot",)]
        assert ask(one, op="follow", id="f", near={"lat": 1, "lon": 2, "radius_km": 50})["id"] == "f"
        came: list[dict[str, Any]] = []
        while not came or came[-1]["event"] != "snapshot":
            came.append(next_of(one))
        assert ("enter", kiwi, 1) in map(brief, came)
        assert {event["follow"] for event in came} == {"f"}
        assert all(event["initial"] for event in came[:-1])
        expected = live(clark, kiwi)
        told = [next_of(one) for _ in range(7)]
        in_area = [brief(event) for event in told if "follow" in event]
        by_name = [brief(event) for event in told if "follow" not in event]
        assert in_area == expected
        moves = [("move", kiwi, 1.001), ("move", kiwi, 40)]
        assert by_name == [*moves, ("gone", kiwi), ("enter", kiwi, 1.002)]
        assert ask(one, op="unfollow", id=3, follow=1)["following"] == {"clients": 0, "areas": 1}
        report(clark, kiwi, 1.003)
        assert brief(next_of(one)) == ("move", kiwi, 1.003)
        assert ask(one, op="unfollow", id=4, follow="f")["following"] == {"clients": 0, "areas": 0}
        report(clark, kiwi, 1.004)
        assert ask(one, op="locate", id=5, client=kiwi)["lat"] == 1.004


def events_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream, which must have their kind as their type."""
    kind = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            event = json.loads(value)
            assert event["event"] == kind
            yield event


def test_httpx_follows_an_area_as_a_stream(clark: ServerProcess) -> None:
    kiwi, where = fresh(), {"near": "1,-20,50"}
    report(clark, kiwi, 1, -20)
    with httpx.stream("GET", url(clark, "/v1/events"), params=where, timeout=PATIENCE_SECONDS) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        events = events_of(answer.iter_lines())
        assert [brief(next(events)) for _ in range(2)] == [("enter", kiwi, 1), ("snapshot",)]
        assert clark.metrics()['proxyherd_client_connections_by_protocol{via="stream"}'] == 1
        report(clark, kiwi, 1.001, -20)
        report(clark, kiwi, 40, -20)
        report(clark, kiwi, 1.002, -20)
        erase(clark, kiwi)
        assert [brief(next(events)) for _ in range(4)] == [
            ("move", kiwi, 1.001),
            ("leave", kiwi, 40),
            ("enter", kiwi, 1.002),
            ("gone", kiwi),
        ]
    wait_until(
        lambda: clark.metrics()['proxyherd_client_connections_by_protocol{via="stream"}'] == 0,
        "the server knows that nobody follows any more",
    )


NODE = """
import assert from "node:assert";
import WebSocket from "ws";

const [port, client] = process.argv.slice(2);
const at = `http://127.0.0.1:${port}/v1`;
const put = async (lat) => {
  const body = JSON.stringify({ lat, lon: 2 });
  const headers = { "Content-Type": "application/json" };
  assert.equal((await fetch(`${at}/clients/${client}`, { method: "PUT", headers, body })).status, 200);
};
await put(1);

const stream = await fetch(`${at}/events?client=${client}`);
const reader = stream.body.pipeThrough(new TextDecoderStream()).getReader();
let text = "";
const read = async (wanted) => {
  while (!text.includes(wanted)) {
    const { value, done } = await reader.read();
    assert(!done);
    text += value;
  }
};
await read('"event":"snapshot"');

const socket = new WebSocket(`ws://127.0.0.1:${port}/v1/ws`, "proxyherd.json.v1");
const told = [];
await new Promise((resolve) => socket.on("open", resolve));
const snapshot = new Promise((resolve) => socket.on("message", (data) => {
  told.push(JSON.parse(data));
  if (told.at(-1).event === "snapshot") resolve();
}));
socket.send(JSON.stringify({ op: "follow", id: 1, client }));
await snapshot;
const moved = new Promise((resolve) => socket.on("message", resolve));
await put(1.5);
await moved;
await read('"lat":1.5');
assert.deepEqual(told.map(({ event, lat }) => [event, lat]), [[undefined, undefined], ["enter", 1], ["snapshot", undefined], ["move", 1.5]]);
socket.close();
await reader.cancel();
console.log("all is well");
"""


@needs("node", "npm")
def test_node_s_fetch_and_ws_follow_a_client(clark: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(node_modules())
    (tmp_path / "client.mjs").write_text(NODE)
    ended = subprocess.run(
        ["node", "client.mjs", str(clark.web_port), fresh()],
        cwd=tmp_path,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == (b"all is well\n", b"")


def name(number: int) -> str:
    """Return the name of one of the crowd: a long one, which fills the system's buffers sooner."""
    return f"crowd-{number}-".ljust(490, "x")


def report_crowd(server: ServerProcess, lat: float) -> None:
    for begin in range(0, CROWD, 1_000):
        numbers = range(begin, min(begin + 1_000, CROWD))
        batch = [{"client": name(number), "lat": lat, "lon": -40} for number in numbers]
        answer = httpx.post(url(server, "/v1/reports"), json=batch, timeout=PATIENCE_SECONDS)
        assert {one["outcome"] for one in answer.json()} == {"stored"}


def silent(server: ServerProcess, request: bytes) -> socket.socket:
    """Return a connection that sends this and reads nothing, with little room in the system for what comes."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    one.connect(("127.0.0.1", server.web_port))
    one.sendall(request)
    return one


def test_who_does_not_read_is_let_go_and_nobody_else_waits(clark: ServerProcess) -> None:
    def slow_readers() -> float:
        return clark.metrics()['proxyherd_client_connections_closed_total{reason="slow reader"}']

    before = slow_readers()
    report_crowd(clark, 1)
    stream = silent(clark, b"GET /v1/events?near=1,-40,50 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    handshake = (
        b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Protocol: proxyherd.json.v1\r\n\r\n"
    )
    op = b'{"op":"follow","id":1,"near":{"lat":1,"lon":-40,"radius_km":50}}'
    follow = b"\x81%c\0\0\0\0%b" % (0x80 | len(op), op)
    with stream, silent(clark, handshake + follow), json_socket(clark) as reader:
        assert ask(reader, op="follow", id=1, client=name(7))["id"] == 1
        assert [next_of(reader)["event"] for _ in range(2)] == ["enter", "snapshot"]
        lat, told = 1.0, 0
        while slow_readers() < before + 2:
            lat += 1e-5
            report_crowd(clark, lat)
            event, told = next_of(reader), told + 1
            assert (event["event"], round(event["lat"], 6)) == ("move", round(lat, 6))
        print(f"they were let go after {told} reports of {CROWD} clients")
    closed = [
        (one["via"], one["reason"]) for one in clark.events("client_closed") if one["reason"] == "slow reader"
    ]
    assert sorted(closed[-2:]) == [("stream", "slow reader"), ("websocket", "slow reader")]


def test_a_server_that_stops_ends_streams_cleanly_and_says_1012_to_websockets() -> None:
    with running_server(more="[web]\n") as server:
        server.wait_for_web()
        command = ["curl", "-sSN", url(server, "/v1/events?client=kiwi")]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as curl,
            json_socket(server) as one,
        ):
            assert curl.stdout is not None
            while "snapshot" not in curl.stdout.readline():
                pass
            assert ask(one, op="follow", id=1, client="kiwi")["id"] == 1
            assert next_of(one)["event"] == "snapshot"
            assert server.stop() == 0
            with pytest.raises(ConnectionClosed) as closed:
                next_of(one)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            _, errors = curl.communicate(timeout=PATIENCE_SECONDS)
            assert (curl.returncode, errors) == (0, "")


@needs("redis-server")
def test_the_engine_redis_says_that_it_cannot_follow(running_redis: Cluster) -> None:
    with running_web_server(cluster=running_redis) as server, json_socket(server) as one:
        answer = httpx.get(url(server, "/v1/events?client=kiwi"), timeout=PATIENCE_SECONDS)
        problem = ask(one, op="follow", id=1, client="kiwi")["problem"]
        assert answer.status_code == 501 == problem["status"]
        assert answer.json() == problem
        assert "redis" in problem["detail"]
        assert ask(one, op="locate", id=2, client="kiwi")["problem"]["status"] == 404
