"""Nearby Search answers: cut to a bound, with surplus line feeds removed, or made here if there is none.

The rule: Google's answers are passed on as Google sent them. An answer is never serialized again, so key order,
spelling of numbers and layout stay. Only the bytes of surplus results and surplus line feeds are removed. Anything
that is not clearly a Nearby Search answer is refused as a whole, never repaired.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate, pairwise
from typing import Any, Final

import msgspec

STATUSES: Final = frozenset(
    {"OK", "ZERO_RESULTS", "INVALID_REQUEST", "OVER_QUERY_LIMIT", "REQUEST_DENIED", "UNKNOWN_ERROR"}
)
"""Every status that Google documents for a Nearby Search."""

MOST_RESULTS: Final = 20
"""The maximum number of results that Google gives, and that a client may ask for."""

_SPACE = re.compile(r"[ \t\n\r]*")
_BEHIND_RESULT = re.compile(r"[ \t\n\r]*([,\]])")
_LINE_FEEDS = re.compile(rb"\n{2,}")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_]")


class NonsenseError(ValueError):
    """This is not a Nearby Search answer. The text says why, and quotes nothing of it."""


class UnreadableError(NonsenseError):
    """Another call would not help: the answer is not damaged, but too long, or compressed in a way that
    nobody asked for.
    """


class Answer(msgspec.Struct, frozen=True):
    """The answer of Places: the JSON as the client gets it, without the two line feeds at its end.

    `status` has at most 64 characters of A to Z, a to z, 0 to 9 and '_', whatever the upstream sends. To use it as a
    metric's label, map all words that are not in STATUSES to one word; otherwise the labels have no limit. `ends`:
    where each of the first results ends in the body, and last where the last result ends; empty if unknown.
    """

    body: bytes
    status: str
    results: int
    ends: tuple[int, ...] = ()


def no_results(status: str, message: str | None = None) -> Answer:
    """Make an answer without results; `message`, plain words without the key, becomes its `error_message`."""
    document: dict[str, Any] = {"html_attributions": [], "results": [], "status": status}
    if message is not None:
        document["error_message"] = message
    return made_here(document)


def made_here(document: dict[str, Any]) -> Answer:
    """Write an answer in Google's layout; it has `results` and `status`."""
    body = msgspec.json.format(msgspec.json.encode(document), indent=3)
    return Answer(squeeze(body), document["status"], len(document["results"]))


def squeeze(body: bytes) -> bytes:
    """Replace two or more LFs in a row by one, and remove those at the end, so that only the end of the answer has two
    LFs.

    This does not change the meaning: a JSON string has no raw LF, so all of them are layout.
    """
    body = body.rstrip(b"\n")
    return _LINE_FEEDS.sub(b"\n", body) if b"\n\n" in body else body


def read_answer(body: bytes) -> Answer:
    """Parse an answer and squeeze it; everything else stays byte for byte.

    Raises NonsenseError if `body` is not UTF-8, not one JSON object (NaN and Infinity are not JSON), or nested too
    deeply; or if its `results` is not a list, its `status` not a string, or one of them occurs twice.
    """
    body = squeeze(body)
    try:
        text = body.decode()
        ends, results, status = _read(text)
    except UnicodeDecodeError as error:
        raise NonsenseError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise NonsenseError(f"not JSON at character {error.pos}") from None
    except RecursionError:
        raise NonsenseError("nested too deeply") from None
    return Answer(body, plain_word(status), results, _byte_positions(text, ends))


def shorten(answer: Answer, most: int) -> Answer:
    """Cut an answer to its first `most` results, 1 to MOST_RESULTS; everything else stays byte for byte.

    The bytes between the end of the last result that stays and the end of the last result are removed. White space
    before the closing bracket stays.
    """
    if answer.results <= most:
        return Answer(answer.body, answer.status, answer.results)
    if len(answer.ends) <= most:
        answer = read_answer(answer.body)
    kept, last = answer.ends[most - 1], answer.ends[-1]
    return Answer(answer.body[:kept] + answer.body[last:], answer.status, most)


def cut(body: bytes, most: int) -> Answer:
    """Parse an answer of an upstream and cut it. Raises NonsenseError, as `read_answer`."""
    return shorten(read_answer(body), most)


def plain_word(text: str) -> str:
    """Make a word of an upstream fit for logs and answers: at most 64 plain characters."""
    return _NOT_PLAIN.sub("_", text[:64])


def _refuse_constant(name: str) -> Any:
    raise NonsenseError(f"holds {name}, which is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=float)
"""Numbers are skipped. They are parsed as floats, because an int may have too many digits for Python."""


def _read(text: str) -> tuple[list[int], int, str]:
    """Parse an object's `results` and `status`: where results end, how many there are, and the status."""
    found: dict[str, Any] = {}
    at = _expect(text, 0, "{")
    if not text.startswith("}", at):
        while True:
            if not text.startswith('"', at):
                raise NonsenseError(f"no key at character {at}")
            key, at = _DECODER.raw_decode(text, at)
            start = _expect(text, _skip(text, at), ":")
            if key in found and key in {"results", "status"}:
                raise NonsenseError(f"{key!r} stands there twice")
            if key == "results" and text.startswith("[", start):
                found[key], end = _read_results(text, start)
            else:
                found[key], end = _DECODER.raw_decode(text, start)
            at = _skip(text, end)
            if not text.startswith(",", at):
                break
            at = _skip(text, at + 1)
    if _expect(text, at, "}") != len(text):
        raise NonsenseError("something stands behind its end")
    if not isinstance(found.get("results"), tuple):
        raise NonsenseError("'results' is not a list")
    if not isinstance(found.get("status"), str):
        raise NonsenseError("'status' is not a string")
    ends, results = found["results"]
    return ends, results, found["status"]


def _read_results(text: str, start: int) -> tuple[tuple[list[int], int], int]:
    """Parse the list that starts there: where its first elements end and where the last one ends, their number, and the
    list's own end.

    The first elements are parsed one by one. Those beyond what a client may ask for are parsed at once, so that a
    million of them need no loop here.
    """
    ends: list[int] = []
    at = _skip(text, start + 1)
    if text.startswith("]", at):
        return (ends, 0), at + 1
    while len(ends) < MOST_RESULTS:
        end = _DECODER.raw_decode(text, at)[1]
        ends.append(end)
        if (behind := _BEHIND_RESULT.match(text, end)) is None:
            raise NonsenseError(f"no ',' at character {end}")
        if behind[1] == "]":
            return (ends, len(ends)), behind.end()
        at = _skip(text, behind.end())
    surplus, length = _DECODER.raw_decode("[" + text[at:])
    if not surplus:
        raise NonsenseError(f"no result at character {at}")
    end = at + length - 1
    ends.append(len(text[: end - 1].rstrip(" \t\n\r")))
    return (ends, len(surplus) + MOST_RESULTS), end


def _byte_positions(text: str, positions: list[int]) -> tuple[int, ...]:
    """Convert positions in a text, in ascending order, to positions in its UTF-8."""
    if text.isascii():
        return tuple(positions)
    lengths = (len(text[one:other].encode()) for one, other in pairwise([0, *positions]))
    return tuple(accumulate(lengths))


def _expect(text: str, at: int, token: str) -> int:
    """Skip a token, and the white space on both its sides."""
    at = _skip(text, at)
    if not text.startswith(token, at):
        raise NonsenseError(f"no {token!r} at character {at}")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()
