"""Reading a Nearby Search answer, and cutting it to a bound."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyherd.places import no_results
from proxyherd.places.answers import (
    MOST_RESULTS,
    STATUSES,
    NonsenseError,
    cut,
    plain_word,
    read_answer,
    shorten,
    squeeze,
)

space = st.text(" \t\n\r", max_size=4)
leaves = st.sampled_from(
    [
        *("0", "-0", "1.0", "1.50", "1e5", "2E+2", "9" * 30, "9" * 5_000, "1e999", "true", "false", "null"),
        *(
            '""',
            '"]"',
            '"}"',
            '","',
            r'"\""',
            r'"\\"',
            r'"\u00e9"',
            r'"\ud800"',
            '"é\U0001f95d"',
            '"results"',
        ),
    ]
)


def array(elements: list[str], spaces: list[str]) -> str:
    body = ",".join(spaces[0] + element + spaces[1] for element in elements)
    return f"[{body}{spaces[2]}]"


def members(pairs: list[tuple[str, str]], spaces: list[str]) -> str:
    body = ",".join(f"{spaces[0]}{key}{spaces[1]}:{spaces[2]}{value}{spaces[0]}" for key, value in pairs)
    return f"{{{spaces[3]}{body}}}"


spaces = st.lists(space, min_size=4, max_size=4)
values = st.recursive(
    leaves,
    lambda inner: (
        st.builds(array, st.lists(inner, max_size=4), spaces)
        | st.builds(members, st.lists(st.tuples(st.sampled_from(['"a"', '"results"']), inner)), spaces)
    ),
    max_leaves=8,
)
others = st.lists(st.tuples(st.sampled_from(['"html_attributions"', '"next"', '"x y"']), values), max_size=3)


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, list[str], list[str], str]:
    """Draw an answer as what stands before its results, each result, the white space between, and the rest.

    `between` has one more than there are results: what stands before each, and before the bracket.
    """
    before, after, layout = draw(others), draw(others), draw(spaces)
    results = draw(st.lists(values, max_size=6)) * draw(st.sampled_from([1, 1, 3, 4, 5]))
    between = draw(st.lists(space, min_size=len(results) + 1, max_size=len(results) + 1))
    mark = '"\N{BLACK SQUARE}"'
    results_key = draw(st.sampled_from(['"results"', r'"r\u0065sults"']))
    text = members([*before, ('"status"', '"OK"'), (results_key, mark), *after], layout)
    prefix, suffix = (draw(space) + text + draw(space)).split(mark)
    return prefix + "[", results, between, "]" + suffix


def spell(prefix: str, results: list[str], between: list[str], suffix: str) -> bytes:
    return (
        prefix + ",".join(map("".join, zip(between, results, strict=False))) + between[-1] + suffix
    ).encode()


@pytest.mark.long
@settings(deadline=None)
@given(answers(), st.integers(1, MOST_RESULTS))
def test_only_the_results_beyond_the_bound_go(
    drawn: tuple[str, list[str], list[str], str], most: int
) -> None:
    prefix, results, between, suffix = drawn
    answer = cut(spell(prefix, results, between, suffix), most)
    kept = [*between[: min(most, len(results))], between[-1]]
    assert answer.body == squeeze(spell(prefix, results[:most], kept, suffix))
    assert answer.results == min(most, len(results))
    assert answer.status == "OK"


@settings(deadline=None)
@given(answers(), st.integers(1, MOST_RESULTS))
def test_a_cut_answer_means_what_the_whole_one_meant(
    drawn: tuple[str, list[str], list[str], str], most: int
) -> None:
    def load(body: bytes) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(body, parse_int=str, parse_float=str)
        return document

    whole = load(spell(*drawn))
    assert load(cut(spell(*drawn), most).body) == {**whole, "results": whole["results"][:most]}


@settings(deadline=None)
@given(answers(), st.integers(1, MOST_RESULTS), st.integers(1, MOST_RESULTS))
def test_an_answer_that_was_read_once_can_be_cut_to_any_bound(
    drawn: tuple[str, list[str], list[str], str], most: int, fewer: int
) -> None:
    body = spell(*drawn)
    whole = read_answer(body)
    assert shorten(whole, most) == cut(body, most)
    assert shorten(shorten(whole, most), fewer) == cut(body, min(most, fewer))  # it has no ends any more


@settings(deadline=None)
@given(st.binary() | st.text("\n\r a").map(str.encode))
def test_squeezing_takes_nothing_but_line_feeds(body: bytes) -> None:
    squeezed = squeeze(body)
    assert squeezed.replace(b"\n", b"") == body.replace(b"\n", b"")
    assert b"\n\n" not in squeezed
    assert not squeezed.endswith(b"\n")
    assert squeeze(squeezed) == squeezed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"results":[]}',
        b'{"status":"OK"}',
        b'{"results":{},"status":"OK"}',
        b'{"results":[],"status":1}',
        b'{"results":[],"status":"OK"',
        b'{"results":[],"status":"OK",}',
        b'{"results":[1,],"status":"OK"}',
        b'{"results":[1 2],"status":"OK"}',
        b'{"results":[' + b"1," * MOST_RESULTS + b'],"status":"OK"}',
        b'{"results":[' + b"1," * MOST_RESULTS + b',1],"status":"OK"}',
        b'{"results":[' + b"1," * MOST_RESULTS + b'1,],"status":"OK"}',
        b'{"results":[' + b"1," * MOST_RESULTS + b"1",
        b'{"results":[],"status":"OK"}{}',
        b'{"results":[],"status":"OK"}\0',
        b'{"results":[],"status":"OK"}X',
        b'{"results":[],"status":"OK","results":[]}',
        b'{"results":[],"status":"OK","st\\u0061tus":"OK"}',
        b'{"results":[NaN],"status":"OK"}',
        b'{"results":[-Infinity],"status":"OK"}',
        b'{"results":["\n"],"status":"OK"}',
        b'{"results":["\xff"],"status":"OK"}',
        b"{'results':[],'status':'OK'}",
        b'\xef\xbb\xbf{"results":[],"status":"OK"}',
        b'{"results":' + b"[" * 100_000,
        b'{"results":[' + b'{"a":' * 100_000,
    ],
    ids=lambda body: repr(body[:40]),
)
def test_nonsense_is_refused_whole(body: bytes) -> None:
    with pytest.raises(NonsenseError) as caught:
        cut(body, 5)
    assert caught.value.__cause__ is None


@settings(deadline=None)
@given(st.text())
def test_a_status_is_a_bounded_plain_word(status: str) -> None:
    body = json.dumps({"results": [], "status": status}).encode()
    assert re.fullmatch(r"[A-Za-z0-9_]{0,64}", cut(body, 1).status)


def test_of_a_status_64_characters_stay_and_every_odd_one_is_an_underscore() -> None:
    assert plain_word("a" * 65) == "a" * 64
    assert plain_word("Too-late, é\n9_Z") == "Too_late____9_Z"


def test_every_status_that_google_documents_is_known_and_no_other() -> None:
    """What is not known has one label for all: https://developers.google.com/maps/documentation/places/web-service"""
    documented = "INVALID_REQUEST OK OVER_QUERY_LIMIT REQUEST_DENIED UNKNOWN_ERROR ZERO_RESULTS"
    assert sorted(STATUSES) == documented.split()


@settings(deadline=None)
@given(st.sampled_from(sorted(STATUSES)), st.none() | st.text(st.characters(codec="utf-8")))
def test_an_answer_made_here_is_one_that_is_read_here(status: str, message: str | None) -> None:
    answer = no_results(status, message)
    assert answer == cut(answer.body, 1)
    document = json.loads(answer.body)
    assert document.pop("error_message", None) == message
    assert document == {"html_attributions": [], "results": [], "status": status}
