"""Reports in JSON: one of `PUT /v1/clients/{id}`, or many of `POST /v1/reports`, and what is answered to them.

Requests become lines, and replies become answers; between the two is a turn. In a batch, what is wrong with one report
does not spoil the others: its answer is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw

from proxyherd.core.messages import LATITUDE, LONGITUDE
from proxyherd.core.reply import Reply
from proxyherd.web import times
from proxyherd.web.bodies import VALUES_BYTES
from proxyherd.web.documents import DocumentReader, ObjectReader, check_size, number_text, string_text
from proxyherd.web.ids import check_id_taken, id_of, text_of
from proxyherd.web.lines import LineWriter
from proxyherd.web.locations import location
from proxyherd.web.problems import LARGE, NOT_TAKEN, RIGHT, TIME, Problem

MOST_REPORTS: Final = 1_000
"""Reports in a batch: what a phone has after hours without a network, and 5 ms of a server's time."""

MOST_LINES: Final = 10_000
"""Lines of a batch, with blank ones."""

MOST_BATCH_COMMAS: Final = 16_384
"""Commas of a batch: 1,000 reports have 4,000, and some are in names. An array with a comma for each byte costs time."""

_Row: TypeAlias = Sequence[bytes | Raw]
"""The JSON of each value of a report."""

_LATER: Final = "The server cannot keep reports now."
_POSITION: Final = ObjectReader(("lat", "lon"), ("time",))
_REPORT: Final = ObjectReader(("client", "lat", "lon"), ("time",))
_BATCH: Final = DocumentReader(list[Raw], "An array of reports belongs here.")

_SIGNED: Final = b"[+-]"
# The values of a report as nearly all are spelled: with a name of plain ASCII, and the time as POSIX seconds.
_usual_values = re.compile(
    rb'"([!#-$&-\[\]-~]{1,512}+)" "?([+-]?%b)"? "?([+-]?%b)"? "?([0-9]{1,12}+(?:\.[0-9]{1,9}+)?)"?'
    % (LATITUDE.removeprefix(_SIGNED), LONGITUDE.removeprefix(_SIGNED))
).fullmatch
_its_answer = attrgetter("answer")
_its_outcome = attrgetter("outcome")
_DIGIT: Final = ord("0")
"""Signs are less."""


def report_line(client: bytes, lat: bytes, lon: bytes, time: bytes, clock: int, writer: LineWriter) -> bytes:
    """Return the line of a report, whose `lat`, `lon` and `time` are JSON. An empty `time` is the `clock`, in nanoseconds
    of POSIX time. Raises Problem.
    """
    where = location(number_text(lat, "lat"), number_text(lon, "lon"))
    when = times.posix_or_rfc3339(number_text(time, "time")) if time else times.spelled_time(clock)
    if when is None:
        text = "POSIX seconds with at most nine decimals, or a date and time of RFC 3339, belong here."
        raise Problem(TIME, text, "time")
    return writer.report(client, where, when)


def read_position(client: bytes, body: bytes, clock: int, writer: LineWriter) -> bytes:
    """Return the line for the body of `PUT /v1/clients/{id}`. Raises Problem."""
    lat, lon, time = _POSITION.read_object(body)
    return report_line(client, lat, lon, time, clock, writer)


def read_batch(body: bytes, clock: int, writer: LineWriter, *, ndjson: bool) -> list[bytes | Problem]:
    """Return the line of each report of a batch, or what is wrong with it. `ndjson`: each line of the body is a report.
    Raises Problem if the body is no batch.
    """
    check_size(body, MOST_BATCH_COMMAS)
    rows: Sequence[_Row | Problem] | None
    if ndjson:
        if body.count(b"\n") > MOST_LINES:
            raise Problem(LARGE, f"A batch has at most {MOST_LINES:,} lines.")
        rows = _read_rows([line for line in body.split(b"\n") if line.strip()])
    elif (rows := _REPORT.read_array(body, MOST_REPORTS)) is None:
        rows = _read_rows(_BATCH.decode(body))
    if len(body) > VALUES_BYTES:
        values = (b"".join(row) for row in rows if not isinstance(row, Problem))
        if sum(map(len, values)) > VALUES_BYTES:
            raise Problem(LARGE, f"The values of a batch have at most {VALUES_BYTES:,} bytes.")
    return [row if isinstance(row, Problem) else _line_of_row(row, clock, writer) for row in rows]


