"""What an update costs a herd in messages: AT lines on the links, counted in the simulation of the tests.

The servers there are the real ones, their network and clock are not, so the count is exact and the same each time. A
server passes news on to all neighbours but the one it came from, once; so on N servers with E edges that is
2 E - (N - 1) lines, whatever the delays are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from graphs import GRAPHS, Edges
from workloads import SERVERS

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/support"))

from simulation import EPOCH, End, Herd  # found just now

_UPDATES = 30
_LINK_SECONDS = 5.0
"""Until all servers of a herd are linked and have compared their empty tables."""


class _Counting(Herd):
    """A herd in a graph that is given, without any trouble, that counts the lines on its links."""

    def __init__(self, edges: Edges) -> None:
        super().__init__(
            len(edges),
            edges=sorted(edges),
            apart=0.0,
            journal="none",
            skew=0,
            queue_bytes=1 << 24,
            lines=1_024,
            depth=2,
            compare_seconds=10_000.0,
        )
        self.lines = 0
        flooded = self.laws.flooded

        def count(end: End, lines: bytes) -> None:
            self.lines += lines.count(b"\n")
            flooded(end, lines)

        self.laws.flooded = count  # type: ignore[method-assign] # the law still judges each line


def lines_an_update(edges: Edges) -> float:
    """Return how many AT lines cross links for one update, on average over reports at random servers."""
    herd = _Counting(edges)
    rng, world = Random(1), herd.world
    for server in herd.servers.values():
        server.start()
    world.run_until(_LINK_SECONDS)
    for number in range(_UPDATES):
        server = rng.choice(list(herd.servers.values()))
        client = herd.connect(server)
        client.say(*client.spell([b"IAMAT c%d +1+1 %d" % (number, EPOCH)]))
        world.run_until(world.now + 2.0)
    if not herd.agreed():
        raise RuntimeError(f"the herd does not agree: {herd.difference()}")
    return herd.lines / _UPDATES


def count_messages(sizes: Sequence[int] = SERVERS) -> dict[str, list[dict[str, Any]]]:
    """Return, for each graph, what an update costs herds of these sizes."""
    return {
        graph: [
            {
                "servers": servers,
                "edges": len(edges := make(servers)),
                "lines": lines_an_update(edges),
                "rule": 2 * len(edges) - (servers - 1),
            }
            for servers in sizes
        ]
        for graph, make in GRAPHS.items()
    }
