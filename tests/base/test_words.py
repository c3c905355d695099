"""Words that help: which word was meant, where a text is cut, and how long something takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.base.words import shorten_text, spell_seconds, suggest

SERVERS = ["Bailey", "Bona", "Campbell", "Clark", "Jaquez"]


@pytest.mark.parametrize(
    ("word", "meant"), [("clark", "Clark"), ("Clarke", "Clark"), ("Camp", "Campbell"), ("Jacquez", "Jaquez")]
)
def test_the_word_that_is_spelled_most_alike_is_meant(word: str, meant: str) -> None:
    assert suggest(word, SERVERS) == f" (did you mean {meant}?)"


@pytest.mark.parametrize("word", ["", "a zebra", "zzz"])
def test_nothing_is_suggested_for_a_word_like_none(word: str) -> None:
    assert suggest(word, SERVERS) == ""
    assert suggest("Clark", []) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short enough", "short enough"),
        ("the neighbours are gone", "the ..."),
        ("the one, neighbours", "the one ..."),
        ("onewordofmanyletters", "onewordof ..."),
    ],
)
def test_a_text_is_cut_after_a_word(text: str, shown: str) -> None:
    assert shorten_text(text, 13) == shown


@given(st.text(), st.integers(5, 40))
def test_what_is_cut_is_not_too_long_and_the_beginning_of_the_text(text: str, most: int) -> None:
    shown = shorten_text(text, most)
    assert len(shown) <= most
    assert shown == text or text.startswith(shown.removesuffix(" ..."))


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [
        (0, "0 s"),
        (2.25, "2.25 s"),
        (119.5, "119.5 s"),
        (120, "2 min"),
        (3_600.0, "60 min"),
        (7_199.9, "119 min"),
        (7_200, "2 h"),
        (3_456_000.2, "40 d"),
    ],
)
def test_seconds_are_spelled_in_the_largest_unit_of_which_there_are_two(seconds: float, spelled: str) -> None:
    assert spell_seconds(seconds) == spelled
