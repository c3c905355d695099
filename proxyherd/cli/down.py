"""`down`: stops the herd of a folder."""

from __future__ import annotations

import click

from proxyherd.cli.common import examples
from proxyherd.local import herd as local_herd


@click.command(epilog=examples("proxyherd down"))
def down() -> None:
    """Stop the herd of this folder, and its supervisord.

    The servers' state stays in var/ for the next proxyherd up.

    Exit codes: 0 nothing runs any more; 1 it could not be found out, or servers run that supervisord does not reach.
    """
    local_herd.down()
