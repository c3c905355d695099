"""`whatsat`: what a client asks, by hand."""

from __future__ import annotations

import click

from proxyherd.cli.asking import SIGNED, ask_server, one_word, server_option
from proxyherd.cli.common import config_option, examples, raw_option


@click.command(
    context_settings=SIGNED,
    short_help="Ask what is near a client, and print the answer.",
    epilog=examples(
        "proxyherd whatsat kiwi.cs.ucla.edu 10 5",
        "proxyherd whatsat kiwi.cs.ucla.edu 0.5 20 --server Bailey",
    ),
)
@click.argument("client", callback=one_word)
@click.argument("radius", callback=one_word)
@click.argument("bound", callback=one_word)
@server_option("ask")
@raw_option()
@config_option()
@click.pass_context
def whatsat(
    ctx: click.Context, *, client: bytes, radius: bytes, bound: bytes, name: str | None, raw: bool
) -> None:
    """Ask what is within RADIUS km of CLIENT, BOUND results at most, and print the answer.

    Exit codes: 0 answered; 1 an invalid command, or an unknown client; 3 the server cannot be reached.
    """
    ask_server(ctx, name, b"WHATSAT", client, radius, bound, raw=raw)
