"""Answers to requests, whatever protocol carries them."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from proxyherd.web import problems
from proxyherd.web.problems import Problem

EVENT_STREAM: Final = "text/event-stream"
"""The type of server-sent events."""

_JSON: Final = "application/json"

_CHALLENGES: Final = (
    ("WWW-Authenticate", 'Bearer realm="proxyherd"'),
    ("WWW-Authenticate", 'Basic realm="proxyherd", charset="UTF-8"'),
)
"""How a token is sent. Some apps, and browsers, send a password only after they were asked for it."""

_Headers = tuple[tuple[str, str], ...]


class WebAnswer(Struct, frozen=True):
    """An answer: a status of HTTP, a body of this type, and more headers."""

    status: int
    body: bytes = b""
    content_type: str = _JSON
    headers: _Headers = ()


def of_problem(problem: Problem, *headers: tuple[str, str]) -> WebAnswer:
    """Return the answer that says what is wrong with a request."""
    kind = problem.kind
    if kind is problems.TOKEN:
        headers = (*headers, *_CHALLENGES)
    if problem.retry_seconds:
        headers = (*headers, ("Retry-After", str(problem.retry_seconds)))
    return WebAnswer(kind.status, problem.document(), problems.CONTENT_TYPE, headers)
