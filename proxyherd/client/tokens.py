"""What a token says that it allows. A server decides, and says of a line only `? `; the library reads why that may be."""

from __future__ import annotations

import math
from base64 import urlsafe_b64decode

import msgspec


class _Claims(msgspec.Struct):
    sub: str = "*"
    may: tuple[str, ...] = ("report",)
    exp: float = math.inf


def may_report(token: str, client: bytes) -> bool:
    """Whether a token allows to report the client with this ID; also True if the token is one that cannot be read."""
    claims = _claims(token)
    name = client.decode("utf-8", "surrogateescape").replace("%20", " ")
    subject = claims.sub.replace("%20", " ")
    is_subject = name.startswith(subject[:-1]) if subject.endswith("*") else name == subject
    return "report" in claims.may and is_subject


def end_of(token: str) -> float:
    """Return when a token ends, in POSIX seconds; infinity if it cannot be read."""
    return _claims(token).exp


def _claims(token: str) -> _Claims:
    """Return what a token says. What cannot be read allows everything, for ever."""
    try:
        return msgspec.json.decode(urlsafe_b64decode(token.split(".")[1] + "=="), type=_Claims)
    except (IndexError, ValueError, UnicodeError):
        return _Claims()
