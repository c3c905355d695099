"""OwnTracks in its HTTP mode: JSON objects, whose `_type` says what they are about.

The client is `user/device` of the headers X-Limit-U and X-Limit-D, or of the parameters `u` and `d`; else the user of
Basic authentication; else the topic, without `owntracks/` before it. Its answer is a list of messages for the app,
which is empty.

https://owntracks.org/booklet/tech/http/, https://owntracks.org/booklet/tech/json/
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw, Struct, field

from proxyherd.web.documents import DocumentReader
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


MOST_MESSAGES: Final = 1_000
"""Messages in one payload. Apps send one, or a few."""

_MESSAGES: Final = DocumentReader(list[Raw], "")
_MESSAGE: Final = DocumentReader(_Message, "")


def read_owntracks(request: TrackerRequest, points: TrackPoints) -> None:
    """Add the locations of a request."""
    body = request.body.strip()
    if not body:  # a friend was deleted
        points.consume("other_kind")
        return
    try:
        messages = _MESSAGES.read_document(body) if body.startswith(b"[") else [Raw(body)]
        owner = _owner(request)
        if len(messages) > MOST_MESSAGES:
            points.consume("unreadable")
            return
        for message in messages:
            if is_object(message):
                _add(_MESSAGE.read_document(bytes(message)), owner, points)
            else:
                points.consume("unreadable")
    except Problem:
        points.consume("unreadable")


def _add(message: _Message, owner: str, points: TrackPoints) -> None:
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
