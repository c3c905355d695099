"""Erases clients of a running herd, over the web port of one of its servers: `DELETE /v1/clients/{id}`.

Many clients are erased over several connections at once, so that a server whose disk is slow can keep several erasures
with one write. An erasure may be repeated: so whatever gets no answer is asked again, and a list that broke off may be
begun again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPException
from itertools import islice
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from proxyherd.base.words import shorten_text
from proxyherd.client.rules.errors import MOST_SHOWN, Unreachable
from proxyherd.remote.web_ports import (
    LATER,
    NO_RIGHT,
    PortConnection,
    pause_of,
    read_object,
    request_headers,
    unreachable,
)
from proxyherd.web.erasures import STAYED
from proxyherd.web.ids import name_of
from proxyherd.web.times import spelled_time

if TYPE_CHECKING:
    from proxyherd.config.herd_file import Server
    from proxyherd.web.rights import Right

_BEFORE: Final = "?before="
_CONNECTIONS: Final = 8
_AT_ONCE: Final = 50
"""Clients that one connection erases before it says how far it is."""

_ANSWER_BYTES: Final = 65_536
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0


class NotErased(Exception):  # noqa: N818 - an answer of a server
    """A server does not erase; the text says why, and what to do."""


class Eraser:
    """A connection to the web port of a server. `token` returns who asks, "" for nobody in particular. `patience`: seconds for
    which a server that is not ready, or has been restarted, is asked again.
    """

    def __init__(self, server: Server, token: Callable[[], str], patience: float) -> None:
        self._server = server
        self._connection = PortConnection(server)
        self._patience = patience
        self._token = token

    def erase(self, client: bytes, before: int | None) -> bool:
        """Erase a client: all that servers have received of it, or what they had received `before` this time, in
        nanoseconds of POSIX time. Return False if it stays, because it was seen after that. Raises NotErased, Unreachable.
        """
        target = f"/v1/clients/{quote(name_of(client), safe='')}"
        if before is not None:
            target += f"{_BEFORE}{spelled_time(before).decode()}"
        return not read_object(self._delete(target, "erase")).get(STAYED)

    def revoke(self, subject: str) -> None:
        """Revoke the tokens of a subject that were made up to now. Raises NotErased, Unreachable."""
        self._delete(f"/v1/tokens/{quote(subject, safe='')}", "operate")

    def _delete(self, target: str, right: Right) -> bytes:
        """Ask until it is done, and return the answer. `right`: what a token must allow. Raises NotErased, Unreachable."""
        deadline = time.monotonic() + self._patience
        while True:
            answer = self._ask(target, right, final=time.monotonic() >= deadline)
            if isinstance(answer, bytes):
                return answer
            time.sleep(min(answer, _LONGEST_PAUSE_SECONDS))

    def _ask(self, target: str, right: Right, *, final: bool) -> bytes | float:
        """Ask once; return the answer if it is done, or after how many seconds to ask again, unless it is `final`."""
        connection = self._connection
        try:
            connection.request("DELETE", target, headers=request_headers(self._token()))
            answer = connection.getresponse()
            body = answer.read(_ANSWER_BYTES)
        except (OSError, HTTPException, Unreachable) as error:
            connection.close()
            if not final:
                return _FIRST_PAUSE_SECONDS
            if isinstance(error, Unreachable):
                raise
            raise unreachable(self._server, error) from error
        if answer.status == HTTPStatus.ACCEPTED:
            return body
        if answer.status in LATER and not final:
            return pause_of(answer)
        if _has_not_passed(target, answer.status) and not final:
            return _LONGEST_PAUSE_SECONDS
        raise NotErased(self._explain(answer.status, body, right, target))

    def _explain(self, status: int, body: bytes, right: Right, target: str) -> str:
        """Return why a server has not done it."""
        verb, noun = ("erase", "erasure") if right == "erase" else ("revoke tokens", "revocation of tokens")
        server = f"{self._server.name} at {self._server.web[0]}"
        said = shorten_text(str(read_object(body).get("detail", "without a reason")), MOST_SHOWN)
        if status in NO_RIGHT:
            return (
                f"{server} says that you may not {verb} ({said}); name a token that may with --token-file, as "
                f"`proxyherd token new --may {right}` makes it"
            )
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            return f"{server} knows no {noun}; upgrade it, or see whose port that is"
        if _has_not_passed(target, status):
            return (
                f"on the clock of {server}, the moment up to which to erase has not passed: its clock is behind this host's, or "
                "the date is in the future; set both clocks with NTP"
            )
        return f"{server} does not {verb} now ({said}); see `proxyherd status`, then try again"

    def close(self) -> None:
        """Close it."""
        self._connection.close()


def _has_not_passed(target: str, status: int) -> bool:
    """Whether a server refuses an erasure up to a moment. The moment is spelled right, so it is in the future there."""
    return status == HTTPStatus.BAD_REQUEST and _BEFORE in target


def erase_all(
    open_eraser: Callable[[], Eraser],
    clients: Sequence[bytes],
    before: int | None,
    told: Callable[[int, int], object],
) -> None:
    """Erase clients, over several connections if there are many; see `Eraser.erase`. `told` is called with how many were
    erased since the last call, and how many stay. Raises NotErased, Unreachable; others may be erased all the same.
    """
    rest, lock, failed = iter(clients), threading.Lock(), threading.Event()

    def work() -> None:
        port = open_eraser()
        try:
            while not failed.is_set() and (some := _take(rest, lock)):
                erased = sum([port.erase(client, before) for client in some])
                with lock:
                    told(erased, len(some) - erased)
        except BaseException:
            failed.set()
            raise
        finally:
            port.close()

    workers = min(_CONNECTIONS, 1 + len(clients) // _AT_ONCE)
    with ThreadPoolExecutor(workers) as pool:
        works = [pool.submit(work) for _ in range(workers)]
        try:
            for one in works:
                one.result()
        except BaseException:
            failed.set()
            raise


def _take(clients: Iterator[bytes], lock: threading.Lock) -> list[bytes]:
    with lock:
        return [*islice(clients, _AT_ONCE)]
