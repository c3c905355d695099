"""What the client protocol asks for, written a second time: from its specification, and not from the package.

`expect` says what must be answered to the whole byte stream of one connection; `check` holds what was answered
against that. Nothing here knows the package: white space is what `bytes.split` takes for it, numbers are Decimals,
and a line is what stands between two LFs of the whole stream. Plain and in one piece, so that a reader can compare
it with the page. AT lines between servers are judged by `peer_at`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache

COPIED = 1_024
CLIENT_BYTES = 512  # of an ID, at most


LEAD = Decimal(1)
"""Seconds by which a client's clock may be ahead, and its time still counts."""

LATEST = Decimal(10**12)
"""No time is as late."""


@dataclass(frozen=True)
class Known:
    """What the server holds of a client: its AT line, without LF, and the time that counts, in seconds.

    The line is None where it is the answer to a report on this connection: then `answer` is that one's number.
    """

    line: bytes | None
    time: Decimal
    answer: int = -1


@dataclass(frozen=True)
class Copied:
    """The answer is `? `, these bytes, LF."""

    line: bytes


@dataclass(frozen=True)
class Reported:
    """The answer is an AT line of this server with these operands."""

    operands: bytes
    time: Decimal
    stored: bool


@dataclass(frozen=True)
class Near:
    """The answer is the AT line of what is known, then the JSON of at most so many results, then two LFs."""

    known: Known
    most: int
    asked: bool  # False: radius 0 or a bound of 0, so nobody is asked


Expected = Copied | Reported | Near


@dataclass
class Expectation:
    """The answers to one connection, in their order, and what the server knows in the end."""

    answers: list[Expected] = field(default_factory=list)
    known: dict[bytes, Known] = field(default_factory=dict)


def lines_of(stream: bytes, *, half_close: bool, limit: int) -> list[bytes]:
    """Return the lines that must be answered; an overlong one is among them whole. An HTTP request is the last."""
    *whole, last = stream.split(b"\n")
    for number, line in enumerate(whole, 1):
        if is_http_request(line):
            return whole[:number]
    if last and (half_close or len(last) > limit):
        whole.append(last)
    return whole


def is_http_request(line: bytes) -> bool:
    """Three words: a method (a token of RFC 9110, of at most 32 bytes), a target, and HTTP/1 with a minor version."""
    match line.split():
        case [method, _, version]:
            letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~"
            token = len(method) <= 32 and not method.strip(letters)
            return token and len(version) == 8 and version[:7] == b"HTTP/1." and is_digits(version[7:])
    return False


def ends_at_request(stream: bytes) -> bool:
    """Whether the server closes by itself: a whole line of the stream is an HTTP request."""
    return any(map(is_http_request, stream.split(b"\n")[:-1]))


def expect(
    stream: bytes,
    known: Mapping[bytes, Known],
    *,
    half_close: bool,
    limit: int,
    max_clients: int = 10**9,
    received: int | None = None,
) -> Expectation:
    """Return what must be answered to this stream by a ready server that knows these clients. `received`: when, in
    nanoseconds; without it, the times must not be from the future.
    """
    result = Expectation(known=dict(known))
    latest = LATEST if received is None else Decimal(received).scaleb(-9) + LEAD
    for line in lines_of(stream, half_close=half_close, limit=limit):
        result.answers.append(_answer(line, result, limit, max_clients, latest))
    return result


def _answer(line: bytes, so_far: Expectation, limit: int, max_clients: int, latest: Decimal) -> Expected:
    if len(line) > limit:
        return Copied(line[:COPIED])
    match line.split():
        case [_, client, *_] if len(client) > CLIENT_BYTES:
            return Copied(line)
        case [b"IAMAT", client, location, time] if (
            is_location(location) and (at := seconds(time)) is not None
        ):
            held = so_far.known.get(client)
            if held is None and len(so_far.known) >= max_clients:
                return Copied(line)
            counts = min(at, latest)
            stored = held is None or counts > held.time
            if stored:
                so_far.known[client] = Known(None, counts, len(so_far.answers))
            return Reported(b" ".join((client, location, time)), at, stored)
        case [b"WHATSAT", client, radius, most] if is_radius(radius) and is_bound(most):
            held = so_far.known.get(client)
            if held is not None:
                asked = Decimal(radius.decode()) > 0 and int(most) > 0
                return Near(held, int(most), asked)
    return Copied(line)


# Fields. -----------------------------------------------------------------------------------------------------------


def is_digits(text: bytes) -> bool:
    return len(text) > 0 and not text.strip(b"0123456789")


def _is_decimal(text: bytes) -> bool:
    """Digits with an optional fraction, a point and at least one digit."""
    whole, point, fraction = text.partition(b".")
    return is_digits(whole) and (not point or is_digits(fraction))


def is_location(text: bytes) -> bool:
    rest = text[1:]
    if text[:1] not in {b"+", b"-"} or rest.count(b"+") + rest.count(b"-") != 1:
        return False
    latitude, _, longitude = rest.replace(b"+", b"-").partition(b"-")
    for degrees, digits, bound in ((latitude, 2, 90), (longitude, 3, 180)):
        if not _is_decimal(degrees) or len(degrees.partition(b".")[0]) > digits:
            return False
        if Decimal(degrees.decode()) > bound:
            return False
    return True


