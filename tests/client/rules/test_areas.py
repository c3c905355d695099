"""Questions who is in an area are those that a server understands, and each answer means one thing."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from proxyherd.client.rules.areas import near_command, within_command
from proxyherd.client.rules.errors import AreaRefused, ForeignAnswer, NotAllowed, Postponed, UnknownClient
from proxyherd.web.nearby import read_near_op, read_within_op

KIWI = b'{"client":"kiwi","lat":34.0689300,"lon":-118.445127,"metres":455.5,"age_s":12.25}'


@pytest.mark.parametrize(
    "command",
    [
        near_command((34.07, "-118.45"), 2, 1_000, None, ""),
        near_command((1e-7, Decimal("-0.1")), 0.1, 1, 0.5, "Pk0P5sZVt7pidXMlMjA3"),
        near_command("bus 7", "50", 100, Decimal(600), ""),
    ],
    ids=["place", "small numbers", "client"],
)
def test_a_server_understands_each_question_about_a_circle(command: Any) -> None:
    assert 1 <= read_near_op(command.line, 10**18, "Ann").query.most <= 1_000


def test_a_server_understands_a_box_over_the_date_line() -> None:
    line = within_command((179, -1, -179.5, "1.0"), 5, None, "").line
    assert read_within_op(line, 10**18, "Ann").query.most == 5


def test_numbers_of_an_answer_keep_their_digits() -> None:
    command = near_command("kiwi", 2, 5, None, "")
    found = command.read(
        b'{"id":"area","clients":[%b],"server":"Ann","complete":true,"next":"xyz"} \n' % KIWI
    )
    [kiwi] = found.clients
    assert (str(kiwi.lat), str(kiwi.lon), kiwi.metres) == ("34.0689300", "-118.445127", 455.5)
    assert (found.server, found.complete, found.next) == ("Ann", True, "xyz")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, AreaRefused),
        (401, NotAllowed),
        (403, NotAllowed),
        (404, UnknownClient),
        (422, AreaRefused),
        (429, Postponed),
        (501, AreaRefused),
        (503, Postponed),
    ],
)
def test_a_problem_is_an_error_of_the_caller_or_a_reason_to_ask_another(
    status: int, error: type[Exception]
) -> None:
    said = {"id": "area", "problem": {"status": status, "title": "no\x1b", "detail": "because"}}
    with pytest.raises(error) as raised:
        near_command("kiwi", 2, 5, None, "").read(json.dumps(said).encode())
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        b'{"id":"area"}',
        b'{"id":"other","clients":[],"server":"","complete":true}',
    ],
)
def test_what_is_no_answer_is_foreign(answer: bytes) -> None:
    with pytest.raises(ForeignAnswer, match="no answer"):
        near_command("kiwi", 2, 5, None, "").read(answer)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (((1, 2, 3), 2, 5, None, ""), "the centre is a latitude and a longitude"),
        ((5, 2, 5, None, ""), "the centre is a latitude and a longitude"),
        (((91, 2), 2, 5, None, ""), "91 is no latitude"),
        (((1, 2), 51, 5, None, ""), "51 is no radius"),
        (((1, 2), 5, 0, None, ""), "limit is 0"),
        (((1, 2), 5, True, None, ""), "limit is True"),
        (((1, 2), 5, 5, -1, ""), "-1 is no age"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_sent(arguments: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        near_command(*arguments)
