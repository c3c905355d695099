"""The numeric addresses of neighbours. The herd's file may name some of them by host name.

Names are looked up again and again, because their addresses may change. If a lookup fails, the last result stays.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable

from proxyherd.config.address import Address
from proxyherd.net.dialling import hosts_of


def canonical(host: str) -> str:
    """Return the canonical spelling of a numeric address: without zone, and IPv4 inside IPv6 as IPv4. Return a name as
    it is.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


class NeighbourHosts:
    """The numeric addresses of neighbours, as far as they are known."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._found: dict[str, frozenset[str]] = {
            one.host: frozenset({canonical(one.host)}) for one in addresses
        }

    def __contains__(self, host: str) -> bool:
        """Whether a neighbour has this numeric address, spelled as `canonical` does."""
        return any(host in found for found in self._found.values())

    async def keep_looking_up(self, seconds: float) -> None:
        """Look up all names, for ever, with pauses of this many seconds."""
        names = [host for host, found in self._found.items() if not _is_numeric(*found)]
        while names:
            for name in names:
                await self._look_up(name)
            await asyncio.sleep(seconds)

    async def _look_up(self, name: str) -> None:
        try:
            found = await hosts_of(asyncio.get_running_loop(), name)
        except (OSError, UnicodeError):
            return
        self._found[name] = frozenset(map(canonical, found))


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
