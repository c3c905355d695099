"""Dials several addresses, or a name with several addresses, one after another until one answers.

`aiohappyeyeballs` is not used: operators must learn for each address why it was not reached. And there are three kinds
of connections: sockets without an event loop, streams, and links, of which only one at a time may be made.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator, Sequence

    from proxyherd.config.address import Address

T = TypeVar("T")


def shares(places: Sequence[T], deadline: float, clock: Callable[[], float]) -> Iterator[tuple[T, float]]:
    """Yield each address with the time by which it must have answered: its share of the time until the deadline.

    So an address that drops packets, or a silent name server, does not use up the time of the next one. Times are
    seconds of that clock.
    """
    for left, place in zip(range(len(places), 0, -1), places, strict=True):
        now = clock()
        yield place, now + (deadline - now) / left


async def hosts_of(loop: AbstractEventLoop, host: str, port: int | None = None) -> list[str]:
    """Return all numeric addresses that a name stands for. Raises OSError and UnicodeError."""
    return hosts_among(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def hosts_among(found: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return the numeric addresses in an answer of getaddrinfo, each once."""
    return [*dict.fromkeys(str(where[0]) for *_, where in found)]


def address_and_host(address: Address, host: str) -> str:
    """Return an address and, if it is a name, which of its numeric addresses is meant."""
    return f"{address}" if host == address.host else f"{address} ({host})"
