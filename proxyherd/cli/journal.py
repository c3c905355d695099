"""`secret`, `gazetteer` and `journal`: the files of a herd."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from proxyherd.cli.common import (
    Failure,
    Misconfigured,
    config_option,
    default_gazetteer,
    examples,
    load,
    load_if_any,
    raw_option,
    server_names,
)


@click.group()
def secret() -> None:
    """The secret by which servers know one another."""


@secret.command(
    "new",
    epilog=examples(
        "proxyherd secret new var/secret",
        "proxyherd secret new /etc/proxyherd/secret --if-missing",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--if-missing", is_flag=True, help="Do nothing if FILE is there and fit for use.")
def secret_new(file: Path, *, if_missing: bool) -> None:
    """Write 32 random bytes to FILE, readable by its owner only. An existing file is never overwritten."""
    from proxyherd.config import secrets as room  # noqa: PLC0415 - not for `serve`

    try:
        room.create(file)
    except FileExistsError:
        if not if_missing:
            raise Failure(
                f"{file}: exists already, and was left as it is; a new secret parts the herd until every "
                "server has it: move the file away first"
            ) from None
        room.read(file)
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}; it is written into an existing directory") from error


@click.group()
def gazetteer() -> None:
    """The offline places, for a herd without a key of Google's."""


@gazetteer.command(
    "build",
    epilog=examples(
        "proxyherd gazetteer build",
        "proxyherd gazetteer build --config deploy/herd.toml",
        "proxyherd gazetteer build /var/lib/proxyherd/gazetteer.sqlite --config /etc/proxyherd/herd.toml",
    ),
)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@config_option()
@click.pass_context
def gazetteer_build(ctx: click.Context, file: Path | None) -> None:
    """Build the gazetteer in FILE; nothing is done when it is there and current.

    FILE is by default $PROXYHERD_GAZETTEER, else var/gazetteer.sqlite. What the herd's file names as
    places.own_places goes in as well; without a herd's file there is nothing of your own.
    """
    import sqlite3  # noqa: PLC0415 - not for `serve`

    from proxyherd.places.gazetteer import build as room  # noqa: PLC0415 - likewise

    file = file or default_gazetteer()
    own = _own_places(ctx)
    if room.is_current(file, own):
        return
    try:
        with click.progressbar(length=100, label=f"Building {file}") as bar:
            room.build(file, lambda done, total: bar.update(done * 100 // total - bar.pos), own)
    except (OSError, sqlite3.Error) as error:
        raise Failure(f"{file}: {error}; see that it can be written, and that the disk has room") from error


def _own_places(ctx: click.Context) -> Path | None:
    """Return the file with places of the herd's own, if there is one. Raises ConfigError."""
    herd = load_if_any(ctx)
    return herd.file.parent / herd.places.own_places if herd and herd.places.own_places else None


@click.group()
def journal() -> None:
    """What a server has on disk of the locations it knows."""


@journal.command(
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
    from proxyherd.engines.herd import journal as room  # noqa: PLC0415 - not for `serve`

    damaged = 0
    for path in _journal_files(ctx, name, folder):
        try:
            found = room.verify(path)
        except FileNotFoundError:
            continue  # a rewrite has come by, and what it held stands in a snapshot
        except OSError as error:
            raise Misconfigured(f"{path}: {error.strerror}; see who may read it") from error
        damaged += found.damaged
        click.echo(f"{path}: {found.records} records, {found.damaged} damaged, {found.torn} bytes torn")
    ctx.exit(Failure.exit_code if damaged else 0)


@journal.command(
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
    from proxyherd.base.escapes import escaped  # noqa: PLC0415 - likewise
    from proxyherd.engines.herd import journal as room  # noqa: PLC0415 - not for `serve`

    output = sys.stdout.buffer
    for path in _journal_files(ctx, name, folder):
        try:
            for lines in room.read(path):
                output.writelines((line if raw else escaped(line).encode()) + b"\n" for line in lines)
        except OSError as error:
            raise Misconfigured(
                f"{path}: {error.strerror}; where its server has rewritten it meanwhile, run this again"
            ) from error


def _journal_files(ctx: click.Context, name: str | None, folder: Path | None) -> list[Path]:
    from proxyherd.engines.herd import journal as room  # noqa: PLC0415 - not for `serve`

    if (name is None) == (folder is None):
        raise click.UsageError("name either a server or a --folder")
    if folder is None:
        assert name is not None
        load(ctx).server(name)
        folder = Path("var/lib") / name / "journal"
    try:
        return room.files(folder)
    except OSError as error:
        raise Misconfigured(f"{folder}: {error.strerror}; name the journal's folder with --folder") from error
