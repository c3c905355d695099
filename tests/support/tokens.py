"""Keys and tokens, as an operator has them, and as attackers would like to have them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWS

from proxyherd.config.token_keys import TokenKey
from proxyherd.web.access import Access
from proxyherd.web.tokens import TokenVerifier

NOW: Final = 1_700_000_000
"""POSIX seconds."""

MOST_SECONDS: Final = 2_592_000.0

KEY: Final = TokenKey("HS256", bytes(range(32)))
OTHER_KEY: Final = TokenKey("HS256", bytes(range(1, 33)))
PRIVATE: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC: Final = TokenKey("EdDSA", PRIVATE.public_key().public_bytes_raw())
PUBLIC_PEM: Final = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims_of(**claims: Any) -> dict[str, Any]:
    """Return usual claims, changed by these; None removes one."""
    usual: dict[str, Any] = {"sub": "jane/*", "may": ["report", "see"], "iat": NOW, "exp": NOW + 3_600}
    return {name: value for name, value in (usual | claims).items() if value is not None}


def token(
    key: TokenKey | Ed25519PrivateKey = KEY, *, header: dict[str, Any] | None = None, **claims: Any
) -> str:
    """Return a token with these claims."""
    payload = json.dumps(claims_of(**claims)).encode()
    if isinstance(key, TokenKey):
        return PyJWS().encode(payload, key.data, "HS256", headers=header)
    return PyJWS().encode(payload, key, "EdDSA", headers=header)


def spelled(*parts: Any) -> str:
    """Return these parts as a token has them: objects as JSON, and all in base64."""
    return ".".join(
        _encoded(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in parts
    )


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def basic(user: str, password: str) -> str:
    """Return the header Authorization with a password."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def parts_of(tokens: Iterable[str]) -> set[bytes]:
    """Return what must stand nowhere: the tokens, and the secret parts of each."""
    found = [one for whole in tokens for one in (whole, whole.rsplit(".", 1)[1], whole.split(".")[1])]
    return {one.encode() for one in found}


class TokenClock:
    """A clock that tests set; `now`: nanoseconds of POSIX time. Called, it returns that."""

    def __init__(self) -> None:
        self.now = NOW * 10**9

    def __call__(self) -> int:
        return self.now


def access_with(revoked: Mapping[bytes, int], *keys: TokenKey) -> Access:
    """Return the door of a port with these keys; `revoked`: up to which moment an ID was erased."""
    access = Access(lambda id_: revoked.get(id_, 0))
    access.renew(TokenVerifier(keys or (KEY, PUBLIC), MOST_SECONDS))
    return access
