"""The keys of tokens: files of 32 random bytes for HS256, and public keys of Ed25519 for EdDSA. No error text contains any
of a key.

What a file is decides its algorithm. So nobody can sign with HS256 and the bytes of a public key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from proxyherd.base.files import is_there, open_regular, read_regular
from proxyherd.config.auth import AuthSettings
from proxyherd.config.errors import ConfigError

TOKEN_KEY_CREDENTIAL: Final = "token-key"  # noqa: S105 - its name
"""The systemd credential with the key of tokens."""

KEY_BYTES: Final = 32
"""Bytes of a key, with both algorithms."""

Algorithm: TypeAlias = Literal["HS256", "EdDSA"]

_MOST_BYTES: Final = 4_096
"""Bytes that are read of a key's file, which may be named by mistake."""

_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_UNSET: Final = b"\n"
"""What our systemd units put into a credential for which the operator has no file."""

_REMEDY: Final = (
    "write one with `proxyherd token key FILE`, or name the public key that `openssl pkey -pubout` writes"
)
_ED25519: Final = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of a public key of Ed25519 (RFC 8410, section 4)."""

_pem = re.compile(rb"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*").fullmatch


class TokenKey(Struct, frozen=True):
    """A key by which tokens are checked: the secret of HS256, or a public key of Ed25519."""

    algorithm: Algorithm
    data: bytes

    @property
    def id(self) -> str:
        """What tokens call it (`kid`): a hash, so it stays when the file is renamed."""
        return hashlib.blake2b(self.data, digest_size=8, person=b"token key").hexdigest()

    def __repr__(self) -> str:
        return f"<key {self.id} for {self.algorithm}>"  # for tracebacks


def read_token_keys(auth: AuthSettings, herd_file: Path, environ: Mapping[str, str]) -> list[TokenKey]:
    """Return the keys by which tokens are checked; the first ones are those that `keys` names. Raises ConfigError."""
    files = [herd_file.parent / name for name in auth.keys] or _credential(environ)
    if not files:
        raise ConfigError(
            f'{herd_file}: key auth.keys: is missing, and there is no systemd credential "{TOKEN_KEY_CREDENTIAL}"; '
            f"nobody's token can be checked: {_REMEDY}, and name the file here"
        )
    keys = [read_token_key(file, environ) for file in files]
    beside = [file.with_name(file.name + end) for file in files for end in (".next", ".old")]
    keys += [read_token_key(file, environ) for file in beside if _is_set(file, environ)]
    return list(dict.fromkeys(keys))


def _credential(environ: Mapping[str, str]) -> list[Path]:
    file = Path(environ.get(_CREDENTIALS, "")) / TOKEN_KEY_CREDENTIAL
    return [file] if _is_credential(file, environ) and _is_set(file, environ) else []


def _is_credential(file: Path, environ: Mapping[str, str]) -> bool:
    return str(file.parent) == environ.get(_CREDENTIALS)


def _is_set(file: Path, environ: Mapping[str, str]) -> bool:
    """Whether there is a key in a file. Raises ConfigError if that cannot be known."""
    try:
        return is_there(file) and not (_is_credential(file, environ) and read_regular(file, 2) == _UNSET)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; {_REMEDY}") from error


def read_token_key(file: Path, environ: Mapping[str, str]) -> TokenKey:
    """Return the key in a file. Raises ConfigError, which says what to do."""
    try:
        with os.fdopen(open_regular(file, os.O_RDONLY), "rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            found = opened.read(_MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; {_REMEDY}") from error
    if b"-----BEGIN " in found:
        return TokenKey("EdDSA", _public_key(found, file))
    if len(found) != KEY_BYTES:
        raise ConfigError(
            f"{file}: is neither {KEY_BYTES} random bytes nor a public key of Ed25519; {_REMEDY}"
        )
    # systemd lets the service's user read a credential by an access list, which appears as the group's bits.
    if mode & 0o077 and not _is_credential(file, environ):
        raise ConfigError(
            f"{file}: others than its owner can use it, and make tokens with it; run: chmod 600 {file}"
        )
    return TokenKey("HS256", found)


def _public_key(pem: bytes, file: Path) -> bytes:
    """Return the 32 bytes of a public key of Ed25519. Raises ConfigError."""
    if b"PRIVATE KEY-----" in pem:
        raise ConfigError(
            f"{file}: is a private key, which servers do not need; name the public one, which "
            "`openssl pkey -pubout` makes of it, and keep this one where tokens are made"
        )
    match = _pem(pem)
    try:
        der = base64.b64decode(b"".join(match[1].split()), validate=True) if match else b""
    except binascii.Error:
        der = b""
    if len(der) != len(_ED25519) + KEY_BYTES or not der.startswith(_ED25519):
        raise ConfigError(
            f"{file}: is no public key of Ed25519; `openssl genpkey -algorithm ed25519` makes a private key, and "
            "`openssl pkey -pubout` the public one of it"
        )
    return der[len(_ED25519) :]
