"""What commands share that make tokens or present one: the key to sign with, and the clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from proxyherd.base.files import read_regular
from proxyherd.cli.common import Misconfigured
from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import Herd
from proxyherd.config.token_keys import TokenKey, read_token_key, read_token_keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from proxyherd.web.rights import Right

SigningKey: TypeAlias = "TokenKey | Ed25519PrivateKey"

TOKEN_VARIABLE: Final = "PROXYHERD_TOKEN"  # noqa: S105 - the name of a variable
"""The environment variable with a token."""

_MADE_SECONDS: Final = 60.0
DAY_SECONDS: Final = 86_400
_MOST_BYTES: Final = 4_096


def signing_key(herd: Herd, file: Path | None = None) -> SigningKey:
    """Return the key in a file; without one, the first of the herd's file. Raises ConfigError."""
    if file is not None:
        return _read_private(file) or _for_signing(read_token_key(file, os.environ), str(file))
    return _for_signing(read_token_keys(herd.auth, herd.file, os.environ)[0], f"{herd.file}: key auth.keys")


def _for_signing(key: TokenKey, where: str) -> TokenKey:
    if key.algorithm != "HS256":
        raise ConfigError(f"{where}: is a public key, which signs nothing; name the private one with --key")
    return key


def _read_private(file: Path) -> Ed25519PrivateKey | None:
    """Return the private key of Ed25519 in a file; None if there is no private key. Raises ConfigError."""
    # PyJWT and cryptography take long to import, and most commands need neither.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        data = read_regular(file, _MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; name a key with --key") from error
    if b"PRIVATE KEY-----" not in data:
        return None
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError):  # the error of a library may quote the file
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{file}: is no private key of Ed25519, or has a password; make one with "
            "`openssl genpkey -algorithm ed25519`"
        )
    return key


def new_token(
    key: SigningKey, subject: str, may: Sequence[Right], see: Sequence[str] | None, seconds: float
) -> str:
    """Return a token that lives for so many seconds from now on; the other arguments as in `Grant`."""
    from proxyherd.web.tokens import make_token  # noqa: PLC0415

    now = int(time.time())
    return make_token(key, subject, may, see, now, now + int(seconds))


def token_source(
    herd: Herd, file: Path | None, right: Right, seconds: float | None = None
) -> Callable[[], str]:
    """Return what returns the token to present, or "". Where tokens are wanted and none is named, it makes tokens that live
    for so many seconds, by default a minute, and grant this right, if it can read the key. Raises Misconfigured.
    """
    token = _read_token(file)
    if token or herd.auth.web != "jwt":
        return lambda: token
    try:
        key = signing_key(herd)
    except ConfigError as error:
        raise Misconfigured(
            f"{error}; or name a token that may {right} with --token-file, as who may read the key makes it: "
            f"proxyherd token new --sub '*' --may {right}"
        ) from error
    most = herd.erasure.tombstone_seconds
    return _MadeTokens(key, right, min(most, _MADE_SECONDS if seconds is None else seconds)).current


class _MadeTokens:
    """Tokens that grant a right for all clients, each made when the one before it is soon too old."""

    def __init__(self, key: SigningKey, right: Right, seconds: float) -> None:
        self._key, self._right, self._seconds = key, right, seconds
        self._token = ""
        self._ends = 0.0

    def current(self) -> str:
        """Return a token that lives for half of its time or longer."""
        now = time.monotonic()
        if now > self._ends:
            self._token = new_token(self._key, "*", [self._right], None, self._seconds)
            self._ends = now + self._seconds / 2
        return self._token


def _read_token(file: Path | None) -> str:
    """Return the token that is named, or "". Raises Misconfigured."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        return file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not ASCII"
        raise Misconfigured(f"{file}: {why}; write the token alone into it, readable by you") from None
