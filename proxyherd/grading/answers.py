"""The forms of answers, by the client protocol. Pure: bytes in, a complaint or None out."""

from __future__ import annotations

import json
import re
from fractions import Fraction
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

DECIMALS: Final = 9
"""Of the difference in an AT line."""

_at = re.compile(
    rb"AT (\S+) (([+-]{0,2})([0-9]{1,20})(?:\.([0-9]*))?(?:[eE](-[0-9]{1,3}|\+?[0-9]{1,2}))?) "
    rb"(\S+ \S+ ([0-9]{1,20})(?:\.([0-9]+))?)"
).fullmatch


class AtLine(Struct, frozen=True):
    """An answer to IAMAT: the server that took the report; difference and the client's time in nanoseconds;
    the operands; how the difference is spelled.
    """

    server: bytes
    difference: int
    time: int
    operands: bytes
    spelling: bytes
    sign: bytes
    decimals: int
    """How many; -1 if there is an exponent."""

    @property
    def received(self) -> int:
        """When the server says it received the report, in nanoseconds of POSIX time."""
        return self.time + self.difference

    @property
    def has_one_sign(self) -> bool:
        return self.sign in (b"+", b"-")


def parse_at_line(line: bytes) -> AtLine | None:
    """Parse an AT line without its end; return None if it is not an AT line. The difference may be spelled as servers do
    it: with any number of decimals, an exponent, without a sign or with two.
    """
    match = _at(line)
    if match is None:
        return None
    server, spelling, sign, seconds, decimals, exponent, operands, whole, fraction = match.groups()
    size = Fraction(f"{seconds.decode()}.{(decimals or b'0').decode()}e{(exponent or b'0').decode()}")
    difference = round(size * 1_000_000_000)
    time = int(whole + (fraction or b"").ljust(9, b"0")[:9])
    return AtLine(
        server,
        -difference if sign.endswith(b"-") else difference,
        time,
        operands,
        spelling,
        sign,
        -1 if exponent else len(decimals or b""),
    )


def equal_as_floats(sent: bytes, operands: bytes) -> bool:
    """Whether operands of an AT line are those of a report but for the time, which is equal as a float."""
    (*others, when), (*their_others, their_when) = sent.split(), operands.split()
    return others == their_others and float(when) == float(their_when)


def looks_whole(line: bytes, answer: bytes) -> bool:
    """Whether an answer without an end to this line is complete, as far as its beginning tells."""
    if answer.startswith(b"AT "):
        return line.startswith(b"IAMAT ") and answer.endswith(b" " + b" ".join(line.split()[1:]))
    return answer == b"? " + line


def end_of_json(data: bytes) -> int | None:
    """Return where the first JSON object in this data ends; None if it is not whole, or if there is none."""
    start = data.find(b"{")
    if start < 0:
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(data.decode("latin-1"), start)
    except (ValueError, RecursionError):
        return None
    return end


def form_of_at(server: bytes, operands: bytes) -> str:
    """Describe the form of the answer to a report."""
    return f"AT {escaped(server)}, a difference in seconds, {escaped(operands)}"


def json_complaint(body: bytes, *, squeezed: bool = True) -> str | None:
    """Return why the places of a WHATSAT answer, given without its last two LFs, are no JSON as it should be; None if
    they are. Empty lines are wrong if it should be `squeezed`.
    """
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    if not isinstance(document, dict):
        return "JSON that is no object"
    if squeezed and (b"\n\n" in body or body.endswith(b"\n")):
        return "JSON with an empty line in it or at its end"
    return None


def fields_complaint(body: bytes) -> str | None:
    """Return what is wrong with the fields of places, which are a JSON object; None if nothing is."""
    document: dict[str, Any] = json.loads(body)
    missing = [key for key in ("html_attributions", "results", "status") if key not in document]
    if missing:
        return f"JSON without {', '.join(missing)}"
    results = document["results"]
    if not isinstance(results, list) or not isinstance(document["html_attributions"], list):
        return "html_attributions or results that is no list"
    if not isinstance(document["status"], str) or document["status"] not in PLACES_STATUSES:
        return f"the status {quoted(str(document['status'])[:40])}, which Google has not"
    if not all(isinstance(one, dict) for one in results) or (results and document["status"] != "OK"):
        return f"results that are no objects, or that stand beside the status {document['status']}"
    return None


def bound_complaint(body: bytes, most: int) -> str | None:
    """Return by how much the results of places, which are a JSON object, are too many; None if they are not."""
    results = json.loads(body).get("results")
    if isinstance(results, list) and len(results) > most:
        return f"{len(results)} results, more than the {most} asked for"
    return None


def is_from_a_float(nanoseconds: int) -> bool:
    """Whether this many nanoseconds are the result of writing a double of seconds with nine decimals."""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    exact = f"{seconds}.{rest:09d}"
    return f"{float(exact):.9f}" == exact
