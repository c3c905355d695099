"""The client protocol by example: every case of conformance/cases.jsonl against a real server over TCP."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gazetteer_file import gazetteer_file
from herd_process import Connection, Server, now, running_server

FILE = Path(__file__).parent / "conformance/cases.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text().splitlines()]
BYTE_BY_BYTE = 1
_numbers = itertools.count()


@pytest.fixture(scope="module")
def clark() -> Iterator[Server]:
    with running_server(gazetteer=gazetteer_file()) as server:
        yield server
        assert server.stop() == 0
        assert server.stderr() == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, Any], clark: Server) -> None:
    play(case, clark, case.get("chunk"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case_byte_by_byte(case: dict[str, Any], clark: Server) -> None:
    play(case, clark, BYTE_BY_BYTE)


def test_there_are_cases() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES) == 68


def play(case: dict[str, Any], server: Server, chunk: int | None) -> None:
    """Play one case on a connection of its own, and check every answer and that there are no others."""
    known = b"known%d-%d" % (os.getpid(), next(_numbers))
    known_at = server.hears(known) if "{known}" in case["send"] else b""
    sent: bytes = case["send"].encode("latin-1")
    for placeholder, value in ((b"{id}", b"new-" + known), (b"{known}", known), (b"{now}", now())):
        sent = sent.replace(placeholder, value)
    half_close = case.get("half_close", False)
    with server.connect() as connection:
        connection.send_bytes_one_by_one(sent, chunk or len(sent))
        if half_close:
            connection.half_close()
        expected = [case["expect"]] if isinstance(case["expect"], str) else case["expect"]
        lines = sent.removesuffix(b"\n").split(b"\n")
        assert len(lines) == len(expected)
        for line, what in zip(lines, expected, strict=True):
            _check_answer(what, line, known_at, connection, server)
        if not half_close:
            # Nothing more comes than what was expected, and the connection goes on.
            connection.send(b"and now?")
            assert connection.line() == b"? and now?\n"
            connection.half_close()
        assert connection.rest() == b""


def _check_answer(what: str, line: bytes, known_at: bytes, connection: Connection, server: Server) -> None:
    match what:
        case "at":
            operands = re.escape(b" ".join(line.split()[1:]))
            pattern = rb"AT %b [+-]\d+\.\d{9} %b\n" % (server.name.encode(), operands)
            answer = connection.line()
            assert re.fullmatch(pattern, answer), answer
        case "at+json":
            assert connection.line() == known_at
            body = connection.places_body()
            document = json.loads(body)
            assert {"html_attributions", "results", "status"} <= document.keys()
            assert len(document["results"]) <= int(line.split()[-1])
            assert body == re.sub(rb"\n{2,}", b"\n", body)
        case "invalid":
            assert connection.line() == b"? " + line + b"\n"
        case _:
            assert connection.line() == what.encode("latin-1") + b"\n"
