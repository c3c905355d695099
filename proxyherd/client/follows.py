"""Follows clients or an area over WebSockets, one after the other, in the subprotocol `proxyherd.json.v1`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from random import Random
from typing import Final

from proxyherd.client.links import Socket, close_websocket, ending_of
from proxyherd.client.rules.choice import ServerChoice
from proxyherd.client.rules.errors import ForeignAnswer, Unreachable
from proxyherd.client.rules.follows import FollowedChange, FollowState
from proxyherd.client.sockets import reason_of

JSON_SUBPROTOCOL: Final = "proxyherd.json.v1"

_SILENT_SECONDS: Final = 60.0
"""A server that says nothing for so long has gone: it sends a ping after 25 s."""


async def followed_changes(
    urls: Sequence[str],
    message: str,
    state: FollowState,
    connect: Callable[[str], Awaitable[Socket]],
    rng: Random,
) -> AsyncGenerator[FollowedChange, None]:
    """Yield what happens, for ever, at one web port after the other. `message`: begins the follow; `connect`: opens a
    WebSocket. Raises FollowRefused, NotAllowed.
    """
    choice, clock = ServerChoice(len(urls), rng), asyncio.get_running_loop().time
    while True:
        server, pause = choice.next(clock())
        await asyncio.sleep(pause)
        try:
            session, socket = await connect(urls[server])
            try:
                await socket.send_str(message)
                state.begin()
                while True:
                    said = await socket.receive(timeout=_SILENT_SECONDS)
                    if not isinstance(said.data, str):
                        raise Unreachable(ending_of(socket, said.extra))
                    for change in state.hear(said.data):
                        choice.answered(server)
                        yield change
            finally:
                await close_websocket(session, socket)
        except (Unreachable, ForeignAnswer, OSError) as error:
            choice.failed(server, clock(), reason_of(error))
