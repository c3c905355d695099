"""Who may use a server: the table `[auth]` of the herd's file, and its check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from proxyherd.config.address import Address
from proxyherd.config.errors import ConfigError

Addresses = Mapping[str, Sequence[Address]]
"""The addresses of a server, by their keys in the herd's file."""


class AuthSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may use a server. The [page on security](security.md#tokens) says how tokens are made, changed and revoked."""

    web: Literal["none", "jwt"] | None = None
    """Who may use the web port. `none`: everybody who reaches it may report any client, see where it is, and erase it.
    `jwt`: who has a token, and only what the token says. Without this key everybody may, but the port listens only on
    loopback addresses: the choice must be written out."""

    keys: Annotated[tuple[str, ...], Meta(max_length=4)] = ()
    """Files with the keys of tokens, relative to the herd's file; read again at SIGHUP, and with them the files of the
    same names with `.next` and `.old` behind. A key is 32 random bytes for HS256 (`proxyherd token key`), or a public
    key of Ed25519 in PEM format for EdDSA. Without this key: the systemd credential `token-key`."""

    lines: Literal["open", "loopback", "off"] = "open"
    """Who may use the line protocol on the addresses `clients`, where there are no tokens. `open`: everybody who reaches
    them. `loopback`: only this machine; others are disconnected. `off`: nobody, and the server does not listen there."""


def check_auth(
    auth: AuthSettings, servers: Mapping[str, Addresses], web: Mapping[str, object], file: Path
) -> None:
    """Check `[auth]`. `servers`: their addresses; `web`: the table `[web]`, as it stands in the file. Raises ConfigError."""
    if "auth" in web:
        raise ConfigError(f"{file}: key web.auth: is web in [auth] now; move it there")
    if auth.keys and auth.web != "jwt":
        raise ConfigError(
            f'{file}: key auth.keys: nobody needs a token; set web = "jwt" in [auth], or drop it'
        )
    for server, addresses in servers.items():
        where = f"{file}: key servers.{server}.web"
        if auth.lines == "off" and not addresses["web"]:
            raise ConfigError(
                f'{where}: is missing; with lines = "off" in [auth], nobody could use this server'
            )
        for address in addresses["web"]:
            if auth.web is None and not address.is_loopback:
                raise ConfigError(
                    f"{where}: {address} is not loopback, and everybody who reaches it could report any client, and see "
                    'where it is; set web = "jwt" in [auth], so that they need a token, or web = "none", if that is meant'
                )
