"""Events of follows as their followers read them: as JSON, in a frame of a WebSocket or as a server-sent event.

    {"event":"enter","follow":2,"client":"kiwi","lat":34.06893,...,"initial":true}
    {"event":"gone","follow":2,"client":"kiwi"}
    {"event":"snapshot","follow":2,"complete":true,"clients":17}
    {"event":"ended","follow":2,"reason":"..."}

All who are told the same have one `Event`, and it keeps what was made of it for each protocol. So a frame is made once,
however many get it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from proxyherd.core.follows.event import Event
from proxyherd.core.messages import NANOSECONDS, nanoseconds
from proxyherd.web.frames import Opcode, frame
from proxyherd.web.ids import name_of

_TEXT: Final = int(Opcode.TEXT)

FRAME: Final = "frame"
TEXT: Final = "text"
"""The keys of what an event keeps: for WebSockets, and for streams."""

_plain_name = re.compile(rb"[!#-$&-\[\]-~]++").fullmatch
"""An ID that is its own name, and its own JSON without quotes: with no percent sign, and nothing to escape."""

_at = re.compile(
    rb"AT (\S++) ([+-][0-9]++)\.([0-9]++) \S++ "
    + 2 * rb"(?:\+|(-))0*([0-9]+(?:\.[0-9]+)?)"
    + rb" (([0-9]++)(?:\.([0-9]++))?)"
).fullmatch
"""An AT line: its degrees without a plus and leading zeros, which JSON does not have."""

_json = msgspec.json.Encoder().encode


def frame_of(event: Event) -> bytes:
    """Return an event as a message of a WebSocket."""
    made = event.spelled.get(FRAME)
    if made is None:
        made = event.spelled[FRAME] = frame(_TEXT, event_json(event))
    return made


def frames_of(events: Sequence[Event]) -> bytes:
    """Return events as messages of a WebSocket. Mostly there is one, and others have been told it."""
    if len(events) == 1:
        return events[0].spelled.get(FRAME) or frame_of(events[0])
    return b"".join(map(frame_of, events))


def stream_event_of(event: Event) -> bytes:
    """Return an event as a server-sent event, whose type is its kind."""
    made = event.spelled.get(TEXT)
    if made is None:
        made = event.spelled[TEXT] = b"event: %b\ndata: %b\n\n" % (event.kind.encode(), event_json(event))
    return made


def event_json(event: Event) -> bytes:
    """Return an event as JSON."""
    kind, entry = event.kind.encode(), event.entry
    follow = b',"follow":%b' % event.name if event.name else b""
    if kind == b"snapshot":
        complete = _json(event.complete)
        return b'{"event":"%b"%b,"complete":%b,"clients":%d}' % (kind, follow, complete, event.clients)
    if kind == b"ended":
        return b'{"event":"%b"%b,"reason":%b}' % (kind, follow, _json(event.reason))
    client = event.client
    name = b'"%b"' % client if _plain_name(client) else _json(name_of(client))
    where = _location(entry.line) if entry is not None else b""
    initial = b',"initial":true' if event.initial else b""
    return b'{"event":"%b"%b,"client":%b%b%b}' % (kind, follow, name, where, initial)


def _location(line: bytes) -> bytes:
    """Return what an AT line says of its client, as members of a JSON object. It is read in one step: where each client has one
    follower, this is most of what an event costs.
    """
    match = _at(line)
    assert match is not None
    server, late, late_by, south, lat, west, lon, time, seconds, fraction = match.groups(b"")
    received = nanoseconds(seconds, fraction or None) + int(late + late_by)
    return b',"lat":%b%b,"lon":%b%b,"time":"%b","server":"%b","received":"%d.%09d"' % (
        *(south, lat, west, lon, time, server),
        *divmod(received, NANOSECONDS),
    )
