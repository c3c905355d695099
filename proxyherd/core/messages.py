r"""IAMAT, WHATSAT and AT: the rules of their fields, parsing and formatting.

Lines are bytes, and every number is exact: one compiled pattern checks a field as text, and times are integers of
nanoseconds. Parsers return None for a line whose form or bounds are wrong. White space is space, tab, CR, LF, form
feed and vertical tab, which is what `\s` means in a pattern of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache, partial
from typing import Final, TypeAlias, final

from proxyherd.config.schema import Limits
from proxyherd.core.value import Value

NANOSECONDS: Final = 1_000_000_000
"""Nanoseconds in a second."""

MOST_NANOSECONDS: Final = 10**21
"""All times are earlier than this: they have at most twelve digits of seconds."""

CLOCK_IS_SET: Final = 1_577_836_800 * NANOSECONDS
"""2020-01-01. A clock that shows an earlier time was never set: machines without a battery start in 1970 or 2000."""

COPIED_BYTES: Final = 1_024
"""Bytes of an overlong line that are copied into its answer."""

CACHED_BYTES: Final = 256
"""Bytes of an AT line that a `recent_parser` may get."""

METHOD_BYTES: Final = 32
"""The maximum length of an HTTP method; the longest registered one has 17 bytes."""

# ISO 6709 decimal degrees. The bounds are part of the pattern, so they are exact: after 90 and 180 there may be only
# zeros. Possessive quantifiers prevent backtracking on hostile lines. None follows a group, because there Python
# before 3.11.5 matches wrongly (python/cpython issue 106052).
LATITUDE: Final = rb"[+-](?:90(?:\.0++)?|(?:[0-8][0-9]|[0-9])(?:\.[0-9]++)?)"
LONGITUDE: Final = rb"[+-](?:180(?:\.0++)?|(?:1[0-7][0-9]|0[0-9][0-9]|[0-9]{1,2}+)(?:\.[0-9]++)?)"
_LOCATION: Final = LATITUDE + LONGITUDE
_TIME: Final = rb"([0-9]{1,12}+)(?:\.([0-9]{1,9}+))?"
_NAME: Final = rb"[A-Za-z][A-Za-z0-9_-]{0,62}+"

_at = re.compile(
    rb"AT " + _NAME + rb" (?!-0\.0{9} )([+-](?:0|[1-9][0-9]{0,11}+))\.([0-9]{9}) "
    rb"(\S++) " + _LOCATION + rb" " + _TIME
).fullmatch
# RFC 9112: a method is a token. A web page can choose almost all of the line, but its browser always adds this end.
_http_request = re.compile(
    rb"\s*+[!#$%%&'*+.^_`|~0-9A-Za-z-]{1,%d}+\s++\S++\s++HTTP/1\.[0-9]\s*+" % METHOD_BYTES
).fullmatch
_split_location = re.compile(rb"(" + LATITUDE + rb")(" + LONGITUDE + rb")").fullmatch

_MOST_KILOMETRES: Final = 50
_MOST_RESULTS: Final = 20


_Match: TypeAlias = Callable[[bytes], re.Match[bytes] | None]


@final
class Report(Value):
    """A client's report: its ID; the AT line of the server that received it, without LF; the time that counts, in
    nanoseconds.
    """

    client: bytes
    line: bytes
    nanoseconds: int


@final
class Whatsat(Value):
    """A client's query: the client's ID, the radius in kilometres as text, and the maximum number of results."""

    client: bytes
    radius: bytes
    most: int

    @property
    def asks_places(self) -> bool:
        """Whether there is anything to ask for: neither the radius nor the maximum is 0."""
        return self.most > 0 and self.radius.strip(b"0.") != b""


@final
class Forget(Value):
    """A command to erase a client, which no line can say: whatever servers received of it up to now, or, if given, up to
    the moment `before`, in nanoseconds of POSIX time.
    """

    client: bytes
    before: int | None = None

    @property
    def is_revocation(self) -> bool:
        """Whether it revokes tokens: then it names a subject, behind white space, which no client's ID has."""
        return self.client[:1] == b" "


