"""The OpenAPI document says what the code does; tests with real servers hold it to every answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_talk import no_follower

from proxyherd.core.area_queries import AreaReply
from proxyherd.core.messages import Entry, parse_question
from proxyherd.core.reply import Reply
from proxyherd.core.spatial.search import FoundClient, SearchResult
from proxyherd.web.erasures import erase_answer
from proxyherd.web.lines import LineWriter
from proxyherd.web.locations import latitude, longitude
from proxyherd.web.nearby import read_near_query, read_within_query
from proxyherd.web.openapi import openapi_document
from proxyherd.web.ops import read_op
from proxyherd.web.problems import JSON, KINDS, Problem
from proxyherd.web.queries import locate_answer
from proxyherd.web.reports import batch_answer, read_batch, report_answer
from proxyherd.web.times import posix_or_rfc3339
from proxyherd.web.trackers.apps import APPS

DOCUMENT: Final = json.loads(openapi_document())
SCHEMAS: Final = DOCUMENT["components"]["schemas"]
AT: Final = b"AT Clark -0.263873386 kiwi +34.068930-118.445127 1621464827.959498503"
STALE: Final = Reply("iamat", "stale", AT)


ALL_PARAMETERS: Final = [
    "client",
    "lat",
    "lon",
    "radius_km",
    "west",
    "south",
    "east",
    "north",
    "limit",
    "max_age_s",
    "after",
]


def parts(value: object) -> Iterator[tuple[str, Any]]:
    """Yield all keys of the document, with their values."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(inner)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        yield from ((path, method, item[method]) for method in item if method != "parameters")


def test_every_reference_leads_to_a_schema_and_every_schema_is_used() -> None:
    references = {value for key, value in parts(DOCUMENT) if key == "$ref"}
    assert references == {f"#/components/schemas/{name}" for name in SCHEMAS}


def test_the_problems_are_those_of_the_closed_list() -> None:
    assert SCHEMAS["Problem"]["properties"]["type"]["enum"] == [kind.type for kind in KINDS]
    for problem in (Problem(JSON, "x"), Problem(JSON, "x", "lat")):
        fits(json.loads(problem.document()), "Problem")


def test_every_operation_has_a_name_and_says_what_goes_wrong() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len({*names}) == len(names)
    for _, _, operation in operations():
        assert operation["responses"].keys() in [{success, "4XX", "5XX"} for success in ("101", "200", "202")]
    for path, item in DOCUMENT["paths"].items():
        named = {one["name"] for one in item.get("parameters", []) if one["in"] == "path"}
        assert named == {*re.findall(r"\{(.*?)\}", path)}


def test_every_app_has_its_path_methods_and_answer() -> None:
    for app in APPS:
        item = DOCUMENT["paths"][f"/{app.name}"]
        assert item.keys() == {method.lower() for method in app.methods}
        for operation in item.values():
            content = operation["responses"]["200"].get("content")
            assert content is None or app.media_type in content
            assert (content is None) == (app.answer == b"")


def fits(value: dict[str, Any], name: str) -> None:
    """Check an answer against a schema: its keys, and the texts that have a pattern."""
    schema = SCHEMAS[name]
    assert {*schema["required"]} <= value.keys() <= schema["properties"].keys()
    for key, said in value.items():
        expected = schema["properties"][key]
        if "enum" in expected:
            assert said in expected["enum"]
        else:
            assert isinstance(
                said, {"string": str, "integer": int, "number": float, "boolean": bool}[expected["type"]]
            )
        assert "pattern" not in expected or re.search(expected["pattern"], said)


def test_the_answers_are_as_they_are_described() -> None:
    fits(json.loads(report_answer(STALE)), "Reported")
    for outcome in ("erased", "stayed"):
        fits(json.loads(erase_answer(Reply("forget", outcome, b"GONE %b 7" % (b"0" * 32)))), "Erased")
    fits(json.loads(batch_answer([b"x"], [STALE]))[0], "ReportedInBatch")
    fits(
        json.loads(locate_answer(Reply("whatsat", "answered", AT + b"\n{}\n", entry=Entry(AT, 0)))),
        "Location",
    )


