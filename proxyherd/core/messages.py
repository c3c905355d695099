r"""IAMAT, WHATSAT and AT: the rules of their fields, parsing and formatting.

Everything is bytes, and every number is exact: a field is judged as text by one compiled pattern, and a time
is an integer of nanoseconds. What was parsed was in form and in bounds; what was not is `None`. White space is space, tab, CR, LF, form feed and vertical tab, which is what
`\s` means in a pattern of bytes.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, final

from msgspec import Struct

NANOSECONDS: Final = 1_000_000_000
"""Nanoseconds in a second."""

MOST_NANOSECONDS: Final = 10**21
"""No time is as late: it has twelve digits of seconds at most."""

_CLOCK_IS_SET: Final = 1_577_836_800 * NANOSECONDS
"""2020-01-01. A clock that shows an earlier time was never set: machines without a battery start in 1970 or 2000."""

COPIED_BYTES: Final = 1_024
"""Bytes of an overlong line that its answer copies."""

METHOD_BYTES: Final = 32
"""An HTTP method is no longer; the longest that is registered has 17."""

# ISO 6709 decimal degrees. The bounds are part of the pattern, so they are exact: 90 and 180 may be followed
# by zeros only. Possessive quantifiers keep a hostile line from being read twice. None stands behind a group:
# there, Python before 3.11.5 matches what it must not (python/cpython issue 106052).
_LATITUDE: Final = rb"[+-](?:90(?:\.0++)?|(?:[0-8][0-9]|[0-9])(?:\.[0-9]++)?)"
_LONGITUDE: Final = rb"[+-](?:180(?:\.0++)?|(?:1[0-7][0-9]|0[0-9][0-9]|[0-9]{1,2}+)(?:\.[0-9]++)?)"
_LOCATION: Final = _LATITUDE + _LONGITUDE
_TIME: Final = rb"([0-9]{1,12}+)(?:\.([0-9]{1,9}+))?"
_NAME: Final = rb"[A-Za-z][A-Za-z0-9_-]{0,62}+"

_usual_iamat = re.compile(rb"IAMAT ((\S++) " + _LOCATION + rb" ([0-9]{1,12}+)\.([0-9]{9}))").fullmatch
_iamat = re.compile(rb"\s*+IAMAT\s++(\S++)\s++(" + _LOCATION + rb")\s++(" + _TIME + rb")\s*+").fullmatch
_whatsat = re.compile(rb"\s*+WHATSAT\s++(\S++)\s++(([0-9]++)(?:\.([0-9]++))?)\s++([0-9]++)\s*+").fullmatch
_at = re.compile(
    rb"AT " + _NAME + rb" (?!-0\.0{9} )([+-](?:0|[1-9][0-9]{0,11}+))\.([0-9]{9}) "
    rb"(\S++) " + _LOCATION + rb" " + _TIME
).fullmatch
# RFC 9112: a method is a token. A page chooses its case and nearly all else, but its browser always ends the line so.
_http_request = re.compile(
    rb"\s*+[!#$%%&'*+.^_`|~0-9A-Za-z-]{1,%d}+\s++\S++\s++HTTP/1\.[0-9]\s*+" % METHOD_BYTES
).fullmatch
_split_location = re.compile(rb"(" + _LATITUDE + rb")(" + _LONGITUDE + rb")").fullmatch
_known_word = re.compile(rb"\s*+(IAMAT|WHATSAT|AT)(?:\s|\Z)").match

_MOST_DIGITS: Final = 20
_MOST_KILOMETRES: Final = 50
_MOST_RESULTS: Final = 20


@final
class Report(Struct, frozen=True, gc=False):
    """A client's report: its ID; the AT line of the server that received it, without LF; its time in nanoseconds."""

    client: bytes
    line: bytes
    nanoseconds: int


class Whatsat(Struct, frozen=True, gc=False):
    """A client's question: whom it is about, the radius in kilometres as it came, the most results wanted."""

    client: bytes
    radius: bytes
    most: int


class Entry(Struct, frozen=True, gc=False):
    """What the herd knows of one client: the whole AT line, without LF, and its time in nanoseconds."""

    line: bytes
    nanoseconds: int


