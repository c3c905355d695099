"""`secret`: the herd's secret."""

from __future__ import annotations

from pathlib import Path

import click

from proxyherd.cli.common import Failure, Misconfigured, examples
from proxyherd.config import secrets


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
    try:
        secrets.create(file)
    except FileExistsError:
        if not if_missing:
            raise Failure(
                f"{file}: exists already, and was left as it is; a new secret parts the herd until every "
                "server has it: move the file away first"
            ) from None
        secrets.read(file)
    except OSError as error:
        raise Misconfigured(
            f"{file}: {error.strerror}; it is written into an existing directory, with room for it"
        ) from error
