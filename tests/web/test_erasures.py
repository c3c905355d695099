"""An erasure over the web: what is asked, and what is answered."""

from __future__ import annotations

import json

import pytest

from proxyherd.core.messages import NANOSECONDS, Forget
from proxyherd.core.reply import Refusal, Reply
from proxyherd.web import problems
from proxyherd.web.erasures import erase_answer, read_erasure
from proxyherd.web.problems import Problem

CLOCK = 1_700_000_000 * NANOSECONDS


@pytest.mark.parametrize(
    ("query", "before"),
    [
        ("", None),
        ("before=1699999999.000000001", CLOCK - NANOSECONDS + 1),
        ("before=1700000000", CLOCK),
        ("before=2023-11-14T22:13:20Z", CLOCK),
        ("before=2023-11-14T23:13:19.5%2B01:00", CLOCK - NANOSECONDS // 2),
    ],
)
def test_what_is_erased_ends_now_or_at_the_moment_that_is_named(query: str, before: int | None) -> None:
    assert read_erasure("my phone", query, CLOCK) == Forget(b"my%20phone", before)


@pytest.mark.parametrize(
    "query",
    ["before=", "before=0", "before=1700000000.1", "before=-1", "before=x", "before=1&before=1", "to=1"],
)
def test_a_moment_that_is_none_or_has_not_passed_is_a_problem(query: str) -> None:
    with pytest.raises(Problem) as refusal:
        read_erasure("kiwi", query, CLOCK)
    assert refusal.value.kind == problems.QUERY


def test_the_answer_says_up_to_which_moment_it_is_erased() -> None:
    gone = b"GONE 00112233445566778899aabbccddeeff 1700000000000000007"
    answer = json.loads(erase_answer(Reply("forget", "erased", gone)))
    assert answer == {"erased_at": "1700000000.000000007"}
    answer = json.loads(erase_answer(Reply("forget", "stayed", gone)))
    assert answer == {"erased_at": "1700000000.000000007", "stayed": True}


@pytest.mark.parametrize(
    ("refusal", "told"),
    [("full", "max_tombstones"), ("journal", "journal"), ("not_ready", "caught up"), ("", "now")],
)
def test_an_erasure_that_is_refused_is_worth_another_try_later(refusal: Refusal, told: str) -> None:
    with pytest.raises(Problem, match=told) as problem:
        erase_answer(Reply("forget", "refused", b"? ", refusal=refusal))
    assert problem.value.kind == problems.NOT_TAKEN
