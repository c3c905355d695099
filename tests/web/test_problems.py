"""Problems are objects of RFC 9457, of a closed list of kinds."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from pathlib import Path

import pytest

from proxyherd.web import problems
from proxyherd.web.problems import DEGREES, KINDS, NOT_TAKEN, RATE, Kind, Problem


def test_a_problem_says_what_is_wrong_where_and_what_belongs_there() -> None:
    assert json.loads(Problem(DEGREES, "Degrees belong here.", "lat").document()) == {
        "type": "/v1/#degrees",
        "title": DEGREES.title,
        "status": 400,
        "detail": "Degrees belong here.",
        "field": "lat",
    }
    assert "field" not in Problem(DEGREES, "Degrees belong here.").content()


def test_the_list_has_every_kind_once_in_the_order_of_status() -> None:
    defined = [kind for kind in vars(problems).values() if isinstance(kind, Kind)]
    assert sorted(kind.name for kind in KINDS) == sorted(kind.name for kind in defined)
    assert len({kind.type for kind in KINDS}) == len({kind.title for kind in KINDS}) == len(KINDS)
    assert [kind.status for kind in KINDS] == sorted(kind.status for kind in KINDS)


def test_names_and_statuses_are_those_on_the_page_for_developers() -> None:
    page = (Path(__file__).parents[2] / "docs/web.md").read_text()
    told = re.findall(r"^\| `/v1/#([a-z-]+)` \| ([0-9]{3}) \|", page, re.MULTILINE)
    assert told == [(kind.name, str(kind.status)) for kind in KINDS]
    assert NOT_TAKEN.retry_seconds == 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))
def test_a_kind_has_a_status_of_an_error_and_says_when_to_try_again_if_that_helps(kind: Kind) -> None:
    assert HTTPStatus(kind.status).value >= 400
    assert (kind.retry_seconds > 0) == (kind in (NOT_TAKEN, RATE))
