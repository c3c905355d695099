"""Addresses: where a server listens, and what it dials."""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

_form = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})").fullmatch


class Address(Struct, frozen=True):
    """Where to listen or dial: an IPv4 or IPv6 address or a host name, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """Return the address that a text spells. Raises ValueError, which says what is wrong and what to write."""
    match = _form(text)
    labels = (match[2] or "a").split(".") if match else []
    if match is None or not 0 < int(match[3]) < 65_536 or not all(0 < len(label) < 64 for label in labels):
        raise ValueError(f'{text!r} is no address; write "host:port" or "[IPv6]:port"')
    if match[1]:
        try:
            # One spelling for each: addresses are compared with one another, and with those of connections.
            return Address(str(ipaddress.IPv6Address(match[1])), int(match[3]))
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from error
    return Address(match[2], int(match[3]))
