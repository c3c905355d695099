"""Latitude and longitude: decimal degrees, as numbers or strings, become what a line has (ISO 6709).

The digits stay as they were spelled, and get a sign: `34.06893` becomes `+34.06893`. Bounds are exact.
"""

from __future__ import annotations

import re

from proxyherd.core.messages import LATITUDE, LONGITUDE
from proxyherd.web.problems import DEGREES, Problem

_location = re.compile(LATITUDE + LONGITUDE).fullmatch
_latitude = re.compile(LATITUDE).fullmatch
_longitude = re.compile(LONGITUDE).fullmatch


def latitude(degrees: bytes) -> bytes | None:
    """Return a latitude as a line has it; None if it is not one. The sign may be missing."""
    signed = _signed(degrees)
    return signed if _latitude(signed) else None


def longitude(degrees: bytes) -> bytes | None:
    """Return a longitude as a line has it; None if it is not one. The sign may be missing."""
    signed = _signed(degrees)
    return signed if _longitude(signed) else None


def location(lat: bytes, lon: bytes) -> bytes:
    """Return a location as a line has it. Raises Problem, which names the field."""
    spelled = _signed(lat) + _signed(
        lon
    )  # two signs, where only two can be: nothing moves from one to the other
    if _location(spelled):
        return spelled
    if latitude(lat) is None:
        raise Problem(DEGREES, "Decimal degrees from -90 to 90, without an exponent, belong here.", "lat")
    raise Problem(DEGREES, "Decimal degrees from -180 to 180, without an exponent, belong here.", "lon")


def _signed(degrees: bytes) -> bytes:
    return degrees if degrees[:1] in (b"-", b"+") else b"+" + degrees
