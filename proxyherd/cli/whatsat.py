"""`whatsat`: what a client asks, by hand."""

from __future__ import annotations

from pathlib import Path

import click

from proxyherd.cli.asking import SIGNED, ask_server, authority_option, json_option, one_word, server_option
from proxyherd.cli.common import config_option, examples, raw_option


@click.command(
    context_settings=SIGNED,
    short_help="Ask what is near a client, and print the answer.",
    epilog=examples(
        "proxyherd whatsat kiwi.cs.ucla.edu 10 5",
        "proxyherd whatsat kiwi.cs.ucla.edu 0.5 20 --server Bailey",
        "proxyherd whatsat kiwi.cs.ucla.edu 10 5 --json | jq -r '.places.results[].name'",
    ),
)
@click.argument("client", callback=one_word)
@click.argument("radius", callback=one_word)
@click.argument("bound", callback=one_word)
@server_option("ask")
@authority_option()
@raw_option()
@json_option()
@config_option()
@click.pass_context
def whatsat(
    ctx: click.Context,
    *,
    client: bytes,
    radius: bytes,
    bound: bytes,
    name: str | None,
    authority: Path | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Ask what is within RADIUS km of CLIENT, BOUND results at most, and print the answer. RADIUS is 0 to 50, BOUND 0 to
    20. If the server answers `? `, stderr says why.

    Exit codes: 0 answered; 1 an invalid command, or an unknown client; 3 the server cannot be reached.
    """
    ask_server(
        ctx,
        name,
        b"WHATSAT %b %b %b" % (client, radius, bound),
        authority=authority,
        raw=raw,
        as_json=as_json,
    )
