"""How a request is transferred: the version of HTTP, the form of its body, and whether its client waits to send that
(RFC 9110 and 9112). All that is decided by the method, the version and the headers, before the body comes.

A request whose end is not certain must not be read on: a proxy before this server may see another end, and what one of
them takes for a body, the other takes for requests of somebody else. So the connection closes behind each of these
problems.
"""

from __future__ import annotations

import re
from typing import Final

from proxyherd.web.bodies import BODY_BYTES
from proxyherd.web.problems import CODING, EXPECTATION, LARGE, REQUEST, VERSION, Problem
from proxyherd.web.requests import Headers

_OLD: Final = (1, 0)
_MAJOR: Final = 1
_SPACE: Final = " \t"

_chunked = re.compile(r"[ \t]*chunked[ \t]*", re.IGNORECASE | re.ASCII).fullmatch
_length = re.compile(r"[0-9]{1,19}").fullmatch


def check_transfer(method: str, version: tuple[int, int], headers: Headers) -> bool:
    """Check how a request is transferred. `version`: of HTTP, as major and minor number. Return whether its client
    waits for `100 Continue` before it sends the body. Raises Problem, behind whose answer the connection must close.
    """
    if version[0] != _MAJOR:
        raise Problem(VERSION, "This port speaks HTTP/1.1.")
    if method == "CONNECT":
        raise Problem(REQUEST, "This is no proxy.")
    lengths, codings = headers.getall("Content-Length", []), headers.getall("Transfer-Encoding", [])
    if codings:
        _check_codings(codings, version)
        if lengths:
            raise Problem(REQUEST, "A request has Content-Length or Transfer-Encoding, not both.")
    elif lengths:
        _check_length(lengths)
    expected = headers.getall("Expect", [])
    if not expected or version == _OLD:  # RFC 9110, section 10.1.1: HTTP/1.0 knows no expectations
        return False
    if [one.strip(_SPACE).lower() for one in expected] != ["100-continue"]:
        raise Problem(EXPECTATION, "Only 100-continue can be expected here.")
    return bool(codings) or any(map(int, lengths))


def _check_codings(lines: list[str], version: tuple[int, int]) -> None:
    """Check the headers Transfer-Encoding. Raises Problem."""
    codings = ",".join(lines).split(",")
    if version == _OLD:
        raise Problem(REQUEST, "HTTP/1.0 has no Transfer-Encoding.")
    if not _chunked(codings[-1]) or any(map(_chunked, codings[:-1])):
        raise Problem(REQUEST, "The last transfer coding is chunked, and no other one is.")
    if len(codings) > 1:
        raise Problem(
            CODING, "A body comes in chunks, or as it is. Content-Encoding may say that it is packed."
        )


def _check_length(lengths: list[str]) -> None:
    """Check the headers Content-Length. Raises Problem."""
    if len(lengths) > 1 or not _length(lengths[0].strip(_SPACE)):
        raise Problem(REQUEST, "Content-Length is one number.")
    if int(lengths[0]) > BODY_BYTES:
        raise Problem(LARGE, f"A body has at most {BODY_BYTES:,} bytes.")
