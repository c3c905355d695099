"""Latitude and longitude: decimal degrees, as numbers or strings, become what a line has (ISO 6709).

The digits stay as they were spelled, and get a sign: `34.06893` becomes `+34.06893`. Bounds are exact. Programs spell
small numbers with an exponent, JavaScript those below 0.000001: `1.5e-7` becomes `+0.00000015`, which is the same number.
Other exponents are refused, and those that need more decimals than any such place has.
"""

from __future__ import annotations

import re
from typing import Final

from proxyherd.core.messages import LATITUDE, LONGITUDE
from proxyherd.web.problems import DEGREES, Problem

MOST_DECIMALS: Final = 40
"""Decimals of a number with an exponent when it is spelled without: those of a rounding error that JavaScript has left
have up to 35.
"""

_location = re.compile(LATITUDE + LONGITUDE).fullmatch
_latitude = re.compile(LATITUDE).fullmatch
_longitude = re.compile(LONGITUDE).fullmatch
_small = re.compile(rb"([+-]?)([0-9])(?:\.([0-9]{1,%d}+))?[eE]-([0-9]{1,2}+)" % MOST_DECIMALS).fullmatch


def latitude(degrees: bytes) -> bytes | None:
    """Return a latitude as a line has it; None if it is not one. The sign may be missing."""
    signed = _signed(_plain(degrees))
    return signed if _latitude(signed) else None


def longitude(degrees: bytes) -> bytes | None:
    """Return a longitude as a line has it; None if it is not one. The sign may be missing."""
    signed = _signed(_plain(degrees))
    return signed if _longitude(signed) else None


def location(lat: bytes, lon: bytes) -> bytes:
    """Return a location as a line has it. Raises Problem, which names the field."""
    # Two signs, where only two can be: nothing moves from one to the other.
    spelled = _signed(lat) + _signed(lon)
    if _location(spelled):
        return spelled
    north, east = latitude(lat), longitude(lon)
    if north is None:
        raise Problem(DEGREES, expected_degrees(90), "lat")
    if east is None:
        raise Problem(DEGREES, expected_degrees(180), "lon")
    return north + east


def json_degrees(line: bytes) -> tuple[bytes, bytes]:
    """Return latitude and longitude of an AT line as numbers of JSON, with the same digits."""
    place = line.split(b" ", 5)[4]
    at = max(place.rfind(b"+"), place.rfind(b"-"))
    return _as_json(place[:at]), _as_json(place[at:])


def _as_json(degrees: bytes) -> bytes:
    """Return degrees of a line without a plus and leading zeros."""
    sign, digits = degrees[:1], degrees[1:]
    if digits.startswith(b"0"):
        digits = digits.lstrip(b"0")
        if digits[:1] in (b"", b"."):
            digits = b"0" + digits
    return digits if sign == b"+" else sign + digits


def expected_degrees(most: int) -> str:
    """Return what belongs where degrees from -`most` to `most` are expected, in a sentence."""
    return f"Decimal degrees from -{most} to {most} belong here, with an exponent only if they are small, as in 1.5e-7."


def _signed(degrees: bytes) -> bytes:
    return degrees if degrees[:1] in (b"-", b"+") else b"+" + degrees


def _plain(degrees: bytes) -> bytes:
    """Return a small number without its exponent, and anything else as it is."""
    match = _small(degrees)
    if match is None:
        return degrees
    sign, whole, fraction, exponent = match.groups(b"")
    places = int(exponent)
    if not 0 < places <= MOST_DECIMALS - len(fraction):
        return degrees
    return b"%b0.%b%b%b" % (sign, b"0" * (places - 1), whole, fraction)
