"""Asks a running herd from outside: commands on its client ports, state on its admin ports.

It uses plain sockets without an event loop, as a script would. The rule: one deadline covers a whole exchange, so a
server that hangs or sends slowly is recognized. Whatever a port sends, even if it is not one of our servers, the
result is an answer or `Unreachable`, never a traceback.
"""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from proxyherd.admin.status_page.state import AnswerError, ServerState, state_of
from proxyherd.net import http
from proxyherd.net.dialling import address_and_host, shares
from proxyherd.net.resolving import look_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxyherd.config.address import Address
    from proxyherd.config.herd_file import Herd, Server

MAX_ANSWER_BYTES = 1 << 28
"""Bytes of one answer, as many as the herd's file allows for Places. Only a foreign program sends more."""

_tombstones = re.compile(rb"^proxyherd_tombstones ([0-9.e+]+)$", re.MULTILINE).search

MOST_SHOWN = 200
"""Characters of a stranger's text that are shown."""


class Unreachable(Exception):  # noqa: N818 - it is what the server is
    """A server gave no complete answer; the text says at which address, and what was seen."""


class Status(Struct, frozen=True):
    """The status of one server."""

    server: Server
    at: float = 0.0
    """When it answered, or was given up: seconds of the monotonic clock."""
    told: ServerState | None = None
    """None if its admin port does not answer: then nothing is known, and the server may still run."""
    problem: str = ""
    """Why it does not answer or is not ready, in its own words or the system's."""

    @property
    def state(self) -> str:
        """`ready`, `not ready` or `unknown`."""
        return "unknown" if self.told is None else "ready" if self.told.ready else "not ready"

    @property
    def missing(self) -> list[str]:
        """The neighbours without a live link."""
        links = self.told.links if self.told is not None else {}
        return [name for name in self.server.neighbours if links.get(name, "cut") == "cut"]

    @property
    def whole(self) -> bool:
        """Whether it is ready, and linked with every neighbour."""
        return self.state == "ready" and not self.missing


def command(server: Server, line: bytes, seconds: float) -> bytes:
    """Send one command line (its LF is added) and return the whole answer, including its LFs.

    Raises Unreachable if there is no complete answer within `seconds`.
    """
    places = line.split()[:1] == [b"WHATSAT"]

    def whole(answer: bytearray) -> bool:
        # Only an answer with places has several lines; it ends at its only empty line.
        return answer.endswith(b"\n\n" if places and not answer.startswith(b"?") else b"\n")

    return _exchange(server.clients, line + b"\n", seconds, whole)


def status(server: Server, seconds: float) -> Status:
    """Ask the admin port of one server, for at most `seconds`. Never raises."""
    told, problem = None, ""
    try:
        told = state_of(
            server.name, _exchange(server.admin, http.request("/state?commands=no"), seconds, None)
        )
    except Unreachable as error:
        problem = str(error)
    except AnswerError as error:
        problem = f"{server.admin[0]}: {error}"
    if told is not None and not told.ready:
        problem = told.reason[:MOST_SHOWN]
    return Status(server, time.monotonic(), told, problem)


def statuses(herd: Herd, seconds: float) -> list[Status]:
    """Ask all servers at once, in the order of the herd's file."""
    servers = list(herd.servers.values())
    with ThreadPoolExecutor(min(len(servers), 64)) as pool:
        return list(pool.map(lambda server: status(server, seconds), servers))


def tombstones(server: Server, seconds: float) -> int:
    """Return how many tombstones a server holds. Raises Unreachable."""
    answer = http.parse_answer(_exchange(server.admin, http.request("/metrics"), seconds, None))
    found = _tombstones(answer[1]) if answer is not None and answer[0] == HTTPStatus.OK else None
    if found is None:
        raise Unreachable(
            f"{server.admin[0]}: does not say how many tombstones it holds; is it of this version?"
        )
    return int(float(found[1]))


def _exchange(
    addresses: tuple[Address, ...],
    request: bytes,
    seconds: float,
    whole: Callable[[bytearray], bool] | None,
) -> bytes:
    """Send a request to the first address that accepts it, and read until `whole`, or else until the end."""
    deadline = time.monotonic() + seconds
    connection, address = connect(addresses, deadline)
    answer = bytearray()
    with connection:
        try:
            connection.settimeout(_left(deadline))
            connection.sendall(request)
            while whole is None or not whole(answer):
                connection.settimeout(_left(deadline))
                if not (some := connection.recv(65_536)):
                    break
                answer += some
                if len(answer) > MAX_ANSWER_BYTES:
                    raise Unreachable(f"{address}: sends more than {MAX_ANSWER_BYTES} bytes")
        except OSError as error:
            raise Unreachable(f"{address}: {error.strerror or error} ({len(answer)} bytes read)") from error
    if whole is not None and not whole(answer):
        raise Unreachable(f"{address}: closed before its answer was whole ({len(answer)} bytes read)")
    return bytes(answer)


def connect(addresses: tuple[Address, ...], deadline: float) -> tuple[socket.socket, Address]:
    """Connect to the first address that answers before the deadline, seconds of the monotonic clock. Each address has a
    share of the time, and each address of a name a share of that. Raises Unreachable.
    """
    refusals: list[str] = []
    for address, until in shares(addresses, deadline, time.monotonic):
        try:
            found = _look_up(address, until)
        except (OSError, UnicodeError) as error:
            refusals.append(f"{address}: {getattr(error, 'strerror', None) or error}")
            continue
        for where, by in shares(found, until, time.monotonic):
            try:
                return _connect_to(where, by), address
            except OSError as error:
                refusals.append(f"{address_and_host(address, str(where[4][0]))}: {error.strerror or error}")
    raise Unreachable("; ".join(refusals))


def _look_up(address: Address, until: float) -> list[Any]:
    left = _left(until)
    try:
        return look_up(address.host, address.port, kind=socket.SOCK_STREAM).result(left)
    except TimeoutError as error:
        raise TimeoutError("its name was not looked up in time") from error


def _connect_to(where: Any, until: float) -> socket.socket:
    family, kind, protocol, _, place = where
    connection = socket.socket(family, kind, protocol)
    try:
        connection.settimeout(_left(until))
        connection.connect(place)
    except OSError:
        connection.close()
        raise
    return connection


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