class At(Struct, frozen=True, gc=False):
    """An AT line that a peer sent: whose it is, the entry to learn, and when the server in it took the report, in
    nanoseconds of POSIX time.
    """

    client: bytes
    entry: Entry
    received: int


class Malformed(Struct, frozen=True, gc=False):
    """A peer's line that is no AT line, or an overlong one's first bytes."""

    line: bytes


def parse_report(line: bytes, server: bytes, received: int) -> Report | None:
    """Parse a client's line, without LF, that `server` received at so many nanoseconds of POSIX time; None if it is no
    valid IAMAT.
    """
    if (match := _usual_iamat(line)) is not None:
        operands, client, seconds, fraction = match.groups()
        time = int(seconds + fraction)
    elif (match := _iamat(line)) is not None:
        client, location, spelled, seconds, fraction = match.groups()
        operands, time = b"%b %b %b" % (client, location, spelled), nanoseconds(seconds, fraction)
    else:
        return None
    form, difference = b"AT %b +%d.%09d %b", received - time
    if difference < 0:
        form, difference = b"AT %b -%d.%09d %b", -difference
    at = form % (server, difference // NANOSECONDS, difference % NANOSECONDS, operands)
    return Report(client, at, time)


def parse_question(line: bytes) -> Whatsat | None:
    """Parse a client's line, without LF; None if it is no valid WHATSAT."""
    match = _whatsat(line)
    return _in_bounds(*match.groups()) if match is not None else None


def is_http_request(line: bytes) -> bool:
    """Return whether a client's line has the form of an HTTP request, which no valid command has: those end otherwise."""
    return _http_request(line) is not None


def _in_bounds(
    client: bytes, radius: bytes, whole: bytes, fraction: bytes | None, most: bytes
) -> Whatsat | None:
    if len(radius) > _MOST_DIGITS or len(most) > _MOST_DIGITS or int(most) > _MOST_RESULTS:
        return None
    kilometres = int(whole)
    if kilometres > _MOST_KILOMETRES or (kilometres == _MOST_KILOMETRES and (fraction or b"").strip(b"0")):
        return None
    return Whatsat(client, radius, int(most))


def parse_at(line: bytes) -> At | None:
    """Parse an AT line from a peer, without LF; None if it is not exactly of the form that servers write."""
    match = _at(line)
    if match is None:
        return None
    late, late_by, client, seconds, fraction = match.groups()
    if fraction is not None and len(fraction) == 9:
        time = int(seconds + fraction)
    else:
        time = nanoseconds(seconds, fraction)
    return At(client, Entry(line, time), time + int(late + late_by))


def nanoseconds(seconds: bytes, fraction: bytes | None) -> int:
    """Return the nanoseconds of a time spelled as `seconds.fraction`, the fraction of at most nine digits."""
    if fraction is None:
        return int(seconds) * NANOSECONDS
    return int(seconds + fraction.ljust(9, b"0"))


def received(at_line: bytes) -> int:
    """Return when the server in an AT line received the report, in nanoseconds of POSIX time."""
    _, _, difference, _, _, time = at_line.split(b" ")
    seconds, _, fraction = time.partition(b".")
    return nanoseconds(seconds, fraction) + int(difference.replace(b".", b""))


def latest_receipt(clock: int, most_skew: int) -> int:
    """Return the latest time at which a server may have received a report, by another one's clock, all in nanoseconds.

    `most_skew` 0: any. A clock that was never set judges nothing.
    """
    if most_skew and clock >= _CLOCK_IS_SET:
        return clock + most_skew
    return 2 * MOST_NANOSECONDS  # no line says as late a time


def invalid(line: bytes) -> bytes:
    """Return the answer, without LF, to a line that is no valid command, or that cannot be served."""
    return b"? " + line


def position(at_line: bytes) -> tuple[str, str]:
    """Return latitude and longitude of an AT line, spelled as the client did, with their signs."""
    match = _split_location(at_line.split()[4])
    assert match is not None
    return match[1].decode(), match[2].decode()


def metres(radius: bytes) -> Decimal:
    """Return the metres of a radius that is spelled in kilometres."""
    return Decimal(radius.decode()).scaleb(3)


def word(line: bytes) -> str:
    """Return what an invalid line tried to be: `iamat`, `whatsat`, `at` or `other`; names a metric's label."""
    known = _known_word(line)
    return known[1].decode().lower() if known else "other"
