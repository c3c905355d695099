"""`iamat`: what a client reports, by hand."""

from __future__ import annotations

import time
from pathlib import Path

import click

from proxyherd.cli.asking import SIGNED, ask_server, authority_option, json_option, one_word, server_option
from proxyherd.cli.common import config_option, examples, raw_option
from proxyherd.cli.web_port import refuse_options


def _location(ctx: click.Context, parameter: click.Parameter, value: str) -> bytes:
    """Return a location as the protocol has it. What is neither that nor LAT,LNG stays, and the server refuses it."""
    word = one_word(ctx, parameter, value)
    latitude, comma, longitude = word.partition(b",")
    return _signed(latitude) + _signed(longitude) if comma and b"," not in longitude else word


def _one_location(ctx: click.Context, _: click.Parameter, rest: tuple[str, ...]) -> None:
    """Refuse what comes behind the location."""
    refuse_options(ctx, rest)
    if rest:
        raise click.UsageError(
            f"LOCATION is one word; write {','.join((ctx.params['location'].decode(errors='replace').strip('+,'), *rest))}",
            ctx,
        )


def _signed(degrees: bytes) -> bytes:
    return degrees if degrees[:1] in (b"+", b"-") else b"+" + degrees


@click.command(
    context_settings=SIGNED,
    short_help="Report where a client is, and print the answer.",
    epilog=examples(
        "proxyherd iamat kiwi.cs.ucla.edu 34.068930,-118.445127",
        "proxyherd iamat kiwi.cs.ucla.edu +34.068930-118.445127 --json",
        "proxyherd iamat opera.house -33.856784+151.215297 --server Clark",
        "proxyherd iamat kiwi.cs.ucla.edu +34.068930-118.445127 --time 1621464827.959498503",
    ),
)
@click.argument("client", callback=one_word)
@click.argument("location", callback=_location)
@click.argument("rest", nargs=-1, callback=_one_location, expose_value=False, metavar="")
@server_option("tell")
@click.option(
    "--time",
    "when",
    metavar="T",
    callback=lambda c, p, v: v and one_word(c, p, v),
    help="POSIX seconds.  [default: now]",
)
@authority_option()
@raw_option()
@json_option()
@config_option()
@click.pass_context
def iamat(
    ctx: click.Context,
    *,
    client: bytes,
    location: bytes,
    name: str | None,
    when: bytes | None,
    authority: Path | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Report that CLIENT is at LOCATION, and print the answer. LOCATION is LAT,LNG in degrees, or as the protocol has it
    (ISO 6709). If the server answers `? `, stderr says why.

    Exit codes: 0 taken; 1 an invalid command; 3 the server cannot be reached.
    """
    if when is None:
        seconds, rest = divmod(time.time_ns(), 1_000_000_000)
        when = b"%d.%09d" % (seconds, rest)
    ask_server(
        ctx, name, b"IAMAT %b %b %b" % (client, location, when), authority=authority, raw=raw, as_json=as_json
    )
