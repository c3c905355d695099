"""Asks the supervisord of this folder, by its socket."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
import xmlrpc.client
from collections.abc import Callable
from typing import Any, Final

from proxyherd.local.messages import fail, typed
from proxyherd.local.witnesses import RPC_SECONDS, SOCKET, look

STANDSTILL_SECONDS: Final = 30.0
"""How long nothing may change before a start or a stop is given up."""


_SHUTDOWN_STATE: Final = 6
"""The fault of a supervisord that is stopping."""


class Stopping(OSError):  # noqa: N818 - a fact about supervisord
    """supervisord has been told to stop, and takes no more calls."""


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(RPC_SECONDS)
        self.sock.connect(str(SOCKET))


class _Transport(xmlrpc.client.Transport):
    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002 - there is one
        return _Connection("localhost")


def call(method: str) -> Any:
    """Call a method of supervisord's without arguments. Raises OSError."""
    server = xmlrpc.client.ServerProxy("http://localhost", transport=_Transport())
    try:
        return getattr(server.supervisor, method)()
    except xmlrpc.client.Fault as error:
        raise (Stopping if error.faultCode == _SHUTDOWN_STATE else OSError)(error.faultString) from error
    except (xmlrpc.client.Error, http.client.HTTPException) as error:
        raise OSError(str(error)) from error


def states() -> dict[str, str]:
    """Return the state of each of supervisord's processes, such as `herd:Clark`. Fails where it does not answer."""
    try:
        told = _answered("getAllProcessInfo")
    except Stopping:
        fail(f"the herd is being stopped; type {typed()} again when it has stopped")
    return {f"{one['group']}:{one['name']}": one["statename"] for one in told}


def shut_down() -> None:
    """Tell supervisord to stop, unless it was told before. Fails where it does not answer."""
    with contextlib.suppress(Stopping):
        _answered("shutdown")


def _answered(method: str) -> Any:
    """Call a method of supervisord's. Raises Stopping. Fails where it does not answer."""
    try:
        return call(method)
    except Stopping:
        raise
    except OSError as error:
        fail(f"supervisord does not answer ({error}); stop it with: kill {look().supervisord or '(see ps)'}")


def wait_while_it_changes(seen: Callable[[], object], is_done: Callable[[Any], bool]) -> Any:
    """Look until all is done, or until nothing has changed for `STANDSTILL_SECONDS`; return what was seen last."""
    last, deadline = seen(), time.monotonic() + STANDSTILL_SECONDS
    while not is_done(last) and time.monotonic() < deadline:
        time.sleep(0.1)
        if (now := seen()) != last:
            last, deadline = now, time.monotonic() + STANDSTILL_SECONDS
    return last
