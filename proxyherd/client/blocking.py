"""A client for scripts: it blocks, and has plain sockets and no event loop. One call at a time.

The rule: one deadline covers a whole call, with all its attempts, so a server that hangs or sends slowly is recognized.
"""

from __future__ import annotations

import select
import time
from pathlib import Path
from random import Random
from time import time_ns
from typing import TYPE_CHECKING, Any, Self, TypeVar

from proxyherd.client.endpoints import Endpoint, endpoints_of_file, parse_endpoints
from proxyherd.client.rules.choice import ServerChoice
from proxyherd.client.rules.commands import (
    ClientCommand,
    NearbyPlaces,
    TakenReport,
    ask_command,
    locate_command,
    raw_command,
    report_command,
)
from proxyherd.client.rules.errors import ClientClosed, ForeignAnswer, NoAnswer, Unreachable
from proxyherd.client.rules.fields import Moment, Number
from proxyherd.client.rules.pipeline import MOST_KEPT_BYTES, Pipeline
from proxyherd.client.rules.settings import count_setting, seconds_setting
from proxyherd.client.sockets import (
    CALL_SECONDS,
    MUTE,
    SERVER_SECONDS,
    check_tls,
    connect,
    reason_of,
    seconds_left,
)

if TYPE_CHECKING:
    import socket
    import ssl

A = TypeVar("A")


