"""The settings of a client: a wrong one is refused when it is given, by its name, and not when it is used.

Raises TypeError for what is no number at all, and ValueError for a number that cannot be meant.
"""

from __future__ import annotations

from typing import Final

_MOST_SECONDS: Final = 1_000_000_000
"""Timers of the system take no more of them."""


def seconds_setting(name: str, seconds: float) -> float:
    """Return the seconds of a setting: more than 0, and at most a billion."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} is {seconds!r}: a number of seconds belongs here")
    if not 0 < seconds <= _MOST_SECONDS:
        raise ValueError(f"{name} is {seconds!r}: seconds belong here, more than 0 and at most a billion")
    return seconds


def count_setting(name: str, count: int) -> int:
    """Return the number in a setting: 1 or more."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} is {count!r}: a whole number belongs here")
    if count < 1:
        raise ValueError(f"{name} is {count!r}: a whole number from 1 on belongs here")
    return count
