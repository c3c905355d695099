"""A message of the subprotocol `proxyherd.json.v1` asks one thing, and is answered with its own id."""

from __future__ import annotations

import json

import pytest
from area_answers import answer_area
from hypothesis import given
from hypothesis import strategies as st
from web_talk import no_follower
from worlds import ClientWorld

from proxyherd.config.schema import Limits
from proxyherd.core.area_queries import AreaQuery
from proxyherd.core.messages import Entry, Report, parse_question, parse_report
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules
from proxyherd.core.spatial.areas import Box, Circle
from proxyherd.web.lines import LineWriter
from proxyherd.web.ops import MESSAGE_BYTES, Op, read_op
from proxyherd.web.problems import CLIENT, DEGREES, JSON, MEANING, NOT_TAKEN, QUERY, UNKNOWN, Kind

CLOCK = 1_621_464_828_223_371_889
WRITER = LineWriter(8_192)
AT = b"AT Clark +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503"


def read(message: object) -> Op:
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return read_op(data, CLOCK, WRITER, "Clark", no_follower)


def test_a_report_is_that_of_the_line_protocol() -> None:
    op = read(
        b'{"op":"report","id":7,"client":"kiwi","lat":34.068930,"lon":"-118.445127","time":1621464827.959498503}'
    )
    assert op.line == b"IAMAT kiwi +34.068930-118.445127 1621464827.959498503"
    (report,), _ = Rules("Clark", Limits()).judge([op.line], CLOCK)
    assert isinstance(report, Report)
    assert json.loads(op.content(Reply("iamat", "stored", report.line))) == {
        "id": 7,
        "outcome": "stored",
        "at": AT.decode(),
        "server": "Clark",
        "difference": "+0.263873386",
    }


def test_without_a_time_a_report_is_of_now() -> None:
    assert (
        read({"op": "report", "client": "a", "lat": 1, "lon": 2}).line == b"IAMAT a +1+2 1621464828.223371889"
    )


def test_a_client_is_located() -> None:
    op = read({"op": "locate", "id": "a", "client": "kiwi"})
    assert op.line == b"WHATSAT kiwi 0 0"
    answer = json.loads(op.content(Reply("whatsat", "answered", AT + b"\n{}\n", entry=Entry(AT, 0))))
    assert (answer["id"], answer["client"], answer["at"]) == ("a", "kiwi", AT.decode())


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        *(({}, "WHATSAT kiwi 10 20"), ({"radius_km": 1.5, "limit": 3}, "WHATSAT kiwi 1.5 3")),
        *(({"radius_km": "05.0", "limit": "3"}, "WHATSAT kiwi 05.0 3"), ({"limit": 0}, "WHATSAT kiwi 10 0")),
    ],
)
def test_places_are_googles_own_json(fields: dict[str, object], line: str) -> None:
    op = read({"op": "places", "client": "kiwi"} | fields)
    assert op.line == line.encode()
    google = b'{\n   "results" : [ 1.50 ]\n}'
    answer = op.content(Reply("whatsat", "answered", AT + b"\n" + google + b"\n", entry=Entry(AT, 0)))
    assert answer == b'{"id":null,"at":"%b","places":%b\n}' % (AT, google)
    assert json.loads(answer)["places"] == {"results": [1.5]}


@pytest.mark.parametrize(
    ("message", "kind", "field"),
    [
        *(
            (b"", JSON, ""),
            (b"[]", MEANING, ""),
            (b"7", MEANING, ""),
            (b"{", JSON, ""),
            (b"{}", MEANING, "op"),
        ),
        *(({"op": name}, MEANING, "op") for name in ("nearby", "Report", "", 7, None)),
        *(({"op": "locate"}, MEANING, "client"), ({"op": "locate", "client": ""}, CLIENT, "client")),
        *(
            ({"op": "locate", "client": 7}, MEANING, "client"),
            ({"op": "locate", "client": "a", "lat": 1}, MEANING, ""),
        ),
        *(
            ({"op": "report", "client": "a", "lat": 91, "lon": 1}, DEGREES, "lat"),
            ({"op": "report", "client": "a", "lat": 1}, MEANING, "lon"),
        ),
        *(
            ({"op": "places", "client": "a", "limit": 21}, QUERY, "limit"),
            ({"op": "places", "client": "a", "radius_km": []}, MEANING, "radius_km"),
        ),
        *(
            ({"op": "near"}, QUERY, "lat"),
            ({"op": "near", "client": "a", "lat": 1, "lon": 1}, QUERY, "client"),
            ({"op": "near", "client": 7}, MEANING, "client"),
            ({"op": "near", "lat": 1e2, "lon": 1}, DEGREES, "lat"),
            ({"op": "near", "client": "a", "limit": 0}, QUERY, "limit"),
            ({"op": "near", "client": "a", "west": 1}, MEANING, ""),
            ({"op": "within", "west": 1, "south": 1, "east": 1}, QUERY, "north"),
            ({"op": "within", "within": {"type": "Polygon", "coordinates": []}}, MEANING, "coordinates"),
            ({"op": "within", "within": 7}, MEANING, ""),
            ({"op": "within", "within": {"type": "Polygon"}, "west": 1}, QUERY, "within"),
            (b'{"op":"within","within":{"type":"Polygon","coordinates":%b' % (b"[" * 30_000), JSON, ""),
        ),
        *(
            (b'{"op":"locate","client":"a","client":"b"}', JSON, ""),
            (b'{"op":"locate","op":"locate","client":"b"}', JSON, ""),
        ),
        *(
            ({"op": "locate", "client": "x" * 9_000}, CLIENT, "client"),
            (b'{"op":"locate","client":"\\ud800"}', JSON, ""),
        ),
        (b'{"op":"locate","client":' + b"[" * 30_000, JSON, ""),
    ],
)
def test_what_cannot_be_done_is_answered_by_a_problem(message: object, kind: Kind, field: str) -> None:
    op = read(message)
    assert op.line is None
    answer = json.loads(op.content(None))
    assert answer.keys() == {"id", "problem"}
    assert (answer["id"], answer["problem"]["type"]) == (None, kind.type)
    assert answer["problem"].get("field", "") == field


