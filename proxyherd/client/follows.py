"""Follows clients or an area over WebSockets, one after the other, in the subprotocol `proxyherd.json.v1`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Final

from proxyherd.client.links import Socket, close_websocket, ending_of
from proxyherd.client.rules.choice import ServerChoice
from proxyherd.client.rules.errors import ForeignAnswer, NotAllowed, Unreachable
from proxyherd.client.rules.follows import FollowedChange, FollowState
from proxyherd.client.sockets import reason_of

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

_PING: Final = 9
_PONG: Final = 10
"""RFC 6455's opcodes."""


async def followed_changes(
    urls: Sequence[str],
    message: str,
    state: FollowState,
    connect: Callable[[str], Awaitable[Socket]],
    patience: float,
    rng: Random,
    *,
    renews: bool,
) -> AsyncGenerator[FollowedChange, None]:
    """Yield what happens, for ever, at one web port after the other. `message`: begins the follow; `connect`: opens a
    WebSocket, with pings. A server that is silent for `patience` seconds gets a ping, and as long again to answer it. With
    `renews`, a token that ends while it is used is no error: `connect` has the next one. Raises FollowRefused, NotAllowed.
    """
    choice, clock = ServerChoice(len(urls), rng), asyncio.get_running_loop().time
    while True:
        server, pause = choice.next(clock())
        await asyncio.sleep(pause)
        has_answered = False
        try:
            session, socket = await connect(urls[server])
            try:
                await socket.send_str(message)
                state.begin()
                while True:
                    for change in state.hear(await _receive(socket, patience)):
                        choice.answered(server)
                        has_answered = True
                        yield change
            finally:
                await close_websocket(session, socket)
        except (NotAllowed, Unreachable, ForeignAnswer, OSError) as error:
            if isinstance(error, NotAllowed) and not (renews and has_answered):
                raise
            choice.failed(server, clock(), reason_of(error), getattr(error, "wait", 0.0))


async def _receive(socket: ClientWebSocketResponse, patience: float) -> str:
    """Return the next message that is no ping or pong. Raises Unreachable, also if there is no answer to a ping."""
    is_asked = False
    while True:
        try:
            said = await socket.receive(timeout=patience)
        except TimeoutError:
            if is_asked:
                raise Unreachable("does not answer a ping") from None
            is_asked = True
            await socket.ping()
            continue
        is_asked = False
        if said.type == _PING:
            await socket.pong(said.data)
        elif said.type != _PONG:
            if isinstance(said.data, str):
                return said.data
            raise Unreachable(ending_of(socket, said.extra))