class SyncHerdClient:
    """A client of a herd, for scripts and one thread.

    `servers`: those that may be asked, as "host:port". `timeout`: seconds for a call with all its attempts. `patience`:
    seconds that a server has for one attempt, to accept a connection and to answer; then another one is asked. Without
    `retry`, a call fails as soon as its connection breaks, or when each server was tried once. `tls`: for servers that speak
    TLS. `most_bytes`: of one answer. Raises ValueError and TypeError for what cannot be meant.

    Calls raise what `proxyherd.client` names: above all Unreachable, with NoAnswer where the time was over, and
    InvalidCommand, with UnknownClient and ReportRefused. Wrong arguments are ValueError or TypeError.
    """

    def __init__(
        self,
        *servers: str | Endpoint,
        timeout: float = CALL_SECONDS,
        patience: float = SERVER_SECONDS,
        retry: bool = True,
        tls: ssl.SSLContext | None = None,
        most_bytes: int = MOST_KEPT_BYTES,
        rng: Random | None = None,
    ) -> None:
        self._endpoints = parse_endpoints(servers)
        if any(one.url for one in self._endpoints):
            raise ValueError("a WebSocket needs HerdClient; name the client ports of servers, as host:port")
        self._timeout = seconds_setting("timeout", timeout)
        self._patience = seconds_setting("patience", patience)
        self._retry, self._tls = retry, check_tls(tls)
        self._choice = ServerChoice(len(self._endpoints), rng or Random())  # noqa: S311 - no secret depends on it
        self._pipeline = Pipeline[None](1, count_setting("most_bytes", most_bytes))
        self._server = 0
        self._connection: socket.socket | None = None
        self._called = ""
        self._has_sent = False
        self._is_mute = False
        self._closed = False

    @classmethod
    def of_herd_file(cls, file: str | Path, **options: Any) -> Self:
        """Return a client of the servers in a herd's file. `options`: as above. Raises ValueError."""
        return cls(*endpoints_of_file(file, websocket=False, has_tls=bool(options.get("tls"))), **options)

    def report(
        self,
        client: str | bytes,
        lat: Number,
        lon: Number,
        time: Moment | None = None,
        *,
        timeout: float | None = None,
    ) -> TakenReport:
        """Report where a client is. `lat`, `lon`: decimal degrees. `time`: POSIX seconds or a datetime; by default now.
        Return the report as a server has taken it. A report that is not later than the herd's changes nothing, and is no
        error. Raises ReportRefused, Unreachable.
        """
        return self._call(report_command(client, lat, lon, time, time_ns()), timeout)

    def ask(
        self, client: str | bytes, radius_km: Number = 10, limit: int = 20, *, timeout: float | None = None
    ) -> NearbyPlaces:
        """Ask what is near a client: within a radius of 0 to 50 km, and at most so many places, 0 to 20. Raises
        UnknownClient, Unreachable.
        """
        return self._call(ask_command(client, radius_km, limit), timeout)

    def locate(self, client: str | bytes, *, timeout: float | None = None) -> TakenReport:
        """Ask for the last report of a client. Raises UnknownClient, Unreachable."""
        return self._call(locate_command(client), timeout)

    def command(self, line: str | bytes, *, timeout: float | None = None) -> bytes:
        """Send any line, without LF; return its whole answer with its LFs, which may be `? ` and the line. It may be sent
        twice, if a connection breaks. Raises Unreachable.
        """
        return self._call(raw_command(line), timeout)

    def close(self) -> None:
        """Close the connection. Later calls raise ClientClosed."""
        self._closed = True
        self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, command: ClientCommand[A], timeout: float | None) -> A:
        if self._closed:
            raise ClientClosed("this client is closed")
        seconds = self._timeout if timeout is None else seconds_setting("timeout", timeout)
        deadline = time.monotonic() + seconds
        self._pipeline.add(command, None)
        try:
            meant: Any = self._answer(deadline, seconds)
        except BaseException:
            self._disconnect()  # what comes later would be taken for the next answer
            self._pipeline.take_all()
            raise
        if isinstance(meant, Exception):
            raise meant
        answer: A = meant
        return answer

    def _answer(self, deadline: float, seconds: float) -> object:
        """Try until there is an answer, and return what it means. Raises Unreachable."""
        tried = set[int]()
        while True:
            if self._connection is not None and not _is_quiet(self._connection):
                self._disconnect()  # the server has closed it meanwhile
            if self._connection is None:
                self._server, pause = self._choice.next(time.monotonic(), () if self._retry else tried)
                if self._retry:
                    time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
            if time.monotonic() >= deadline:
                raise NoAnswer(seconds, self._choice.reasons)
            tried.add(self._server)
            try:
                return self._attempt(min(deadline, time.monotonic() + self._patience))
            except Unreachable as error:
                self._disconnect()
                self._choice.failed(self._server, time.monotonic(), str(error))
                if self._retry:
                    continue
                if self._has_sent:
                    raise
                if len(tried) == len(self._endpoints):
                    raise Unreachable(*self._choice.reasons) from error

    def _attempt(self, until: float) -> object:
        """Send what is owed to one server, and return what its answer means. Raises Unreachable."""
        self._has_sent = False
        connection = self._connection or self._connect(until)
        try:
            connection.settimeout(seconds_left(until))
            self._has_sent = True
            connection.sendall(b"".join(self._pipeline.data_to_send()))
            while True:
                connection.settimeout(seconds_left(until))
                data = connection.recv(65_536)
                self._is_mute = self._is_mute and not data
                if meant := self._receive(data):
                    self._choice.answered(self._server)
                    return meant[0]
                if not data:
                    read = f"closed before its answer was whole ({self._pipeline.received} bytes read)"
                    raise Unreachable(f"{self._called}: {MUTE if self._is_mute else read}")
        except OSError as error:
            read = f"({self._pipeline.received} bytes read)"
            raise Unreachable(f"{self._called}: {reason_of(error)} {read}") from error
        except ForeignAnswer as error:
            raise Unreachable(f"{self._called}: {error}") from error

    def _receive(self, data: bytes) -> list[object]:
        """Return what the answer means, if it is whole. Raises ForeignAnswer."""
        meant: list[object] = []
        try:
            meant.extend(answer for _, answer in self._pipeline.receive_data(data))
        except ForeignAnswer:
            if not meant:
                raise
            self._disconnect()  # behind a good answer
        return meant

    def _connect(self, until: float) -> socket.socket:
        connection, address = connect(self._endpoints[self._server].addresses, until)
        self._called = str(address)
        if self._tls is not None:
            try:
                connection.settimeout(seconds_left(until))
                connection = self._tls.wrap_socket(connection, server_hostname=address.host)
            except (OSError, ValueError) as error:
                connection.close()
                raise Unreachable(f"{address}: {reason_of(error)}") from error
        self._connection, self._is_mute = connection, self._tls is None
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._pipeline.connection_lost()


def _is_quiet(connection: socket.socket) -> bool:
    """Return whether nothing has come while nothing was owed, not even the end."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return not poll.poll(0)
