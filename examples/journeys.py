"""Where fifty people are who walk, cycle and drive through Los Angeles, at any moment.

Each goes round a way for ever, at a steady speed, and stops at some of its corners. Everything follows from a seed, so that
the same people take the same ways each time. Lengths are in metres, times in seconds.
"""

from __future__ import annotations

import json
import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

MAP: Final = Path(__file__).parents[1] / "proxyherd/web/page/los-angeles.json"
"""The roads, as they are on the page with the fence: `docs/make_los_angeles.py`."""

METRES_A_DEGREE: Final = 111_195.0
GPS_METRES: Final = 1.5
"""By which a phone is wrong about where it is, usually."""

Place = tuple[float, float]
"""Latitude and longitude in degrees."""


class Manner(NamedTuple):
    """How somebody moves."""

    words: str
    slowest: float
    fastest: float
    longest_stop: float


WALK: Final = Manner("on foot", 1.1, 1.6, 15)
CYCLE: Final = Manner("by bike", 4.0, 6.5, 10)
DRIVE: Final = Manner("by car", 9.0, 14.0, 12)
SPEED: Final = Manner("on the freeway", 24.0, 29.0, 0)

AROUND_UCLA: Final = (
    *((34.0590, -118.4440), (34.0640, -118.4452), (34.0640, -118.4385), (34.0785, -118.4370)),
    *((34.0735, -118.4550), (34.0690, -118.4530), (34.0640, -118.4480), (34.0590, -118.4440)),
)
THROUGH_WESTWOOD: Final = (
    *((34.0500, -118.4380), (34.0590, -118.4440), (34.0575, -118.4480), (34.0540, -118.4545)),
    *((34.0460, -118.4490), (34.0500, -118.4380)),
)
UP_AND_DOWN_SUNSET: Final = (
    *(
        (34.0570, -118.4910),
        (34.0700, -118.4650),
        (34.0735, -118.4550),
        (34.0785, -118.4370),
        (34.0815, -118.4135),
    ),
    *((34.0785, -118.4370), (34.0735, -118.4550), (34.0700, -118.4650), (34.0570, -118.4910)),
)
LOOPS: Final = (AROUND_UCLA, THROUGH_WESTWOOD, UP_AND_DOWN_SUNSET)
"""Ways through the fence, as the page draws it at first."""

BESIDE_THE_FENCE: Final = (
    *(
        (34.0525, -118.4440, 20.0),
        (34.0600, -118.4325, 30.0),
        (34.0740, -118.4335, 0.0),
        (34.0655, -118.4625, 40.0),
    ),
)
QUARTERS: Final = (
    *(
        (34.0640, -118.4445, 0.0),
        (34.0170, -118.4920, 42.0),
        (33.9910, -118.4660, 45.0),
        (34.1010, -118.3280, 0.0),
    ),
    *((34.0470, -118.2540, 36.0), (34.0730, -118.4000, 30.0), (34.0260, -118.3930, 20.0)),
)
"""Where people go round blocks: latitude, longitude, and by how many degrees the blocks are turned."""

WIDE: Final = 500.0
NARROW: Final = 80.0
"""How far people are from the middle of their quarter, at most."""


class Journey:
    """Somebody's way. The last place is the first one; `begins`: how far on its way it is at the moment 0."""

    def __init__(
        self, name: str, way: Sequence[Place], speed: float, stops: Sequence[float], begins: float
    ) -> None:
        self.name = name
        self._way = way
        self._begins = begins
        self._arrivals = [0.0]
        self._departures = [0.0]
        for (here, there), stop in zip(pairwise(way), stops, strict=True):
            self._arrivals.append(self._departures[-1] + distance(here, there) / speed)
            self._departures.append(self._arrivals[-1] + stop)
        self.seconds = self._departures[-1]

    def at(self, moment: float) -> Place:
        """Return where it is."""
        time = (moment + self._begins) % self.seconds
        leg = bisect_right(self._departures, time) - 1
        (latitude, longitude), there = self._way[leg], self._way[leg + 1]
        driven = min(1.0, (time - self._departures[leg]) / (self._arrivals[leg + 1] - self._departures[leg]))
        return latitude + driven * (there[0] - latitude), longitude + driven * (there[1] - longitude)


def distance(here: Place, there: Place) -> float:
    """Return the metres between two places of one city."""
    north = (there[0] - here[0]) * METRES_A_DEGREE
    east = (there[1] - here[1]) * METRES_A_DEGREE * math.cos(math.radians(here[0]))
    return math.hypot(north, east)


