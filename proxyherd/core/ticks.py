"""When time passes for a server. Work that is done again and again is done at common moments, so that an idle process
wakes once for all of it.

Such moments are the whole multiples of an interval on the event loop's clock. A tick, in which links and the node look at
the time, comes at each multiple of a heartbeat. It also comes at a multiple of a quarter of a heartbeat, if something is
due before the next one, or if more than a second would pass without it: a supervisor waits for a sign of life, and other
deadlines do not depend on heartbeats. A heartbeat of more than four seconds has more parts, of a second at most.
"""

from __future__ import annotations

from math import ceil
from typing import Final

TICKS: Final = 4
"""Ticks in a heartbeat of up to four seconds, at most."""

_LONGEST_SECONDS: Final = 1.0
"""Between two ticks, at most."""

_EARLY: Final = 0.01
"""The part of an interval by which a timer may be early, because clocks are rounded."""

_ROUNDED: Final = 2 * _EARLY

_FAR_AHEAD: Final = 1 - (1 - _ROUNDED) / TICKS
"""The part of a heartbeat by which one is sent early when all links send together."""


def seconds_to_moment(now: float, interval: float) -> float:
    """Return the seconds until the next whole multiple of an interval."""
    return ((now / interval + _EARLY) // 1 + 1) * interval - now


def step(heartbeat: float) -> float:
    """Return the seconds between two moments at which a tick may come."""
    return heartbeat / max(TICKS, ceil(heartbeat / _LONGEST_SECONDS))


def _longest(heartbeat: float) -> float:
    """Return the seconds between two ticks, at most. They divide a heartbeat, so a tick comes at each multiple of it."""
    if heartbeat <= _LONGEST_SECONDS:
        return heartbeat
    return heartbeat / 2 if heartbeat / 2 <= _LONGEST_SECONDS else step(heartbeat)


def seconds_to_tick(now: float, due: float, heartbeat: float) -> float:
    """Return the seconds until the next tick, if something is due at `due`: it comes at the last moment that is not later.
    What is due already waits for the next moment.
    """
    longest = seconds_to_moment(now, _longest(heartbeat))
    if due >= now + longest:
        return longest
    interval = step(heartbeat)
    last_moment = (max(due, now) / interval + _EARLY) // 1 * interval
    return max(last_moment - now, seconds_to_moment(now, interval))


def seconds_ahead(now: float, heartbeat: float) -> float:
    """Return how many seconds early a tick sends a heartbeat, at most. At a multiple of a heartbeat it is three quarters of
    one, so that all links send together. At any other moment it is the time until the next moment.
    """
    if (now / heartbeat + _EARLY) % 1 < 1 / TICKS:
        return heartbeat * _FAR_AHEAD
    interval = step(heartbeat)
    return seconds_to_moment(now, interval) - _ROUNDED * interval
