"""Points that apps send: each becomes the line of a report, or is consumed for one of a few reasons."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from msgspec import Raw, Struct, field

from proxyherd.web import times
from proxyherd.web.bodies import BODY_BYTES, VALUES_BYTES
from proxyherd.web.documents import string_text
from proxyherd.web.ids import id_of
from proxyherd.web.lines import LineWriter
from proxyherd.web.locations import latitude, longitude
from proxyherd.web.problems import LARGE, Problem

Reason: TypeAlias = Literal[
    "unreadable",  # no JSON, no form, or packed in a way that is not read
    "encrypted",  # only the app's owner can read it
    "other_kind",  # a message about something else than a location
    "no_client",  # nothing says whose location it is, or no client can have this name: it is too long
    "no_location",  # no latitude and longitude, out of bounds, or with more digits than a line can have
    "no_time",  # no time, or out of form
    "no_fix",  # the app says that it does not know, or sends 0, 0
    "inaccurate",  # worse than `max_accuracy_m`
    "denied",  # the token does not allow it to report this client
    # points before the last 1,000 of a payload; or it is larger than 2 MiB when it is unpacked, or as lines, or its names
    # are larger than 512 KiB
    "too_much",
]
"""Why something was consumed. Values of a metric's label."""

MOST_TRACK_POINTS: Final = 1_000
"""Points of one payload that are read. Overland sends as many at most, and one more."""

_LEAST_BYTES: Final = len("IAMAT  +0+0 0")
"""Bytes of a line besides its client."""

_ZERO: Final = re.compile(rb"[+-]?0+(?:\.0*)?").fullmatch


class TrackerRequest(Struct, frozen=True):
    """A request of an app. `query`: what stands behind the question mark, still encoded; `headers`: looked up by their
    usual names; `user`: of Basic authentication.
    """

    body: bytes = b""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    user: str = ""


class TrackPoints:
    """What one request brings: `lines` of reports, in order, and the number of `consumed` points by reason. `clock`:
    nanoseconds of POSIX time; `max_accuracy_m`: metres, beyond which a point is not used; `subject`: whose the points are
    that name no client.
    """

    def __init__(self, writer: LineWriter, clock: int, max_accuracy_m: float, subject: str = "") -> None:
        self.lines: list[bytes] = []
        self.consumed: Counter[Reason] = Counter()
        self._writer = writer
        self._clock = clock
        self._subject = subject
        self._max_accuracy_m = max_accuracy_m
        self._ids: dict[str, bytes | None] = {}
        self._room = BODY_BYTES  # of lines
        self._names_room = VALUES_BYTES

    def consume(self, reason: Reason) -> None:
        """Count something that does not become a report."""
        self.consumed[reason] += 1

    def consume_body(self, problem: Problem) -> None:
        """Count a body that cannot be read."""
        self.consume("too_much" if problem.kind == LARGE else "unreadable")

    def read_each(self, values: Sequence[Raw], read: Callable[[bytes], None]) -> None:
        """Read the last points of a list, each of which may raise Problem. Apps send the oldest first, and a later one
        makes it stale; so if there are too many, the first ones are consumed.
        """
        surplus = max(len(values) - MOST_TRACK_POINTS, 0)
        if surplus:
            self.consumed["too_much"] += surplus
        for value in values[surplus:]:
            try:
                read(bytes(value))
            except Problem:
                self.consume("unreadable")

    def now(self) -> bytes:
        """Return the time for a point that an app sends at once and without its time."""
        return times.spelled_time(self._clock)

    def add(
        self,
        client: str,
        lat: bytes | None,
        lon: bytes | None,
        time: bytes | None,
        accuracy: bytes | None = None,
    ) -> None:
        """Add a point, or consume it. None: missing. `time`: as the app spells it; `accuracy`: metres."""
        north, east = latitude(lat or b""), longitude(lon or b"")
        when = times.of_app(time or b"")
        metres = _number(accuracy)
        if north is None or east is None:
            self.consume("no_location")
        elif metres < 0 or (_ZERO(north) and _ZERO(east)):
            self.consume("no_fix")
        elif metres > self._max_accuracy_m:
            self.consume("inaccurate")
        elif when is None:
            self.consume("no_time")
        else:
            self._add_report(client, north + east, when)

    def _add_report(self, client: str, place: bytes, time: bytes) -> None:
        """Add a report, or consume it if its client has no ID, or if there is too much."""
        client = client or self._subject
        if client not in self._ids:  # it costs time, and is the same for all points of most payloads
            self._names_room -= len(client)
            self._ids[client] = _id_or_none(client) if self._names_room >= 0 else None
        if self._room < 0 or self._names_room < 0:
            self.consume("too_much")
            return
        id_ = self._ids[client]
        if id_ is None:
            self.consume("no_client")
            return
        try:
            line = self._writer.report(id_, place, time)
        except Problem:  # the line is too long
            is_its_name = len(id_) + _LEAST_BYTES > self._writer.most
            self.consume("no_client" if is_its_name else "no_location")
            return
        self._room -= len(line)
        if self._room < 0:  # a long name that stands once in a payload is in all of its lines
            self.consume("too_much")
        else:
            self.lines.append(line)


def scalar(value: bytes) -> bytes | None:
    """Return the text of the number or string whose JSON this is; None if it is neither, is empty or is missing. `Raw`
    is a value too.
    """
    value = bytes(value)
    if value[:1] == b'"':
        try:
            return string_text(value, "").encode() or None
        except Problem:
            return None
    return value if value[:1].isdigit() or value[:1] == b"-" else None


def text(value: bytes) -> str:
    """Return the same as text, empty if there is none."""
    return (scalar(value) or b"").decode()


def is_object(value: bytes) -> bool:
    """Return whether this is the JSON of an object; `Raw` is a value too."""
    return bytes(value)[:1] == b"{"


def _number(accuracy: bytes | None) -> float:
    """Return an accuracy in metres, 0 if it is not known."""
    try:
        metres = float(accuracy or b"0")
    except ValueError:
        return 0.0
    return 0.0 if math.isnan(metres) else metres


def _id_or_none(client: str) -> bytes | None:
    try:
        return id_of(client)
    except Problem:
        return None
