"""Nearby Search answers: cut to a bound, squeezed to the wire's form, or made here when there is none.

The rule: what Google sent stays what Google sent. An answer is never re-serialised, so key order, number
spelling and layout survive; only the bytes of surplus results and surplus line feeds go. What is not plainly
a Nearby Search answer is refused as a whole, never mended.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

STATUSES: Final = frozenset(
    {"OK", "ZERO_RESULTS", "INVALID_REQUEST", "OVER_QUERY_LIMIT", "REQUEST_DENIED", "UNKNOWN_ERROR"}
)
"""Every status that Google documents for a Nearby Search."""

_SPACE = re.compile(r"[ \t\n\r]*")
_LINE_FEEDS = re.compile(rb"\n{2,}")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_]")


class NonsenseError(ValueError):
    """This is no Nearby Search answer. The text says why, in words that quote nothing of it."""


class Answer(msgspec.Struct, frozen=True):
    """What Places said: the JSON as the client gets it, less the two line feeds that end it.

    `status` is at most 64 characters of A to Z, a to z, 0 to 9 and '_', whatever the upstream invents; who
    makes it a metric's label still maps what is not in STATUSES to one word, or the labels have no bound.
    """

    body: bytes
    status: str
    results: int


def no_results(status: str, message: str | None = None) -> Answer:
    """Make an answer without results; `message`, plain words that hold no key, becomes `error_message`."""
    document: dict[str, Any] = {"html_attributions": [], "results": [], "status": status}
    if message is not None:
        document["error_message"] = message
    return made_here(document)


def made_here(document: dict[str, Any]) -> Answer:
    """Spell an answer that no upstream spelled, laid out as Google's are; it has `results` and `status`."""
    body = msgspec.json.format(msgspec.json.encode(document), indent=3)
    return Answer(squeeze(body), document["status"], len(document["results"]))


def squeeze(body: bytes) -> bytes:
    """Make every run of two or more LFs one, and drop those at the end, so that two LFs can only end it.

    Meaning is safe: a JSON string holds no raw LF, so all of them are layout.
    """
    return _LINE_FEEDS.sub(b"\n", body).rstrip(b"\n")


def cut(body: bytes, most: int) -> Answer:
    """Cut an answer to its first `most` results and squeeze it; everything else stays byte for byte.

    What goes when there are too many stands between the end of the last result that stays and the end of
    the last one there is; white space before the closing bracket is the layout's, and stays.

    Raises NonsenseError if `body` is not UTF-8, not one JSON object (NaN and Infinity are not JSON), nested
    too deeply to read, or if its `results` is no list, its `status` no string, or either stands there twice.
    """
    try:
        text = body.decode()
        members = _members(text)
    except UnicodeDecodeError as error:
        raise NonsenseError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise NonsenseError(f"not JSON at character {error.pos}") from None
    except RecursionError:
        raise NonsenseError("nested too deeply") from None
    results, start, end = members.get("results", (None, 0, 0))
    status = members.get("status", (None, 0, 0))[0]
    if not isinstance(results, list):
        raise NonsenseError("'results' is not a list")
    if not isinstance(status, str):
        raise NonsenseError("'status' is not a string")
    if len(results) > most:
        text = text[: _end_of_result(text, start, most)] + text[_end_of_last(text, end) :]
    return Answer(squeeze(text.encode()), _NOT_PLAIN.sub("_", status[:64]), min(len(results), most))


def _refuse_constant(name: str) -> Any:
    raise NonsenseError(f"holds {name}, which is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=float)
"""Numbers are only passed over: as floats, since the digits of an int may be too many for Python."""


def _members(text: str) -> dict[str, tuple[Any, int, int]]:
    """Read an object's members: each value, and where in the text it starts and ends."""
    members: dict[str, tuple[Any, int, int]] = {}
    at = _expect(text, 0, "{")
    if not text.startswith("}", at):
        while True:
            if not text.startswith('"', at):
                raise NonsenseError(f"no key at character {at}")
            key, at = _DECODER.raw_decode(text, at)
            start = _expect(text, _skip(text, at), ":")
            value, end = _DECODER.raw_decode(text, start)
            if key in members and key in {"results", "status"}:
                raise NonsenseError(f"{key!r} stands there twice")
            members[key] = value, start, end
            at = _skip(text, end)
            if not text.startswith(",", at):
                break
            at = _skip(text, at + 1)
    if _expect(text, at, "}") != len(text):
        raise NonsenseError("something stands behind its end")
    return members


def _end_of_result(text: str, start: int, number: int) -> int:
    """Return where the `number`th element ends of the list that starts there; for 0, where its inside starts.

    Reads only what stays: a list of a million surplus elements costs no loop here.
    """
    at = start + 1
    for _ in range(number):
        at = _DECODER.raw_decode(text, _expect(text, at, ",") if at > start + 1 else _skip(text, at))[1]
    return at


def _end_of_last(text: str, end: int) -> int:
    """Return where the last element ends of the list that ends there."""
    return len(text[: end - 1].rstrip(" \t\n\r"))


def _expect(text: str, at: int, token: str) -> int:
    """Pass a token, and the white space on both its sides."""
    at = _skip(text, at)
    if not text.startswith(token, at):
        raise NonsenseError(f"no {token!r} at character {at}")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()
