"""Places of the operator's own: reads a GeoJSON or CSV file for the gazetteer.

The rule: a file with a mistake is refused. The error has the file, the feature or line, the key, the value and the
remedy. If a place were dropped without an error, only clients could notice it. Properties and columns without a meaning
here are ignored, because files come from other programs.

| field | in GeoJSON, of a Feature | in CSV, a column | |
| --- | --- | --- | --- |
| name | property | required | |
| position | geometry, a Point | latitude, longitude; required | WGS 84, decimal degrees |
| id | member `id`, else a property | optional | by default from name and position; `place_id` is `own:` and this |
| types | property, a list or as in CSV | optional, `|` between them | as Google names them; by default `feature_types` |
| vicinity | property | optional | by default from `addr:` tags |
| population | property | optional | its weight in the order, by default POPULATION |
| attribution | property | optional | HTML, into `html_attributions` of answers with this place |
"""

from __future__ import annotations

import csv
import io
import json
import re
from decimal import Decimal, DecimalException
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NoReturn

from msgspec import Struct

from proxyherd.base.files import read_regular
from proxyherd.config.errors import ConfigError
from proxyherd.places.gazetteer.feature_types import types_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

POPULATION: Final = 50_000
"""The population of a place that has none in the file: that of a town. Within a kilometre or two, the place comes before
all others but the centre of a large city; from 20 km away, it comes after the near villages."""

MAX_POPULATION: Final = 10_000_000_000
"""More than all people."""

MAX_CHARACTERS: Final = 1_000
"""The maximum length of a name, an id, a type and the like: an answer may have twenty of them."""

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Place(Struct, frozen=True, kw_only=True):
    """A place as in the gazetteer's file: degrees, inhabitants, and Google's types.

    `place_id` is `source:key`; an empty `attribution` is none.
    """

    source: str
    key: int | str
    name: str
    latitude: float
    longitude: float
    population: int
    types: tuple[str, ...]
    vicinity: str
    attribution: str


def read(file: Path) -> bytes:
    """Read the file. Raises ConfigError."""
    try:
        return read_regular(file)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = getattr(error, "strerror", error)
        raise ConfigError(
            f"{file}: {why}; places.own_places of the herd's file names it: mend that, or drop the key"
        ) from error


def parse(content: bytes, file: Path) -> list[Place]:
    """Check and convert the file's content: GeoJSON or CSV by its suffix, or else by its content; UTF-8.

    Raises ConfigError, which names `file`.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{file}: line {line}: not UTF-8 at byte {error.start}; save it as UTF-8"
        ) from error
    places: list[Place] = []
    seen: dict[int | str, str] = {}
    for where, fields in _FORMATS.get(file.suffix.lower(), _by_looks)(text, file):
        place = _place(fields, where)
        if first := seen.get(place.key):
            what = "id" if "id" in fields else "name and position (give each an id)"
            raise _error(where, "id", place.key, f"has the {what} of {first}; change or drop one")
        seen[place.key] = where.removeprefix(f"{file}: ")
        places.append(place)
    return places


# --- the two formats: each yields the position of a place in the file, for errors, and its fields


def _by_looks(text: str, file: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    return (_geojson if text.lstrip().startswith("{") else _csv)(text, file)


def _geojson(text: str, file: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Read a FeatureCollection of Points (RFC 7946). Numbers become Decimal, because floats would be rounded."""
    document = _json(text, file)
    if not isinstance(document, dict) or document.get("type") != "FeatureCollection":
        raise ConfigError(f"{file}: key type: is not FeatureCollection; save it as GeoJSON, or as .csv")
    features = document.get("features")
    if not isinstance(features, list):
        raise ConfigError(f"{file}: key features: is no list; save it as GeoJSON")
    for number, feature in enumerate(features, 1):
        where = f"{file}: feature {number}"
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise ConfigError(f"{where}: key type: is not Feature; drop it")
        properties = feature.get("properties") or {}
        if not isinstance(properties, dict):
            raise _error(where, "properties", properties, "is no object; write {}")
        longitude, latitude = _point(feature.get("geometry"), where)
        fields = properties | {"latitude": latitude, "longitude": longitude}
        fields |= {"id": feature["id"]} if feature.get("id") is not None else {}
        yield where, {key: value for key, value in fields.items() if value is not None}


def _json(text: str, file: Path) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ConfigError(f"{file}: holds {constant}, which is not JSON; write a number")

    try:
        return json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{file}: line {error.lineno}: not JSON at column {error.colno}: {error.msg}; mend it there"
        ) from error
    except DecimalException as error:
        raise ConfigError(f"{file}: a number's exponent is out of all bounds; write it plainly") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: nested too deeply; no GeoJSON is") from error