def moved(place: Place, north: float, east: float) -> Place:
    """Return the place so many metres away."""
    latitude, longitude = place
    return (
        latitude + north / METRES_A_DEGREE,
        longitude + east / METRES_A_DEGREE / math.cos(math.radians(latitude)),
    )


def measured(place: Place, rng: random.Random) -> Place:
    """Return what a phone takes for its place."""
    return moved(place, rng.gauss(0, GPS_METRES), rng.gauss(0, GPS_METRES))


def roads(kind: str) -> dict[str, list[Place]]:
    """Return the roads of a kind by their names: street, freeway or path."""
    found = json.loads(MAP.read_text())["roads"]
    return {
        road["name"]: [*zip(road["points"][1::2], road["points"][::2], strict=True)]
        for road in found
        if road["kind"] == kind
    }


def there_and_back(road: Sequence[Place]) -> list[Place]:
    """Return a way along a road and back."""
    return [*road, *road[-2::-1]]


def blocks(quarter: tuple[float, float, float], spread: float, rng: random.Random) -> list[Place]:
    """Return a way around some blocks of a quarter, whose middle is at most `spread` from that of the quarter."""
    latitude, longitude, turn = quarter
    middle = moved((latitude, longitude), rng.uniform(-spread, spread), rng.uniform(-spread, spread))
    width, height, angle = rng.uniform(150, 350), rng.uniform(150, 350), math.radians(turn)
    corner = moved(middle, -height / 2, -width / 2)
    steps = ((0.0, 0.0), (0.0, width), (height, width), (height, 0.0), (0.0, 0.0))
    return [
        moved(
            corner,
            north * math.cos(angle) - east * math.sin(angle),
            north * math.sin(angle) + east * math.cos(angle),
        )
        for north, east in steps
    ]


NAMES: Final = (
    *("Ada", "Alan", "Anita", "Barbara", "Carol", "Claude", "Cynthia", "Dana", "Dennis", "Donald"),
    *("Edith", "Edsger", "Ellen", "Emmy", "Fei-Fei", "Fran", "Frances", "Grace", "Guido", "Hal", "Hedy"),
    *("Ida", "Ivan", "Jean", "Joan", "John", "Judea", "Katherine", "Ken", "Kurt", "Leslie", "Linus"),
    *("Lynn", "Margaret", "Mary", "Maurice", "Muhammad", "Niklaus", "Noam", "Peter", "Radia", "Raj"),
    *("Richard", "Robin", "Shafi", "Silvio", "Sophie", "Tim", "Tony", "Vint"),
)


def journeys(seed: int = 1) -> list[Journey]:
    """Return the fifty journeys, of which the first eighteen lead through the fence, or along it, again and again."""
    rng = random.Random(seed)  # noqa: S311 - the same people each time
    ways = [*_ways(rng)]
    names = rng.sample(NAMES, len(ways))
    found = []
    for name, (manner, way) in zip(names, ways, strict=True):
        speed = rng.uniform(manner.slowest, manner.fastest)
        stops = [rng.uniform(0, manner.longest_stop) if rng.random() < 0.6 else 0.0 for _ in way[1:]]
        found.append(Journey(f"{name} {manner.words}", way, speed, stops, rng.uniform(0, 10_000)))
    return found


def _ways(rng: random.Random) -> Iterator[tuple[Manner, Sequence[Place]]]:
    """Yield how each moves, and where."""
    streets, freeways = roads("street"), roads("freeway")
    strand = there_and_back(roads("path")["The Strand"])
    yield from ((DRIVE, LOOPS[number % len(LOOPS)]) for number in range(6))
    for manner in (DRIVE, CYCLE, WALK):
        yield from ((manner, blocks(quarter, NARROW, rng)) for quarter in BESIDE_THE_FENCE)
    yield from ((WALK, blocks(quarter, WIDE, rng)) for quarter in QUARTERS)
    yield WALK, blocks(QUARTERS[0], WIDE, rng)
    yield from ((CYCLE, strand) for _ in range(4))
    for name in (
        "Wilshire",
        "Venice",
        "Sunset",
        "Lincoln",
        "Santa Monica",
        "Olympic",
        "Western",
        "La Cienega",
    ):
        yield DRIVE, there_and_back(streets[name])
    for name in ("Pico", "Figueroa", "Hollywood", "La Brea"):
        yield CYCLE, there_and_back(streets[name])
    for name in ("405", "10", "101", "5", "110", "105", "405", "10"):
        yield SPEED, there_and_back(freeways[name])
