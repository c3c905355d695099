"""The forms of answers, by the client protocol. Pure: bytes in, a complaint or None out."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from msgspec import Struct

from proxyherd.base.escapes import escaped, quoted

PLACES_STATUSES: Final = frozenset(
    {
        *("OK", "ZERO_RESULTS", "INVALID_REQUEST", "OVER_QUERY_LIMIT", "REQUEST_DENIED", "UNKNOWN_ERROR"),
        "OVER_DAILY_LIMIT",
    }
)
"""The values of `status` in Google's Nearby Search: developers.google.com/maps/documentation/places/web-service."""

_at = re.compile(rb"AT (\S+) ([+-])([0-9]+)\.([0-9]{9}) (\S+ \S+ ([0-9]+)(?:\.([0-9]+))?)\n").fullmatch


class AtLine(Struct, frozen=True):
    """An answer to IAMAT: the server that took the report; difference and the client's time in nanoseconds;
    the operands.
    """

    server: bytes
    difference: int
    time: int
    operands: bytes

    @property
    def received(self) -> int:
        """When the server says it received the report, in nanoseconds of POSIX time."""
        return self.time + self.difference


def parse_at_line(line: bytes) -> AtLine | None:
    """Parse an AT line with its LF; return None if it is not an AT line."""
    match = _at(line)
    if match is None:
        return None
    server, sign, seconds, decimals, operands, whole, fraction = match.groups()
    if len(seconds) > 20 or len(whole) > 20:
        return None
    difference = int(seconds + decimals)
    time = int(whole + (fraction or b"").ljust(9, b"0")[:9])
    return AtLine(server, -difference if sign == b"-" else difference, time, operands)


def form_of_at(server: bytes, operands: bytes) -> str:
    """Describe the form of the answer to a report."""
    return f"AT {escaped(server)}, a sign, seconds with nine decimals, {escaped(operands)}"


def places_complaint(body: bytes, most: int) -> str | None:
    """Return what is wrong with the JSON of a WHATSAT answer, given without its last two LFs; None if nothing is."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    if not isinstance(document, dict):
        return "JSON that is no object"
    missing = [key for key in ("html_attributions", "results", "status") if key not in document]
    if missing:
        return f"JSON without {', '.join(missing)}"
    results = document["results"]
    if not isinstance(results, list) or not isinstance(document["html_attributions"], list):
        return "html_attributions or results that is no list"
    if not isinstance(document["status"], str) or document["status"] not in PLACES_STATUSES:
        return f"the status {quoted(str(document['status'])[:40])}, which Google has not"
    if len(results) > most:
        return f"{len(results)} results, more than the {most} asked for"
    if not all(isinstance(one, dict) for one in results) or (results and document["status"] != "OK"):
        return f"results that are no objects, or that stand beside the status {document['status']}"
    if b"\n\n" in body or body.endswith(b"\n"):
        return "JSON with an empty line in it or at its end"
    return None


def is_from_a_float(nanoseconds: int) -> bool:
    """Whether this many nanoseconds are the result of writing a double of seconds with nine decimals."""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    exact = f"{seconds}.{rest:09d}"
    return f"{float(exact):.9f}" == exact
