"""JSON is read so that numbers keep their digits, and so that nothing can be read in two ways."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from proxyherd.web.documents import (
    MOST_COMMAS,
    MOST_ESCAPES,
    DocumentReader,
    MemberReader,
    ObjectReader,
    number_text,
    string_text,
)
from proxyherd.web.problems import JSON, LARGE, MEANING, Kind, Problem

PLACE = ObjectReader(("lat", "lon"), ("time",))
LIST = DocumentReader(list[Raw], "A list belongs here.")


def problem_of(call: Callable[[], object]) -> tuple[Kind, str]:
    """Return the kind and the field of the problem that this call raises."""
    with pytest.raises(Problem) as raised:
        call()
    return raised.value.kind, raised.value.field


@pytest.mark.parametrize(
    "digits",
    [
        "34.06893",
        "34.068930",
        "34.0689300000000000001",
        "-0",
        "0",
        "1e3",
        "1E-400",
        "9" * 500,
        '"034.50"',
        "null",
    ],
)
def test_a_value_keeps_its_spelling(digits: str) -> None:
    document = f'{{ "lon":{digits} , "lat" : {digits}}}'.encode()
    assert PLACE.read_object(document) == [digits.encode(), digits.encode(), b""]


@pytest.mark.parametrize(
    ("document", "kind", "field"),
    [
        *((b"", JSON, ""), (b" ", JSON, ""), (b"{", JSON, ""), (b'{"lat":1,"lon":2', JSON, "")),
        *((b'{"lat":NaN,"lon":1}', JSON, ""), (b'{"lat":-Infinity,"lon":1}', JSON, "")),
        *(
            (b'{"lat":01,"lon":1}', JSON, ""),
            (b'{"lat":1.,"lon":1}', JSON, ""),
            (b'{"lat":+1,"lon":1}', JSON, ""),
        ),
        *(
            (b'{"lat":1,"lon":1}x', JSON, ""),
            (b'{"lat":1,"lon":1}\x00', JSON, ""),
            (b"{'lat':1,'lon':1}", JSON, ""),
        ),
        *(
            (b'{"lat":1,"lon":1,}', JSON, ""),
            (b'{"lat":1,/**/"lon":1}', JSON, ""),
            (b'{"lat":"\x00","lon":1}', JSON, ""),
        ),
        *(
            (b"\xff\xfe{\x00}\x00", JSON, ""),
            (b'{"\xff":1}', JSON, ""),
            (b'{"lat":"\\ud800","lon":1}', JSON, ""),
        ),
        *((b'{"lat":' + b"[" * 100_000, JSON, ""), (b'{"lat":' + b'{"a":' * 100_000, JSON, "")),
        *(
            (b'{"lat":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}", JSON, ""),  # Python 3.14 reads 100,000
            (b"[" * 9_999 + b"]" * 9_999, MEANING, ""),
        ),
        *((b'{"lat":1,"lon":1,"lat":1}', JSON, ""), (b'{"lat":1,"lat":2}', JSON, "")),
        *((b'{"lat":1,"lon":1,"\\u006cat":1}', JSON, ""), (b'{"lat":":","lon":1,"lat":"::"}', JSON, "")),
        *((b'{"lat":1,"lon":1,"long":1}', MEANING, ""), (b'{"lat":1,"lon":1,"":1}', MEANING, "")),
        *((b"null", MEANING, ""), (b"[]", MEANING, ""), (b"1", MEANING, ""), (b'"lat"', MEANING, "")),
        *((b"{}", MEANING, "lat"), (b'{"lat":1}', MEANING, "lon"), (b'{"time":1,"lon":1}', MEANING, "lat")),
    ],
)
def test_what_is_no_object_with_these_keys_is_a_problem(document: bytes, kind: Kind, field: str) -> None:
    assert problem_of(lambda: PLACE.read_object(document)) == (kind, field)


def test_a_byte_order_mark_is_ignored_once() -> None:
    document = '{"lat":1,"lon":2}'
    assert PLACE.read_object(document.encode("utf-8-sig")) == [b"1", b"2", b""]
    assert problem_of(lambda: PLACE.read_object(b"\xef\xbb\xbf" + document.encode("utf-8-sig"))) == (JSON, "")


def test_colons_inside_of_values_are_no_second_key() -> None:
    assert PLACE.read_object(b'{"lat":"a:b","lon":{":":[":"]},"time":"::::"}') == [
        b'"a:b"',
        b'{":":[":"]}',
        b'"::::"',
    ]


values = st.recursive(
    st.text() | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.lists(st.tuples(st.sampled_from(["lat", "lon", "time"]), values), max_size=5),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]),
    st.booleans(),
)
def test_an_object_is_read_if_no_key_occurs_twice_and_none_is_missing(
    pairs: list[tuple[str, object]], separators: tuple[str, str], ascii_only: bool
) -> None:
    comma, colon = separators
    spelled = [json.dumps(value, separators=separators, ensure_ascii=ascii_only) for _, value in pairs]
    pieces = [f'"{key}"{colon}{value}' for (key, _), value in zip(pairs, spelled, strict=True)]
    document = ("{" + comma.join(pieces) + "}").encode()
    keys = [key for key, _ in pairs]
    if len({*keys}) == len(keys) and {"lat", "lon"} <= {*keys}:
        by_key = dict(zip(keys, spelled, strict=True))
        assert PLACE.read_object(document) == [by_key.get(key, "").encode() for key in ("lat", "lon", "time")]
    else:
        twice = len({*keys}) != len(keys)
        assert problem_of(lambda: PLACE.read_object(document))[0] == (JSON if twice else MEANING)


def test_a_document_has_a_limited_number_of_values() -> None:
    assert len(LIST.read_document(b"[" + b"0," * MOST_COMMAS + b"0]")) == MOST_COMMAS + 1
    assert problem_of(lambda: LIST.read_document(b"[" + b"0," * MOST_COMMAS + b"0,0]")) == (LARGE, "")


@pytest.mark.parametrize("value", [b"", b"1", b"null", b"true", b"[]", b"{}"])
def test_what_is_no_string_is_a_problem_of_its_field(value: bytes) -> None:
    assert problem_of(lambda: string_text(value, "client")) == (MEANING, "client")
    if value not in (b"", b"1"):
        assert problem_of(lambda: number_text(value, "lat")) == (MEANING, "lat")


@pytest.mark.parametrize("value", [b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\udc00\\ud800"'])
def test_a_string_that_is_no_text_is_a_problem_of_its_field(value: bytes) -> None:
    assert problem_of(lambda: string_text(value, "client")) == (JSON, "client")


@given(st.text(), st.booleans())
def test_a_string_is_read_however_it_is_escaped(text: str, ascii_only: bool) -> None:
    value = json.dumps(text, ensure_ascii=ascii_only).encode()
    assert string_text(value, "client") == text
    assert number_text(value, "lat") == text.encode()
    assert msgspec.json.decode(value) == text


def test_digits_are_a_number_or_a_string() -> None:
    assert (
        number_text(b"-34.50", "lat")
        == number_text(b'"-34.50"', "lat")
        == number_text(b'"-\\u00334.50"', "lat")
        == b"-34.50"
    )


@pytest.mark.parametrize("escape", ["%", "\\n"])
def test_a_document_has_a_limited_number_of_escapes(escape: str) -> None:
    most = f'["{escape * (MOST_ESCAPES - 1)}","%"'.encode()
    assert len(LIST.read_document(most + b"]")) == 2
    assert problem_of(lambda: LIST.read_document(most + b',"%"]')) == (LARGE, "")


MEMBERS = MemberReader("An object belongs here.")


def test_an_object_may_have_members_of_any_name_that_keep_their_spelling() -> None:
    document = rb'{"a":1.50,"b:c":{"d":[":"]},"":"\u003a", "\u0065" : null }'
    expected = {"a": b"1.50", "b:c": b'{"d":[":"]}', "": rb'"\u003a"', "e": b"null"}
    assert MEMBERS.read_members(document) == expected


@pytest.mark.parametrize(
    "document", [rb'{"a":1,"a":1}', rb'{"a":{"b:":":"},"\u0061":1}', rb'{"\u003a":1}', b"[]", b"{"]
)
def test_an_object_with_any_members_has_none_twice(document: bytes) -> None:
    assert problem_of(lambda: MEMBERS.read_members(document))[0] in (JSON, MEANING)
