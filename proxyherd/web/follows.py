"""To follow clients or an area: messages of a WebSocket and queries of streams become commands, and replies become answers.

    {"op": "follow", "id": 2, "client": "kiwi"}                       or ["kiwi", "plum"]
    {"op": "follow", "id": 2, "near": {"lat": 34.07, "lon": -118.45, "radius_km": 2}, "buffer_m": 50}
    {"op": "follow", "id": 2, "within": {"west": -118.5, "south": 34, "east": -118.4, "north": 34.1}}     or GeoJSON
    {"id": 2, "following": {"clients": 0, "areas": 1}, "complete": true, "server": "Clark"}

    {"op": "unfollow", "id": 3, "follow": 2}
    {"id": 3, "following": {"clients": 0, "areas": 0}, "server": "Clark"}

    GET /v1/events?client=kiwi&client=plum
    GET /v1/events?near=34.07,-118.45,2&buffer_m=50
    GET /v1/events?within=-118.5,34,-118.4,34.1

A follow is named by the `id` of its message. `events` has what comes then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from proxyherd.core.follows.follow import Follow, FollowReply, Unfollow
from proxyherd.core.follows.follower import MOST_CLIENTS, Follower
from proxyherd.core.reply import Reply
from proxyherd.core.spatial.areas import Area
from proxyherd.web.answers import EVENT_STREAM, WebAnswer
from proxyherd.web.areas import (
    misdrawn_problem,
    read_near,
    read_near_parameter,
    read_within,
    read_within_parameter,
)
from proxyherd.web.documents import DocumentReader, ObjectReader, number_text, string_text
from proxyherd.web.exchanges import WebExchange
from proxyherd.web.ids import id_of, text_of
from proxyherd.web.problems import (
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
from proxyherd.web.queries import split_query
from proxyherd.web.rights import Grant, permitted

STREAM: Final = "stream"
"""How streams of events, and their commands, are called in the log and the metrics."""

MOST_BUFFER_M: Final = 10_000

_WHAT: Final = ("client", "near", "within")
_PARAMETERS: Final = (*_WHAT, "buffer_m")
_FOLLOW_OP: Final = ObjectReader(("op",), ("id", *_PARAMETERS))
_UNFOLLOW_OP: Final = ObjectReader(("op", "follow"), ("id",))
_NAMES: Final = DocumentReader(list[Raw], "A name, or an array of names, belongs here.")
_NULL: Final = b"null"

_NO_CHANGES: Final = (
    "With the engine redis, a server does not hear of all changes. Ask now and then, as in GET /v1/clients/{id}; or follow at "
    "servers with the engine herd, to which proxyherd bridge brings the clients."
)
_STREAM_HEADERS: Final = (("X-Accel-Buffering", "no"),)
"""Proxies must not keep events back; nginx asks for this."""

_metres = re.compile(rb"[0-9]{1,5}+(?:\.[0-9]{1,9}+)?").fullmatch


class StreamAnswer(WebAnswer, frozen=True, kw_only=True):
    """The head of a stream of events. `grant`: what the token of its request grants, None if none is needed."""

    follower: Follower
    grant: Grant | None


class FollowOp(Struct, frozen=True):
    """What an op asks. `server`: the name of the one that answers."""

    command: Follow | Unfollow
    server: str

    def answer(self, reply: Reply) -> bytes:
        """Return what is followed now, as JSON. Raises Problem."""
        _check_followed(reply)
        follower = self.command.follower
        content: dict[str, object] = {
            "following": {"clients": len(follower.clients), "areas": len(follower.areas)}
        }
        if isinstance(self.command, Follow) and isinstance(reply, FollowReply):
            content["complete"] = reply.complete
        return msgspec.json.encode({**content, "server": self.server})


class StreamRequest(Struct, frozen=True):
    """What a request wants to follow. `grant`: as above."""

    clients: tuple[bytes, ...]
    area: Area | None
    buffer_m: float
    grant: Grant | None = None

    def exchange(self, follower: Follower) -> WebExchange:
        """Return the exchange by which the stream begins."""
        follow = Follow(follower, b"", self.clients, self.area, self.buffer_m)

        def finish(replies: Sequence[Reply]) -> WebAnswer:
            _check_followed(replies[0])
            return StreamAnswer(200, b"", EVENT_STREAM, _STREAM_HEADERS, follower=follower, grant=self.grant)

        lines = [follow] if self.grant is None else permitted([follow], self.grant)
        return WebExchange(STREAM, lines, finish, grant=self.grant)


def read_follow_op(message: bytes, name: bytes, follower: Follower, server: str) -> FollowOp:
    """Return what the op `follow` asks. `name`: the JSON of its ID. Raises Problem."""
    client, near, within, buffer = _FOLLOW_OP.read_object(message)[2:]
    _check_one(MEANING, {"client": client, "near": near, "within": within})
    if client:
        _check_no_buffer(MEANING, buffer)
        return FollowOp(Follow(follower, _name(name), _clients(client)), server)
    if name == _NULL:
        raise Problem(MEANING, "A follow of an area needs an id, by which its events name it.", "id")
    area = read_near(near) if near else read_within(within)
    metres = _buffer_m(MEANING, number_text(buffer, "buffer_m") if buffer else b"0")
    return FollowOp(Follow(follower, name, (), area, metres), server)


def read_unfollow_op(message: bytes, _: bytes, follower: Follower, server: str) -> FollowOp:
    """Return what the op `unfollow` asks. Raises Problem."""
    name = _UNFOLLOW_OP.read_object(message)[1]
    if name != _NULL:
        number_text(name, "follow")
    return FollowOp(Unfollow(follower, _name(name)), server)


def read_stream_query(query: str) -> StreamRequest:
    """Return what `GET /v1/events` asks. Raises Problem."""
    found = split_query(query)
    if not {name for name, _ in found} <= {*_PARAMETERS}:
        raise Problem(QUERY, f"The parameters here are {', '.join(_PARAMETERS)}.")
    clients = tuple(dict.fromkeys(id_of(text_of(_bytes(text))) for name, text in found if name == "client"))
    others = [(name, text) for name, text in found if name != "client"]
    values = dict(others)
    if len(values) < len(others):
        raise Problem(QUERY, "Only client may occur more than once.")
    _check_one(QUERY, {"client": clients, "near": "near" in values, "within": "within" in values})
    buffer = values.get("buffer_m")
    if clients:
        _check_no_buffer(QUERY, buffer)
        return StreamRequest(clients, None, 0.0)
    near = "near" in values
    area = read_near_parameter(values["near"]) if near else read_within_parameter(values["within"])
    return StreamRequest((), area, _buffer_m(QUERY, b"0" if buffer is None else _bytes(buffer)))


def _check_one(kind: Kind, given: dict[str, object]) -> None:
    """Check that one thing is to be followed. Raises Problem."""
    if sum(map(bool, given.values())) != 1:
        raise Problem(kind, f"One of {', '.join(given)} belongs here, and no other of them.")


def _check_no_buffer(kind: Kind, buffer: object) -> None:
    """Check that there is no buffer around a client. Raises Problem."""
    if buffer:
        raise Problem(kind, "Only areas have a buffer.", "buffer_m")


def _buffer_m(kind: Kind, text: bytes) -> float:
    """Return the metres of a buffer. Raises Problem."""
    if _metres(text) is None or float(text) > MOST_BUFFER_M:
        raise Problem(kind, f"Metres from 0 to {MOST_BUFFER_M:,} belong here.", "buffer_m")
    return float(text)


def _clients(value: bytes) -> tuple[bytes, ...]:
    """Return the IDs of a name, or of an array of names. Raises Problem."""
    names = [value] if value[:1] == b'"' else [*map(bytes, _NAMES.decode(value))]
    if not names:
        raise Problem(MEANING, "At least one name belongs here.", "client")
    if len(names) > MOST_CLIENTS:
        raise Problem(
            LARGE, f"At most {MOST_CLIENTS:,} clients can be followed over one connection.", "client"
        )
    return tuple(dict.fromkeys(id_of(string_text(one, "client")) for one in names))


def _name(name: bytes) -> bytes:
    return b"" if name == _NULL else name


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _check_followed(reply: Reply) -> None:
    """Check that a command was carried out. Raises Problem."""
    if reply.outcome == "denied":
        raise Problem(RIGHT, "This token may not see clients.")
    if reply.refusal == "no_index":
        raise Problem(ENGINE, _NO_CHANGES)
    text = reply.text if isinstance(reply, FollowReply) else ""
    if isinstance(reply, FollowReply) and reply.is_taken:
        raise Problem(MEANING, "Another follow of this connection has this id.", "id")
    if reply.outcome == "invalid":
        raise misdrawn_problem(text)
    if reply.outcome == "unknown":
        raise Problem(UNKNOWN, "This connection has no follow of this name, or it has ended.", "follow")
    if text:
        raise Problem(LARGE, text)
    if reply.outcome not in ("following", "unfollowed"):
        raise Problem(
            NOT_TAKEN,
            "This server cannot follow that now, or follows as many areas as it can. Ask another one, or wait.",
        )
