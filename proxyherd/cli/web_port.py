"""What `follow`, `forget`, `near` and `token revoke` share: the web port of a server, and the token that says that one may."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from proxyherd.cli.common import Misconfigured, NotReached
from proxyherd.cli.signing import TOKEN_VARIABLE
from proxyherd.client.rules.errors import Unreachable
from proxyherd.client.sockets import connect
from proxyherd.config.herd_file import Herd, Server
from proxyherd.remote import web_ports

F = TypeVar("F", bound=Callable[..., Any])


def token_file_option() -> Callable[[F], F]:
    """Return the option that names a token."""
    return click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help=f"The token that says that you may, where [auth] wants one.  [default: ${TOKEN_VARIABLE}, else one made with the key]",
    )


def refuse_options(ctx: click.Context, words: Iterable[str]) -> None:
    """Raise NoSuchOption for an option that is none: where an argument may begin with a sign, click takes it for one."""
    for word in words:
        if word.startswith("--") and word[2:3].isalpha():
            raise click.NoSuchOption(
                word, possibilities=[one for p in ctx.command.params for one in p.opts], ctx=ctx
            )


def place_of(_: click.Context, parameter: click.Parameter, value: str) -> tuple[str, str]:
    """Return the latitude and the longitude in an argument, with the digits that were typed."""
    latitude, comma, longitude = value.replace(" ", "").partition(",")
    if not comma or not latitude or not longitude or "," in longitude:
        raise click.BadParameter(
            f"{value!r} is not a latitude, a comma and a longitude in degrees, such as 34.06893,-118.445127",
            param=parameter,
        )
    return latitude.removeprefix("+"), longitude.removeprefix("+")


def reachable(herd: Herd, name: str | None) -> Server:
    """Return a server whose web port accepts connections. Raises Misconfigured, NotReached."""
    servers = [herd.server(name)] if name is not None else [*herd.servers.values()]
    servers = [server for server in servers if server.web]
    if not servers:
        whose = name or next(iter(herd.servers))
        raise Misconfigured(
            f"{herd.file}: key servers.{whose}.web: is missing; this is done over the web port of a server, so add one, such "
            'as web = "127.0.0.1:10300", and restart that server'
        )
    refusals = []
    for server in servers:
        try:
            connection, _ = connect(server.web, time.monotonic() + web_ports.CONNECT_SECONDS)
        except Unreachable as error:
            refusals.append(f"{server.name} at {error}")
        else:
            connection.close()
            return server
    raise NotReached(f"cannot reach {'; '.join(refusals)}; see `proxyherd status`")
