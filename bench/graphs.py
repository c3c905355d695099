"""The graphs that herds are measured in: pairs of names, each name a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

Edges = Sequence[tuple[str, str]]

FIVE: Final[Edges] = (
    ("Bailey", "Campbell"),
    ("Bailey", "Bona"),
    ("Bona", "Clark"),
    ("Bona", "Campbell"),
    ("Campbell", "Jaquez"),
    ("Clark", "Jaquez"),
)
"""The edges of deploy/herd.toml."""

_NAMES: Final = [first + second for first in "ABC" for second in "abcdefghij"]


def ring(servers: int) -> Edges:
    """Return a ring, which two servers make with one edge."""
    names = _NAMES[:servers]
    return [(min(pair), max(pair)) for pair in zip(names, names[1:] + names[:1], strict=True)][
        : servers if servers > 2 else 1
    ]


def random_graph(servers: int) -> Edges:
    """Return a connected graph with two edges a server, or all there can be; the same one each time."""
    rng, names = Random(servers), _NAMES[:servers]
    edges = {(names[rng.randrange(number)], names[number]) for number in range(1, servers)}
    most = min(2 * servers, servers * (servers - 1) // 2)
    while len(edges) < most:
        left, right = sorted(rng.sample(names, 2))
        edges.add((left, right))
    return sorted(edges)


GRAPHS: Final[dict[str, Callable[[int], Edges]]] = {"ring": ring, "random": random_graph}


def farthest(edges: Edges) -> tuple[str, str, int]:
    """Return the first server by name, the first of those that most hops part from it, and how many."""
    start = min(name for edge in edges for name in edge)
    hops = {start: 0}
    reached = [start]
    for name in reached:
        for a, b in edges:
            for here, there in ((a, b), (b, a)):
                if here == name and there not in hops:
                    hops[there] = hops[name] + 1
                    reached.append(there)
    last = min(hops, key=lambda name: (-hops[name], name))
    return start, last, hops[last]
