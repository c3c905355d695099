"""Fetches what another server's admin port answers, of which nothing is believed.

HTTP/1.0, where an answer is a head and then bytes until the end: to read it is to count bytes. A client that knows all
of HTTP would read in one go whatever came in a moment, and be held up for a twentieth of a second by a quarter of a
MiB in chunks of one byte.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

_HEAD_BYTES: Final = 8_192
_READ_BYTES: Final = 65_536
_status: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})\b").match


class UnusableError(Exception):
    """A server has given nothing that can be used; the text says what it did."""


async def fetch(host: str, port: int, path: str, most: int) -> bytes:
    """Return what is at a path of an address. Raises UnusableError where that is more than so many bytes, or none, and
    OSError.
    """
    # An admin port always serves loopback's, and what it guards against are browsers.
    request = f"GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n".encode("ascii")
    data = bytearray()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        while some := await reader.read(_READ_BYTES):
            data += some
            if len(data) > _HEAD_BYTES + most:
                raise UnusableError(f"answers with more than {most} bytes")
    finally:
        writer.transport.abort()  # there is nothing more to say, and none of the rest is wanted
    head, end, body = bytes(data).partition(b"\r\n\r\n")
    status = _status(head)
    if status is None or not end:
        raise UnusableError("no answer that is one")
    if status[1] != b"200":
        raise UnusableError(f"answers {status[1].decode()}")
    return body
