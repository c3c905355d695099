"""Requests, as they were sent."""

from __future__ import annotations

import base64
from typing import Protocol

from msgspec import Struct


class Headers(Protocol):
    """The headers of a request, by names whose case does not count."""

    def get(self, name: str, default: str, /) -> str:
        """Return the first header of this name."""

    def getall(self, name: str, default: list[str], /) -> list[str]:
        """Return all headers of this name."""


class WebRequest(Struct, frozen=True):
    """A request, as it was sent: `target` has the path and the query."""

    method: str
    target: str
    headers: Headers
    body: bytes

    @property
    def query(self) -> str:
        """What stands behind the question mark, still encoded."""
        return self.target.partition("?")[2]

    @property
    def user(self) -> str:
        """The user of Basic authentication, or ""."""
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return ""
        try:
            return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[0]
        except ValueError:
            return ""

    @property
    def content_type(self) -> str:
        """The type of the body, in lower case and without parameters; empty if it is not named."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


class ReadRequest(WebRequest, frozen=True):
    """A request with what HTTP says about its connection. `is_old`: of HTTP/1.0; `closes`: the connection ends behind the
    answer; `upgrades`: the client wants to go on with another protocol.
    """

    is_old: bool = False
    closes: bool = False
    upgrades: bool = False
