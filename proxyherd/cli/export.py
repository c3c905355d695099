"""`export`: where every client was last, as a file."""

from __future__ import annotations

from pathlib import Path

import click

from proxyherd.cli.common import (
    Failure,
    config_option,
    examples,
    load_herd,
    secret_file_option,
    server_names,
)
from proxyherd.cli.contents import progress_bar, read_journal
from proxyherd.cli.output import open_output
from proxyherd.cli.pipes import while_read
from proxyherd.remote import exporting

_MODE = 0o640  # where people are: not for other users of the machine


@click.command(
    short_help="Write where every client was last, as a file.",
    epilog=examples(
        "proxyherd export --output clients.geojson",
        "proxyherd export --format csv --server Clark --output clients.csv",
        "proxyherd export --folder /var/lib/proxyherd/Clark/journal | jq '.features | length'",
    ),
)
@click.option("--format", "form", type=click.Choice(["geojson", "csv"]), default="geojson", show_default=True)
@click.option(
    "--server",
    "name",
    metavar="NAME",
    shell_complete=server_names,
    help="Whose journal to read, in var/lib.  [default: the file's first]",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The journal's folder, instead of --server.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to FILE, all at once and with mode 0640, in place of stdout.",
)
@secret_file_option()
@config_option()
@click.pass_context
def export(
    ctx: click.Context,
    *,
    form: str,
    name: str | None,
    folder: Path | None,
    output: Path | None,
    secret_file: Path | None,
) -> None:
    """Write where every client was last, from the journal of one server, which may run meanwhile.

    GeoJSON has points, longitude first; CSV has a line with names first. How many clients there are is told on
    stderr. What the herd forgets (max_age_seconds) is left out, and what was erased (forget). The file tells where people
    are. The herd's secret is needed only if somebody was erased.

    Exit codes: 0 done; 1 written, but records of the journal are damaged and left out; 2 there is no journal, or the
    file cannot be written.
    """
    if name is not None and folder is not None:
        raise click.UsageError("name either a --server or a --folder")
    herd = load_herd(ctx)
    folder = folder or Path("var/lib") / herd.server(name or next(iter(herd.servers))).name / "journal"
    found = read_journal(folder, herd, secret_file)
    with (
        while_read(),
        open_output(output, _MODE) as file,
        progress_bar("Writing", len(found.entries)) as bar,
    ):
        for at, piece in enumerate(exporting.lines(form, found.entries), 1):
            file.write(piece)
            if at % 10_000 == 0:
                bar.update(10_000)
    damage = f", {found.damaged} records damaged: proxyherd journal verify" if found.damaged else ""
    click.echo(f"{folder}: {len(found.entries)} clients{damage}", err=True)
    ctx.exit(Failure.exit_code if found.damaged else 0)