def test_the_required_and_the_known_keys_of_a_report_are_those_that_are_read() -> None:
    writer, report = LineWriter(8_192), {"client": "a", "lat": 1, "lon": 2, "time": 3}
    assert SCHEMAS["Report"]["properties"].keys() == report.keys()
    assert SCHEMAS["Position"]["properties"].keys() == report.keys() - {"client"}
    for name in report:
        without = {key: value for key, value in report.items() if key != name}
        (found,) = read_batch(json.dumps([without]).encode(), 0, writer, ndjson=False)
        assert isinstance(found, Problem) == (name in SCHEMAS["Report"]["required"])
    message = json.dumps(report | {"op": "report"}).encode()
    assert read_op(message, 0, writer, "Clark", no_follower).line == b"IAMAT a +1+2 3"


def test_what_is_found_in_areas_is_as_it_is_described() -> None:
    found = [FoundClient(b"kiwi", Entry(AT, 0), 0.0)]
    for place in (None, (0.5, b"kiwi")):
        reply = AreaReply("near", "answered", b"", result=SearchResult(found, place))
        asked = read_near_query("client=kiwi", 0, "Clark")
        clients, collection = json.loads(asked.answer(reply)), json.loads(asked.collection(reply))
        for name, listed, one_name, document in (
            ("FoundClients", "clients", "Found", clients),
            ("FoundFeatures", "features", "FoundFeature", collection),
        ):
            schema = SCHEMAS[name]
            assert {*schema["required"]} <= document.keys() <= schema["properties"].keys()
            assert ("next" in document) == (place is not None)
            (one,) = document[listed]
            assert one.keys() == SCHEMAS[one_name]["properties"].keys()
        assert (
            one["geometry"].keys() == SCHEMAS["FoundFeature"]["properties"]["geometry"]["properties"].keys()
        )
        assert (
            one["properties"].keys()
            == SCHEMAS["FoundFeature"]["properties"]["properties"]["properties"].keys()
        )
        fits(clients["clients"][0], "Found")


def test_the_parameters_of_areas_are_those_that_are_read() -> None:
    readers: dict[tuple[str, str], Callable[[str], object]] = {
        ("/v1/near", "get"): lambda query: read_near_query(query, 0, ""),
        ("/v1/within", "get"): lambda query: read_within_query(query, None, 0, ""),
        ("/v1/within", "post"): lambda query: read_within_query(query, b"", 0, ""),
    }
    for (path, method), read in readers.items():
        for name in (*ALL_PARAMETERS, "unknown"):
            with pytest.raises(Problem) as raised:
                read(f"{name}=\0&{name}=\0")
            known = raised.value.detail == "A parameter occurs once."
            named = {one["name"] for one in DOCUMENT["paths"][path][method]["parameters"]}
            assert known == (name in named), (path, method, name)


READERS: Final[dict[str, Callable[[bytes], object]]] = {
    "lat": latitude,
    "lon": longitude,
    "time": posix_or_rfc3339,
    "radius_km": lambda text: parse_question(b"WHATSAT a %b 1" % text),
}
RADIUS: Final = next(
    one["schema"]
    for one in DOCUMENT["paths"]["/v1/clients/{id}/places"]["get"]["parameters"]
    if one["name"] == "radius_km"
)


def pattern(name: str) -> str:
    found: str = (RADIUS if name == "radius_km" else SCHEMAS["Position"]["properties"][name]["anyOf"][1])[
        "pattern"
    ]
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_what_fits_a_pattern_is_read(name: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(pattern(name), fullmatch=True, alphabet=st.characters(codec="ascii")))
    if name != "radius_km" or len(text) <= RADIUS["maxLength"]:
        assert READERS[name](text.encode()) is not None


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("lat", ["34.06893", "-0", "+05.50", "90", "90.000", "-1.5e-7"]),
        ("lon", ["34.06893", "-0", "+005.50", "180", "-180.0", "1E-06"]),
        ("time", ["0", "1621464827.959498503"]),
        ("radius_km", ["0", "007.5", "50.0", "49.99999999999999999"]),
    ],
)
def test_a_pattern_takes_what_is_read(name: str, texts: list[str]) -> None:
    assert all(re.search(pattern(name), text) and READERS[name](text.encode()) for text in texts)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "text", ["", "1.", "1e3", "10e-1", "1e-100", "NaN", "34,5", "180.1", "9999999999999", "-"]
)
def test_a_pattern_takes_nothing_that_is_not_read(name: str, text: str) -> None:
    assert READERS[name](text.encode()) is not None or not re.search(pattern(name), text)
