"""`iamat` and `whatsat`: what clients say, by hand."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from proxyherd.cli.common import (
    Failure,
    NotReached,
    config_option,
    examples,
    load,
    raw_option,
    server_names,
)


def _word(_: click.Context, parameter: click.Parameter, value: str) -> bytes:
    """One field of a command line, byte for byte; white space would make it two, or two commands."""
    word = os.fsencode(value)
    if word.split() != [word]:
        raise click.BadParameter("is one word, without white space", param=parameter)
    return word


# A location or a radius may begin with a sign; without this click takes it for an option.
_SIGNED: dict[str, Any] = {"ignore_unknown_options": True}


@click.command(
    context_settings=_SIGNED,
    epilog=examples(
        "proxyherd iamat kiwi.cs.ucla.edu +34.068930-118.445127",
        "proxyherd iamat opera.house -33.856784+151.215297 --server Clark",
        "proxyherd iamat kiwi.cs.ucla.edu +34.068930-118.445127 --time 1621464827.959498503",
    ),
)
@click.argument("client", callback=_word)
@click.argument("location", callback=_word)
@click.option(
    "--server",
    "name",
    metavar="NAME",
    shell_complete=server_names,
    help="Which server to tell.  [default: the file's first]",
)
@click.option(
    "--time",
    "when",
    metavar="T",
    callback=lambda c, p, v: v and _word(c, p, v),
    help="POSIX seconds.  [default: now]",
)
@raw_option()
@config_option()
@click.pass_context
def iamat(
    ctx: click.Context, *, client: bytes, location: bytes, name: str | None, when: bytes | None, raw: bool
) -> None:
    """Report that CLIENT is at LOCATION (ISO 6709), and print the answer.

    Exit codes: 0 taken; 1 an invalid command; 3 the server cannot be reached.
    """
    if when is None:
        seconds, rest = divmod(time.time_ns(), 1_000_000_000)
        when = b"%d.%09d" % (seconds, rest)
    _ask(ctx, name, raw, b"IAMAT", client, location, when)


@click.command(
    context_settings=_SIGNED,
    epilog=examples(
        "proxyherd whatsat kiwi.cs.ucla.edu 10 5",
        "proxyherd whatsat kiwi.cs.ucla.edu 0.5 20 --server Bailey",
    ),
)
@click.argument("client", callback=_word)
@click.argument("radius", callback=_word)
@click.argument("bound", callback=_word)
@click.option(
    "--server",
    "name",
    metavar="NAME",
    shell_complete=server_names,
    help="Which server to ask.  [default: the file's first]",
)
@raw_option()
@config_option()
@click.pass_context
def whatsat(
    ctx: click.Context, *, client: bytes, radius: bytes, bound: bytes, name: str | None, raw: bool
) -> None:
    """Ask what is within RADIUS km of CLIENT, BOUND results at most, and print the answer.

    Exit codes: 0 answered; 1 an invalid command, or an unknown client; 3 the server cannot be reached.
    """
    _ask(ctx, name, raw, b"WHATSAT", client, radius, bound)


def _ask(ctx: click.Context, name: str | None, raw: bool, *fields: bytes) -> None:
    from proxyherd.remote import ask  # noqa: PLC0415 - not for `serve`

    herd = load(ctx)
    server = herd.server(name) if name is not None else next(iter(herd.servers.values()))
    # Longer than the server itself may take: it answers for Places that do not.
    seconds = 5 + herd.timing.ready_seconds + herd.places.deadline_seconds
    try:
        answer = ask.command(server, b" ".join(fields), seconds)
    except ask.Unreachable as error:
        others = [other for other in herd.servers if other != server.name]
        raise NotReached(
            f"cannot reach {server.name} at {error}; see `proxyherd status`"
            + (f", or ask another: --server {others[0]}" if others else "")
        ) from error
    click.echo(answer if raw else _readable(answer), nl=False)
    ctx.exit(0 if answer.startswith(b"AT ") else Failure.exit_code)


def _readable(answer: bytes) -> bytes:
    """Return an answer in which nothing is hidden; places are the same JSON, spelled otherwise."""
    from proxyherd.base.escapes import escaped, visible_json  # noqa: PLC0415 - not for `serve`

    first, end, places = answer.partition(b"\n")
    return f"{escaped(first)}{end.decode()}{visible_json(places)}".encode()
