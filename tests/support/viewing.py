"""Looks at a status page as a browser does: reads its server-sent events.

with viewing(server) as page:
    herd = page.until("herd", lambda herd: herd["servers"][0]["known"])
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any

from herd_process import PATIENCE_SECONDS, ServerProcess


class Page:
    """A stream of events."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response
        self.seen: list[tuple[str, Any]] = []

    def next(self) -> tuple[str, Any]:
        """Return the next event and its data; fail where the stream ends."""
        name, data = "", None
        while line := self._response.readline():
            key, _, value = line.decode().rstrip("\n").partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                data = json.loads(value)
            elif not key and name:
                self.seen.append((name, data))
                return name, data
        raise EOFError

    def until(self, wanted: str, condition: Callable[[Any], Any], seconds: float = PATIENCE_SECONDS) -> Any:
        """Return the first data of such an event that fulfils the condition."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            name, data = self.next()
            if name == wanted and condition(data):
                return data
        raise AssertionError(f"not within {seconds:g} s; the last ones were {self.seen[-4:]}")

    def for_seconds(self, seconds: float) -> list[tuple[str, Any]]:
        """Return what comes in the next seconds."""
        first, end = len(self.seen), time.monotonic() + seconds
        while time.monotonic() < end:
            self.next()
        return self.seen[first:]


def get_events(port: int, **headers: str) -> tuple[HTTPConnection, HTTPResponse]:
    """Ask for the events."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/events", headers=headers)
        return connection, connection.getresponse()
    except BaseException:
        connection.close()
        raise


@contextlib.contextmanager
def viewing(server: ServerProcess) -> Iterator[Page]:
    """Look at a server's page."""
    connection, response = get_events(server.admin_port)
    try:
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        yield Page(response)
    finally:
        response.close()
        connection.close()


def server_in(herd: Any, name: str) -> Any:
    """Return what an update says of a server."""
    return next(one for one in herd["servers"] if one["name"] == name)


def edges_in(herd: Any) -> dict[frozenset[str], str]:
    """Return the state of each edge of an update."""
    return {frozenset((a, b)): state for a, b, state in herd["edges"]}


@contextlib.contextmanager
def all_events(server: ServerProcess) -> Iterator[None]:
    """Look at a server's page in a thread that reads and forgets."""
    connection, response = get_events(server.admin_port)
    assert response.status == 200

    def read() -> None:
        with contextlib.suppress(OSError, HTTPException):
            while response.read1():
                pass

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        response.close()
        connection.close()
