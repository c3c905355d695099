"""What a server knows others by, read at the start and again at SIGHUP: the herd's secrets, certificates, keys of tokens."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from proxyherd.config import secrets as secret
from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import Herd
from proxyherd.config.token_keys import TokenKey, read_token_keys
from proxyherd.net import tls

_Read = TypeVar("_Read")


class Credentials(Struct, frozen=True):
    """All of them. `secrets`: None if there are no peers that need them; `token_keys`: none if web clients need no token."""

    secrets: secret.Secrets | None
    contexts: tls.Contexts
    token_keys: Sequence[TokenKey] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many there are, for the log."""
        counts = {"secrets": len(self.secrets.accepted) if self.secrets is not None else 0}
        return counts | ({"token_keys": len(self.token_keys)} if self.token_keys else {})


def read_credentials(herd: Herd, name: str, secret_file: Path) -> Credentials:
    """Return what a server needs to start. Raises ConfigError."""
    return Credentials(None if herd.redis is not None else secret.read_all(secret_file), tls.load(herd, name))


def read_keys(herd: Herd) -> Sequence[TokenKey]:
    """Return the keys of tokens, none if web clients need no token. Raises ConfigError."""
    return read_token_keys(herd.auth, herd.file, os.environ) if herd.auth.web == "jwt" else []


def read_again(
    herd: Herd, name: str, secret_file: Path, before: Credentials
) -> tuple[Credentials, list[str]]:
    """Read each of them again, on its own: of what cannot be read, the earlier one stays. Return all, and why the earlier
    ones stay.
    """
    reasons = list[str]()

    def fresh(read: Callable[[], _Read], earlier: _Read) -> _Read:
        try:
            return read()
        except ConfigError as error:
            reasons.append(str(error))
            return earlier

    clients = fresh(lambda: tls.load_clients(herd, name), before.contexts)
    peers = fresh(lambda: tls.load_peers(herd, name), before.contexts)
    revoked = fresh(lambda: tls.load_revoked(herd, name), before.contexts.revoked)
    secrets = before.secrets
    if herd.redis is None:
        secrets = fresh(lambda: secret.read_all(secret_file), secrets)
    keys = fresh(lambda: read_keys(herd), before.token_keys)
    return Credentials(secrets, tls.joined(clients, peers, revoked), keys), reasons
