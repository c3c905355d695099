"""Addresses of a herd that cannot all be listened at. What is in conflict is named by the keys of the herd's file.

The rule: no two listeners have the same address, and those of one server do not overlap, as `0.0.0.0:10000` and
`127.0.0.1:10000` do. Other servers may be on other machines, where `0.0.0.0` is something else.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations, pairwise, product
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from proxyherd.config.address import Address

_LOCALHOST: Final = ("127.0.0.1", "::1")
_EVERYWHERE: Final = {"0.0.0.0": 4, "::": 6}  # noqa: S104 - they are compared


class Port(NamedTuple):
    """An address of a server, and what it is for: `clients`, `web` and so on."""

    address: Address
    server: str
    listener: str

    @property
    def key(self) -> str:
        """Its key in the herd's file."""
        return f"servers.{self.server}.{self.listener}"


def find_conflict(ports: Iterable[Port], base_url: str | None) -> str:
    """Return which keys are in conflict, why, and the remedy; empty if none are.

    `base_url`: where something stands in for Google, or None.
    """
    ports = sorted(ports, key=lambda port: (str(port.address), port.key))
    for one, other in pairwise(ports):
        if one.address == other.address:
            return f"keys {one.key} and {other.key}: both have {one.address}; give each its own port"
    of_one_server: dict[tuple[str, int], list[Port]] = defaultdict(list)
    for port in ports:
        of_one_server[port.server, port.address.port].append(port)
    for alike in of_one_server.values():
        for one, other in combinations(alike, 2):
            if overlap(one.address, other.address):
                both = f"{one.address} and {other.address} overlap"
                return f"keys {one.key} and {other.key}: {both}; give each its own port"
    upstream = None if base_url is None else local_address(base_url)
    for port in ports:
        if upstream is not None and overlap(port.address, upstream):
            return (
                f"keys places.base_url and {port.key}: both have port {upstream.port} of this machine; give what stands "
                "in for Google another one (`proxyherd places-sim --address`)"
            )
    return ""


def local_address(url: str) -> Address | None:
    """Return the address in a URL; None if it is not this machine's."""
    parts = urlsplit(url)
    address = Address(parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))
    return address if address.is_loopback else None


def overlap(one: Address, other: Address) -> bool:
    """Whether one machine cannot listen at both."""
    return one.port == other.port and any(
        _same(here, there) for here, there in product(_hosts(one), _hosts(other))
    )


def _hosts(address: Address) -> tuple[str, ...]:
    return _LOCALHOST if address.host == "localhost" else (address.host,)


def _same(one: str, other: str) -> bool:
    return one == other or _version(one) == _EVERYWHERE.get(other) or _version(other) == _EVERYWHERE.get(one)


def _version(host: str) -> int:
    """Return 4 or 6; 0 for a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0
