"""`completion`: what lets a shell complete commands, options and names of servers."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from proxyherd.cli.common import examples


@click.command(
    short_help="Complete commands and options in your shell.",
    epilog=examples(
        "proxyherd completion bash > ~/.local/share/bash-completion/completions/proxyherd",
        'eval "$(proxyherd completion bash)"',
        'proxyherd completion zsh > "${fpath[1]}/_proxyherd"',
        "proxyherd completion fish > ~/.config/fish/completions/proxyherd.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options and the names of servers, which are read from the herd's file.

    bash has to be 4.4 or newer.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "proxyherd", "_PROXYHERD_COMPLETE").source())
