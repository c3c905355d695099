"""Requests, as they were sent."""

from __future__ import annotations

import base64
import re
from typing import Final, Protocol

from msgspec import Struct

from proxyherd.web.rights import Grant

EVERYTHING: Final = "*"
"""The target of a request that is about the whole server."""

_absolute = re.compile(r"https?://([^/?#]*)", re.IGNORECASE).match


class Headers(Protocol):
    """The headers of a request, by names whose case does not count."""

    def get(self, name: str, default: str, /) -> str:
        """Return the first header of this name."""

    def getall(self, name: str, default: list[str], /) -> list[str]:
        """Return all headers of this name."""


class WebRequest(Struct, frozen=True):
    """A request, as it was sent. `target` has the path and the query, perhaps behind scheme and authority, as proxies
    write it (RFC 9112, section 3.2); or it is `EVERYTHING`. `token`: what stood in the path to say who asks; `grant`: what
    its token grants, None if no token is needed.
    """

    method: str
    target: str
    headers: Headers
    body: bytes
    token: str = ""
    grant: Grant | None = None

    @property
    def hosts(self) -> list[str]:
        """Whom the request is for: the authority of its target, or else all its headers Host."""
        hosts = self.headers.getall("Host", [])
        match = _absolute(self.target)
        return [match[1]] if match is not None and len(hosts) <= 1 else hosts

    @property
    def path(self) -> str:
        """The path, still encoded, without the query."""
        match = _absolute(self.target)
        behind = self.target[match.end() :] if match is not None else self.target
        return behind.partition("?")[0] or "/"

    @property
    def query(self) -> str:
        """What stands behind the question mark, still encoded."""
        return self.target.partition("?")[2]

    @property
    def user(self) -> str:
        """The user of Basic authentication, or ""."""
        return self.basic[0]

    @property
    def basic(self) -> tuple[str, str]:
        """User and password of Basic authentication, or two empty texts."""
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return "", ""
        try:
            user, _, password = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
        except ValueError:
            return "", ""
        return user, password

    @property
    def content_type(self) -> str:
        """The type of the body, in lower case and without parameters; empty if it is not named."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


class ReadRequest(WebRequest, frozen=True):
    """A request with what HTTP says about its connection. `is_old`: of HTTP/1.0; `closes`: the connection ends behind
    the answer; `upgrades`: the client wants to go on with another protocol.
    """

    is_old: bool = False
    closes: bool = False
    upgrades: bool = False


class RequestReader(Protocol):
    """Splits what a client sends into requests. `spent`: how much work that was, in lines; whoever reads sets it to 0."""

    spent: int

    @property
    def waiting(self) -> int:
        """How many bytes have been received and not read yet."""

    @property
    def more(self) -> bool:
        """Whether there may be another request."""

    @property
    def begun(self) -> bool:
        """Whether the headers of a request are there, and its body is not."""

    def head(self) -> ReadRequest | None:
        """Return the request whose body is on its way, without the body, once; None if there is none."""

    def charge(self, payer: str) -> None:
        """Let the body that is on its way count for its sender; "": for nobody in particular."""

    def receive(self, data: bytes) -> None:
        """Put aside what arrived."""

    def read(self, most: int) -> ReadRequest | None:
        """Return the next request, None if it is not there yet, or if `most` is spent. Raises Problem if this is no
        request; then the connection cannot go on.
        """

    def continues(self) -> bool:
        """Return whether the client waits to be told to send the body, once."""

    def rest(self) -> bytes:
        """Return what is behind a request that asks for another protocol."""

    def close(self) -> None:
        """Forget the request that is on its way."""
