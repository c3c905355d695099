"""Binds the addresses of the herd's file; those that are not available are tried again, forever.

A name may stand for several addresses. Each is bound separately, so one that is in use does not affect the others.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from structlog.typing import FilteringBoundLogger

from proxyherd.base.holders import holders
from proxyherd.config.address import Address

_BIND_SECONDS: Final = 1.0

_LOOK_UP_SECONDS: Final = 1.0
"""How long the first look-up of a name keeps the other addresses waiting: with silent name servers it takes 20 seconds and
more.
"""

_REMEDIES: Final = {
    errno.EADDRINUSE: "see who has it with `ss -ltnp`; ",
    errno.EACCES: "give it a port above 1023, or the server the capability CAP_NET_BIND_SERVICE; ",
    errno.EADDRNOTAVAIL: "no interface of this machine has it: compare with `ip address`; ",
}

_Listen = Callable[[socket.socket], Coroutine[Any, Any, None]]
_Infos = list[Any]  # of what getaddrinfo returns
_UNRESOLVED: Final[_Infos] = [None]  # the name itself could not be looked up yet


class Binder:
    """Binds addresses and passes their sockets to listeners. `spawn` runs background tasks."""

    def __init__(
        self, log: FilteringBoundLogger, spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self.unbound: set[str] = set()  # what is not available now, in words
        self._log = log
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()

    async def listen(self, what: str, addresses: Iterable[Address], listen: _Listen) -> None:
        """Listen at all addresses; at those that are not available now, as soon as they are."""
        for address in addresses:
            left = await self._bind(what, address, listen, None)
            if left:
                self.unbound.add(f"{what} {address}")
                self._spawn(self._keep_binding(what, address, listen, left))

    async def _keep_binding(self, what: str, address: Address, listen: _Listen, left: _Infos) -> None:
        while left := await self._bind(what, address, listen, left):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_BIND_SECONDS)
        self.unbound.discard(f"{what} {address}")
        self._log.info("listening", port=what, address=str(address))

    async def _bind(self, what: str, address: Address, listen: _Listen, left: _Infos | None) -> _Infos:
        """Listen at one address, or at the part of it that is left, since a name may stand for several. Return what is
        left afterwards.

        The first attempt, when nothing is known to be left, logs what is not available.
        """
        first, failed, in_use, remedy = left is None, _Infos(), False, ""
        try:
            if not left or left == _UNRESOLVED:
                async with asyncio.timeout(_LOOK_UP_SECONDS if first else None):
                    left = await self._resolve(address)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            failed = [*_UNRESOLVED]
            reason = str(error) or f"the name is not looked up yet after {_LOOK_UP_SECONDS:g} s"
            remedy = f"see what the name stands for with `getent ahosts {address.host}`; "
        else:
            reason, foreign = "", _Infos()
            for info in left:
                try:
                    await _hand_over(info, listen)
                except OSError as error:
                    (foreign if error.errno == errno.EADDRNOTAVAIL else failed).append(info)
                    reason = error.strerror or str(error)
                    remedy = _REMEDIES.get(error.errno or 0, "")
                    in_use |= error.errno == errno.EADDRINUSE
            if len(failed) + len(foreign) == len(left):
                failed += foreign  # otherwise they are other machines' with the same name
        if failed and first:
            # In a thread: it looks at all processes.
            known = await asyncio.to_thread(holders, [address.port]) if in_use else {}
            holder = {"holder": known[address.port]} if known else {}
            self._log.error(
                "cannot_listen",
                port=what,
                address=str(address),
                reason=reason,
                **holder,
                remedy=f"{remedy}it is tried again every second",
            )
        return failed

    async def _resolve(self, address: Address) -> _Infos:
        found = await self._loop.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return [*dict.fromkeys(found)]


async def _hand_over(info: Any, listen: _Listen) -> None:
    """Bind a socket and pass it to a listener. Raises OSError."""
    family, kind, protocol, _, sockaddr = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(sockaddr)
        await listen(sock)
    except OSError:
        sock.close()
        raise
