"""Answers as bytes of HTTP/1.1."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from proxyherd.web.answers import EVENT_STREAM, WebAnswer
from proxyherd.web.handshakes import Upgrade
from proxyherd.web.requests import ReadRequest

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_WITHOUT_BODY: Final = frozenset([204, 304])


def upgraded(upgrade: Upgrade) -> bytes:
    """Return the answer that lets a WebSocket begin."""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {upgrade.accept}\r\nSec-WebSocket-Protocol: {upgrade.protocol}\r\n\r\n"
    ).encode()


@lru_cache(maxsize=256)
def _start(status: int, content_type: str, second: int, *, is_kept: bool) -> str:
    """Return the status line and the headers that many answers share; `second`: of POSIX time. `is_kept`: other headers say
    for how long the answer may be kept.
    """
    kind = f"Content-Type: {content_type}\r\n" if status not in _WITHOUT_BODY else ""
    kept = "" if is_kept else "Cache-Control: no-store\r\n"
    return (
        f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\nDate: {formatdate(second, usegmt=True)}\r\n{kind}"
        f"X-Content-Type-Options: nosniff\r\n{kept}"
    )


def spelled_answer(
    answer: WebAnswer, request: ReadRequest | None, more: Mapping[str, str], *, closes: bool, second: int
) -> bytes:
    """Return an answer to a request, or to what was none. `closes`: the connection ends behind it; `more`: headers;
    `second`: of POSIX time.
    """
    headers = answer.headers
    is_kept = bool(headers) and "Cache-Control" in dict(headers)
    start = _start(answer.status, answer.content_type, second, is_kept=is_kept)
    if (
        answer.status not in _WITHOUT_BODY and answer.content_type != EVENT_STREAM
    ):  # which ends with its connection
        start += f"Content-Length: {len(answer.body)}\r\n"
    if headers or more:
        for name, value in (*headers, *more.items()):
            start += f"{name}: {value}\r\n"
    if closes:
        start += "Connection: close\r\n"
    elif request is not None and request.is_old:
        start += "Connection: keep-alive\r\n"
    head = (start + "\r\n").encode("utf-8", "surrogateescape")
    return head if request is not None and request.method == "HEAD" else head + answer.body