def seconds(text: bytes) -> Decimal | None:
    """Return a time as a number; None if it is out of form."""
    whole, _, fraction = text.partition(b".")
    if not _is_decimal(text) or len(whole) > 12 or len(fraction) > 9:
        return None
    return Decimal(text.decode())


def is_radius(text: bytes) -> bool:
    return len(text) <= 20 and _is_decimal(text) and Decimal(text.decode()) <= 50


def is_bound(text: bytes) -> bool:
    return len(text) <= 20 and is_digits(text) and int(text) <= 20


# Answers. ----------------------------------------------------------------------------------------------------------


def check(
    expectation: Expectation,
    answered: bytes,
    *,
    server: bytes,
    received: tuple[int, int],
) -> dict[bytes, bytes]:
    """Raise AssertionError unless `answered` is exactly what was expected; return the AT lines known in the end.

    `received` bounds the server's receiving time, in nanoseconds.
    """
    rest = answered
    answers: list[bytes] = []
    for expected in expectation.answers:
        match expected:
            case Copied(line):
                answer = b"? " + line
                assert rest.startswith(answer + b"\n"), (expected, rest[:200])
            case Reported():
                answer = rest.partition(b"\n")[0]
                _check_report(expected, answer, server, received)
            case Near(known, most, asked):
                answer = known.line if known.line is not None else answers[known.answer]
                assert rest.startswith(answer + b"\n"), (expected, rest[:200])
                body, end, _ = rest[len(answer) + 1 :].partition(b"\n\n")
                assert end, f"no end: {rest[:200]!r}"
                check_places(body, most, asked=asked)
                answer += b"\n" + body + b"\n"
        assert rest[len(answer) : len(answer) + 1] == b"\n", (expected, rest[:200])
        answers.append(answer)
        rest = rest[len(answer) + 1 :]
    assert rest == b"", f"answers to nothing: {rest[:200]!r}"
    return {
        client: known.line if known.line is not None else answers[known.answer]
        for client, known in expectation.known.items()
    }


def _check_report(expected: Reported, answer: bytes, server: bytes, received: tuple[int, int]) -> None:
    begins, ends = b"AT %b " % server, b" " + expected.operands
    assert answer.startswith(begins), (expected, answer)
    assert answer.endswith(ends), (expected, answer)
    difference = answer[len(begins) : -len(ends)]
    assert is_difference(difference), (expected, answer)
    between = [Decimal(one).scaleb(-9) - expected.time for one in received]  # of 21 digits: exact
    assert between[0] <= Decimal(difference.decode()) <= between[1], (expected, answer, received)


def is_difference(text: bytes) -> bool:
    """Seconds with a sign and nine decimals, no digit too many before the point, and no negative zero."""
    sign, (whole, point, fraction) = text[:1], text[1:].partition(b".")
    if sign not in {b"+", b"-"} or point != b"." or not is_digits(whole) or not is_digits(fraction):
        return False
    if len(fraction) != 9 or (whole[:1] == b"0" and len(whole) > 1):
        return False
    return sign == b"+" or any(byte != 0x30 for byte in whole + fraction)


def check_places(body: bytes, most: int, *, asked: bool) -> None:
    document = json.loads(body)
    assert {"html_attributions", "results", "status"} <= document.keys()
    assert len(document["results"]) <= most
    assert asked or (document["results"] == [] and document["status"] == "ZERO_RESULTS")
    assert not body.endswith(b"\n")


# Between servers. --------------------------------------------------------------------------------------------------


@lru_cache(4_096)
def peer_at(line: bytes) -> tuple[bytes, tuple[Decimal, bytes]] | None:
    """Return whose an AT line of a peer is, and its place in the total order; None if it is malformed."""
    match line.split(b" "):
        case [b"AT", name, difference, client, location, time]:
            at = seconds(time)
            well_formed = (
                _is_name(name)
                and is_difference(difference)
                and len(difference) <= 1 + 12 + 1 + 9
                and client.split() == [client]
                and is_location(location)
            )
            if not well_formed or at is None:
                return None
            return client, (max(Decimal(0), min(at, at + Decimal(difference.decode()) + LEAD)), line)
    return None


def _is_name(name: bytes) -> bool:
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return 0 < len(name) <= 63 and name[0] in letters and all(b in letters + b"0123456789_-" for b in name)


def greatest(lines: list[bytes], held: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return what a table ends with that held these lines and learned those, malformed ones left out."""
    places = {client: place for line in held.values() for client, place in [_well_formed(line)]}
    for line in lines:
        if (update := peer_at(line)) is not None:
            client, place = update
            if client not in places or place > places[client]:
                places[client] = place
    return {client: place[1] for client, place in places.items()}


def _well_formed(line: bytes) -> tuple[bytes, tuple[Decimal, bytes]]:
    update = peer_at(line)
    assert update is not None
    return update
