"""Tables whose clients are where searches are difficult: at poles, on the date line, at one place, in a city."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from random import Random
from typing import Any

from proxyherd.core.messages import Entry
from proxyherd.core.spatial.areas import Area
from proxyherd.core.spatial.index import SpatialIndex, degrees
from proxyherd.core.spatial.search import Question, SearchResult, search
from proxyherd.core.spatial.sphere import haversine_between
from proxyherd.core.table import Table

Position = tuple[float, float]

SPOTS: tuple[Position, ...] = (
    (90, 0),
    (-90, 0),
    (34.05, -118.25),
    (0, 180),
    (0, -180),
    (52, 179.99),
    (-17, -179.99),
    (0, 0),
)


class ClientWorld:
    """A table, its index, and what moves in it."""

    def __init__(self, seed: int, clients: int) -> None:
        self.random = Random(seed)
        self.table = Table(bytes(32), depth=2)
        self.names = [b"client%d" % number for number in range(clients)]
        self.positions: dict[bytes, Position] = {}
        self._moments = itertools.count(1)
        for name in self.names:
            self.put(name, *self.position())
        self.index = SpatialIndex(self.table)

    def put(self, client: bytes, latitude: float, longitude: float) -> None:
        moment = next(self._moments)
        line = b"AT Clark +0.000000000 %b %+.6f%+.6f %d.000000000" % (client, latitude, longitude, moment)
        self.table.put(client, Entry(line, moment), self.table.leaf(client))
        self.positions[client] = degrees(line)

    def remove(self, client: bytes) -> None:
        self.table.remove(client, self.table.leaf(client))
        self.positions.pop(client, None)

    def position(self) -> Position:
        """Return a position: often one that others have too, or near one of the spots."""
        random = self.random
        kind = random.random()
        if kind < 0.1:
            return random.choice(SPOTS)
        if kind < 0.2 and self.positions:
            return random.choice([*self.positions.values()])
        if kind < 0.8:
            latitude, longitude = random.choice(SPOTS)
            size = random.choice([0.0001, 0.01, 1])
            latitude = max(-90.0, min(90.0, latitude + random.gauss(0, size)))
            longitude = longitude + random.gauss(0, size) if abs(latitude) < 89 else random.uniform(-180, 180)
            return latitude, (longitude + 180) % 360 - 180
        return math.degrees(math.asin(random.uniform(-1, 1))), random.uniform(-180, 180)

    def stir(self, most: int) -> None:
        """Let clients move, come and go."""
        for client in self.random.sample(self.names, self.random.randint(0, min(most, len(self.names)))):
            if self.random.random() < 0.2:
                self.remove(client)
            else:
                self.put(client, *self.position())

    def all_in(self, area: Area) -> list[tuple[float, bytes]]:
        """Return all that are in an area, in the order of answers, by looking at each client."""
        latitude, longitude = area.centre
        return sorted(
            (haversine_between(latitude, longitude, *position), client)
            for client, position in self.positions.items()
            if area.contains(*position)
        )

    def search(self, area: Area, most: int, **more: Any) -> SearchResult:
        return last(search(self.index, Question(area, most, **more)))


def last(steps: Iterator[SearchResult | None]) -> SearchResult:
    """Return the answer that a search ends with."""
    for answer in steps:
        if answer is not None:
            return answer
    raise AssertionError("no answer")


def clients(answer: SearchResult) -> list[bytes]:
    return [one.client for one in answer.found]
