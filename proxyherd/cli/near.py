"""`near`: who is near a place, over the web port of a running server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from proxyherd.base.escapes import escaped, visible_json
from proxyherd.base.words import spell_seconds
from proxyherd.cli.asking import SIGNED, one_word, server_option
from proxyherd.cli.common import (
    Failure,
    Misconfigured,
    NotReached,
    config_option,
    examples,
    load_herd,
    print_table,
)
from proxyherd.cli.signing import token_source
from proxyherd.cli.web_port import place_of, reachable, refuse_options, token_file_option
from proxyherd.client.rules.errors import Unreachable
from proxyherd.remote import nearby, web_ports
from proxyherd.web.ids import name_of

_PATIENCE_SECONDS: Final = 15.0
"""How long a server that is not ready is waited for."""


def _centre(
    ctx: click.Context, parameter: click.Parameter, words: tuple[str, ...]
) -> tuple[tuple[str, str] | None, str]:
    """Return the place, if one is given, and the radius."""
    refuse_options(ctx, words)
    match words:
        case [kilometres]:
            return None, kilometres
        case [place, _] if place[:1].isalpha():
            raise click.UsageError(f"{place!r} is no LAT,LNG; around a client: --client CLIENT KM", ctx)
        case [place, kilometres]:
            return place_of(ctx, parameter, place), kilometres
        case [latitude, longitude, _]:
            place = f"{latitude.rstrip(',')},{longitude}"
            raise click.UsageError(f"LAT,LNG is one word: {place}", ctx)
    raise click.UsageError("give LAT,LNG and KM; or --client CLIENT and KM", ctx)


def _query(place: tuple[str, str] | None, client: bytes | None) -> dict[str, str]:
    """Return the parameters of `/v1/near` that say what is in the centre. Raises UsageError."""
    if (place is None) == (client is None):
        raise click.UsageError("give either LAT,LNG or --client CLIENT, and KM")
    return (
        {"client": name_of(client)}
        if client is not None
        else dict(zip(("lat", "lon"), place or (), strict=True))
    )


@click.command(
    context_settings=SIGNED,
    short_help="Print which clients are near a place.",
    epilog=examples(
        "proxyherd near 34.06893,-118.445127 5",
        "proxyherd near 34.06893,-118.445127 0.5 --max-age 600 --limit 100",
        "proxyherd near --client kiwi.cs.ucla.edu 5",
        "proxyherd near -33.856784,151.215297 50 --server Bailey --json",
    ),
)
@click.argument("where", nargs=-1, callback=_centre, metavar="[LAT,LNG] KM")
@click.option(
    "--client",
    callback=lambda c, p, v: v and one_word(c, p, v),
    metavar="CLIENT",
    help="In place of LAT,LNG: where CLIENT is. It is in the answer too.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, nearby.MOST_NEAR),
    default=20,
    show_default=True,
    metavar="N",
    help=f"Print the N nearest, at most {nearby.MOST_NEAR:,}.",
)
@click.option(
    "--max-age",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Only clients whose last report is not older.  [default: all]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the server as it is.")
@server_option("ask", default="the first one that can be reached")
@token_file_option()
@config_option()
@click.pass_context
def near(
    ctx: click.Context,
    *,
    where: tuple[tuple[str, str] | None, str],
    client: bytes | None,
    limit: int,
    max_age: float | None,
    as_json: bool,
    name: str | None,
    token_file: Path | None,
) -> None:
    """Print the clients within KM kilometres of LAT,LNG, or of a client, the nearest first, with their distances in metres.

    It asks the web port of one server, which knows all that the herd knows.

    Exit codes: 0 answered, also if nobody is near; 1 the server does not answer that; 2 bad usage, or the herd has no web
    port; 3 no server was reached.
    """
    query = {**_query(where[0], client), "radius_km": where[1], "limit": str(limit)}
    herd = load_herd(ctx)
    if max_age is not None:
        query["max_age_s"] = f"{max_age:.3f}"
    server = reachable(herd, name)
    try:
        said, answer = nearby.ask_near(
            server, token_source(herd, token_file, "see"), query, _PATIENCE_SECONDS
        )
    except web_ports.NotAnswered as error:
        raise (Misconfigured if error.mistaken else Failure)(str(error)) from error
    except Unreachable as error:
        raise NotReached(f"{server.name} is gone: {error}; see `proxyherd status`") from error
    if as_json:
        click.echo(visible_json(said))
    else:
        print_table([("client", "metres", "age", "location"), *_rows(answer)])
    if not answer.complete:
        click.echo(f"{escaped(answer.server)} is not ready yet: it may not know all clients", err=True)


def _rows(answer: nearby.NearAnswer) -> Iterator[tuple[str, ...]]:
    for one in answer.clients:
        location = f"{bytes(one.lat).decode()},{bytes(one.lon).decode()}"
        yield (
            web_ports.shown_id(one.client),
            f"{one.metres:.0f}",
            spell_seconds(round(one.age_s)),
            escaped(location),
        )
