"""Asks a running herd for its state, on its admin ports.

The rule: one deadline covers a whole exchange, so a server that hangs or sends slowly is recognized. Whatever a port
sends, even if it is not one of our servers, the result is an answer or `Unreachable`, never a traceback.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING

from msgspec import Struct

from proxyherd.admin.status_page.state import AnswerError, ServerState, state_of
from proxyherd.base.escapes import visible
from proxyherd.base.words import shorten_text
from proxyherd.client.rules.errors import MOST_SHOWN, Unreachable
from proxyherd.client.sockets import connect, reason_of, seconds_left
from proxyherd.net import http

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxyherd.config.address import Address
    from proxyherd.config.herd_file import Herd, Server

MAX_ANSWER_BYTES = 1 << 28
"""Bytes of one answer, as many as the herd's file allows for Places. Only a foreign program sends more."""

_tombstones = re.compile(rb"^proxyherd_tombstones ([0-9.e+]+)$", re.MULTILINE).search


class Status(Struct, frozen=True):
    """The status of one server."""

    server: Server
    at: float = 0.0
    """When it answered, or was given up: seconds of the monotonic clock."""
    told: ServerState | None = None
    """None if its admin port does not answer: then nothing is known, and the server may still run."""
    other_file: str = ""
    """The herd's file with which it was started, if this machine has it and it is not the one that was asked with."""
    problem: str = ""
    """Why it does not answer or is not ready, in its own words or the system's."""
    is_silent: bool = False
    """Whether it accepts connections, and then says nothing."""

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


class _Silent(Unreachable):
    """A port accepts connections, and then says nothing."""


def status(herd: Herd, server: Server, seconds: float) -> Status:
    """Ask the admin port of one server of a herd, for at most `seconds`. Never raises."""
    told, problem, is_silent = None, "", False
    try:
        told = state_of(server.name, _exchange(server.admin, http.request("/state?commands=no"), seconds))
    except Unreachable as error:
        problem, is_silent = str(error), isinstance(error, _Silent)
    except AnswerError as error:
        problem = f"{server.admin[0]}: {error}"
    if told is not None and not told.ready:
        problem = shorten_text(told.reason, MOST_SHOWN)
    return Status(server, time.monotonic(), told, _other_file(herd, server, told), problem, is_silent)


def _other_file(herd: Herd, server: Server, told: ServerState | None) -> str:
    # Other hosts have files of their own.
    if told is None or not told.file or not server.admin[0].is_loopback:
        return ""
    return "" if told.file == visible(str(herd.file.resolve())) else told.file


def statuses(herd: Herd, seconds: float, some: Iterable[Server] | None = None) -> list[Status]:
    """Ask all servers at once, in the order of the herd's file; or some of them."""
    servers = list(herd.servers.values() if some is None else some)
    with ThreadPoolExecutor(min(len(servers), 64) or 1) as pool:
        return list(pool.map(lambda server: status(herd, server, seconds), servers))


def tombstones(server: Server, seconds: float) -> int:
    """Return how many tombstones a server holds. Raises Unreachable."""
    answer = http.parse_answer(_exchange(server.admin, http.request("/metrics"), seconds))
    found = _tombstones(answer[1]) if answer is not None and answer[0] == HTTPStatus.OK else None
    if found is None:
        raise Unreachable(
            f"{server.admin[0]}: does not say how many tombstones it holds; is it of this version?"
        )
    return int(float(found[1]))


def _exchange(addresses: tuple[Address, ...], request: bytes, seconds: float) -> bytes:
    """Send a request to the first address that accepts it, and read until the end."""
    deadline = time.monotonic() + seconds
    connection, address = connect(addresses, deadline)
    answer = bytearray()
    with connection:
        try:
            connection.settimeout(seconds_left(deadline))
            connection.sendall(request)
            while True:
                connection.settimeout(seconds_left(deadline))
                if not (some := connection.recv(65_536)):
                    return bytes(answer)
                answer += some
                if len(answer) > MAX_ANSWER_BYTES:
                    raise Unreachable(f"{address}: sends more than {MAX_ANSWER_BYTES} bytes")
        except OSError as error:
            kind = _Silent if isinstance(error, TimeoutError) and not answer else Unreachable
            raise kind(f"{address}: {reason_of(error)} ({len(answer)} bytes read)") from error
