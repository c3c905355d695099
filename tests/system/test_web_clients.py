"""Clients that others have written, with a real server: curl, Node.js' fetch and ws, Python's httpx and websockets, and what
apps on phones send. Chromium's fetch and WebSocket are in test_web_pages.py.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets
from debian import needs
from herd_process import PATIENCE_SECONDS, ServerProcess, wait_until
from node_packages import node_modules
from redis_cluster import Cluster
from tracker_payloads import PAYLOADS
from web_wire import JSON, LINES, fresh, running_web_server
from websockets.sync.client import ClientConnection, connect


@pytest.fixture(scope="module")
def clark() -> Iterator[ServerProcess]:
    with running_web_server() as server:
        yield server


def url(server: ServerProcess, path: str, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.web_port}{path}"


def output(*command: str, cwd: Path | None = None, data: bytes = b"") -> str:
    ended = subprocess.run(
        command, cwd=cwd, input=data, capture_output=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.decode()


# --- curl


CURLS = {
    "": (),
    "HTTP/1.0": ("-0",),
    "a wish for HTTP/2": ("--http2",),
    "chunks": ("-H", "Transfer-Encoding: chunked"),
    "100-continue": ("-H", "Expect: 100-continue"),
}


@needs("curl")
@pytest.mark.parametrize("name", CURLS)
def test_curl_reports(clark: ServerProcess, name: str) -> None:
    """Twice, on one connection if there can be."""
    headers = (
        "-H",
        "Content-Type: application/json",
        "--data-binary",
        '{"lat":1,"lon":2}',
        "-w",
        "%{http_code}\\n",
    )
    targets = [url(clark, f"/v1/clients/{fresh()}") for _ in range(2)]
    came = output(
        "curl", "-sS", "-o", "/dev/null", "-o", "/dev/null", *CURLS[name], "-X", "PUT", *headers, *targets
    )
    assert came == "200\n200\n"


@needs("curl")
def test_curl_uploads_a_body_of_two_mib(clark: ServerProcess) -> None:
    """From a pipe: it does not know how long it is, and waits for 100 Continue."""
    report = b'{"lat":1,"lon":2}'
    for size, status in ((2 * 1024 * 1024, "200"), (2 * 1024 * 1024 + 1, "413")):
        arguments = [
            "-sS",
            "-T",
            "-",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            "Content-Type: application/json",
        ]
        target = url(clark, f"/v1/clients/{fresh()}")
        assert output("curl", *arguments, target, data=report.ljust(size)) == status


# --- Node.js


NODE = """
import assert from "node:assert";
import WebSocket from "ws";

const [port, client] = process.argv.slice(2);
const report = { lat: "48.2185", lon: "16.3925" };
const headers = { "Content-Type": "application/json" };
const at = `http://127.0.0.1:${port}/v1/clients/${encodeURIComponent(client)}`;
const put = await fetch(at, { method: "PUT", headers, body: JSON.stringify(report) });
assert.equal((await put.json()).outcome, "stored");
assert.equal((await (await fetch(at)).json()).client, client);
assert.equal((await fetch(at + "x")).status, 404);

