"""The small part of HTTP with which servers and commands ask an admin port: one GET, and an answer until the end. No I/O.

It is HTTP/1.0, where an answer is a head and then bytes until the end, so reading means counting bytes. A full HTTP
client handles everything that has arrived at once. A quarter of a MiB in chunks of one byte would block it for a
twentieth of a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_host = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]*?)\.?(:[0-9]{1,5})?", re.IGNORECASE).fullmatch
_status = re.compile(rb"HTTP/1\.[01] ([0-9]{3})\b").match


def request(path: str) -> bytes:
    """Return the request for what is at a path."""
    # An admin port always accepts loopback's Host; its check of Host is against browsers.
    return f"GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n".encode("ascii")


def parse_answer(answer: bytes) -> tuple[int, bytes] | None:
    """Return status and body of a complete answer; None if it is not an answer."""
    head, end, body = answer.partition(b"\r\n\r\n")
    status = _status(head)
    return (int(status[1]), body) if status is not None and end else None


def accepts(host: str, configured: Iterable[str]) -> bool:
    """Whether this Host is accepted, with or without a port, and the dot of DNS's root behind a name: one of loopback's,
    or a configured one.
    """
    match = _host(host)
    names = _LOOPBACK | {name.lower() for name in configured}
    if match is None:
        return False
    name, port = match[1].lower(), match[2] or ""
    return not names.isdisjoint({name, f"{name}{port}", host.lower()})
