"""What messages and queries want to follow, and what is answered to them."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from msgspec.structs import replace
from web_talk import no_follower

from proxyherd.core.follows.follow import Follow, FollowReply, Unfollow
from proxyherd.core.follows.follower import MOST_CLIENTS
from proxyherd.core.framing import Denied
from proxyherd.core.reply import Reply
from proxyherd.core.spatial.areas import Box, Circle
from proxyherd.core.spatial.polygons import Polygon
from proxyherd.web.answers import EVENT_STREAM
from proxyherd.web.follows import StreamAnswer, read_stream_query
from proxyherd.web.lines import LineWriter
from proxyherd.web.ops import Op, read_op
from proxyherd.web.problems import (
    CLIENT,
    DEGREES,
    ENGINE,
    LARGE,
    MEANING,
    NOT_TAKEN,
    QUERY,
    RIGHT,
    UNKNOWN,
    Kind,
    Problem,
)
from proxyherd.web.rights import Grant

FOLLOWER = no_follower()
NEAR = {"lat": "34.07", "lon": -118.45, "radius_km": 2}
BOX = {"west": 179, "south": -1, "east": -179, "north": 1}
RING = [[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]
GEOJSON = {"type": "Feature", "properties": None, "geometry": {"type": "Polygon", "coordinates": [RING]}}
BAD_METRES: list[object] = [-1, 1e-7, 10_001, "x", []]
FOLLOWED = FollowReply("follow", "following", b"", complete=True)


def read(message: object) -> Op:
    return read_op(json.dumps(message).encode(), 0, LineWriter(8_192), "Clark", lambda: FOLLOWER)


def follow(**fields: object) -> Follow:
    line = read({"op": "follow", "id": 2} | fields).line
    assert isinstance(line, Follow)
    assert line.follower is FOLLOWER
    return line


def test_clients_are_followed_by_their_names() -> None:
    one = follow(client="my phone")
    assert (one.clients, one.area, one.name, one.sees) == ((b"my%20phone",), None, b"2", None)
    assert follow(client=["a", "b", "a"]).clients == (b"a", b"b")
    assert follow(client="a", id=None).name == b""
    assert follow(client="a", id="x").name == b'"x"'


def test_areas_are_circles_boxes_and_polygons_perhaps_with_a_buffer() -> None:
    near = follow(near=NEAR, buffer_m="12.5")
    assert (near.area, near.buffer_m, near.clients, near.name) == (
        Circle(34.07, -118.45, 2_000.0),
        12.5,
        (),
        b"2",
    )
    assert (follow(within=BOX).area, follow(within=BOX).buffer_m) == (Box(179.0, -1.0, -179.0, 1.0), 0.0)
    polygon = follow(within=GEOJSON).area
    assert isinstance(polygon, Polygon)
    assert polygon.contains(1.0, 1.0)
    assert not polygon.contains(1.0, 3.0)


def test_a_follow_is_ended_by_its_id() -> None:
    for id_, name in ((2, b"2"), ("a", b'"a"'), (None, b"")):
        line = read({"op": "unfollow", "id": 3, "follow": id_}).line
        assert isinstance(line, Unfollow)
        assert (line.follower, line.name) == (FOLLOWER, name)


@pytest.mark.parametrize(
    ("fields", "kind", "field"),
    [
        *(
            ({}, MEANING, ""),
            ({"client": "a", "near": NEAR}, MEANING, ""),
            ({"near": NEAR, "within": BOX}, MEANING, ""),
        ),
        *(
            ({"client": 7}, MEANING, ""),
            ({"client": []}, MEANING, "client"),
            ({"client": ["a", 7]}, MEANING, "client"),
        ),
        *(
            ({"client": ""}, CLIENT, "client"),
            ({"client": [str(n) for n in range(MOST_CLIENTS + 1)]}, LARGE, "client"),
        ),
        *(({"client": "a", "buffer_m": 1}, MEANING, "buffer_m"), ({"near": NEAR, "id": None}, MEANING, "id")),
        *(
            ({"near": NEAR | {"lat": 91}}, DEGREES, "lat"),
            ({"near": NEAR | {"radius_km": 51}}, QUERY, "radius_km"),
        ),
        *(({"within": {"west": 1}}, MEANING, "south"), ({"within": BOX | {"south": 2}}, QUERY, "south")),
        *(({"near": NEAR, "buffer_m": metres}, MEANING, "buffer_m") for metres in BAD_METRES),
        *(({"client": "a", "fly": 1}, MEANING, ""), ({"op": "unfollow"}, MEANING, "follow")),
        ({"op": "unfollow", "follow": {}}, MEANING, "follow"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_what_cannot_be_followed_is_a_problem(fields: dict[str, object], kind: Kind, field: str) -> None:
    answer = json.loads(read({"op": "follow", "id": 2} | fields).content(None))
    assert (answer["problem"]["type"], answer["problem"].get("field", "")) == (kind.type, field)


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        *(
            ("client=my%20phone", {"client": "my phone"}),
            ("client=a&client=b&client=a", {"client": ["a", "b"]}),
        ),
        ("near=34.07,-118.45,2&buffer_m=12.5", {"near": NEAR, "buffer_m": 12.5}),
        ("within=179,-1,-179,1", {"within": BOX}),
        ("within=" + quote(json.dumps(GEOJSON)), {"within": GEOJSON}),
    ],
)
def test_a_stream_follows_what_a_message_would(query: str, fields: dict[str, object]) -> None:
    wanted, other = read_stream_query(query), follow(**fields)
    assert (wanted.clients, wanted.buffer_m) == (other.clients, other.buffer_m)
    assert (wanted.area is None) == (other.area is None)
    assert wanted.area is None or other.area is None or wanted.area.bounds == other.area.bounds
    (line,) = wanted.exchange(FOLLOWER).lines
    assert isinstance(line, Follow)
    assert (line.follower, line.name, line.clients, line.area) == (FOLLOWER, b"", wanted.clients, wanted.area)


@pytest.mark.parametrize(
    ("query", "kind", "field"),
    [
        *(("", QUERY, ""), ("client=a&near=1,2,3", QUERY, ""), ("near=1,2,3&near=1,2,3", QUERY, "")),
        *(
            ("client=", CLIENT, "client"),
            ("client=a&buffer_m=1", QUERY, "buffer_m"),
            ("near=1,2,3&buffer_m=", QUERY, "buffer_m"),
        ),
        *(("near=1,2", QUERY, "near"), ("near=1,2,3&limit=1", QUERY, ""), ("within=1,2,3", QUERY, "within")),
        ("&".join(f"client={number}" for number in range(65)), QUERY, ""),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else value.name,
)
def test_a_query_that_cannot_be_followed_is_a_problem(query: str, kind: Kind, field: str) -> None:
    with pytest.raises(Problem) as problem:
        read_stream_query(query)
    assert (problem.value.kind, problem.value.field) == (kind, field)


def test_an_answer_says_how_much_is_followed_now_and_whether_the_snapshot_has_all() -> None:
    FOLLOWER.clients.update({b"a": frozenset({b"2"}), b"b": frozenset({b"2"})})
    try:
        for complete, spelled in ((True, b"true"), (False, b"false")):
            reply = FollowReply("follow", "following", b"", complete=complete)
            assert read({"op": "follow", "id": 2, "client": ["a", "b"]}).content(reply) == (
                b'{"id":2,"following":{"clients":2,"areas":0},"complete":%b,"server":"Clark"}' % spelled
            )
        ended = read({"op": "unfollow", "id": 3, "follow": 1}).content(
            FollowReply("unfollow", "unfollowed", b"")
        )
        assert ended == b'{"id":3,"following":{"clients":2,"areas":0},"server":"Clark"}'
    finally:
        FOLLOWER.clients.clear()


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply("follow", "denied", b"? follow"), RIGHT, "token"),
        (FollowReply("follow", "refused", b"", refusal="no_index"), ENGINE, "redis"),
        (FollowReply("follow", "refused", b"", refusal="full", text="at most 16"), LARGE, "at most 16"),
        (FollowReply("follow", "invalid", b"", text="edges cross"), MEANING, "This is no area: edges cross."),
        (FollowReply("follow", "invalid", b"", is_taken=True, text="taken"), MEANING, "Another follow"),
        (FollowReply("unfollow", "unknown", b""), UNKNOWN, "no follow"),
        (Reply("follow", "unanswered"), NOT_TAKEN, ""),
        (FollowReply("follow", "refused", b"", refusal="full"), NOT_TAKEN, "Ask another one"),
    ],
)
def test_a_follow_that_is_refused_is_answered_by_a_problem(reply: Reply, kind: Kind, text: str) -> None:
    answer = json.loads(read({"op": "follow", "id": 2, "near": NEAR}).content(reply))
    assert answer["problem"]["type"] == kind.type
    assert text in answer["problem"]["detail"]
    with pytest.raises(Problem) as problem:
        read_stream_query("client=a").exchange(FOLLOWER).finish([reply])
    assert problem.value.kind is kind


def test_a_stream_is_told_whom_its_token_may_see() -> None:
    sees = Grant("jane", frozenset({"see"}), ("jane", "bus*"), 0, 0, 0, "k")
    wanted = read_stream_query("near=1,2,3")
    (line,) = replace(wanted, grant=sees).exchange(FOLLOWER).lines
    assert isinstance(line, Follow)
    assert line.sees is not None
    assert [line.sees(one) for one in (b"jane", b"bus%207", b"bob")] == [True, True, False]
    exchange = replace(wanted, grant=replace(sees, may=frozenset({"report"}))).exchange(FOLLOWER)
    assert [type(one) for one in exchange.lines] == [Denied]
    answer = replace(wanted, grant=sees).exchange(FOLLOWER).finish([FOLLOWED])
    assert isinstance(answer, StreamAnswer)
    assert (answer.status, answer.content_type, answer.follower, answer.grant) == (
        200,
        EVENT_STREAM,
        FOLLOWER,
        sees,
    )
