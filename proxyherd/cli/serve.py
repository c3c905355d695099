"""`serve`: one server, until it is told to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from proxyherd.base.imports import quick_imports
from proxyherd.cli.common import (
    config_option,
    default_gazetteer,
    default_log_file,
    default_secret_file,
    examples,
    from_systemd,
    load_herd,
    log_file_option,
    secret_file_option,
    server_names,
)


@click.command(
    short_help="Run one server until SIGTERM.",
    epilog=examples(
        "proxyherd serve Clark",
        "proxyherd serve Riley --config deploy/topologies/2021.toml",
        "proxyherd serve Clark --log-max-bytes 67108864 --log-backups 4",
    ),
)
@click.argument("name", shell_complete=server_names)
@click.option(
    "--state-dir", type=click.Path(path_type=Path), help="[default: $STATE_DIRECTORY, else var/lib/NAME]"
)
@log_file_option("NAME.log")
@secret_file_option()
@click.option(
    "--gazetteer-file",
    type=click.Path(path_type=Path),
    help="The offline places.  [default: $PROXYHERD_GAZETTEER, else var/gazetteer.dat]",
)
@click.option(
    "--log-max-bytes",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Rotate the log at this size; 0: never. Another program may rotate it too, and then sends SIGHUP.",
)
@click.option(
    "--log-backups",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Rotated logs to keep.",
)
@config_option()
@click.pass_context
def serve(
    ctx: click.Context,
    name: str,
    *,
    state_dir: Path | None,
    log_file: Path | None,
    secret_file: Path | None,
    gazetteer_file: Path | None,
    log_max_bytes: int,
    log_backups: int,
) -> None:
    """Serve as NAME until SIGTERM, which drains and exits 0. SIGHUP reopens the log, and reads
    certificates and secrets again.
    """
    # What arrives before the server's own handlers stand: nothing has begun yet, so nothing is drained. An
    # exception would be lost where it happens to be raised in a callback, such as importlib's own.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # The log is open before there is a loop that could reopen it, so a rotation in between has to wait, not pass.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    herd = load_herd(ctx)
    herd.server(name)
    with quick_imports():
        from proxyherd.server import daemon  # noqa: PLC0415 - most of the time to listening

    paths = daemon.Paths(
        state=state_dir or from_systemd("STATE_DIRECTORY") or Path("var/lib") / name,
        log=log_file or default_log_file(f"{name}.log"),
        secret=secret_file or default_secret_file(),
        gazetteer=gazetteer_file or default_gazetteer(),
        log_max_bytes=log_max_bytes,
        log_backups=log_backups,
    )
    ctx.exit(daemon.serve(herd, name, paths))
