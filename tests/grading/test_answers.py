"""How answers of a stranger's server are read."""

from __future__ import annotations

import json

import pytest

from proxyherd.grading import answers


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"AT Ann +1.500000000 k +1+1 5\n",
            answers.AtLine(b"Ann", 1_500_000_000, 5_000_000_000, b"k +1+1 5"),
        ),
        (b"AT Ann -0.000000001 k +1+1 5.5\n", answers.AtLine(b"Ann", -1, 5_500_000_000, b"k +1+1 5.5")),
        (b"AT Ann +1.5 k +1+1 5\n", None),
        (b"AT Ann 1.500000000 k +1+1 5\n", None),
        (b"AT Ann +1.500000000 k +1+1 5", None),
        (b"AT Ann +1.500000000 k +1+1 5 more\n", None),
        (b"AT Ann +" + b"9" * 5_000 + b".500000000 k +1+1 5\n", None),
        (b"? IAMAT\n", None),
        (b"\n", None),
    ],
)
def test_an_at_line_is_read_as_it_must_be(line: bytes, expected: answers.AtLine | None) -> None:
    assert answers.parse_at_line(line) == expected


def test_a_difference_from_a_float_is_told_from_an_exact_one() -> None:
    received, sent = 1_795_524_309_232_123_571, 1_000_000_000_000_000_078
    floats = [float(f"{received + n}e-9") - float(f"{sent}e-9") for n in range(50)]
    from_floats = [int(f"{one:.9f}".replace(".", "")) for one in floats]
    assert all(map(answers.is_from_a_float, from_floats))
    exact = [received - sent + n for n in range(0, 50_000, 997)]
    assert sum(map(answers.is_from_a_float, exact)) < len(exact) / 4


GOOD = {"html_attributions": [], "results": [{"name": "a"}], "status": "OK"}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (json.dumps(GOOD), None),
        (json.dumps({**GOOD, "results": []}), None),
        (json.dumps({**GOOD, "results": [], "status": "REQUEST_DENIED", "error_message": "no key"}), None),
        (json.dumps({**GOOD, "results": [{}, {}]}), "2 results, more than the 1 asked for"),
        (json.dumps({**GOOD, "status": "FINE"}), 'the status "FINE", which Google has not'),
        (json.dumps({**GOOD, "status": ["OK"]}), "the status \"['OK']\", which Google has not"),
        (
            json.dumps({**GOOD, "status": "UNKNOWN_ERROR"}),
            "results that are no objects, or that stand beside",
        ),
        (json.dumps({**GOOD, "results": [1]}), "results that are no objects"),
        (json.dumps({**GOOD, "results": {}}), "that is no list"),
        (json.dumps({"results": []}), "JSON without html_attributions, status"),
        ("[]", "JSON that is no object"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("9" * 100_000, "no JSON"),
        ("\xff", "no JSON"),
        (json.dumps(GOOD) + "\n", "an empty line"),
    ],
)
def test_places_are_faulted_for_what_is_wrong_with_them(body: str, complaint: str | None) -> None:
    found = answers.places_complaint(body.encode("latin-1"), 1)
    assert found is None if complaint is None else complaint in (found or "")
