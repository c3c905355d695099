"""The door for those who need a token: finds the token of a request, and returns what it grants.

A token is in the path (`/t/{token}/…`), or in the header Authorization: as Bearer, or as the password of Basic. The path
is for apps that have only a URL, and for web pages, which cannot send headers with a WebSocket. It is taken off before
anything else reads it. No problem and no log repeats a token.

A signature is checked when a token is first seen, and not with each request. Its end, and whether it was revoked, are
checked each time: both cost little. As long as a server does not know who was revoked, it lets nobody in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal, Protocol, TypeAlias, TypeVar

from msgspec.structs import replace

from proxyherd.core.messages import NANOSECONDS
from proxyherd.web.problems import NOT_TAKEN, TOKEN, Problem
from proxyherd.web.requests import WebRequest
from proxyherd.web.rights import Grant, revocation

KNOWN_TOKENS: Final = 4_096
"""Good tokens that are remembered, some 2 KiB each. Only who has one of ours can bring in another."""

LEEWAY_SECONDS: Final = 30
"""By how much the clock of who makes tokens may be ahead of a server's. There is none at a token's end."""

_LEEWAY: Final = LEEWAY_SECONDS * NANOSECONDS

TokenRefusal: TypeAlias = Literal[
    "missing", "malformed", "signature", "claims", "early", "expired", "revoked", "renewed"
]
"""Why a token is not good. Values of a metric's label."""

DETAILS: Final[dict[TokenRefusal, str]] = {
    "missing": "Send a token: as Authorization: Bearer, as the password of Basic, or in the path, behind /t/.",
    "malformed": "This is not a token.",
    "signature": "No key of this server has signed this token.",
    "claims": "This token lacks a claim, has one that is not as it must be, or lives too long.",
    "early": "This token is not good yet. Check the clock of who has made it.",
    "expired": "This token has expired.",
    "revoked": "The tokens of this subject were revoked.",
    "renewed": "The key of this token is no longer accepted.",
}

_Request = TypeVar("_Request", bound=WebRequest)

_in_path = re.compile(r"(https?://[^/?#]*)?/t/([^/?#]+)(/.*)", re.IGNORECASE | re.DOTALL).fullmatch


class TokenProblem(Problem):
    """A token is missing, or not good; `reason` says why."""

    def __init__(self, reason: TokenRefusal) -> None:
        super().__init__(TOKEN, DETAILS[reason])
        self.reason = reason


class UnknownYet(Problem):
    """The server does not know yet whether a token was revoked. It may know in a moment."""

    def __init__(self) -> None:
        super().__init__(NOT_TAKEN, "This server does not know yet whether the token was revoked.")


class Verifier(Protocol):
    """Checks the signatures of tokens. `ids`: its keys; `tried`: how many signatures it has checked."""

    ids: frozenset[str]
    tried: int

    def verify(self, token: str) -> Grant:
        """Return what a token grants, whenever that may be. Raises TokenProblem if it cannot be good."""


class Access:
    """Who may use the web port of one server, if that needs a token. `erased_until`: up to which moment an ID was erased,
    in nanoseconds of POSIX time; 0: never; None: the server does not know yet.
    """

    def __init__(self, erased_until: Callable[[bytes], int | None]) -> None:
        self._erased_until = erased_until
        self._verifier: Verifier | None = None
        self._verify: Callable[[str], Grant]

    def renew(self, verifier: Verifier) -> None:
        """Use other keys from now on. Without any, nobody is let in."""
        self._verifier = verifier
        self._verify = lru_cache(maxsize=KNOWN_TOKENS)(verifier.verify)

    @property
    def tried(self) -> int:
        """How many signatures were checked so far."""
        return 0 if self._verifier is None else self._verifier.tried

    def grant(self, request: WebRequest, now: int) -> Grant:
        """Return what the token of a request grants. `now`: nanoseconds of POSIX time. Raises Problem."""
        if self._verifier is None:
            raise Problem(NOT_TAKEN, "This server has no keys to check tokens with; its log says why.")
        token = request.token or _presented(request)
        if not token:
            raise TokenProblem("missing")
        grant = self._verify(token)
        until = self._erased_until(revocation(grant.subject))
        if refusal := self._refusal(grant, now, until):
            raise TokenProblem(refusal)
        if until is None:
            raise UnknownYet
        return grant

    def refusal(self, grant: Grant, now: int) -> TokenRefusal | None:
        """Return why a token that was good is not good any more, or not yet; None if it is, as far as the server knows."""
        return self._refusal(grant, now, self._erased_until(revocation(grant.subject)))

    def _refusal(self, grant: Grant, now: int, until: int | None) -> TokenRefusal | None:
        if now >= grant.ends:
            return "expired"
        if now + _LEEWAY < grant.begins:
            return "early"
        if self._verifier is None or grant.key not in self._verifier.ids:
            return "renewed"
        # The clock of who has made it may have been ahead.
        return "revoked" if until and grant.issued <= until + _LEEWAY else None


def without_token(request: _Request) -> _Request:
    """Return a request with the token of its path apart from it."""
    match = _in_path(request.target) if not request.token else None
    return request if match is None else replace(request, target=(match[1] or "") + match[3], token=match[2])


def _presented(request: WebRequest) -> str:
    """Return the token in the header Authorization, or ""."""
    found = request.headers.getall("Authorization", [])
    scheme, _, rest = found[0].partition(" ") if len(found) == 1 else ("", "", "")
    if scheme.lower() == "bearer":
        return rest.strip()
    return request.basic[1]
