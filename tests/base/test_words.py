"""Words that help: which word was meant, and where a text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.base.words import shorten_text, suggest

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
