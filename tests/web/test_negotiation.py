"""The type of an answer is the one that its client values most."""

from __future__ import annotations

import pytest

from proxyherd.web.negotiation import prefers

OTHER, USUAL = "application/geo+json", "application/json"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ([], False),
        ([""], False),
        (["*/*"], False),
        (["text/html"], False),
        ([USUAL], False),
        ([OTHER], True),
        (["Application/GEO+JSON"], True),
        ([f"{OTHER}; charset=utf-8"], True),
        ([f"{OTHER}, {USUAL}"], False),
        ([f"{USUAL};q=0.9, {OTHER}"], True),
        ([f"{USUAL}; q=0.9,{OTHER} ;Q=1.000"], True),
        ([f"{OTHER};q=0.9, {USUAL}"], False),
        ([f"{OTHER}, */*"], True),
        ([f"{OTHER};q=0.5, */*;q=0.1"], True),
        ([f"{OTHER};q=0.5, */*"], False),
        ([f"{OTHER}, application/*"], True),
        (["application/*;q=0.5", f"{OTHER};q=0.6"], True),
        ([f"{OTHER};q=0"], False),
        ([f"{OTHER};q=0, */*"], False),
        ([f"{USUAL};q=0, */*;q=0.1"], True),
        ([f"{OTHER};q=2"], False),
        ([f"{OTHER};q=nan"], False),
        ([f"{OTHER};q=1e-1"], False),
        ([f"{OTHER};q="], False),
        ([f"{OTHER};q=0.1234"], False),
        ([f"{OTHER};q=0.001"], True),
        ([f"{OTHER};q=0.1;q=0.9, {USUAL};q=0.5"], False),
        ([f"{OTHER};q=0.1, {OTHER};q=0.9, {USUAL};q=0.5"], True),
        ([",;,;=;q", OTHER], True),
        (["text/html," * 10_000, OTHER], False),
    ],
    ids=lambda one: str(one)[:60],
)
def test_a_type_is_preferred_if_it_is_worth_more_or_alone_is_named(accept: list[str], expected: bool) -> None:
    assert prefers(accept, OTHER, USUAL) is expected
