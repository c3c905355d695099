"""Words that help: the nearest of those that there are, texts that are cut between words, and times in their largest unit.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_DOTS: Final = " ..."
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` with the known word that is spelled most like this one, "" if none is like it."""
    from difflib import get_close_matches  # noqa: PLC0415 - not for `serve`

    spelled = {one.lower(): one for one in known}
    near = get_close_matches(word.lower(), spelled, 1)
    return f" (did you mean {spelled[near[0]]}?)" if near else ""


def shorten_text(text: str, most: int) -> str:
    """Return a text of at most `most` characters: what is longer is cut after a word, and ends with dots."""
    if len(text) <= most:
        return text
    room = most - len(_DOTS)
    whole, blank, _ = text[: room + 1].rpartition(" ")
    return (whole.rstrip(" ,;:") if blank else text[:room]) + _DOTS


def spell_seconds(seconds: float) -> str:
    """Return a time in the largest unit of which there are two."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:g} s"
