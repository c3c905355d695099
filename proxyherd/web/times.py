"""Times as they are spelled on the web, and as a line has them: POSIX seconds, with up to nine decimals.

The digits of a number stay as they are. A date becomes seconds on integers, with the decimals that it has. A leap
second counts as the second behind it, because POSIX time has none. Functions return None for what is not a time.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Final

from proxyherd.core.messages import NANOSECONDS

_EPOCH: Final = date(1970, 1, 1).toordinal()
_DATE: Final = rb"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_CLOCK: Final = rb"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"

_posix = re.compile(rb"[0-9]{1,12}+(?:\.[0-9]{1,9}+)?").fullmatch
_rfc3339 = re.compile(_DATE + rb"[Tt ]" + _CLOCK + rb"(?:[Zz]|([+-][0-9]{2}):([0-9]{2}))").fullmatch
# Apps leave out the colon of an offset, or the offset. In a query, `+` means a space.
_iso = re.compile(_DATE + rb"[Tt ]" + _CLOCK + rb"(?:[Zz]|([ +-][0-9]{2})(?::?([0-9]{2}))?)?").fullmatch
_whole = re.compile(rb"[0-9]{1,15}+").fullmatch

_LAST_SECOND: Final = 2_147_483_647
"""What apps send as a whole number above this is milliseconds."""


def spelled_time(clock: int) -> bytes:
    """Return nanoseconds of POSIX time as a line has them."""
    return b"%d.%09d" % divmod(clock, NANOSECONDS)


def posix_or_rfc3339(text: bytes) -> bytes | None:
    """Return the time of a report in JSON: POSIX seconds, or a date and time of RFC 3339."""
    return text if _posix(text) else _seconds(_rfc3339(text))


def of_app(text: bytes) -> bytes | None:
    """Return a time as apps on phones send it: seconds; milliseconds as a whole number; or a date and time of ISO 8601,
    in UTC if it has no offset.
    """
    if _whole(text) and (whole := int(text)) > _LAST_SECOND:
        text = b"%d.%03d" % divmod(whole, 1_000)
    return text if _posix(text) else _seconds(_iso(text))


def _seconds(match: re.Match[bytes] | None) -> bytes | None:
    """Return the POSIX seconds of a date and time."""
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction, offset_hours, offset_minutes = match.groups()[6:]
    ahead, ahead_by = int((offset_hours or b"0").strip()), int(offset_minutes or 0)
    if max(minute, ahead_by) > 59 or max(hour, abs(ahead)) > 23 or second > 60:
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        return None
    east = -60 if (offset_hours or b"").startswith(b"-") else 60
    seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - ahead * 3_600 - ahead_by * east
    if seconds < 0:
        return None
    return b"%d.%b" % (seconds, fraction) if fraction else b"%d" % seconds
