"""Back-off: the pauses between attempts at something that fails.

A first short pause finds a service that has only restarted; a cap bounds how late one that returns is found; the
jitter keeps those that have lost the same service from coming back in step.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def backoff(first: float, most: float, rng: Random, *, least: float = 0.5) -> Iterator[float]:
    """Yield pauses in seconds for ever: the n-th lies between `least` times and all of min(first * 2**n, most), n from 0.

    Make a new one when an attempt has succeeded: its pauses begin with the short one again.
    """
    pause = min(first, most)
    while True:
        yield pause * rng.uniform(least, 1.0)
        pause = min(2 * pause, most)
