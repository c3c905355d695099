"""Target `places`: what an upstream may answer where a Nearby Search answer is due, cut to a bound and squeezed.

An input is one byte - the bound - and the body. The laws: nothing but NonsenseError is raised, and its words quote
nothing; it is raised for what the standard library's parser does not take for such an answer, and for nothing
else; what is let through means what it meant, less the surplus results, and has no two LFs that could end it. The
same bytes are read as an answer of the new API as well.
"""

from __future__ import annotations

import json
import re
from typing import Any

from proxyherd.places.answers import MOST_RESULTS, NonsenseError, cut, read_answer, squeeze
from proxyherd.places.google.new import translate

SEEDS = (
    b'\x01{"places": [{"id": "x", "displayName": {"text": "y"}, "types": ["z"], "rating": 4.5}, {}]}',
    (
        b'\x00{"places":[{"attributions":[{"provider":"<a>","providerUri":"//x"}],"photos":[{"name":"p","widthPx":1}],'
        b'"location":{"latitude":1,"longitude":-2e0},"viewport":{"low":{},"high":{"latitude":9}},"priceLevel":"x"}]}'
    ),
    b'\x01{"html_attributions": [],\n\n "results": [{"a": 1}, {"b": [2, 3]}], "status": "OK"}\n\n',
    b'\x02 {"status":"ZERO_RESULTS","results":[ ],"next_page_token":"x\\u00e9\\ud800\\n"}',
    b'\x00{"results":[1 ,\r\n2\n\n,3\n\n],"status":"OVER_QUERY_LIMIT","e":-1.5E+3,"results2":[]}',
    b'\x01{"results":[NaN],"status":"OK"}',
    b'\x01{"results":[],"results":[],"status":"OK"}',
    b'\x05{"r\\u0065sults":[[[[]]],{"status":"x"},"]",",","\\"",null,true],"status":"A B\xc3\xa9"} x',
    b'\x01{"results":[{"results":[1,2]},999999999999999999999999,1e999],"status":""}',
)
_QUOTES_NOTHING = re.compile(r"[A-Za-z0-9 '\[\]{}:,\"-]{1,80}")


def one_input(data: bytes) -> None:
    if not data:
        return
    most, body = 1 + data[0] % MOST_RESULTS, data[1:]
    _check_squeezed(squeeze(body), body)
    _check_translation(body, most)
    wanted = _load(body)
    answer, refusal = None, ""
    try:
        answer = cut(body, most)
    except NonsenseError as error:
        refusal = str(error)
    if answer is None:
        assert _QUOTES_NOTHING.fullmatch(refusal), refusal
        assert wanted is None, "refused what is an answer"
        return
    assert wanted is not None, "took what is no answer"
    results = wanted["results"]
    _check_squeezed(answer.body, answer.body)
    assert answer.results == min(most, len(results))
    assert re.fullmatch(r"[A-Za-z0-9_]{0,64}", answer.status)
    assert _load(answer.body) == {**wanted, "results": results[:most]}
    assert list(_load(answer.body) or {}) == list(wanted), "another order"
    if len(results) <= most:
        assert answer.body == squeeze(body)
    else:
        assert len(answer.body) < len(body)


def _check_translation(body: bytes, most: int) -> None:
    """What is taken for an answer of the new API becomes one of the old, which reads as such."""
    answer, refusal = None, ""
    try:
        answer = translate(body, most)
    except NonsenseError as error:
        refusal = str(error)
    if answer is None:
        assert _QUOTES_NOTHING.fullmatch(refusal), refusal
        return
    again = read_answer(answer.body)
    assert (again.body, again.status, again.results) == (answer.body, answer.status, answer.results)
    assert answer.status == ("OK" if answer.results else "ZERO_RESULTS")
    assert answer.results <= most


def _check_squeezed(squeezed: bytes, body: bytes) -> None:
    assert b"\n\n" not in squeezed
    assert not squeezed.endswith(b"\n")
    assert squeezed.replace(b"\n", b"") == body.replace(b"\n", b"")
    assert squeeze(squeezed) == squeezed


def _load(body: bytes) -> dict[str, Any] | None:
    """What the standard library takes this for, numbers as they are spelled; None if it is no such answer."""

    def refuse(name: str) -> Any:
        raise ValueError(name)

    def number(spelling: str) -> Any:
        return "number", spelling

    pairs: list[tuple[str, Any]] = []

    def note(members: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = members  # the outermost object is the last one
        return dict(members)

    try:
        text = body.decode()
        document = json.loads(
            text, parse_int=number, parse_float=number, parse_constant=refuse, object_pairs_hook=note
        )
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    keys = [key for key, _ in pairs if key in {"results", "status"}]
    well_formed = (
        sorted(keys) == ["results", "status"]
        and isinstance(document["results"], list)
        and isinstance(document["status"], str)
    )
    return document if well_formed else None
