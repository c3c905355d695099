"""The little HTTP in which servers of a herd and commands ask an admin port: one GET, and an answer until the end. No I/O.

HTTP/1.0, where an answer is a head and then bytes until the end: to read it is to count bytes. A client that knows all
of HTTP would read in one go whatever came in a moment, and be held up for a twentieth of a second by a quarter of a
MiB in chunks of one byte.
"""

from __future__ import annotations

import re

_status = re.compile(rb"HTTP/1\.[01] ([0-9]{3})\b").match


def request(path: str) -> bytes:
    """Return the request for what is at a path."""
    # An admin port always serves loopback's Host, and what it guards against are browsers.
    return f"GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n".encode("ascii")


def parse_answer(answer: bytes) -> tuple[int, bytes] | None:
    """Return status and body of a whole answer; None if it is none."""
    head, end, body = answer.partition(b"\r\n\r\n")
    status = _status(head)
    return (int(status[1]), body) if status is not None and end else None
