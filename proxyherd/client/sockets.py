"""Connects plain sockets: every address of a server has its share of one deadline, and each reason is told."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from proxyherd.client.rules.errors import Unreachable
from proxyherd.net.dialling import address_and_host, shares
from proxyherd.net.resolving import look_up

if TYPE_CHECKING:
    import ssl

    from proxyherd.config.address import Address

CALL_SECONDS = 30.0
SERVER_SECONDS = 10.0
"""By default, the seconds for a call, and those that one server has to answer. It answers for Places after five."""


MUTE = "closed the connection without a word, as a port does that speaks TLS, or is full"
"""What happens to who speaks plain to a port that expects a TLS handshake."""

_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
"""What OpenSSL says of a server whose bytes are not TLS; which of them depends on its version."""


def connect(addresses: tuple[Address, ...], deadline: float) -> tuple[socket.socket, Address]:
    """Connect to the first address that answers before the deadline, seconds of the monotonic clock. Each address has a
    share of the time, and each address of a name a share of that. Raises Unreachable.
    """
    refusals: list[str] = []
    for address, until in shares(addresses, deadline, time.monotonic):
        try:
            found = _look_up(address, until)
        except (OSError, UnicodeError) as error:
            refusals.append(f"{address}: {reason_of(error)}")
            continue
        for where, by in shares(found, until, time.monotonic):
            try:
                return _connect_to(where, by), address
            except OSError as error:
                refusals.append(f"{address_and_host(address, str(where[4][0]))}: {reason_of(error)}")
    raise Unreachable(*refusals)


def check_tls(tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Return the setting of that name. Raises TypeError for what cannot make connections speak TLS."""
    if tls is not None and not hasattr(tls, "wrap_socket"):
        raise TypeError(
            f"tls is {tls!r}: an ssl.SSLContext belongs here, as ssl.create_default_context() makes it"
        )
    return tls


def seconds_left(deadline: float) -> float:
    """Return the seconds until a deadline of the monotonic clock. Raises TimeoutError if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def reason_of(error: Exception) -> str:
    """Return why something failed, in the system's words."""
    if isinstance(error, TimeoutError) and not error.args:
        return "timed out"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno and said.startswith("Connect call failed"):
        return os.strerror(error.errno)  # asyncio says nothing more
    if getattr(error, "reason", None) in _NO_TLS:
        return f"{said}: the port does not speak TLS"
    return said


def _look_up(address: Address, until: float) -> list[Any]:
    left = seconds_left(until)
    try:
        return look_up(address.host, address.port, kind=socket.SOCK_STREAM).result(left)
    except TimeoutError as error:
        raise TimeoutError("its name was not looked up in time") from error


def _connect_to(where: Any, until: float) -> socket.socket:
    family, kind, protocol, _, place = where
    connection = socket.socket(family, kind, protocol)
    try:
        connection.settimeout(seconds_left(until))
        connection.connect(place)
    except OSError:
        connection.close()
        raise
    return connection
