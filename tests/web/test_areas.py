"""Areas mean what their clients have drawn; what cannot be an area is a problem that names the place."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.core.spatial.areas import Area, Box, Circle, Misdrawn
from proxyherd.web.areas import (
    MOST_AREA_COMMAS,
    read_box,
    read_circle,
    read_geojson,
    read_near,
    read_near_parameter,
    read_within,
    read_within_parameter,
)
from proxyherd.web.problems import DEGREES, JSON, LARGE, MEANING, QUERY, Kind, Problem

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]]
FAR = [[100, 0], [101, 0], [101, 1], [100, 0]]


def polygon(*rings: object, **more: object) -> dict[str, object]:
    return {"type": "Polygon", "coordinates": rings, **more}


def feature(geometry: object) -> dict[str, object]:
    return {"type": "Feature", "properties": {"name": "x:y"}, "geometry": geometry}


def read(document: object) -> Area:
    return read_geojson(document if isinstance(document, bytes) else json.dumps(document).encode())


def problem_of(call: Callable[[], object]) -> Problem:
    with pytest.raises(Problem) as raised:
        call()
    return raised.value


@pytest.mark.parametrize(
    ("texts", "circle"),
    [
        ((b"34.06893", b"-118.445127", b"1.5"), Circle(34.06893, -118.445127, 1_500.0)),
        ((b"+90.000", b"-180", b"50"), Circle(90.0, -180.0, 50_000.0)),
        ((b"-0", b"1.5e-7", b"0"), Circle(-0.0, 1.5e-7, 0.0)),
        ((b"0.12345678901234567890", b"2", b"0.0001"), Circle(0.12345678901234567890, 2.0, 0.1)),
    ],
)
def test_a_circle_has_its_numbers_however_it_is_described(
    texts: tuple[bytes, bytes, bytes], circle: Circle
) -> None:
    assert read_circle(*texts) == circle
    lat, lon, radius = (text.decode() for text in texts)
    assert read_near_parameter(f"{lat},{lon},{radius}") == circle
    for quote in ("", '"'):
        if not quote and lat.startswith("+"):
            continue  # numbers of JSON have no plus
        spelled = (f"{quote}{text}{quote}" for text in (radius, lon, lat))
        assert read_near(b'{"radius_km":%b,"lon":%b,"lat":%b}' % tuple(map(str.encode, spelled))) == circle


@pytest.mark.parametrize(
    ("texts", "box"),
    [
        (("-118.6", "33.9", "-118", "34.2"), Box(-118.6, 33.9, -118.0, 34.2)),
        (("179", "-90", "-179", "90"), Box(179.0, -90.0, -179.0, 90.0)),
        (("1", "1", "1", "1"), Box(1.0, 1.0, 1.0, 1.0)),
    ],
)
def test_a_box_has_its_numbers_however_it_is_described(texts: tuple[str, str, str, str], box: Box) -> None:
    assert read_box(*(text.encode() for text in texts)) == box
    assert read_within_parameter(",".join(texts)) == box
    names = ("west", "south", "east", "north")
    assert read_within(json.dumps(dict(zip(names, texts, strict=True))).encode()) == box
    assert read_within(json.dumps(dict(zip(names, map(float, texts), strict=True))).encode()) == box


@pytest.mark.parametrize(
    "text",
    [
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e2",
        "",
        " 1",
        "1 ",
        "0x1",
        "1_0",
        "90.00000000000000000001",
        "\uff11",
        "1,2",
        "\x00",
        "--1",
    ],
)
@pytest.mark.parametrize("at", range(7))
def test_what_is_no_number_of_an_area_is_a_problem_of_its_field(text: str, at: int) -> None:
    names = ("lat", "lon", "radius_km", "west", "south", "east", "north")
    if text == "90.00000000000000000001" and names[at] in ("lon", "west", "east"):
        text = "180" + text[2:]
    if text == "90.00000000000000000001" and names[at] == "radius_km":
        text = "50.0000000000000001"
    values = ["1"] * 7
    values[at] = text
    data = [value.encode() for value in values]
    problem = problem_of(lambda: (read_circle(*data[:3]), read_box(*data[3:])))
    assert (problem.kind, problem.field) == (QUERY if at == 2 else DEGREES, names[at])
    assert text.strip("1, ") == "" or text not in problem.detail


def test_a_box_is_not_upside_down() -> None:
    problem = problem_of(lambda: read_box(b"0", b"2", b"1", b"1"))
    assert (problem.kind, problem.field) == (QUERY, "south")


@pytest.mark.parametrize(
    ("near", "within"), [("1,2", "1,2,3"), ("1,2,3,4", "1,2,3,4,5"), ("", ""), ("1;2;3", "a")]
)
def test_a_parameter_has_all_numbers_and_no_more(near: str, within: str) -> None:
    assert problem_of(lambda: read_near_parameter(near)).field == "near"
    assert problem_of(lambda: read_within_parameter(within)).field == "within"


@pytest.mark.parametrize(
    "document",
    [
        polygon(SQUARE, HOLE),
        polygon(SQUARE[::-1], HOLE),
        polygon(SQUARE, HOLE[::-1]),
        polygon([[*one, 17.5] for one in SQUARE], HOLE, bbox=[0, 0, 10, 10], crs={"a": [1, {"b:": ":"}]}),
        polygon([[float(x), y] for x, y in SQUARE], HOLE),
        feature(polygon(SQUARE, HOLE)),
        {"type": "FeatureCollection", "features": [feature(polygon(SQUARE, HOLE))]},
        {"type": "FeatureCollection", "features": [feature(polygon(FAR)), feature(polygon(SQUARE, HOLE))]},
        {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [FAR]]},
        feature({"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE]]}),
        b"\xef\xbb\xbf" + json.dumps(polygon(SQUARE, HOLE)).encode(),
        json.dumps(polygon(SQUARE, HOLE)).replace("type", "\\u0074ype").encode(),
    ],
    ids=lambda _: "",
)
def test_a_polygon_is_what_was_drawn_in_any_document_that_has_it(document: object) -> None:
    for area in (
        read(document),
        read_within(document if isinstance(document, bytes) else json.dumps(document).encode()),
    ):
        list(area.check())
        assert [area.contains(*one) for one in ((1, 1), (9, 9), (5, 5), (11, 5), (-1, 5))] == [
            *(True, True, False, False, False)
        ]
    parameter = json.dumps(document) if not isinstance(document, bytes) else document.decode("utf-8-sig")
    assert read_within_parameter(parameter).contains(1, 1)


def test_a_ring_over_the_date_line_is_the_short_way_round() -> None:
    area = read(polygon([[179, -1], [-179, -1], [-179, 1], [179, 1], [179, -1]]))
    assert area.contains(0, 180)
    assert area.contains(0, -179.5)
    assert not area.contains(0, 0)


def test_a_polygon_that_crosses_itself_is_refused_by_its_check_with_the_place() -> None:
    area = read(polygon([[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]))
    with pytest.raises(Misdrawn, match=r"cross at \[1, 1\]"):
        list(area.check())


@pytest.mark.parametrize(
    ("document", "kind", "field"),
    [
        *(
            (b"", JSON, ""),
            (b"{", JSON, ""),
            (b"[]", MEANING, ""),
            (b"7", MEANING, ""),
            (b"null", MEANING, ""),
        ),
        (b"{}", MEANING, "type"),
        ({"type": "Polygon"}, MEANING, "coordinates"),
        ({"type": 7, "coordinates": [SQUARE]}, MEANING, "type"),
        ({"type": "polygon", "coordinates": [SQUARE]}, MEANING, "type"),
        ({"type": "Point", "coordinates": [1, 2]}, MEANING, "type"),
        ({"type": "GeometryCollection", "geometries": [polygon(SQUARE)]}, MEANING, "type"),
        ({"type": "Feature"}, MEANING, "geometry"),
        (feature(None), MEANING, ""),
        (feature(feature(polygon(SQUARE))), MEANING, "type"),
        ({"type": "FeatureCollection", "features": [polygon(SQUARE)]}, MEANING, "type"),
        ({"type": "FeatureCollection", "features": {}}, MEANING, ""),
        ({"type": "FeatureCollection", "features": [7]}, MEANING, ""),
        ({"type": "FeatureCollection", "features": []}, MEANING, "coordinates"),
        (polygon(), MEANING, "coordinates"),
        (polygon([]), MEANING, "coordinates"),
        (polygon([[0, 0], [1, 1], [0, 0]]), MEANING, "coordinates"),
        (polygon(SQUARE[:-1]), MEANING, "coordinates"),
        (polygon([[0, 0], [181, 0], [1, 1], [0, 0]]), MEANING, "coordinates"),
        (polygon([[0, 0], [0, 91], [1, 1], [0, 0]]), MEANING, "coordinates"),
        (polygon([[0, 0], [1, 0], [1], [0, 0]]), MEANING, "coordinates[0][2]"),
        (polygon(SQUARE, [[1, "2"]]), MEANING, "coordinates[1][0][1]"),
        ({"type": "MultiPolygon", "coordinates": [SQUARE]}, MEANING, "coordinates[0][0][0]"),
        ({"type": "Polygon", "coordinates": {"0": 1}}, MEANING, "coordinates"),
        (b'{"type":"Polygon","coordinates":[[[1e999,0]]]}', MEANING, "coordinates[0][0][0]"),
        (b'{"type":"Polygon","coordinates":[[[NaN,0]]]}', JSON, ""),
        (b'{"type":"Polygon","coordinates":[[[-Infinity,0]]]}', JSON, ""),
        (
            b'{"type":"Polygon","coordinates":[[[%b,0],[1,1],[2,2],[0,0]]]}' % (b"9" * 200),
            MEANING,
            "coordinates",
        ),
        (b'{"type":"Polygon","coordinates":%b' % (b"[" * 100_000), JSON, ""),
        (b'{"type":"Polygon","x":%b%b}' % (b"[" * 1_000_000, b"]" * 1_000_000), JSON, ""),
        (b'{"type":"Polygon","type":"Polygon","coordinates":[]}', JSON, ""),
        (b'{"type":"Polygon","coordinates":[],"coordinates":[]}', JSON, ""),
        (b'{"type":"Feature","geometry":{"type":"Polygon","type":"Polygon"}}', JSON, ""),
        (polygon([[x / 1_000, x % 2] for x in range(1_001)]), MEANING, "coordinates"),
        (polygon([[0] * (MOST_AREA_COMMAS + 1)]), LARGE, ""),
    ],
    ids=lambda one: str(one)[:60],
)
def test_what_is_no_area_is_a_problem(document: object, kind: Kind, field: str) -> None:
    problem = problem_of(lambda: read(document))
    assert (problem.kind, problem.field) == (kind, field)


def test_an_area_is_told_why_it_is_none() -> None:
    problem = problem_of(lambda: read(polygon(SQUARE[:-1])))
    assert problem.detail == "This is no area: a ring ends where it begins, not at [0, 10]."


_VALUES = st.recursive(
    st.none() | st.floats() | st.integers() | st.sampled_from(["Polygon", "Feature", "MultiPolygon", ""]),
    lambda one: (
        st.lists(one, max_size=5)
        | st.dictionaries(st.sampled_from(["type", "coordinates", "geometry", "features", "west"]), one)
    ),
    max_leaves=20,
)


@given(_VALUES | st.binary())
def test_any_document_is_an_area_or_a_problem(document: object) -> None:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    for reader in (read_within, read_near, read_geojson):
        try:
            area = reader(data)
            list(area.check())
        except (Problem, Misdrawn):
            pass
