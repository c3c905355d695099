"""Checks of `[places]` in the herd's file: what is paid for is enough for each server, and no key goes to a stranger."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from urllib.parse import urlsplit

from proxyherd.config.errors import ConfigError
from proxyherd.config.schema import PlacesSettings
from proxyherd.config.web import HOST_NAME

_base = re.compile(
    rf'https?://(?:\[([^\[\]]*)\]|{HOST_NAME}\.?)(?::[0-9]+)?(?:/[!"$->@-~]*)?', re.IGNORECASE
).fullmatch


def check_places(places: PlacesSettings, servers: int, file: Path) -> None:
    """Check `[places]` of a herd with so many servers. Raises ConfigError."""
    for key in ("calls_per_minute", "calls_per_day"):
        if 0 < getattr(places, key) < servers:
            raise ConfigError(
                f"{file}: key places.{key}: {getattr(places, key)} is less than one for each of {servers} servers; "
                f"give at least {servers}, or 0 for none"
            )
    if places.base_url is not None and not _is_base(places.base_url):
        raise ConfigError(
            f"{file}: key places.base_url: {places.base_url!r} is not what stands before a path; "
            'write it like "http://127.0.0.1:10500"'
        )
    if places.proxy is not None:
        _check_proxy(places.proxy, places.base_url or "https:", f"{file}: key places.proxy")


def _check_proxy(url: str, upstream: str, where: str) -> None:
    if not (_is_base(url) and re.fullmatch(r"http://[^/]+/?", url)):
        raise ConfigError(f'{where}: {url!r} is no HTTP proxy; write it like "http://proxy.example:3128"')
    if not upstream.startswith("https:"):
        raise ConfigError(
            f"{where}: places.base_url is no https:, and so the proxy would see the key; drop one of the two"
        )


def _is_base(url: str) -> bool:
    """Whether this is `http` or `https`, a host, perhaps a port, and perhaps the beginning of a path."""
    match = _base(url)
    try:
        if match and match[1]:
            ipaddress.IPv6Address(match[1])
        return match is not None and urlsplit(url).port != 0
    except ValueError:  # no port, and no IPv6 address, is written like this
        return False
