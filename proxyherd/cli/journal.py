"""`journal`: what a server has on disk of the locations it knows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from proxyherd.base.escapes import escaped
from proxyherd.cli.common import (
    Failure,
    Misconfigured,
    config_option,
    examples,
    load_herd,
    raw_option,
    server_names,
)
from proxyherd.cli.pipes import while_read
from proxyherd.engines.herd import journal as journals


@click.group()
def journal() -> None:
    """What a server has on disk of the locations it knows."""


@journal.command(
    short_help="Check every record of a server's journal.",
    epilog=examples(
        "proxyherd journal verify Clark", "proxyherd journal verify --folder /var/lib/proxyherd/Clark/journal"
    ),
)
@click.argument("name", required=False, shell_complete=server_names)
@click.option("--folder", type=click.Path(path_type=Path), help="The journal's folder, instead of a NAME.")
@config_option()
@click.pass_context
def verify(ctx: click.Context, name: str | None, folder: Path | None) -> None:
    """Check every record of the journal of NAME, and print what is in each file. It may run meanwhile.

    Exit codes: 0 all records are whole, but for a torn tail; 1 some are damaged; 2 there is no journal.
    """
    damaged = 0
    for path in _journal_files(ctx, name, folder):
        try:
            found = journals.verify(path)
        except FileNotFoundError:
            continue  # a rewrite has replaced this file by a snapshot
        except OSError as error:
            raise Misconfigured(f"{path}: {error.strerror}; see who may read it") from error
        damaged += found.damaged
        with while_read():
            click.echo(f"{path}: {found.records} records, {found.damaged} damaged, {found.torn} bytes torn")
    ctx.exit(Failure.exit_code if damaged else 0)


@journal.command(
    short_help="Print the AT lines in a server's journal.",
    epilog=examples(
        "proxyherd journal dump Clark | sort | uniq -c", "proxyherd journal dump Clark --raw > backup.at"
    ),
)
@click.argument("name", required=False, shell_complete=server_names)
@click.option("--folder", type=click.Path(path_type=Path), help="The journal's folder, instead of a NAME.")
@raw_option()
@config_option()
@click.pass_context
def dump(ctx: click.Context, *, name: str | None, folder: Path | None, raw: bool) -> None:
    """Print the AT lines in the journal of NAME, oldest file first; later lines of a client replace earlier ones."""
    output = sys.stdout.buffer
    for path in _journal_files(ctx, name, folder):
        for lines in _batches(path):
            output.writelines((line if raw else escaped(line).encode()) + b"\n" for line in lines)


def _batches(path: Path) -> Iterator[list[bytes]]:
    """Yield the lines of a journal's file in batches. Raises Misconfigured."""
    try:
        yield from journals.read(path)
    except OSError as error:
        raise Misconfigured(
            f"{path}: {error.strerror}; where its server has rewritten it meanwhile, run this again"
        ) from error


def _journal_files(ctx: click.Context, name: str | None, folder: Path | None) -> list[Path]:

    if (name is None) == (folder is None):
        raise click.UsageError("name either a server or a --folder")
    if folder is None:
        assert name is not None
        load_herd(ctx).server(name)
        folder = Path("var/lib") / name / "journal"
    try:
        return journals.files(folder)
    except OSError as error:
        raise Misconfigured(f"{folder}: {error.strerror}; name the journal's folder with --folder") from error
