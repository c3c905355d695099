"""Looks names up in threads for which nobody has to wait.

getaddrinfo cannot be interrupted: with silent name servers, a call takes 20 seconds or more. An event loop waits at
its end for all its own look-ups, even for those given up; it does not wait for our threads. And only one look-up of a
name runs at a time; others that want the same name wait for it. So they don't pile up.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop as _EventLoop
else:
    _EventLoop = object  # commands without an event loop need not import asyncio

_Question = tuple[str | bytes | None, str | bytes | int | None, int, int, int, int]
_Found = list[Any]  # as of socket.getaddrinfo

_under_way: dict[_Question, Future[_Found]] = {}
_lock = threading.Lock()


def look_up(
    host: str | bytes | None,
    port: str | bytes | int | None,
    family: int = 0,
    kind: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> Future[_Found]:
    """Call socket.getaddrinfo in a thread. The future may fail with OSError or UnicodeError.

    Raises OSError if the system has no thread for it.
    """
    # A numeric address needs no thread.
    with contextlib.suppress(OSError, UnicodeError):
        numeric = Future[_Found]()
        numeric.set_result(socket.getaddrinfo(host, port, family, kind, proto, flags | socket.AI_NUMERICHOST))
        return numeric
    question = (host, port, family, kind, proto, flags)
    with _lock:
        if (known := _under_way.get(question)) is not None:
            return known
        answer = Future[_Found]()
        try:
            threading.Thread(target=_ask, args=(question, answer), name="look-up", daemon=True).start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"no look-up: {error}") from error
        _under_way[question] = answer
        return answer


def _ask(question: _Question, answer: Future[_Found]) -> None:
    found: _Found = []
    failure: Exception | None = None
    try:
        found = socket.getaddrinfo(*question)
    except Exception as error:  # noqa: BLE001 - it is raised where the answer is wanted
        failure = error
    with _lock:
        del _under_way[question]
    if failure is None:
        answer.set_result(found)
    else:
        answer.set_exception(failure)


async def looked_up(
    loop: _EventLoop,
    host: str | bytes | None,
    port: str | bytes | int | None,
    family: int = 0,
    kind: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> _Found:
    """Answer as socket.getaddrinfo does, in this loop. If the caller is cancelled, only its waiting ends."""
    answer = look_up(host, port, family, kind, proto, flags)
    answered = loop.create_future()

    def wake() -> None:
        if not answered.done():
            answered.set_result(None)

    def tell(_: Future[_Found]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(wake)

    answer.add_done_callback(tell)
    await answered
    return answer.result()


class LooksUp(_EventLoop):
    """A mixin for event loops: all their look-ups then use this module."""

    async def getaddrinfo(
        self,
        host: str | bytes | None,
        port: str | bytes | int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - asyncio's name
        proto: int = 0,
        flags: int = 0,
    ) -> _Found:
        """Answer as `looked_up` does."""
        return await looked_up(self, host, port, family, type, proto, flags)


def new_event_loop() -> _EventLoop:
    """Return an event loop whose look-ups use this module: uvloop's, or asyncio's own if that is missing."""
    import asyncio  # noqa: PLC0415 - as above

    kind: type[asyncio.AbstractEventLoop]
    try:
        import uvloop  # noqa: PLC0415 - it may be missing
    except ImportError:
        kind = asyncio.SelectorEventLoop
    else:
        kind = uvloop.Loop
    loop: asyncio.AbstractEventLoop = type("Loop", (LooksUp, kind), {})()
    return loop
