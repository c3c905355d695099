"""What the admin port answers: faults are not shown, and every answer has the headers."""

from __future__ import annotations

import asyncio

import pytest
from admin_port import Working, exchange, get, get_and_close, serving, status

PATHS = ("/", "/metrics", "/healthz", "/readyz", "/page.css", "/page.js", "/coast.json")


@pytest.mark.parametrize("debug", [False, True])
def test_a_fault_is_told_to_the_log_and_not_to_the_client(debug: bool) -> None:
    async def scenario() -> None:
        asyncio.get_running_loop().set_debug(debug)
        told: list[str] = []
        async with serving(told) as port:
            for path in ("/metrics", "/readyz", "/state", "/events"):
                get = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
                answer = await exchange(port, get.encode())
                assert status(answer) == 500
                assert b"hunter2" not in answer
                assert b"Traceback" not in answer
            assert told == [
                "the admin port cannot answer /metrics: hunter2",
                "the admin port cannot answer /readyz: hunter2",
                "the admin port cannot answer /state: hunter2",
                "the admin port cannot answer /events: hunter2",
            ]

    asyncio.run(scenario())


SECURITY = {
    b"cache-control": b"no-store",
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


ANSWERS = {
    **{path: (get_and_close(path), 200) for path in (*PATHS, "/state")},
    "a viewer's": (
        get("/events").replace(b"GET", b"HEAD").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        200,
    ),
    "nothing there": (get_and_close("/nowhere"), 404),
    "another host": (get_and_close("/").replace(b"localhost", b"evil.example"), 403),
    "another site": (get_and_close("/state").replace(b"Conn", b"Sec-Fetch-Site: cross-site\r\nConn"), 403),
    "another method": (get_and_close("/").replace(b"GET", b"POST"), 405),
    "no request": (b"nonsense\r\n\r\n", 400),
    "a version of its own": (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
    "a long header": (get_and_close("/").replace(b"Conn", b"X: " + b"x" * 20_000 + b"\r\nConn"), 400),
}


@pytest.mark.parametrize(("request_", "code"), ANSWERS.values(), ids=ANSWERS)
def test_every_answer_has_each_security_header_and_none_names_a_version(request_: bytes, code: int) -> None:
    async def scenario() -> None:
        async with serving([], Working()) as port:
            check_headers(await exchange(port, request_), code)

    asyncio.run(scenario())


def test_an_answer_to_a_fault_has_each_security_header_too() -> None:
    async def scenario() -> None:
        async with serving([]) as port:
            check_headers(await exchange(port, get_and_close("/metrics")), 500)

    asyncio.run(scenario())


def check_headers(answer: bytes, code: int) -> None:
    assert status(answer) == code
    head = answer.partition(b"\r\n\r\n")[0]
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert headers.items() >= {name: value.lower() for name, value in SECURITY.items()}.items()
    assert b"server" not in headers
    for word in (b"aiohttp", b"python", b"proxyherd/"):
        assert word not in head.lower()