def _point(geometry: object, where: str) -> tuple[object, object]:
    kind = geometry.get("type") if isinstance(geometry, dict) else geometry
    if not isinstance(geometry, dict) or kind != "Point":
        raise _error(where, "geometry.type", kind, "is not Point; export the centres of areas, or drop it")
    coordinates = geometry.get("coordinates")
    if not isinstance(coordinates, list) or len(coordinates) not in {2, 3}:
        raise _error(where, "geometry.coordinates", coordinates, "is not [longitude, latitude]")
    return coordinates[0], coordinates[1]


def _csv(text: str, file: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Read lines of comma-separated values after a line with their names (RFC 4180). An empty value is none."""
    rows = _rows(text, file)
    where, header = next(rows, (f"{file}: line 1", []))
    names = [name.strip() for name in header]
    for name in ("name", "latitude", "longitude"):
        if name not in names:
            there = ", ".join(map(_seen, names)) or "nothing"
            raise ConfigError(f"{where}: key {name}: is missing; the header has {there}: add this column")
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise ConfigError(f"{where}: key {_seen(twice)}: two columns have this name; rename or drop one")
    for where, row in rows:
        if len(row) != len(names):
            raise ConfigError(
                f"{where}: has {len(row)} values, the header {len(names)}; put quotes around a value with commas"
            )
        yield where, {name: value for name, value in zip(names, row, strict=True) if value.strip()}


def _rows(text: str, file: Path) -> Iterator[tuple[str, list[str]]]:
    """Read rows that are not empty, each with the line where it starts."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        where = f"{file}: line {rows.line_num + 1}"
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ConfigError(f"{where}: not CSV: {error}; mend it there") from error
        if row is None:
            return
        if any(map(str.strip, row)):
            yield where, row


_FORMATS: Final = {".geojson": _geojson, ".json": _geojson, ".csv": _csv}


# --- one place


def _place(fields: Mapping[str, object], where: str) -> Place:
    name = _text(fields, "name", where)
    if not name:
        raise ConfigError(f"{where}: key name: is missing or empty; give the place a name, or drop it")
    latitude = float(_number(fields, "latitude", where, -90, 90))
    longitude = float(_number(fields, "longitude", where, -180, 180))
    by_default = sha256(f"{name}\n{latitude}\n{longitude}".encode()).hexdigest()[:16]
    population = (
        _number(fields, "population", where, 0, MAX_POPULATION) if "population" in fields else POPULATION
    )
    if population != int(population):
        raise _error(where, "population", population, "is not whole; write an integer")
    return Place(
        source="own",
        key=_text(fields, "id", where) or by_default,
        name=name,
        latitude=latitude,
        longitude=longitude,
        population=int(population),
        types=_types(fields, where) or types_of(fields),
        vicinity=_text(fields, "vicinity", where) or _address(fields, where),
        attribution=_text(fields, "attribution", where),
    )


def _types(fields: Mapping[str, object], where: str) -> tuple[str, ...]:
    types = fields.get("types")
    listed = types if isinstance(types, list) else _text(fields, "types", where).split("|")
    checked = [_text({"types": type_}, "types", where) for type_ in listed]
    if any("|" in type_ for type_ in checked):
        raise _error(where, "types", types, "has a | within a type; write a list of single types")
    return tuple(filter(None, checked))


def _address(fields: Mapping[str, object], where: str) -> str:
    """Return the street and the city, if they are tagged, as Google writes them."""
    number, street, city = (_text(fields, f"addr:{key}", where) for key in ("housenumber", "street", "city"))
    return ", ".join(filter(None, (f"{number} {street}".strip() if street else "", city)))


def _text(fields: Mapping[str, object], key: str, where: str) -> str:
    """Return a text, or an integer as text; empty if there is none."""
    value = fields.get(key, "")
    text = f"{value:f}" if isinstance(value, Decimal) else value
    if not isinstance(text, str) or (isinstance(value, Decimal) and value != int(value)):
        raise _error(where, key, value, "is no text; put it in quotes")
    if len(text) > MAX_CHARACTERS:
        raise _error(where, key, text, f"has {len(text)} characters; {MAX_CHARACTERS} are the most")
    if _UNFIT.search(text):
        raise _error(where, key, text, "holds a control character or half of a pair; drop it")
    return text.strip()


def _number(fields: Mapping[str, object], key: str, where: str, low: int, high: int) -> Decimal:
    """Return a number as it is written, without a float's rounding."""
    value = fields.get(key)
    if value is None:
        raise ConfigError(f"{where}: key {key}: is missing; write a number from {low} to {high}")
    text = str(value).strip() if isinstance(value, (str, Decimal)) else ""
    if not _NUMBER.fullmatch(text) or not low <= Decimal(text) <= high:
        raise _error(
            where, key, value, f"is no number from {low} to {high}; write one, in decimals with a point"
        )
    return Decimal(text)


def _error(where: str, key: str, value: object, what: str) -> ConfigError:
    return ConfigError(f"{where}: key {key}: {_seen(value)} {what}")


def _seen(value: object) -> str:
    """Quote a value, cut to a length that fits on a line."""
    text = str(value)
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
