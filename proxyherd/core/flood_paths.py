"""Which copies of an update are spare, because the shortest path to a server is another one.

In a herd with rings, a flood brings most updates to most servers more than once. The first copy counts. Each further one
costs a write and a wake-up, and changes nothing, unless a server or a link on the shortest path is down or slow. So a spare
copy may wait some milliseconds for something else that leaves for the same neighbour, if that is likely: something has
left for it as short a time ago.

All servers know the whole graph, and choose the same paths: of a server's neighbours, the one that is nearest to the server
in the AT line brings the update, and of equally near ones, the one whose name sorts first. An update that came from another
neighbour shows that the path is broken or slow. None of its copies are spare.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

SPARE_COPY_SECONDS: Final = 0.025
"""Spare copies wait for this long, at most."""

SpareCopies: TypeAlias = Mapping[str | None, Mapping[bytes, frozenset[str]]]
"""By the neighbour that an update came from, and by how its AT line begins: the neighbours whose copies are spare."""

NO_SPARE_COPIES: Final[SpareCopies] = {}

_NOBODY: Final[frozenset[str]] = frozenset()

_MOST_STEPS: Final = 100_000
"""Steps of the search for paths at a server's start, some 30 ms. In larger graphs, no copy is spare."""


def spare_copies(graph: Mapping[str, Sequence[str]], name: str) -> SpareCopies:
    """Return which copies are spare that the server `name` passes on. `graph`: the neighbours of each server of the herd."""
    mine = graph[name]
    near = {name, *mine}.union(*[graph[neighbour] for neighbour in mine])
    if len(near) * sum([1 + len(others) for others in graph.values()]) > _MOST_STEPS:
        return NO_SPARE_COPIES
    steps = {one: _steps_from(one, graph) for one in near}

    def bringer(server: str, origin: str) -> str:
        return min(graph[server], key=lambda one: (steps[one][origin], one))

    spare: dict[str | None, dict[bytes, frozenset[str]]] = {}
    for origin in steps[name].keys() - {name}:
        source = bringer(name, origin)
        others = frozenset(one for one in mine if one != source and bringer(one, origin) != name)
        if others:
            spare.setdefault(source, {})[b"AT " + origin.encode()] = others
    return spare


def spared(spare: SpareCopies, source: str | None, line: bytes) -> frozenset[str]:
    """Return the neighbours whose copies of a line are spare. `source`: the neighbour that it came from."""
    if (lines := spare.get(source)) is None:
        return _NOBODY
    return lines.get(line[: line.index(b" ", 3)], _NOBODY)


def _steps_from(server: str, graph: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the number of links on the shortest path from a server to each that it reaches."""
    steps, frontier = {server: 0}, [server]
    for one in frontier:
        for other in graph[one]:
            if other not in steps:
                steps[other] = steps[one] + 1
                frontier.append(other)
    return steps
