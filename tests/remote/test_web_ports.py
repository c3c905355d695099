"""Why a server does not answer what it was asked over its web port: in words, with the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxyherd.config.herd_file import Server, load
from proxyherd.remote.web_ports import not_answered, shown_id

HERD = """
edges = []
[servers]
Ann = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3", web = "127.0.0.1:4" }
"""


@pytest.fixture
def ann(tmp_path: Path) -> Server:
    file = tmp_path / "herd.toml"
    file.write_text(HERD)
    return load(file).servers["Ann"]


def problem(**fields: object) -> bytes:
    return json.dumps({"title": "This is not so", "detail": "It is why.", **fields}).encode()


@pytest.mark.parametrize(
    ("status", "told", "mistaken"),
    [
        (400, "This is not so. It is why.", True),
        (422, "This is not so. It is why.", True),
        (
            401,
            "may not see this (This is not so. It is why.); name a token that may with --token-file",
            False,
        ),
        (403, "as `proxyherd token new --may see` makes it", False),
        (404, "Ann at 127.0.0.1:4 does not know this question; upgrade it", False),
        (405, "upgrade it, or see whose port that is", False),
        (501, "Ann at 127.0.0.1:4: This is not so. It is why.", False),
        (503, "does not answer now (This is not so. It is why.); see `proxyherd status`", False),
        (500, "does not answer now", False),
    ],
)
def test_a_refusal_is_told_with_the_remedy(ann: Server, status: int, told: str, mistaken: bool) -> None:
    refusal = not_answered(ann, status, problem())
    assert told in str(refusal)
    assert refusal.mistaken == mistaken


def test_a_client_that_no_server_knows_is_not_a_question_that_a_server_does_not_know(ann: Server) -> None:
    body = problem(field="client", detail="No server has heard of a client with this name.")
    assert str(not_answered(ann, 404, body)) == (
        "CLIENT: This is not so. No server has heard of a client with this name."
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b'{"detail":null}', problem(detail=5)])
@pytest.mark.parametrize("status", [400, 401, 404, 501, 503])
def test_whatever_a_port_sends_becomes_words(ann: Server, status: int, body: bytes) -> None:
    assert str(not_answered(ann, status, body))


def test_of_a_long_problem_the_beginning_is_told(ann: Server) -> None:
    assert len(str(not_answered(ann, 500, problem(detail="x" * 100_000)))) < 500


@pytest.mark.parametrize(
    ("name", "shown"),
    [("kiwi", "kiwi"), ("my phone", "my%20phone"), ("", ""), ("a\u202eb", "a\\u202eb"), ("\\", "\\\\")],
)
def test_a_client_is_shown_by_its_id_without_anything_invisible(name: str, shown: str) -> None:
    assert shown_id(name) == shown


@pytest.mark.parametrize(
    ("field", "typed"), [("radius_km", "KM"), ("lon", "LNG"), ("max_age_s", "--max-age"), ("new", "new")]
)
def test_what_is_wrong_is_named_as_it_was_typed(ann: Server, field: str, typed: str) -> None:
    said = str(not_answered(ann, 400, problem(field=field)))
    assert said == f"{typed}: This is not so. It is why."
