"""Addresses of clients, as limits count them, and networks of addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, TypeAlias

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_PREFIX_BYTES: Final = 8
"""Bytes of an IPv6 address that count: a site has a /64 at least, and a machine may use each address of it."""


class Networks:
    """Addresses, and networks such as `10.0.0.0/8`."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: IpAddress) -> bool:
        return any(address.version == one.version and address in one for one in self._networks)


class Counted:
    """The addresses that are counted: all but the exempt ones. What a header names may be anybody's, and is not exempt."""

    def __init__(self, exempt: Iterable[str]) -> None:
        networks = Networks(exempt)

        @lru_cache(maxsize=1_024)
        def key(host: str, named: bool = False) -> bytes | None:
            address = parse_ip(host)
            if address is None or (address in networks and not named):
                return None
            return address.packed[:_PREFIX_BYTES]

        self.key = key
        """Return the key of an address: 4 bytes, or 8 of IPv6. None: it is not counted. `named`: by a header."""


def parse_ip(host: str) -> IpAddress | None:
    """Return an address without its scope; None if it is none. One of IPv4 that is spelled as IPv6 is one of IPv4."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    """Return whether this is an address of the machine's own."""
    address = parse_ip(host)
    return address is not None and address.is_loopback
