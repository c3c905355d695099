"""The servers that a client may ask, and how each is reached.

127.0.0.1:10000, herd.example:10000, [2001:db8::1]:10000    the line protocol, on a server's client port
ws://127.0.0.1:10300, wss://herd.example/v1/ws              the same over a WebSocket, on a server's web port
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from proxyherd.config.address import Address, parse_address

WEBSOCKET_PATH: Final = "/v1/ws"


class Endpoint(Struct, frozen=True):
    """One server: its addresses, of which the first that answers is used; or the URL of its WebSocket."""

    addresses: tuple[Address, ...] = ()
    url: str = ""

    def __str__(self) -> str:
        return self.url or ", ".join(map(str, self.addresses))


def parse_endpoint(server: str | Endpoint) -> Endpoint:
    """Return the server that a text spells. Raises ValueError, which says what is wrong and what to write."""
    if isinstance(server, Endpoint):
        return server
    if not isinstance(server, str):
        raise TypeError(f'{server!r} is no server: write each as a str of its own, as "127.0.0.1:10000"')
    if "://" not in server:
        return Endpoint(addresses=(parse_address(server),))
    try:
        parts = urlsplit(server)
        is_url = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:  # of its port, or of an IPv6 address
        is_url = False
    if not is_url or parts.query or parts.fragment:
        raise ValueError(f'{server!r} is no server; write "host:port", "[IPv6]:port", or "ws://host:port"')
    path = parts.path if parts.path.strip("/") else WEBSOCKET_PATH
    return Endpoint(url=f"{parts.scheme}://{parts.netloc}{path}")


def parse_endpoints(servers: tuple[str | Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Return the servers that texts spell. Raises ValueError, also if there are none."""
    if not servers:
        raise ValueError('name at least one server, as "127.0.0.1:10000"')
    return tuple(map(parse_endpoint, servers))


def endpoints_of_file(file: str | Path, *, websocket: bool, has_tls: bool) -> tuple[Endpoint, ...]:
    """Return the servers of a herd's file: their client ports, or their web ports. Raises ValueError if the file cannot be
    used, if no server has a web port, or if client ports speak TLS and the client does not.
    """
    from proxyherd.config import herd_file  # noqa: PLC0415 - only who names a file waits for what reads it
    from proxyherd.config.errors import ConfigError  # noqa: PLC0415 - likewise

    try:
        herd = herd_file.load(Path(file))
    except ConfigError as error:
        raise ValueError(str(error)) from error
    if websocket:
        found = [f"ws://{server.web[0]}" for server in herd.servers.values() if server.web]
        if not found:
            raise ValueError(f'{file}: no server has a web port; add web = "host:port" to [servers]')
        return parse_endpoints(tuple(found))
    if herd.tls.clients_certificate and not has_tls:
        raise ValueError(f"{file}: client ports speak TLS; give tls=ssl.create_default_context(cafile=...)")
    return tuple(Endpoint(addresses=server.clients) for server in herd.servers.values())
