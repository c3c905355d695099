"""What happens to clients that are followed, as a server says: `GET /v1/events`, a stream of server-sent events.

The format is that of WHATWG HTML, "Server-sent events". Whatever a port sends, what comes out are events or `Unreachable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import msgspec

from proxyherd.client.rules.errors import Unreachable
from proxyherd.remote.web_ports import LATER, PortConnection, not_answered, unreachable, whole

if TYPE_CHECKING:
    from proxyherd.config.herd_file import Server

_SILENT_SECONDS: Final = 60.0
"""A server that says nothing for so long is gone: it sends a comment each 25 s."""

_LINE_BYTES: Final = 1 << 20
"""Only a foreign program sends longer lines."""


class FollowEvent(msgspec.Struct):
    """An event. `said`: all of it in JSON, as it came; `lat`, `lon`: degrees, as they were reported; `received`: POSIX seconds."""

    event: str = ""
    said: bytes = b""
    client: str = ""
    lat: msgspec.Raw = msgspec.Raw()
    lon: msgspec.Raw = msgspec.Raw()
    time: str = ""
    server: str = ""
    received: str = ""
    initial: bool = False
    complete: bool = True
    clients: int = 0
    reason: str = ""


def followed(server: Server, token: str, query: Sequence[tuple[str, str]]) -> Iterator[FollowEvent | None]:
    """Yield what happens, until the server ends the stream; None where it only says that it is there. `query`: the
    parameters of `/v1/events`. Raises NotAnswered, Unreachable; also if the server wants to be asked later.
    """
    connection = PortConnection(server, _SILENT_SECONDS)
    try:
        answer = connection.get(f"/v1/events?{urlencode(query)}", token, "text/event-stream")
        if answer.status != HTTPStatus.OK:
            refusal = not_answered(server, answer.status, whole(server, answer))
            raise Unreachable(str(refusal)) if answer.status in LATER else refusal
        try:
            yield from events_of(iter(lambda: answer.readline(_LINE_BYTES), b""))
        except (OSError, HTTPException, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise unreachable(server, error) from error
    finally:
        connection.close()


def events_of(lines: Iterable[bytes]) -> Iterator[FollowEvent | None]:
    """Yield the events in the lines of a stream, and None for each comment. An event that is cut off is left out. Raises
    msgspec.DecodeError.
    """
    kind, data = b"", list[bytes]()
    for line in lines:
        field, _, value = line.rstrip(b"\r\n").partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            kind = value
        elif field == b"data":
            data.append(value)
        elif line.startswith(b":"):
            yield None
        elif not line.strip(b"\r\n"):
            if data:
                yield _event_of(kind, b"\n".join(data))
            kind, data = b"", []


def _event_of(kind: bytes, data: bytes) -> FollowEvent:
    event = msgspec.json.decode(data, type=FollowEvent)
    event.event, event.said = event.event or kind.decode(), data
    return event
