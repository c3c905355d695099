r"""The names of clients: what is a string in JSON, and percent-encoded in a path, is an ID in the table.

An ID is any run of bytes without white space. A name is any text. Each ID has one name, and two IDs never share one:

    name            ID
    my phone        my%20phone        white space is percent-encoded, so that the ID is one word of a line
    my%20phone      my%2520phone      what looks like it gets one more 25,
    my%2520phone    my%252520phone    however many it has
    100%25          100%25            nothing else changes
    %FF             the byte 0xFF     a byte that is not UTF-8 has no other place in text
    %25FF           %FF               likewise with one more 25, in the other direction

A path has the name percent-encoded, as `encodeURIComponent` of JavaScript writes it. It may also have the bytes of an
ID that are not UTF-8.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from proxyherd.core.reply import Reply
from proxyherd.web.problems import CLIENT, Problem

NAME_BYTES: Final = 8_192
"""Bytes of a name: as many as a line has by default."""

_MOST_SEGMENTS: Final = 8
"""More than any path has that is served: each costs time."""

_SPACES: Final = [(bytes([code]), b"%%%02X" % code) for code in b"\t\n\v\f\r "]
_SPACE: Final = rb"(?:25)*(?:09|0[A-D]|20)"
_HIGH_BYTES: Final = {b"%%%02X" % code: bytes([code]) for code in range(0x80, 0x100)}
_HIGH: Final = rb"(?:25)*[89A-F][0-9A-F]"
# Nothing is called for each match, where it can be avoided: hostile names have many.
_before_space = re.compile(rb"%(?=" + _SPACE + rb")").sub
_before_longer_space = re.compile(rb"%25(?=" + _SPACE + rb")").sub
_before_high = re.compile(rb"%(?=" + _HIGH + rb")").sub
_before_longer_high = re.compile(rb"%25(?=" + _HIGH + rb")").sub
_high = re.compile(rb"%[89A-F][0-9A-F]").subn
_NOT_UTF8: Final = {0xDC00 + code: f"%{code:02X}" for code in range(0x80, 0x100)}
_no_percent_encoding = re.compile(rb"%(?![0-9A-Fa-f]{2})").search


def id_of(name: str) -> bytes:
    """Return the ID of the client with this name. Raises Problem if no ID has this name."""
    if not name:
        raise Problem(CLIENT, "A name has at least one character.", "client")
    try:
        text = name.encode() if len(name) <= NAME_BYTES else b""
    except UnicodeEncodeError:
        raise Problem(CLIENT, "A name cannot have half of a surrogate pair.", "client") from None
    if not 0 < len(text) <= NAME_BYTES:
        raise Problem(CLIENT, f"A name has at most {NAME_BYTES:,} bytes.", "client")
    if b"%" not in text:
        return _without_spaces(text)
    client, bytes_ = _high(lambda match: _HIGH_BYTES[match[0]], _before_space(b"%25", text))
    client = _without_spaces(_before_longer_high(b"%", client))
    if bytes_ and name_of(client) != name:
        raise Problem(CLIENT, "Percent-encoded UTF-8 is no name; write its characters.", "client")
    return client


def _without_spaces(text: bytes) -> bytes:
    """Return a text with its white space percent-encoded."""
    if text.split(None, 1) == [text]:
        return text
    for space, encoded in _SPACES:
        text = text.replace(space, encoded)
    return text


def check_id_taken(reply: Reply) -> None:
    """Check that the judge did not refuse the ID of a command. Raises Problem."""
    if reply.refusal == "long_id":
        raise Problem(CLIENT, "This name is longer than this server allows (max_client_bytes).", "client")


def name_of(client: bytes) -> str:
    """Return the name of the client with this ID."""
    if b"%" in client:
        client = _before_high(b"%25", client)
        for space, encoded in _SPACES:
            client = client.replace(encoded, space)
        client = _before_longer_space(b"%", client)
    return text_of(client)


def path_names(path: str) -> list[str]:
    """Return the decoded segments of a path as it was sent, such as `/v1/clients/my%20phone`: `v1`, `clients`, `my phone`.
    What is behind the first few is one segment. Raises Problem.
    """
    if "%" not in path and path.isascii():
        return path.split("/", _MOST_SEGMENTS)[1:]
    data = path.encode("utf-8", "surrogateescape")
    if _no_percent_encoding(data):
        raise Problem(CLIENT, "In a path, a percent sign stands before two hexadecimal digits.", "client")
    return [text_of(unquote_to_bytes(segment)) for segment in data.split(b"/", _MOST_SEGMENTS)[1:]]


def text_of(data: bytes) -> str:
    """Return UTF-8 as text; bytes that are not UTF-8 become percent-encoded. Different lines may become the same text."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape").translate(_NOT_UTF8)
