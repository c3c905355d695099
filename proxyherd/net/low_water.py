"""A mark above which the bytes that wait in a socket wake the process: an idle connection need not wake it for heartbeats.

What is not above the mark is read when the process is awake anyway. The end of the connection always wakes it. This needs
SO_RCVLOWAT (socket(7)), which Linux respects when it waits for several sockets, and TCP_INFO (tcp(7)), which tells how old
the last bytes are. It is not used with TLS, where a library reads the socket.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from typing import Any, Final

_LAST_RECEIVED: Final = slice(52, 56)
"""Where `struct tcp_info` has tcpi_last_data_recv: milliseconds since the last bytes arrived."""

_MOST_BYTES: Final = 4_096


class LowWater:
    """The mark of one socket, which is 0 at first. Without a socket it stays so."""

    def __init__(self, sock: Any = None) -> None:
        self._socket = sock
        self._descriptor = sock.fileno() if sock is not None else -1
        self.is_up = False

    def rise(self, mark: int) -> None:
        """Let no more than `mark` bytes wake nobody. If the system can't do that, the mark stays 0."""
        if self._socket is None:
            return
        try:
            self.age()  # which is needed while the mark is up
            self._set(mark + 1)
            self.is_up = True
        except OSError:
            self._socket = None

    def drop(self) -> None:
        """Let each byte wake the process again, also those that wait already."""
        if self.is_up:
            self._set(1)
            self.is_up = False

    def take(self) -> bytes:
        """Return the bytes that wait; empty if there are none. Raises OSError if the connection has failed."""
        try:
            return os.read(self._descriptor, _MOST_BYTES)
        except BlockingIOError:
            return b""

    def age(self) -> float:
        """Return the seconds since the last bytes arrived. Raises OSError."""
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_RECEIVED.stop)
        if len(info) < _LAST_RECEIVED.stop:
            raise OSError(errno.ENOPROTOOPT, "TCP_INFO lacks tcpi_last_data_recv")
        return int.from_bytes(info[_LAST_RECEIVED], sys.byteorder) / 1_000

    def _set(self, count: int) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def low_water(transport: asyncio.BaseTransport) -> LowWater:
    """Return the mark of a connection; one that stays 0 if there can be no other."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None or transport.get_extra_info("ssl_object") is not None:
        return LowWater()
    return LowWater(sock if sock.family in {socket.AF_INET, socket.AF_INET6} else None)
