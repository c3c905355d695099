"""All apps: where each sends its locations, how these are read, and the answer that it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from proxyherd.web.trackers.gpslogger import read_gpslogger
from proxyherd.web.trackers.osmand import read_osmand
from proxyherd.web.trackers.overland import read_overland
from proxyherd.web.trackers.owntracks import read_owntracks
from proxyherd.web.trackers.points import TrackerRequest, TrackPoints


class App(Struct, frozen=True):
    """An app, or several that speak the same. Its path is `/` and its name, which is also the `via` of log and metrics.
    `read`: adds what a request brings to the points. `answer`: the body of the 200 that every payload gets, and its type.
    GET reports, so HEAD must not be served.
    """

    name: str
    methods: tuple[str, ...]
    read: Callable[[TrackerRequest, TrackPoints], None]
    answer: bytes
    media_type: str


APPS: Final = (
    App("owntracks", ("POST",), read_owntracks, b"[]", "application/json"),
    App("osmand", ("GET", "POST"), read_osmand, b"", "text/plain"),
    App("gpslogger", ("GET", "POST"), read_gpslogger, b"", "text/plain"),
    App("overland", ("POST",), read_overland, b'{"result":"ok"}', "application/json"),
)
