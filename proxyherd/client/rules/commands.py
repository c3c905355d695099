"""A command of one line, and what its answer means.

A server says of an invalid command only `? ` and the line. As the operands were checked before they were sent
(`fields`), what is left is said: a client that nobody knows, or a report that is not taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from proxyherd.base.escapes import escaped
from proxyherd.client.rules.errors import MOST_SHOWN, ForeignAnswer, ReportRefused, UnknownClient
from proxyherd.client.rules.fields import (
    Moment,
    Number,
    client_field,
    limit_field,
    location_field,
    now_field,
    radius_field,
    time_field,
)

A = TypeVar("A")

_COPIED_BYTES: Final = 1_024

_at_line: Final = re.compile(
    rb"AT (?P<server>\S+) (?P<difference>[+-][0-9]{1,13}\.[0-9]{9})"
    rb" (?P<client>\S+) (?P<lat>[+-][0-9]+(?:\.[0-9]+)?)(?P<lon>[+-][0-9]+(?:\.[0-9]+)?) (?P<time>[0-9]+(?:\.[0-9]+)?)"
).fullmatch


class TakenReport(Struct, frozen=True):
    """A report as a server of the herd has taken it. Its numbers have the digits that were reported."""

    line: bytes
    """The AT line, without LF: the same bytes from every server."""
    server: str
    """The name of the server that has taken the report."""
    difference: Decimal
    """Seconds from the report's time to the server's clock when it took the report; nine decimals."""
    client: str
    """The client's ID. Bytes that are not UTF-8 are kept as `surrogateescape` keeps them."""
    lat: Decimal
    """Degrees of latitude, -90 to 90."""
    lon: Decimal
    """Degrees of longitude, -180 to 180."""
    time: Decimal
    """The report's own time, POSIX seconds."""

    @property
    def received(self) -> Decimal:
        """When the server took the report: POSIX seconds, by the server's clock."""
        return self.time + self.difference


class NearbyPlaces(Struct, frozen=True):
    """What is near a client. That Places have failed is no error: `status` and `error` say so."""

    report: TakenReport
    """Where the client is."""
    status: str
    """`OK`, `ZERO_RESULTS`, or Google's word for a failure, as `UNKNOWN_ERROR`."""
    results: list[dict[str, Any]]
    """The places, as Google's Nearby Search spells them; each has a `name` and a `geometry`."""
    error: str
    """Why Places failed; empty if they did not."""
    json: bytes
    """The whole answer of Places, byte for byte as the server sent it, without the line feeds at its end."""


class ClientCommand(Struct, Generic[A], frozen=True):
    """A command: its line without LF; and what reads the whole answer, with its LFs. That raises an error that the server
    means, such as UnknownClient, or ForeignAnswer if no server means that.
    """

    line: bytes
    read: Callable[[bytes], A]

    @property
    def has_places(self) -> bool:
        """Whether its answer may have more than one line. Then it ends at the first empty one."""
        return self.line.split(None, 1)[:1] == [b"WHATSAT"]


def raw_command(text: str | bytes) -> ClientCommand[bytes]:
    """Return a command that is any line; its answer is all that comes, `? ` too. Raises ValueError for several lines."""
    if not isinstance(text, str | bytes):
        raise TypeError(f"line is {text!r}: a line, in str or bytes, belongs here")
    line = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    if b"\n" in line:
        raise ValueError("a command is one line, without LF")

    def read(answer: bytes) -> bytes:
        if not answer.startswith((b"AT ", b"? ")):
            raise _foreign(answer)
        return answer

    return ClientCommand(line, read)


def report_command(
    client: str | bytes, lat: Number, lon: Number, time: Moment | None, now: int
) -> ClientCommand[TakenReport]:
    """Return the command that reports where a client is. `lat`, `lon`: decimal degrees. `time`: POSIX seconds, or `now`,
    nanoseconds. So the time is fixed before the line is sent at first, and to send it again does no harm. Raises
    ValueError.
    """
    when = now_field(now) if time is None else time_field(time)
    operands = b"%b %b %b" % (client_field(client), location_field(lat, lon), when)
    line = b"IAMAT " + operands

    def read(answer: bytes) -> TakenReport:
        if _refuses(answer, line):
            raise ReportRefused(line, "the server does not take this report now; its log says why")
        if not answer.endswith(b" %b\n" % operands):
            raise _foreign(answer)
        return _read_at(answer[:-1])

    return ClientCommand(line, read)


def locate_command(client: str | bytes) -> ClientCommand[TakenReport]:
    """Return the command that asks where a client is, and nothing about places. Raises ValueError."""
    asked = ask_command(client, 0, 0)
    return ClientCommand(asked.line, lambda answer: asked.read(answer).report)


def ask_command(client: str | bytes, radius_km: Number, limit: int) -> ClientCommand[NearbyPlaces]:
    """Return the command that asks what is near a client: within a radius of 0 to 50 km, and at most so many places, 0 to
    20. Raises ValueError.
    """
    name = client_field(client)
    line = b"WHATSAT %b %b %b" % (name, radius_field(radius_km), limit_field(limit))

    def read(answer: bytes) -> NearbyPlaces:
        if _refuses(answer, line):
            raise UnknownClient(line, "the herd has no report of this client")
        at, _, places = answer.partition(b"\n")
        if at.split(b" ")[3:4] != [name]:
            raise _foreign(answer)
        return _read_places(_read_at(at), places.rstrip(b"\n"))

    return ClientCommand(line, read)


def _refuses(answer: bytes, line: bytes) -> bool:
    """Return whether a server takes a line for an invalid command. Of a line that is too long, it copies the beginning."""
    said = answer[2:-1]
    return answer.startswith(b"? ") and (
        said == line or (len(said) == _COPIED_BYTES and line.startswith(said))
    )


def _read_at(line: bytes) -> TakenReport:
    match = _at_line(line)
    if match is None:
        raise _foreign(line)
    server, difference, client, lat, lon, time = (
        field.decode("utf-8", "surrogateescape") for field in match.groups()
    )
    return TakenReport(line, server, Decimal(difference), client, Decimal(lat), Decimal(lon), Decimal(time))


class _Places(Struct):
    status: str
    results: list[dict[str, Any]] = []
    error_message: str | None = None


def _read_places(report: TakenReport, json: bytes) -> NearbyPlaces:
    try:
        places = msgspec.json.decode(json, type=_Places)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _foreign(json) from None
    return NearbyPlaces(report, places.status, places.results, places.error_message or "", json)


def _foreign(answer: bytes) -> ForeignAnswer:
    return ForeignAnswer(f"sends what is no answer of a herd's server: {escaped(answer[:MOST_SHOWN])}")
