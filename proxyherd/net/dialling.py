"""Dialling at several addresses, or at a name that stands for several, one after another until one answers.

`aiohappyeyeballs` is not used for it: an operator is told of each address why it was not reached, and the connections
are of three kinds: sockets without an event loop, streams, and links of which one at a time may be made.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator, Sequence

    from proxyherd.config.herd_file import Address

T = TypeVar("T")


def shares(places: Sequence[T], deadline: float, clock: Callable[[], float]) -> Iterator[tuple[T, float]]:
    """Yield each place with the time by which it must have answered: its share of what is left until the deadline.

    So one that swallows packets, or a name server that is silent, does not take the time of the next. Times are
    seconds of that clock.
    """
    for left, place in zip(range(len(places), 0, -1), places, strict=True):
        now = clock()
        yield place, now + (deadline - now) / left


async def hosts_of(loop: AbstractEventLoop, host: str, port: int | None = None) -> list[str]:
    """Return all numeric addresses that a name stands for. Raises OSError and UnicodeError."""
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [*dict.fromkeys(str(where[0]) for *_, where in found)]


def address_and_host(address: Address, host: str) -> str:
    """Return an address and, where that is a name, which of its numeric addresses is meant."""
    return f"{address}" if host == address.host else f"{address} ({host})"
