"""Redis as a store of locations: how its server is started, how a report is spelled to it, and how it is read back.

There is no server of ours here: the load generator speaks RESP, Redis' protocol, to redis-server. A report is GEOADD,
the position, and SET, the AT line that a server in front of the store would have composed; or GEOADD alone, which is
all of a sketch, and keeps neither the AT line nor the time. Either way Redis is spared what that server would do:
validating, comparing times, flooding, and a log of commands.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

PROGRAM: Final = "redis-server"
REPLY_LINES: Final = 2
"""Line feeds in the reply to a report: an integer and +OK; and in the reply to a question: a length and the line."""

POSITION_LINES: Final = 6
"""Line feeds in the reply to a GEOPOS: two lengths of arrays, and twice a length and a number."""

NEAR_DEGREES: Final = 1e-5
"""How far a position may be off: Redis keeps it in 52 bits."""

_POSITION: Final = re.compile(rb"([+-][0-9.]+)([+-][0-9.]+)")
_REPLY: Final = re.compile(rb":[01]\r\n\+OK\r\n")


def command_line(port: int, folder: Path, *, equal: bool) -> list[str]:
    """Return how redis-server is started; `equal` lets it keep a log of commands on disk, synced each second.

    Snapshots and the rewriting of that log are off: what has been written can be counted.
    """
    return [
        *(PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""),
        *("--appendonly", "yes" if equal else "no", "--appendfsync", "everysec"),
        *("--maxclients", "20000"),
        *("--auto-aof-rewrite-percentage", "0", "--logfile", "redis.log"),
    ]


def encode(*words: bytes) -> bytes:
    """Return one command in RESP."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def spell_position(client: bytes, location: bytes) -> bytes:
    """Return the command that stores where a client is."""
    position = _POSITION.fullmatch(location)
    assert position is not None
    latitude, longitude = position.groups()
    return encode(b"GEOADD", b"locations", longitude, latitude, client)


def spell_report(client: bytes, location: bytes, time: bytes) -> bytes:
    """Return the two commands of a report."""
    return spell_position(client, location) + encode(
        b"SET", client, b"AT Redis +0.000000000 %b %b %b" % (client, location, time)
    )


def spell_question(client: bytes) -> bytes:
    """Return the command that asks where a client is."""
    return encode(b"GET", client)


def ask_position(client: bytes) -> bytes:
    """Return the command that asks for the position alone."""
    return encode(b"GEOPOS", b"locations", client)


def is_position(command: bytes, reply: bytes) -> bool:
    """Return whether a reply is one to that command about a position."""
    return reply.startswith(b"*1\r\n*2\r\n") if b"GEOPOS" in command else reply in (b":0\r\n", b":1\r\n")


def is_near(location: bytes, stored: tuple[float, float]) -> bool:
    """Return whether a stored longitude and latitude are those of a location."""
    position = _POSITION.fullmatch(location)
    assert position is not None
    latitude, longitude = map(float, position.groups())
    return max(abs(stored[0] - longitude), abs(stored[1] - latitude)) < NEAR_DEGREES


def is_right(command: bytes, reply: bytes) -> bool:
    """Return whether a reply is one to that command."""
    if b"\r\nGET\r\n" in command:
        client = command.split(b"\r\n")[4]
        return reply.startswith(b"$") and b" %b " % client in reply
    return _REPLY.fullmatch(reply) is not None


def count_reports(folder: Path) -> int:
    """Return how many reports stand in the log that `equal` asks for; a GEOADD is kept there as its ZADD."""
    return sum(file.read_bytes().count(b"\r\nAT Redis ") for file in folder.glob("appendonlydir/*.aof"))


def read_table(port: int, clients: Sequence[bytes], batch: int = 1_000) -> dict[bytes, bytes]:
    """Return the AT lines that are stored of these clients."""
    table: dict[bytes, bytes] = {}
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as replies:
        for first in range(0, len(clients), batch):
            asked = clients[first : first + batch]
            connection.sendall(b"".join(map(spell_question, asked)))
            for client in asked:
                length = int(replies.readline()[1:])
                if length >= 0:
                    table[client] = replies.read(length + 2)[:-2]
    return table


def read_positions(
    port: int, clients: Sequence[bytes], batch: int = 1_000
) -> dict[bytes, tuple[float, float]]:
    """Return the longitude and latitude that are stored of these clients, in degrees."""
    found: dict[bytes, tuple[float, float]] = {}
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as replies:
        for first in range(0, len(clients), batch):
            asked = clients[first : first + batch]
            connection.sendall(b"".join(map(ask_position, asked)))
            for client in asked:
                replies.readline()
                if replies.readline().startswith(b"*2"):
                    longitude, latitude = (_bulk(replies) for _ in range(2))
                    found[client] = float(longitude), float(latitude)
    return found


def _bulk(replies: BinaryIO) -> bytes:
    return replies.read(int(replies.readline()[1:]) + 2)[:-2]


def count_positions(port: int) -> int:
    """Return how many clients have a position."""
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as replies:
        connection.sendall(encode(b"ZCARD", b"locations"))
        return int(replies.readline()[1:])
