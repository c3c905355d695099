"""Questions about one client, and their answers: where it is, and which places are near.

Both are a `WHATSAT` over TCP. The one that only asks where a client is asks for no places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from msgspec import Raw

from proxyherd.core.messages import received
from proxyherd.core.reply import Reply
from proxyherd.web.ids import check_id_taken, name_of, text_of
from proxyherd.web.locations import json_degrees
from proxyherd.web.problems import NOT_TAKEN, QUERY, UNKNOWN, Problem
from proxyherd.web.times import spelled_time

RADIUS_KM: Final = b"10"
LIMIT: Final = b"20"
"""What is asked for places where nothing else is said: what people reach soon, and as many as there can be."""

_MOST_PARAMETERS: Final = 64


def read_parameters(query: str, allowed: Sequence[str]) -> dict[str, str]:
    """Return the parameters of a query, which may be empty. Raises Problem if one is unknown or occurs twice."""
    found = split_query(query)
    names = [name for name, _ in found]
    if not {*names} <= {*allowed}:
        raise Problem(QUERY, _only(allowed))
    for name in allowed:
        if names.count(name) > 1:
            raise Problem(QUERY, "A parameter occurs once.", name)
    return dict(found)


def split_query(query: str) -> list[tuple[str, str]]:
    """Return the parameters of a query or form, in order, with bytes that are not UTF-8 as halves of surrogate pairs. Raises
    Problem.
    """
    try:
        return parse_qsl(
            query, keep_blank_values=True, errors="surrogateescape", max_num_fields=_MOST_PARAMETERS
        )
    except ValueError:
        raise Problem(QUERY, f"A query has at most {_MOST_PARAMETERS} parameters.") from None


def locate_answer(reply: Reply) -> bytes:
    """Return where a client is, as JSON. Raises Problem."""
    line = _line(reply)
    _, server, _, client, _, time = line.split(b" ")
    lat, lon = json_degrees(line)
    return msgspec.json.encode(
        {
            "client": name_of(client),
            "lat": Raw(lat),
            "lon": Raw(lon),
            "time": time.decode(),
            "server": server.decode(),
            "received": spelled_time(received(line)).decode(),
            "at": text_of(line),
        }
    )


def places_answer(reply: Reply) -> tuple[bytes, bytes]:
    """Return the AT line of a client, and the places near it in Google's JSON. Raises Problem."""
    line = _line(reply)
    return line, (reply.answer or b"")[len(line) + 1 :]


def unknown_client() -> Problem:
    """Return the problem of a client that no server has heard of, or that must not be seen."""
    return Problem(UNKNOWN, "No server has heard of a client with this name.", "client")


def header_value(line: bytes) -> str:
    """Return an AT line as the value of a header: all but visible ASCII and spaces is percent-encoded."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"%{byte:02X}" for byte in line)


def _line(reply: Reply) -> bytes:
    """Return the AT line of a client that is known. Raises Problem."""
    if reply.outcome in ("unknown", "denied"):  # nobody learns which
        raise unknown_client()
    check_id_taken(reply)
    line, _, _ = (reply.answer or b"").partition(b"\n")
    if not line.startswith(b"AT "):
        raise Problem(NOT_TAKEN, "The server cannot say that now.")
    return line


def _only(allowed: Sequence[str]) -> str:
    return f"The parameters here are {', '.join(allowed)}." if allowed else "There are no parameters here."