class Entry(Value):
    """The herd's latest report of one client: the whole AT line without LF, and the time that counts, in nanoseconds."""

    line: bytes
    nanoseconds: int


@final
class At(Value):
    """An AT line from a peer: the client's ID, the entry to learn, and when the server in the line received the report,
    in nanoseconds of POSIX time.
    """

    client: bytes
    entry: Entry
    received: int


class Malformed(Value):
    """A peer's line that is not an AT line, or the first bytes of an overlong one."""

    line: bytes


class CommandForms(Value):
    """The patterns of clients' commands, for IDs up to some length; `command_forms` makes them."""

    usual_iamat: _Match  # as nearly all are spelled
    iamat: _Match
    whatsat: _Match
    tried: _Match  # a command's word, even if the rest is wrong; and an ID behind it if that is too long


@lru_cache(maxsize=16)
def command_forms(most_client_bytes: int = 0) -> CommandForms:
    """Return the patterns of commands whose client IDs have at most so many bytes, 0: any number. As part of a pattern, the
    limit costs nothing.
    """
    client = rb"(\S{1,%d}+)" % most_client_bytes if most_client_bytes else rb"(\S++)"
    usual = rb"IAMAT (" + client + rb" " + _LOCATION + rb" ([0-9]{1,12}+)\.([0-9]{9}))"
    iamat = rb"\s*+IAMAT\s++" + client + rb"\s++(" + _LOCATION + rb")\s++(" + _TIME + rb")\s*+"
    radius_and_most = rb"(?=[0-9.]{1,20}\s)([0-9]++(?:\.[0-9]++)?)\s++([0-9]{1,20}+)\s*+"
    whatsat = rb"\s*+WHATSAT\s++" + client + rb"\s++" + radius_and_most
    too_long = rb"(\S{%d})" % (most_client_bytes + 1) if most_client_bytes else rb"((?!))"
    tried = rb"\s*+(IAMAT|WHATSAT|AT)(?:\Z|\s++" + too_long + rb"?)"
    return CommandForms(
        re.compile(usual).fullmatch,
        re.compile(iamat).fullmatch,
        re.compile(whatsat).fullmatch,
        re.compile(tried).match,
    )


ANY_LENGTH: Final = command_forms()
_USUAL_FORMS: Final = command_forms(Limits().max_client_bytes)


