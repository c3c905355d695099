"""Asking a running herd from outside: commands on its client ports, state on its admin ports.

Plain sockets and no event loop, as a script would do it. The rule: one deadline covers a whole exchange, so
that a server that hangs or drips is told from one that answers; and whatever a port says, even if it is no
server of ours, ends as an answer or as `Unreachable`, never as a traceback.
"""

from __future__ import annotations

import math
import socket
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from proxyherd.base.escapes import escaped
from proxyherd.net import http
from proxyherd.net.dialling import address_and_host, shares
from proxyherd.net.resolving import look_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxyherd.config.herd_file import Address, Herd, Server

MAX_ANSWER_BYTES = 1 << 28
"""Bytes of one answer; as much as a herd's file lets Places answer. Who sends more is no server of ours."""

MOST_SHOWN = 200
"""Characters of a stranger's text that are shown, before they are escaped."""


class Unreachable(Exception):  # noqa: N818 - it is what the server is
    """A server gave no whole answer; the text says at which address, and what was seen."""


class Status(Struct, frozen=True):
    """What one server says of itself; counters count from its start."""

    server: Server
    at: float = 0.0
    """When it said so, or was given up: seconds of the monotonic clock."""
    up: bool = False
    """Its admin port answers. Where it does not, nothing is known: the server may run all the same."""
    ready: bool = False
    linked: frozenset[str] = frozenset()
    """The neighbours to which its link is up."""
    clients: int = 0
    """Clients whose location it knows."""
    commands: int = 0
    """Commands it has answered."""
    floods_in: int = 0
    """Updates that came over its links live."""
    floods_out: int = 0
    """Updates that it sent over its links live."""
    mended: int = 0
    """Entries that the last checks with its neighbours brought it."""
    journal_failing: bool = False
    masters: int = 0
    """Masters of the cluster that have a part of the table, where it is in Redis."""
    masters_up: int = 0
    """Those of them that the server can have."""
    waiting: int = 0
    """Reports and queries that have no outcome from the cluster yet."""
    lag: dict[float, int] = {}
    """How often its event loop was late by at most so many seconds: cumulative, with infinity."""
    started: float = 0.0
    """When its process started, in POSIX seconds."""
    problem: str = ""
    """Why it does not answer or is not ready, in its own words or the system's."""

    @property
    def state(self) -> str:
        """`ready`, `not ready` or `unknown`."""
        return ("ready" if self.ready else "not ready") if self.up else "unknown"

    @property
    def missing(self) -> list[str]:
        """The neighbours to which no link is up."""
        return [name for name in self.server.neighbours if name not in self.linked]

    @property
    def whole(self) -> bool:
        """Up, ready, and linked with every neighbour."""
        return self.up and self.ready and not self.missing


def command(server: Server, line: bytes, seconds: float) -> bytes:
    """Send one command line (its LF is added) and return the whole answer, its LFs included.

    Raises Unreachable when there is no whole answer within `seconds`.
    """
    places = line.split()[:1] == [b"WHATSAT"]

    def whole(answer: bytearray) -> bool:
        # Only places come on several lines; they end at the one empty line that there is.
        return answer.endswith(b"\n\n" if places and not answer.startswith(b"?") else b"\n")

    return _exchange(server.clients, line + b"\n", seconds, whole)


def status(server: Server, seconds: float) -> Status:
    """Ask the admin port of one server; all of it takes no longer than `seconds`. Never raises."""
    deadline = time.monotonic() + seconds
    try:
        code, text = _get(server.admin, "/readyz", seconds)
        if code not in (200, 503):
            problem = f"{server.admin[0]}: /readyz answers {code}, not 200 or 503"
            return Status(server, time.monotonic(), problem=problem)
        figures = _Figures(_get(server.admin, "/metrics", max(0.0, deadline - time.monotonic()))[1])
        return _read(server, code == 200, _first_line(text), figures)
    except Unreachable as error:
        return Status(server, time.monotonic(), problem=str(error))
    except (ValueError, OverflowError, IndexError) as error:  # the last: of the parser
        problem = f"{server.admin[0]}: no server of a herd: {_first_line(str(error))}"
        return Status(server, time.monotonic(), problem=problem)


def _read(server: Server, ready: bool, text: str, figures: _Figures) -> Status:
    links = figures.of("proxyherd_links_up")
    lag = figures.of("proxyherd_event_loop_lag_seconds_bucket")
    return Status(
        server=server,
        at=time.monotonic(),
        up=True,
        ready=ready,
        linked=frozenset(labels.get("neighbour", "") for labels, value in links if value),
        clients=figures.sum("proxyherd_clients"),
        commands=figures.sum("proxyherd_commands_total"),
        floods_in=figures.sum("proxyherd_flood_updates_total", direction="in"),
        floods_out=figures.sum("proxyherd_flood_updates_total", direction="out"),
        mended=figures.sum("proxyherd_mended_entries"),
        journal_failing=figures.sum("proxyherd_journal_failing") > 0,
        masters=figures.sum("proxyherd_masters"),
        masters_up=figures.sum("proxyherd_masters_up"),
        waiting=figures.sum("proxyherd_waiting"),
        lag={float(labels.get("le", math.inf)): int(value) for labels, value in lag},
        started=math.fsum(value for _, value in figures.of("process_start_time_seconds")),
        problem="" if ready else text,
    )


def statuses(herd: Herd, seconds: float) -> list[Status]:
    """Ask all servers at once, in the order of the herd's file."""
    servers = list(herd.servers.values())
    with ThreadPoolExecutor(min(len(servers), 64)) as pool:
        return list(pool.map(lambda server: status(server, seconds), servers))


class _Figures:
    """Metrics by name. Raises ValueError for text that is no server's."""

    def __init__(self, text: str) -> None:
        from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - 20 ms

        self._samples: defaultdict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples[sample.name].append((sample.labels, sample.value))
        if "proxyherd_clients" not in self._samples:
            raise ValueError("/metrics has no proxyherd_clients")

    def of(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each sample."""
        return self._samples.get(name, [])

    def sum(self, name: str, **wanted: str) -> int:
        """Return the sum of the samples that have these labels."""
        return int(sum(value for labels, value in self.of(name) if wanted.items() <= labels.items()))


def _get(addresses: tuple[Address, ...], path: str, seconds: float) -> tuple[int, str]:
    answer = _exchange(addresses, http.request(path), seconds, None)
    if (found := http.parse_answer(answer)) is None:
        line = answer.partition(b"\r\n")[0].decode(errors="surrogateescape")[:MOST_SHOWN]
        raise ValueError(f'{path} is answered with "{line}", which is not HTTP')
    code, body = found
    return code, body.decode(errors="surrogateescape")


def _exchange(
    addresses: tuple[Address, ...],
    request: bytes,
    seconds: float,
    whole: Callable[[bytearray], bool] | None,
) -> bytes:
    """Send a request to the first address that takes it, and read until `whole`, or else until the end."""
    deadline = time.monotonic() + seconds
    connection, address = _connect(addresses, deadline)
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


def _connect(addresses: tuple[Address, ...], deadline: float) -> tuple[socket.socket, Address]:
    """Each address has its share of the time, and of that each that its name stands for."""
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


def _first_line(text: str) -> str:
    """Return the first line of a stranger's text, cut and fit for a terminal."""
    return escaped(text.strip().partition("\n")[0][:MOST_SHOWN])
