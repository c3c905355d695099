"""Messages of the WebSocket subprotocol `proxyherd.json.v1`: each is one object, and gets one answer, in order.

    {"op": "report", "id": 7, "client": "kiwi", "lat": 34.06893, "lon": -118.445127, "time": 1621464827.959498503}
    {"id": 7, "outcome": "stored", "at": "AT Clark +0.263873386 kiwi ...", "server": "Clark", "difference": "+0.263873386"}

    {"op": "locate", "id": "a", "client": "kiwi"}
    {"id": "a", "client": "kiwi", "lat": 34.06893, ...}              as `GET /v1/clients/kiwi`

    {"op": "places", "id": null, "client": "kiwi", "radius_km": 10, "limit": 5}
    {"id": null, "at": "AT Clark ...", "places": {...}}              Google's own JSON

    {"op": "near", "id": 5, "lat": 34.07, "lon": -118.45, "radius_km": 2}
    {"id": 5, "clients": [...], "server": "Clark", "complete": true}     as `GET /v1/near`; `within` likewise

    {"op": "follow", "id": 6, "client": "kiwi"}                      `follows` has more
    {"id": 6, "following": {"clients": 1, "areas": 0}, "complete": true, "server": "Clark"}

    {"op": "fly", "id": 9}
    {"id": 9, "problem": {"type": "/v1/#meaning", ...}}

The `id` is a number, a short string or null, and comes back as it was spelled. Without one it is null.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from proxyherd.core.follows.follower import Follower
from proxyherd.core.framing import Line
from proxyherd.core.reply import Reply
from proxyherd.web.documents import DocumentReader, ObjectReader, number_text, string_text
from proxyherd.web.follows import read_follow_op, read_unfollow_op
from proxyherd.web.ids import id_of, text_of
from proxyherd.web.lines import LineWriter
from proxyherd.web.nearby import read_near_op, read_within_op
from proxyherd.web.problems import MEANING, Problem
from proxyherd.web.queries import LIMIT, RADIUS_KM, locate_answer, places_answer
from proxyherd.web.reports import report_answer, report_line

MESSAGE_BYTES: Final = 65_536
"""Bytes of a message. One op fits easily: its line has at most `max_line_bytes`."""

_MOST_ID_BYTES: Final = 128


class _Envelope(Struct):
    op: Raw = Raw()
    id: Raw = Raw()


_ENVELOPE: Final = DocumentReader(_Envelope, 'An object with "op" and "id" belongs here.')
_REPORT: Final = ObjectReader(("op", "client", "lat", "lon"), ("time", "id"))
_LOCATE: Final = ObjectReader(("op", "client"), ("id",))
_PLACES: Final = ObjectReader(("op", "client"), ("radius_km", "limit", "id"))


class Op(Struct, frozen=True):
    """What one message asks: the JSON of its `id`; and the `line` for a turn, or the `problem` why there is none."""

    id: bytes
    line: Line | None = None
    problem: Problem | None = None
    answer: Callable[[Reply], bytes] = report_answer

    def content(self, reply: Reply | None) -> bytes:
        """Return the answer, as JSON, from the reply to the line, None if there is no line."""
        try:
            if self.problem is not None:
                raise self.problem
            assert reply is not None
            return b'{"id":%b,%b' % (self.id, self.answer(reply)[1:])
        except Problem as problem:
            return b'{"id":%b,"problem":%b}' % (self.id, problem.document())


def read_op(
    message: bytes, clock: int, writer: LineWriter, server: str, follower: Callable[[], Follower]
) -> Op:
    """Return what a message asks. `clock`: nanoseconds of POSIX time; `server`: the name of the one that answers; `follower`
    returns what follows for this client.
    """
    id_ = b"null"
    try:
        envelope = _ENVELOPE.read_document(message)
        id_ = _id(bytes(envelope.id))
        name = string_text(bytes(envelope.op), "op")
        if name in _AREA_OPS:
            asked = _AREA_OPS[name](message, clock, server)
            return Op(id_, asked.query, answer=asked.answer)
        if name in _FOLLOW_OPS:
            wanted = _FOLLOW_OPS[name](message, id_, follower(), server)
            return Op(id_, wanted.command, answer=wanted.answer)
        ask, answer = _op(name)
        return Op(id_, ask(message, clock, writer), answer=answer)
    except Problem as problem:
        return Op(id_, problem=problem)


def _ask_report(message: bytes, clock: int, writer: LineWriter) -> bytes:
    client, lat, lon, time = _REPORT.read_object(message)[1:5]
    return report_line(_client(client), lat, lon, time, clock, writer)


def _ask_locate(message: bytes, _: int, writer: LineWriter) -> bytes:
    client = _LOCATE.read_object(message)[1]
    return writer.locate(_client(client))


def _ask_places(message: bytes, _: int, writer: LineWriter) -> bytes:
    client, radius, limit = _PLACES.read_object(message)[1:4]
    radius = number_text(radius or RADIUS_KM, "radius_km")
    return writer.places(_client(client), radius, number_text(limit or LIMIT, "limit"))


def _answer_places(reply: Reply) -> bytes:
    line, places = places_answer(reply)
    return msgspec.json.encode({"at": text_of(line), "places": Raw(places)})


_OPS: Final = {
    "report": (_ask_report, report_answer),
    "locate": (_ask_locate, locate_answer),
    "places": (_ask_places, _answer_places),
}

_AREA_OPS: Final = {"near": read_near_op, "within": read_within_op}
_FOLLOW_OPS: Final = {"follow": read_follow_op, "unfollow": read_unfollow_op}


def _op(name: str) -> tuple[Callable[[bytes, int, LineWriter], bytes], Callable[[Reply], bytes]]:
    """Return how an op becomes a line, and its answer. Raises Problem."""
    if name not in _OPS:
        raise Problem(MEANING, f"The ops are {', '.join([*_OPS, *_AREA_OPS, *_FOLLOW_OPS])}.", "op")
    return _OPS[name]


def _client(value: bytes) -> bytes:
    return id_of(string_text(value, "client"))


def _id(value: bytes) -> bytes:
    """Return the JSON of an id. Raises Problem if it cannot be one."""
    if value in (b"", b"null"):
        return b"null"
    if value[:1] not in b'"-0123456789' or len(number_text(value, "id")) > _MOST_ID_BYTES:
        raise Problem(MEANING, f"A number or a string of at most {_MOST_ID_BYTES} bytes belongs here.", "id")
    return value
