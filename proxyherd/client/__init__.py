"""A library for programs that are clients of a herd: over TCP or WebSocket, with many commands under way and several servers.

    async with HerdClient("127.0.0.1:10000", "127.0.0.1:10001") as herd:
        taken = await herd.report("kiwi", 34.06893, -118.445127)
        nearby = await herd.ask("kiwi", radius_km=10, limit=5)

- `HerdClient` (`concurrent`): for asyncio
- `SyncHerdClient` (`blocking`): for scripts
- `rules`: the rules of both, without sockets and clocks
- `endpoints`: the servers that may be asked
- `calls`: many calls over one connection, and over another one when that breaks
- `links`: connections of asyncio, over TCP and over WebSocket; `sockets`: plain ones, with a deadline
- `follows`: follows clients and areas, over WebSockets
- `tokens`: what a token says that it allows

docs/clients.md shows how it is used. It loads nothing of a server, asyncio only with `HerdClient`, and aiohttp only for a
WebSocket.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxyherd.client.blocking import SyncHerdClient
    from proxyherd.client.concurrent import HerdClient
    from proxyherd.client.rules.areas import NearbyClient, NearbyClients
    from proxyherd.client.rules.commands import NearbyPlaces, TakenReport
    from proxyherd.client.rules.errors import (
        AreaRefused,
        ClientClosed,
        FollowRefused,
        HerdError,
        InvalidCommand,
        NoAnswer,
        NotAllowed,
        ReportRefused,
        UnknownClient,
        Unreachable,
    )
    from proxyherd.client.rules.follows import FollowedChange

__all__ = [
    "AreaRefused",
    "ClientClosed",
    "FollowRefused",
    "FollowedChange",
    "HerdClient",
    "HerdError",
    "InvalidCommand",
    "NearbyClient",
    "NearbyClients",
    "NearbyPlaces",
    "NoAnswer",
    "NotAllowed",
    "ReportRefused",
    "SyncHerdClient",
    "TakenReport",
    "UnknownClient",
    "Unreachable",
]

_MODULES = {
    "HerdClient": "concurrent",
    "SyncHerdClient": "blocking",
    "FollowedChange": "rules.follows",
    "NearbyClient": "rules.areas",
    "NearbyClients": "rules.areas",
    "NearbyPlaces": "rules.commands",
    "TakenReport": "rules.commands",
}
"""Where the names are; the others are errors."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'rules.errors')}"), name)


def __dir__() -> list[str]:
    return __all__
