"""The arguments of a call, spelled as the operands of a command: exact, and checked before anything is sent. Whatever
decimal context the program has set, nothing is rounded by it.

A number keeps its digits. A float is taken for the shortest number that rounds to it, as Python prints it. Whatever is
out of form or bounds raises ValueError, which says what belongs there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final, TypeAlias

Number: TypeAlias = float | str | Decimal
"""A decimal number. To keep its digits as they are, give a str or a Decimal."""

Moment: TypeAlias = Number | datetime
"""POSIX seconds; or a datetime with a time zone."""

_MOST_DIGITS: Final = 1_000
_MOST_SECONDS: Final = 10**12
_RADIUS_CHARACTERS: Final = 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def client_field(client: str | bytes) -> bytes:
    """Return a client's ID. A str becomes UTF-8; what `TakenReport.client` says of other bytes becomes these bytes."""
    if not isinstance(client, str | bytes):
        raise TypeError(f"client is {client!r}: an ID, in str or bytes, belongs here")
    word = client if isinstance(client, bytes) else client.encode("utf-8", "surrogateescape")
    if word.split() != [word]:
        raise ValueError(
            f"{client!r} is no client's ID: that is one word, without white space (the web port writes %20 for a space)"
        )
    return word


def location_field(lat: Number, lon: Number) -> bytes:
    """Return a location in ISO 6709. `lat`, `lon`: decimal degrees, -90 to 90 and -180 to 180."""
    return b"%b%b" % (_degrees(lat, "latitude", 90), _degrees(lon, "longitude", 180))


def location_texts(lat: Number, lon: Number) -> tuple[str, str]:
    """Return a latitude and a longitude as the JSON of the web port has them."""
    latitude, longitude = _degrees(lat, "latitude", 90), _degrees(lon, "longitude", 180)
    return latitude.removeprefix(b"+").decode(), longitude.removeprefix(b"+").decode()


def _degrees(value: Number, what: str, most: int) -> bytes:
    degrees = _decimal(value, f"a {what}")
    if not -most <= degrees <= most:
        raise ValueError(f"{value} is no {what}: degrees are -{most} to {most}")
    return f"{degrees:+f}".encode()


def time_field(time: Moment) -> bytes:
    """Return a time: POSIX seconds, with at most nine decimals; of a float they are rounded."""
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(f"{time} has no time zone: write datetime.now(UTC), or add tzinfo")
        since = time - _EPOCH
        seconds = Decimal(f"{since.days * 86_400 + since.seconds}.{since.microseconds:06}")
    else:
        seconds = _decimal(time, "a time")
        if isinstance(time, float) and 0 <= seconds < _MOST_SECONDS:
            seconds = Decimal(f"{seconds:.9f}")
    if not 0 <= seconds < _MOST_SECONDS or seconds.is_signed():
        raise ValueError(f"{time} is no time: POSIX seconds have at most twelve digits, and no sign")
    whole, point, decimals = f"{seconds:f}".partition(".")
    if decimals[9:].strip("0"):
        raise ValueError(f"{time} is no time: it has more than nine decimals")
    return f"{whole}{point}{decimals[:9]}".encode()


def now_field(nanoseconds: int) -> bytes:
    """Return the time that a clock shows. `nanoseconds`: of POSIX time."""
    return b"%d.%09d" % divmod(nanoseconds, 1_000_000_000)


def radius_field(radius_km: Number) -> bytes:
    """Return a radius in kilometres, 0 to 50. A float is rounded to a thousandth of a millimetre."""
    radius = _decimal(radius_km, "a radius")
    if isinstance(radius_km, float):
        radius = Decimal(f"{radius:.9f}".rstrip("0").rstrip("."))
    if not 0 <= radius <= 50 or radius.is_signed():
        raise ValueError(f"{radius_km} is no radius: kilometres are 0 to 50, without a sign")
    spelled = f"{radius:f}"
    if len(spelled) > _RADIUS_CHARACTERS:
        raise ValueError(f"{radius_km} is no radius: it has more than {_RADIUS_CHARACTERS} characters")
    return spelled.encode()


def age_field(seconds: Number) -> bytes:
    """Return the greatest age that is wanted, in seconds."""
    age = _decimal(seconds, "an age")
    if not 0 <= age < _MOST_SECONDS:
        raise ValueError(f"{seconds} is no age: seconds have at most twelve digits, and no sign")
    return f"{age:.9f}".encode()


def metres_field(name: str, value: float, most: int) -> float:
    """Return metres, from 0 to so many."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}: a number of metres belongs here")
    if not 0 <= value <= most:
        raise ValueError(f"{name} is {value!r}: metres from 0 to {most:,} belong here")
    return value


def name_field(client: str) -> str:
    """Return a client's name, as the JSON of the web port has it."""
    if not isinstance(client, str):
        raise TypeError(f"{client!r} is no client's name: a str belongs here")
    return client


def limit_field(limit: int) -> bytes:
    """Return the most results that are wanted, 0 to 20."""
    if not isinstance(limit, int) or not 0 <= limit <= 20:
        raise ValueError(f"{limit!r} is no limit: a whole number from 0 to 20 belongs here")
    return b"%d" % limit


def _decimal(value: Number, what: str) -> Decimal:
    try:
        # float's own: those of NumPy print more than their digits
        number = Decimal(float.__repr__(value) if isinstance(value, float) else value)
    except (InvalidOperation, ValueError, TypeError):
        raise ValueError(f"{value!r} is not {what}: a decimal number belongs here") from None
    if not number.is_finite():
        raise ValueError(f"{value} is not {what}: a decimal number belongs here")
    if len(number.as_tuple().digits) > _MOST_DIGITS or abs(number.adjusted()) > _MOST_DIGITS:
        raise ValueError(f"a number with more than {_MOST_DIGITS:,} digits is not {what}")
    return number