def parse_report(
    line: bytes, server: bytes, received: int, forms: CommandForms = _USUAL_FORMS, lead: int = NANOSECONDS
) -> Report | None:
    """Parse a client's line without LF, received by `server` at this time (nanoseconds of POSIX time). Return None if it
    is not a valid IAMAT of these forms. `lead`: see `parse_at`.
    """
    if (match := forms.usual_iamat(line)) is not None:
        operands, client, seconds, fraction = match.groups()
        time = int(seconds + fraction)
    elif (match := forms.iamat(line)) is not None:
        client, location, spelled, seconds, fraction = match.groups()
        operands, time = b"%b %b %b" % (client, location, spelled), nanoseconds(seconds, fraction)
    else:
        return None
    form, difference = b"AT %b +%d.%09d %b", received - time
    if difference < 0:
        form, difference = b"AT %b -%d.%09d %b", -difference
        if difference > lead:
            time = received + lead
    at = form % (server, difference // NANOSECONDS, difference % NANOSECONDS, operands)
    return Report(client, at, time)


def parse_question(line: bytes, forms: CommandForms = _USUAL_FORMS) -> Whatsat | None:
    """Parse a client's line without LF. Return None if it is not a valid WHATSAT of these forms."""
    match = forms.whatsat(line)
    if match is None:
        return None
    client, radius, spelled = match.groups()
    most = _most_results(radius, spelled)
    return Whatsat(client, radius, most) if most is not None else None


def is_http_request(line: bytes) -> bool:
    """Return whether a client's line looks like an HTTP request. No valid command does: their last field is
    different.
    """
    return _http_request(line) is not None


@lru_cache(maxsize=1_024)
def _most_results(radius: bytes, spelled: bytes) -> int | None:
    """Return the maximum number of results of a query; None if a bound is exceeded. Most clients always ask for
    the same.
    """
    whole, _, fraction = radius.partition(b".")
    kilometres, most = int(whole), int(spelled)
    if kilometres > _MOST_KILOMETRES or (kilometres == _MOST_KILOMETRES and fraction.strip(b"0")):
        return None
    return most if most <= _MOST_RESULTS else None


def parse_at(line: bytes, lead: int = NANOSECONDS) -> At | None:
    """Parse an AT line from a peer, without LF. Return None if it does not have exactly the form that servers write.

    The time that counts is the client's, but at most `lead` nanoseconds after the server has received the report: so a
    time from the future stands in the way of later reports for no longer than that. It follows from the line alone, so
    the order of lines is the same everywhere in a herd. It is never negative, whatever a neighbour says.
    """
    match = _at(line)
    if match is None:
        return None
    late, late_by, client, seconds, fraction = match.groups()
    if fraction is not None and len(fraction) == 9:
        time = int(seconds + fraction)
    else:
        time = nanoseconds(seconds, fraction)
    difference = int(late + late_by)
    received = time + difference
    if difference < -lead:
        time = max(received + lead, 0)
    return At(client, Entry(line, time), received)


@lru_cache(maxsize=16)
def recent_parser(lead: int) -> Callable[[bytes], At | None]:
    """Return `parse_at` with this `lead` and a cache. The same update arrives over most of a server's links: with the
    cache it is parsed once. Give it only lines of at most CACHED_BYTES: then it takes at most 5 MiB.
    """
    return lru_cache(maxsize=8_192)(partial(parse_at, lead=lead))


def nanoseconds(seconds: bytes, fraction: bytes | None) -> int:
    """Return the nanoseconds of a time in the form `seconds.fraction`, where the fraction has at most nine digits."""
    if fraction is None:
        return int(seconds) * NANOSECONDS
    return int(seconds + fraction.ljust(9, b"0"))


def received(at_line: bytes) -> int:
    """Return when the server in an AT line received the report, in nanoseconds of POSIX time."""
    _, _, difference, _, _, time = at_line.split(b" ")
    seconds, _, fraction = time.partition(b".")
    return nanoseconds(seconds, fraction) + int(difference.replace(b".", b""))


def latest_receipt(clock: int, most_skew: int) -> int:
    """Return the latest time at which a server may have received a report, by another server's clock; all in nanoseconds.

    `most_skew` 0 means no limit. A clock that was never set has no limit either.
    """
    if most_skew and clock >= CLOCK_IS_SET:
        return clock + most_skew
    return 2 * MOST_NANOSECONDS  # no line says as late a time


def invalid(line: bytes) -> bytes:
    """Return the answer, without LF, to a line that is not a valid command or that cannot be executed."""
    return b"? " + line


def position(at_line: bytes) -> tuple[str, str]:
    """Return latitude and longitude of an AT line with their signs, as in the client's report."""
    match = _split_location(at_line.split()[4])
    assert match is not None
    return match[1].decode(), match[2].decode()


def metres(radius: bytes) -> Decimal:
    """Return the metres of a radius that is given in kilometres."""
    return Decimal(radius.decode()).scaleb(3)


def word(line: bytes) -> str:
    """Return the command that an invalid line tried to be: `iamat`, `whatsat`, `at` or `other`. It is the value of a
    metric's label.
    """
    return word_of(ANY_LENGTH.tried(line))


def word_of(tried: re.Match[bytes] | None) -> str:
    """Return the same for what `tried` of the forms has found."""
    return tried[1].decode().lower() if tried is not None else "other"