def _read_rows(reports: Sequence[bytes | Raw]) -> list[_Row | Problem]:
    """Return the values of each report of a batch, or what is wrong with it. Raises Problem if there are too many."""
    if len(reports) > MOST_REPORTS:
        raise Problem(LARGE, f"A batch has at most {MOST_REPORTS:,} reports.")
    rows: list[_Row | Problem] = []
    for report in reports:
        try:
            rows.append((*_REPORT.read_object(bytes(report)),))
        except Problem as problem:
            rows.append(problem)
    return rows


def _line_of_row(row: _Row, clock: int, writer: LineWriter) -> bytes | Problem:
    """Return the line of a report with these values, or what is wrong with it."""
    usual = _usual_values(b" ".join(row))
    try:
        if usual is None:
            client, lat, lon, time = map(bytes, row)
            return report_line(id_of(string_text(client, "client")), lat, lon, time, clock, writer)
        client, lat, lon, time = usual.groups()
        lat, lon = lat if lat[0] < _DIGIT else b"+" + lat, lon if lon[0] < _DIGIT else b"+" + lon
        line = b"IAMAT %b %b%b %b" % (client, lat, lon, time)
        return line if len(line) <= writer.most else writer.report(client, lat + lon, time)
    except Problem as problem:
        return problem


def report_answer(reply: Reply) -> bytes:
    """Return the answer to one report, as JSON. Raises Problem if it was neither stored nor stale."""
    at = _at(reply)
    _, server, difference, _ = at.split(" ", 3)
    return msgspec.json.encode(
        {"outcome": reply.outcome, "at": at, "server": server, "difference": difference}
    )


def batch_answer(batch: Sequence[bytes | Problem], replies: Iterable[Reply]) -> bytes:
    """Return the answer to a batch, as JSON; `replies` are those to its lines, in order."""
    replies = [*replies]
    if len(replies) == len(batch) and {*map(_its_outcome, replies)} == {"stored"}:
        stored = [*map(_its_answer, replies)]
        if _is_plain(b"".join(stored)):
            return b'[{"outcome":"stored","at":"%b"}]' % b'"},\n{"outcome":"stored","at":"'.join(stored)
    to_lines = iter(replies)
    answers = [one.document() if isinstance(one, Problem) else _short_answer(next(to_lines)) for one in batch]
    return b"[%b]" % b",\n".join(answers)


def _short_answer(reply: Reply) -> bytes:
    try:
        return msgspec.json.encode({"outcome": reply.outcome, "at": _at(reply)})
    except Problem as problem:
        return problem.document()


def _is_plain(line: bytes) -> bool:
    """Return whether a line is its own spelling in JSON."""
    return line.isascii() and line.decode().isprintable() and b'"' not in line and b"\\" not in line


def check_taken(reply: Reply) -> None:
    """Check that a report was stored, or is stale. Raises Problem."""
    if reply.outcome in ("stored", "stale"):
        return
    if reply.outcome == "denied":
        raise Problem(RIGHT, "This token may not report this client.", "client")
    check_id_taken(reply)
    raise Problem(NOT_TAKEN, "There is no room for another client." if reply.refusal == "full" else _LATER)


def _at(reply: Reply) -> str:
    """Return the AT line of a report that was stored or is stale. Raises Problem."""
    check_taken(reply)
    return text_of(reply.answer or b"")
