"""Which of two types of an answer a client prefers, by its header Accept (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_MOST_RANGES: Final = 32
"""Ranges of types that are read: browsers send eight."""

_NOTHING: Final = (0.0, -1)
_weight = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?").fullmatch


def prefers(accept: Sequence[str], other: str, usual: str) -> bool:
    """Return whether who sends these headers Accept prefers another type to the usual one: it is worth more to them, or as
    much and only it is named. Types are in lower case.
    """
    ranges = dict[str, float]()
    for one in ",".join(accept).lower().split(",", _MOST_RANGES)[:_MOST_RANGES]:
        name, *parameters = (part.strip() for part in one.split(";"))
        ranges[name] = max(_worth(parameters), ranges.get(name, 0.0))
    worth, named = _best(ranges, other)
    usual_worth, usual_named = _best(ranges, usual)
    return worth > usual_worth or (worth == usual_worth > 0 and named > usual_named)


def _best(ranges: dict[str, float], type_: str) -> tuple[float, int]:
    """Return what a type is worth, and how exactly it is named: the most exact range counts."""
    spellings = ("*/*", f"{type_.partition('/')[0]}/*", type_)
    return next(
        ((ranges[name], at) for at, name in reversed([*enumerate(spellings)]) if name in ranges), _NOTHING
    )


def _worth(parameters: Sequence[str]) -> float:
    """Return the weight among the parameters of a range; 1 if there is none, 0 if it is none."""
    weight = next((one[2:].strip() for one in parameters if one.startswith("q=")), "1")
    return float(weight) if _weight(weight) else 0.0
