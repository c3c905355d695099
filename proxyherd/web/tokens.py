"""Tokens: JWTs (RFC 7519), signed with HS256 or EdDSA. PyJWT signs them and checks the signature; the claims are checked
here, against a time that is an argument.

    {"sub": "jane/*", "may": ["report", "see"], "see": ["jane/*", "bob/phone"], "iat": 1795939200, "exp": 1798531200}

- Each key has one algorithm. A token that names another one is not checked with it; `none` is nobody's.
- `kid` chooses one of our keys. Without it, or if it is not ours, all keys of the algorithm are tried.
- `sub`, `may`, `iat` and `exp` are needed. `nbf` is obeyed. A token for another audience (`aud`) is not for us.
- A token lives no longer than a revocation is remembered.

PyJWT and cryptography take long to import, so only who needs tokens imports this module.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Annotated, Final, TypeAlias

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt import InvalidSignatureError, PyJWS, PyJWTError
from msgspec import Meta, Raw, Struct

from proxyherd.config.token_keys import Algorithm, TokenKey
from proxyherd.core.messages import NANOSECONDS
from proxyherd.web.access import TokenProblem
from proxyherd.web.rights import MOST_NAME_CHARACTERS, Grant, Right

MOST_TOKEN_BYTES: Final = 2_048
"""Bytes of a token: room for a list of fifty clients to see. Each costs time before the signature is known to be good."""

_Seconds: TypeAlias = Annotated[float, Meta(ge=0, lt=1e11)]
_Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MOST_NAME_CHARACTERS)]

_form = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+").fullmatch


class _Header(Struct):
    alg: str
    kid: str = ""


class _Claims(Struct, omit_defaults=True):
    sub: _Name
    may: list[Right]
    iat: _Seconds
    exp: _Seconds
    see: list[_Name] | None = None
    nbf: _Seconds = 0
    aud: Raw = Raw()


_header: Final = msgspec.json.Decoder(_Header).decode
_claims: Final = msgspec.json.Decoder(_Claims).decode


class TokenVerifier:
    """The keys of one server. `most_seconds`: how long a token may live; `tried`: how many signatures were checked."""

    def __init__(self, keys: Sequence[TokenKey], most_seconds: float) -> None:
        self.tried = 0
        self.ids = frozenset(key.id for key in keys)
        self._keys = [(key.id, key.algorithm, _prepared(key)) for key in keys]
        self._most_seconds = most_seconds
        self._jws = PyJWS()

    def verify(self, token: str) -> Grant:
        """Return what a token grants, whenever that may be. Raises TokenProblem."""
        match = _form(token) if len(token) <= MOST_TOKEN_BYTES else None
        if match is None:
            raise TokenProblem("malformed")
        try:
            head = match[1]
            header = _header(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise TokenProblem("malformed") from None
        for id_, algorithm, key in self._keys:
            if algorithm != header.alg or (header.kid in self.ids and header.kid != id_):
                continue
            self.tried += 1
            try:
                found = self._jws.decode_complete(token, key, algorithms=[algorithm])
            except InvalidSignatureError:
                continue
            except PyJWTError:  # its messages may quote a part of the token
                raise TokenProblem("malformed") from None
            return self._grant(found["payload"], id_)
        raise TokenProblem("signature")

    def _grant(self, payload: bytes, key: str) -> Grant:
        try:
            claims = _claims(payload)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise TokenProblem("claims") from None
        if bytes(claims.aud) or not 0 < claims.exp - claims.iat <= self._most_seconds:
            raise TokenProblem("claims")
        return Grant(
            claims.sub,
            frozenset(claims.may),
            (claims.sub,) if claims.see is None else tuple(claims.see),
            _nanoseconds(claims.iat),
            _nanoseconds(max(claims.iat, claims.nbf)),
            _nanoseconds(claims.exp),
            key,
        )


def _prepared(key: TokenKey) -> bytes | Ed25519PublicKey:
    return key.data if key.algorithm == "HS256" else Ed25519PublicKey.from_public_bytes(key.data)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000) * (NANOSECONDS // 1_000)


def make_token(
    key: TokenKey | Ed25519PrivateKey,
    subject: str,
    may: Sequence[Right],
    see: Sequence[str] | None,
    issued: int,
    ends: int,
) -> str:
    """Return a token, signed with this key. `issued`, `ends`: POSIX seconds; the other arguments as in `Grant`."""
    claims = _Claims(subject, list(may), issued, ends, None if see is None else list(see))
    data = msgspec.json.encode(claims)
    if isinstance(key, TokenKey):
        return _signed(data, key.data, "HS256", key.id)
    public = TokenKey("EdDSA", key.public_key().public_bytes_raw())
    return _signed(data, key, "EdDSA", public.id)


def _signed(data: bytes, key: bytes | Ed25519PrivateKey, algorithm: Algorithm, id_: str) -> str:
    return PyJWS().encode(data, key, algorithm, headers={"kid": id_})
