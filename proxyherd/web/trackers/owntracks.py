"""OwnTracks in its HTTP mode: JSON objects, whose `_type` says what they are about.

The client is `user/device` of the headers X-Limit-U and X-Limit-D, or of the parameters `u` and `d`; else the user of
Basic authentication; else the topic, without `owntracks/` before it. Its answer is a list of messages for the app,
which is empty.

https://owntracks.org/booklet/tech/http/, https://owntracks.org/booklet/tech/json/
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw, Struct, field

from proxyherd.web.documents import BYTE_ORDER_MARK, DocumentReader, check_size
from proxyherd.web.problems import Problem
from proxyherd.web.queries import split_query
from proxyherd.web.trackers.points import TrackerRequest, TrackPoints, is_object, scalar, text


class _Message(Struct):
    type: Raw = field(name="_type", default=Raw())
    lat: Raw = Raw()
    lon: Raw = Raw()
    tst: Raw = Raw()
    acc: Raw = Raw()
    topic: Raw = Raw()


_MESSAGES: Final = DocumentReader(list[Raw])
_MESSAGE: Final = DocumentReader(_Message)


def read_owntracks(request: TrackerRequest, points: TrackPoints) -> None:
    """Add the locations of a request."""
    body = request.body.removeprefix(BYTE_ORDER_MARK).strip()
    if not body:  # a friend was deleted
        points.consume("other_kind")
        return
    try:
        check_size(body)
        messages = _MESSAGES.decode(body) if body.startswith(b"[") else [Raw(body)]
        owner = _owner(request)
    except Problem as problem:
        points.consume_body(problem)
    else:
        points.read_each(messages, lambda one: _add_message(one, owner, points))


def _add_message(value: bytes, owner: str, points: TrackPoints) -> None:
    if not is_object(value):  # without a Problem, which costs more: a small packed body has a thousand
        points.consume("unreadable")
        return
    message = _MESSAGE.decode(value)
    kind = text(message.type)
    if kind == "location":
        client = owner or text(message.topic).removeprefix("owntracks/")
        values = map(scalar, (message.lat, message.lon, message.tst, message.acc))
        points.add(client, *values)
    else:
        points.consume("encrypted" if kind == "encrypted" else "other_kind")


def _owner(request: TrackerRequest) -> str:
    """Return the client that a request names outside of its messages, or "". Raises Problem."""
    parameters = dict(split_query(request.query))
    headers = request.headers
    user = headers.get("X-Limit-U") or parameters.get("u") or ""
    device = headers.get("X-Limit-D") or parameters.get("d") or ""
    return f"{user}/{device}" if user and device else user or request.user