@pytest.mark.parametrize(
    "spelled",
    ["7", "-0", "1e400", "1.50", '"a\\u0062\\""', "null", '"%s"' % ("x" * 128), '"%s"' % ("\\u0001" * 128)],
)
def test_an_id_comes_back_as_it_was_spelled_also_with_a_problem(spelled: str) -> None:
    for op in ("locate", "fly"):
        message = f'{{"client":"a","op":"{op}","id":{spelled}}}'.encode()
        content = read(message).content(Reply("whatsat", "unknown", b"? x"))
        assert content.startswith(b'{"id":%b,"problem":' % spelled.encode())


@pytest.mark.parametrize(
    "spelled",
    [
        b"[]",
        b"{}",
        b"true",
        b'"%b"' % (b"x" * 129),
        b'"%b"' % (b"\\u00e4" * 65),
        b"1" * 129,
        b'"\xff"',
        b'{"id":{}}',
    ],
)
def test_what_cannot_be_an_id_is_a_problem(spelled: bytes) -> None:
    op = read(b'{"op":"locate","client":"a","id":%b}' % spelled)
    assert op.line is None
    assert json.loads(op.content(None))["id"] is None


@pytest.mark.parametrize(
    ("message", "query"),
    [
        (
            b'{"op":"near","id":5,"lat":34.5,"lon":"-118.25","radius_km":2.0,"limit":3,"max_age_s":1.5}',
            AreaQuery("near", 3, Circle(34.5, -118.25, 2_000.0), received_since=CLOCK - 1_500_000_000),
        ),
        (b'{"op":"near","client":"my kiwi"}', AreaQuery("near", 100, around=b"my%20kiwi", metres=10_000.0)),
        (
            b'{"op":"within","west":179,"south":-1,"east":"-179","north":1,"limit":"7"}',
            AreaQuery("within", 7, Box(179.0, -1.0, -179.0, 1.0)),
        ),
    ],
)
def test_an_area_is_asked_about_with_the_fields_of_a_request(message: bytes, query: AreaQuery) -> None:
    assert read(message).line == query


def test_an_area_may_be_geojson_and_its_answer_is_that_of_a_request() -> None:
    world = ClientWorld(3, clients=50)
    ring = [[-85, -80], [85, -80], [85, 80], [0, 85], [-85, 80], [-85, -80]]
    op = read({"op": "within", "id": "w", "within": {"type": "Polygon", "coordinates": [ring]}, "limit": 5})
    assert isinstance(op.line, AreaQuery)
    answer = json.loads(op.content(answer_area(world.table, op.line)))
    assert (answer["id"], answer["server"], answer["complete"]) == ("w", "Clark", True)
    assert op.line.area is not None
    expected = [client.decode() for _, client in world.all_in(op.line.area)][:5]
    assert [one["client"] for one in answer["clients"]] == expected
    op = read({"op": "within", "within": {"type": "Polygon", "coordinates": [ring]}, "after": answer["next"]})
    assert isinstance(op.line, AreaQuery)
    assert op.line.after[1].decode() == expected[-1]


def test_a_reply_that_is_no_answer_is_a_problem() -> None:
    locate, report = (
        read({"op": "locate", "client": "a"}),
        read({"op": "report", "client": "a", "lat": 1, "lon": 1}),
    )
    for op, reply, kind in (
        (locate, Reply("whatsat", "unknown", b"? x"), UNKNOWN),
        (locate, Reply("whatsat", "unanswered"), NOT_TAKEN),
        (report, Reply("iamat", "refused", b"? x"), NOT_TAKEN),
    ):
        assert json.loads(op.content(reply))["problem"]["status"] == kind.status


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.text() | st.integers(),
        lambda v: st.dictionaries(st.sampled_from(["op", "id", "client", "lat", "lon"]), v),
        max_leaves=8,
    )
)
def test_any_message_is_an_op_or_a_problem(message: object) -> None:
    op = read(message)
    if op.problem is None:
        assert isinstance(op.line, bytes)
        assert parse_report(op.line, b"Clark", CLOCK) or parse_question(op.line)
    else:
        json.loads(op.content(None))


def test_the_longest_line_fits_into_a_message_however_it_is_escaped() -> None:
    client = "\u0001" * (8_192 - len("WHATSAT  0 0"))
    message = json.dumps({"op": "locate", "id": "\u0001" * 128, "client": client}).encode()
    assert len(message) <= MESSAGE_BYTES
    line = read(message).line
    assert isinstance(line, bytes)
    assert len(line) == 8_192
