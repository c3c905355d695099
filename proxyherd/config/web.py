"""Checks of `[web]`, and of `hosts` in `[admin]`, in the herd's file: names, origins and networks are compared as text
with what browsers and proxies send, so one that is spelled in another way would never match, and nobody would know why.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final

from proxyherd.config.errors import ConfigError
from proxyherd.config.schema import AdminSettings, WebSettings

_MOST_PORT: Final = 65_535
_NOT_ASCII: Final = 'is not ASCII; write the name as browsers send it, with "xn--"'
HOST_NAME: Final = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
"""The form of a host's name, or of an IPv4 address."""

_name = re.compile(HOST_NAME).fullmatch
_bracketed = re.compile(r"\[([^\[\]]*)\]").fullmatch
_with_port = re.compile(r"([^:]*|\[[^\[\]]*\]):([0-9]{1,5})").fullmatch
_origin = re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*://({HOST_NAME}|\[[^\[\]]*\])(?::([0-9]{{1,5}}))?").fullmatch


def check_web(web: WebSettings, file: Path) -> None:
    """Check `[web]`. Raises ConfigError."""
    checks = (
        ("hosts", web.hosts, _host_error),
        ("allowed_origins", web.allowed_origins, _origin_error),
        ("trusted_proxies", web.trusted_proxies, network_error),
    )
    for key, values, error_of in checks:
        for value in values:
            if error := error_of(value):
                raise ConfigError(f"{file}: key web.{key}: {value!r} {error}")


def check_admin(admin: AdminSettings, file: Path) -> None:
    """Check `[admin]`. Its hosts may have a port. Raises ConfigError."""
    for host in admin.hosts:
        match = _with_port(host)
        error = _host_error(match[1] if match else host)
        if not error and match and not 0 < int(match[2]) <= _MOST_PORT:
            error = f"has no port from 1 to {_MOST_PORT}; correct it"
        if error:
            raise ConfigError(f"{file}: key admin.hosts: {host!r} {error}")


def _host_error(host: str) -> str:
    """Return what is wrong with the name of a host, or ""."""
    if _name(host):
        return ""
    if match := _bracketed(host):
        return _ipv6_error(match[1])
    if _is_ipv6(host):
        return f'has no brackets; write "[{host}]"'
    if not host.isascii():
        return _NOT_ASCII
    return 'is no name of a host; write it without scheme, port and path, like "phones.example" or "10.1.2.3"'


def _origin_error(origin: str) -> str:
    """Return what is wrong with an origin, or ""."""
    if origin in ("*", "null"):
        return "would let every page of the web ask; name the origins that you trust"
    if not origin.isascii():
        return _NOT_ASCII
    match = _origin(origin)
    if match is None or origin.lower().startswith("file:"):
        return 'is no origin; write scheme, name and perhaps a port, and nothing behind them, like "https://map.example"'
    if match[2] and not 0 < int(match[2]) <= _MOST_PORT:
        return f"has no port from 1 to {_MOST_PORT}; correct it"
    return _ipv6_error(match[1].strip("[]")) if match[1].startswith("[") else ""


def network_error(network: str) -> str:
    """Return what is wrong with an address or a network, or ""."""
    try:
        whole = ipaddress.ip_network(network, strict=False)
    except ValueError:
        return 'is no address and no network; write it like "10.0.0.0/8"'
    if "%" in network:
        return "has a scope, and addresses are compared without theirs; drop it"
    try:
        ipaddress.ip_network(network)
    except ValueError:
        return f'is an address inside of a network; write "{whole}"'
    return ""


def _ipv6_error(address: str) -> str:
    """Return what is wrong with an IPv6 address that stands in brackets, or ""."""
    if not _is_ipv6(address):
        return "has no IPv6 address in its brackets; correct it"
    usual = str(ipaddress.IPv6Address(address))
    return "" if address.lower() == usual else f"is not as browsers spell it; write [{usual}]"


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.IPv6Address(text).scope_id is None
    except ValueError:
        return False
