"""What the Function of a cluster answers."""

from __future__ import annotations

import socket


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
