"""Revocations: who may revoke, and what is answered."""

from __future__ import annotations

import json

import pytest

from proxyherd.core.messages import Forget
from proxyherd.core.reply import Reply
from proxyherd.web.problems import Problem
from proxyherd.web.revocations import read_revocation, revocation_answer
from proxyherd.web.rights import revocation


@pytest.mark.parametrize("subject", ["kiwi", "jane/*", "*", "my phone", "ü" * 512])
def test_a_subject_is_revoked_by_an_erasure_of_an_id_that_no_client_has(subject: str) -> None:
    assert read_revocation(subject, "") == Forget(revocation(subject))


@pytest.mark.parametrize(("subject", "query"), [("", ""), ("x" * 513, ""), ("kiwi", "before=1")])
def test_what_is_no_subject_is_refused(subject: str, query: str) -> None:
    with pytest.raises(Problem) as refusal:
        read_revocation(subject, query)
    assert refusal.value.kind.status == 400


def test_the_answer_says_up_to_when_tokens_are_revoked() -> None:
    answer = revocation_answer(Reply("forget", "erased", b"GONE %032x 1795939200000000001" % 7))
    assert json.loads(answer) == {"revoked_at": "1795939200.000000001"}


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply("forget", "denied", b"? forget"), 403),
        (Reply("forget", "refused", b"? ", refusal="full"), 503),
        (Reply("forget", "refused", b"? "), 503),
        (Reply("forget", "unanswered"), 503),
    ],
)
def test_a_revocation_that_was_not_kept_is_no_success(reply: Reply, status: int) -> None:
    with pytest.raises(Problem) as refusal:
        revocation_answer(reply)
    assert refusal.value.kind.status == status