const answers = (protocol, messages, options) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/v1/ws`, protocol, options);
  const came = [];
  socket.on("open", () => messages.forEach((one) => socket.send(one)));
  socket.on("message", (data, isBinary) => {
    came.push(...String(data).split("\\n").filter(Boolean).map((line) => [line, isBinary]));
    if (came.length >= messages.length) socket.close(1000, "done");
  });
  socket.on("error", reject);
  socket.on("close", (code, reason) => resolve([came, code, String(reason)]));
});

for (const perMessageDeflate of [true, false]) {
  const many = Array.from({ length: 500 }, (_, number) => `FOO ${number}`);
  const [lines, code] = await answers("proxyherd.lines.v1", many, { perMessageDeflate });
  assert.deepEqual(lines, many.map((line) => [`? ${line}`, false]));
  assert.equal(code, 1000);
}
const [binary] = await answers("proxyherd.lines.v1", [Buffer.from("FOO")]);
assert.deepEqual(binary, [["? FOO", true]]);

const [objects] = await answers(["chat", "proxyherd.json.v1"], [
  JSON.stringify({ op: "locate", id: "é", client }),
  JSON.stringify({ op: "locate", id: 2, client: client + "x" }),
]);
const [found, problem] = objects.map(([line]) => JSON.parse(line));
assert.equal(found.id, "é");
assert.equal(found.client, client);
assert.equal(problem.problem.status, 404);

const [none, tooLarge] = await answers("proxyherd.lines.v1", ["a".repeat(65_537)]);
assert.deepEqual(none, []);
assert.equal(tooLarge, 1009);
await assert.rejects(answers("chat", []), /400/);
await assert.rejects(answers("proxyherd.lines.v1", [], { origin: "https://evil.example" }), /403/);
console.log("all is well");
"""


@needs("node", "npm")
def test_node_s_fetch_and_ws_get_their_answers(clark: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(node_modules())
    (tmp_path / "client.mjs").write_text(NODE)
    came = output("node", "client.mjs", str(clark.web_port), f"phone {fresh()}/📱", cwd=tmp_path)
    assert came == "all is well\n"


# --- Python


def test_httpx_keeps_its_connection_and_streams_bodies(clark: ServerProcess) -> None:
    before = len(clark.events("client_opened"))
    with httpx.Client(base_url=url(clark, ""), timeout=PATIENCE_SECONDS) as client:
        names = [fresh() for _ in range(50)]
        for name in names:
            answer = client.put(f"/v1/clients/{name}", json={"lat": 1, "lon": 2.5})
            assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")
        lines = (f'{{"client":"{name}","lat":1,"lon":3,"time":5}}\n'.encode() for name in names)
        answer = client.post("/v1/reports", content=lines, headers={"Content-Type": "application/x-ndjson"})
        assert [one["outcome"] for one in answer.json()] == ["stale"] * 50
        packed = gzip.compress(json.dumps([{"client": name, "lat": 1, "lon": 2} for name in names]).encode())
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        answer = client.post("/v1/reports", content=packed, headers=headers)
        assert [one["outcome"] for one in answer.json()] == ["stored"] * 50
        assert client.get("/v1/clients/nobody").json()["status"] == 404
    assert len(clark.events("client_opened")) - before == 2  # a body in chunks ends the first connection


def received(socket: ClientConnection, lines: int) -> list[str]:
    """Return so many answers, however they are spread over messages."""
    came: list[str] = []
    while len(came) < lines:
        came += str(socket.recv(PATIENCE_SECONDS)).splitlines()
    return came


def test_python_s_websockets_gets_its_answers_and_its_pongs(clark: ServerProcess) -> None:
    where = url(clark, "/v1/ws", "ws")
    for compression in ("deflate", None):
        with connect(where, subprotocols=["chat", LINES], compression=compression) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == LINES
            for number in range(500):
                socket.send(f"FOO {number}")
            assert received(socket, 500) == [f"? FOO {number}" for number in range(500)]
            socket.send(["FO", "O é", "\nBAR"])  # a message in three frames
            assert received(socket, 2) == ["? FOO é", "? BAR"]
            assert socket.ping().wait(PATIENCE_SECONDS)
    with connect(where, subprotocols=[JSON]) as socket:  # type: ignore[list-item]
        socket.send('{"op":"report","id":1,"client":"kiwi","lat":1,"lon":2}')
        assert json.loads(socket.recv(PATIENCE_SECONDS))["id"] == 1
        socket.send("a" * 65_537)
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            socket.recv(PATIENCE_SECONDS)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


# --- apps on phones


def test_every_payload_of_an_app_gets_its_answer_and_becomes_its_reports(
    shared_cluster: Cluster | None,
) -> None:
    with running_web_server(cluster=shared_cluster) as server:
        with httpx.Client(base_url=url(server, ""), timeout=PATIENCE_SECONDS) as client:
            wrong = {}
            for payload in PAYLOADS:
                headers = {"Content-Type": "text/plain", **payload.headers}
                if payload.user:
                    credentials = base64.b64encode(f"{payload.user}:secret".encode()).decode()
                    headers["Authorization"] = f"Basic {credentials}"
                target = f"/{payload.app}" + (f"?{payload.query}" if payload.query else "")
                answer = client.request(
                    payload.method, target, content=payload.body.encode(), headers=headers
                )
                if (answer.status_code, answer.text) != (200, payload.answer):
                    wrong[payload.name] = (answer.status_code, answer.text)
            assert wrong == {}
        wanted = [(payload.app, line) for payload in PAYLOADS for line in payload.lines]

        def logged() -> list[tuple[str, str]]:
            return [(one["via"], one["command"]) for one in server.events("command")]

        wait_until(lambda: len(logged()) >= len(wanted), "the log has all reports")
        for (app, line), (via, command) in zip(wanted, logged(), strict=True):
            assert via == app
            assert re.fullmatch(re.escape(line).replace(r"\{now\}", r"\d{10}\.\d{9}"), command), line
        consumed = Counter[tuple[str, str]]()
        for payload in PAYLOADS:
            consumed.update({(payload.app, reason): count for reason, count in payload.consumed.items()})
        figures = server.metrics("proxyherd_web_consumed_total")
        assert {name: count for name, count in figures.items() if count} == {
            f'proxyherd_web_consumed_total{{reason="{reason}",via="{app}"}}': count
            for (app, reason), count in consumed.items()
        }
