"""Back-off: the pauses between attempts at something that fails.

The first pause is short, to find a service that has only restarted. A maximum limits how late a service is found that
returns. Jitter prevents that clients that have lost the same service all return at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def backoff(first: float, most: float, rng: Random, *, least: float = 0.5) -> Iterator[float]:
    """Yield pauses in seconds, forever. The n-th pause (n from 0) is random between `least` times and all of min(first *
    2**n, most).

    After a success, make a new one: it begins with the short pause again.
    """
    pause = min(first, most)
    while True:
        yield pause * rng.uniform(least, 1.0)
        pause = min(2 * pause, most)
