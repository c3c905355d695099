"""The web port of a server.

aiohttp takes long to import, so this module is imported after the server listens for clients.
"""

from __future__ import annotations

import socket

from proxyherd.config.herd_file import Herd
from proxyherd.net.listening import Listener
from proxyherd.net.tls import Contexts
from proxyherd.server.clients.clients import Clients
from proxyherd.server.clients.http import HttpConnection
from proxyherd.server.clients.web import WebClients


class WebListener:
    """Accepts clients that speak HTTP."""

    key = "web"

    def __init__(self, clients: Clients, herd: Herd) -> None:
        web = WebClients(clients, herd)
        self._listener = Listener(
            lambda: HttpConnection(web),
            None,
            backlog=4_096,
            handshake_seconds=0,
            shutdown_seconds=0,
            room=lambda: 0,
            refused=clients.observer.connections.refused,
        )

    async def listen(self, sock: socket.socket) -> None:
        """Accept clients from a bound socket."""
        await self._listener.listen(sock)

    def renew(self, contexts: Contexts) -> None:
        """Do nothing: this port has no certificates."""

    def close(self) -> None:
        """Accept no more clients."""
        self._listener.close()
